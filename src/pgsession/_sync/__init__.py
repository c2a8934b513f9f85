# Generated from src/pgsession/_async/__init__.py by tools/async_to_sync.py: never edit.

