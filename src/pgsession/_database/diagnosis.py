"""Has the statements by which the causes are looked for that keep a node from memory; nothing here does I/O."""

from __future__ import annotations

from typing import Final

from psycopg import sql

from .templates import RELATIONS, file

_US: Final = sql.SQL("(extract(epoch FROM {}) * 1000000)::bigint")
_NOW: Final = _US.format(sql.SQL("clock_timestamp()"))
# No two databases have both in common, as long as each server was started at a moment of its own.
_PLACE: Final = sql.SQL(
    "concat({}, ' ', (SELECT oid FROM pg_catalog.pg_database WHERE datname = current_database()))"
).format(_US.format(sql.SQL("pg_catalog.pg_postmaster_start_time()")))

WHERE: Final = sql.SQL("SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), {}").format(_PLACE)
"""Asks a listener's connection where it leads to: the last column is the `place` of the other query."""

NOTIFY: Final = "SELECT pg_catalog.pg_notify(%s, '')"

TRUST_NO_PATH: Final = "SET LOCAL search_path = pg_catalog, pg_temp"
"""Everything here is for a transaction that begins with it."""

HURRY: Final = "SET LOCAL synchronous_commit = off"
WAIT: Final = "SET LOCAL synchronous_commit = on"
WRITE: Final = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsession', '')"
"""Writes what a commit has to wait for, and nothing that stays."""


def limit(seconds: float) -> str:
    """Return the statement that bounds each of the others, and the transaction's commit."""
    return f"SET LOCAL statement_timeout = {max(int(1000 * seconds), 1)}"


def query(schema: str, prefix: str, long: int) -> sql.Composed:
    """Return the query whose one value is a JSON object; transactions count as long from so many seconds on."""
    names = (sql.Literal(prefix + name) for name in RELATIONS.values())
    return sql.SQL(file("diagnosis.sql")).format(
        schema=sql.Literal(schema),
        relations=sql.SQL("ARRAY[{}]::name[]").format(sql.SQL(", ").join(names)),
        now=_NOW,
        place=_PLACE,
        long=sql.Literal(long),
    )
