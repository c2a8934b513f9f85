"""Random operations and faults on a real cluster of PostgreSQL servers, judged afterwards: `make chaos SECONDS=60`."""
