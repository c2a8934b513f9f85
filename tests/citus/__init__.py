"""Shards that Citus moves between its servers, under the load and the judge of chaos: `make citus`.

`PGSESSION_TEST_SHARDS=citus` has the manager's own tests run on shards that are moved all the time (`mover.py`).

The cluster is not made here: `PGSESSION_CITUS_DSN` is the conninfo of its coordinator, for a superuser. It needs two
workers at least, with `wal_level=logical`.
"""
