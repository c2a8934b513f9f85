"""Sessions of other stores are brought here, live: what `python -m pgsession move` does."""
