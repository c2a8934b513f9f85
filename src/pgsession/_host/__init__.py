"""What the processes of a host have in common beside the database: where their shared cache lies, and who leads them."""
