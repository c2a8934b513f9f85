"""Shards that Citus moves between its servers, under the load and the judge of chaos: `make citus`.

The cluster is not made here: `PGSESSION_CITUS_DSN` is the conninfo of its coordinator, for a superuser. It needs two
workers at least, with `wal_level=logical`.
"""
