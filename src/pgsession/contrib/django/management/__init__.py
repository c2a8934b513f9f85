"""Commands of `manage.py` stand here."""
