"""The rules of web sessions over real HTTP, once for all adapters: `contract` says what an adapter's tests need."""
