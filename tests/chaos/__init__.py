"""Random operations and faults on a real cluster of PostgreSQL servers, checked afterwards: `make chaos SECONDS=60`."""
