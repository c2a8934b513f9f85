"""The processes of a host have in common, beside the database, where their cache lies and who leads them."""
