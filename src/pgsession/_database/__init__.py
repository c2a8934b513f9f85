"""PostgreSQL as the library uses it: every statement, the tables, what a connection is opened with."""
