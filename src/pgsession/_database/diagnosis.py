"""Has the statements by which the causes are looked for that keep a node from memory; nothing here does I/O."""

from __future__ import annotations

from typing import Final

from psycopg import sql

from .templates import RELATIONS, file, render

# No two databases have both in common, as long as each server was started at a moment of its own.
_PLACE: Final = (
    "pg_catalog.concat({us(pg_catalog.pg_postmaster_start_time())}, ' ', (SELECT d.oid FROM pg_catalog.pg_database d"
    " WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()))"
)
WHERE: Final = render(f"SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid(), {_PLACE}", {})
"""Asks a listener's connection where it leads to: the last column is the `place` of the other query."""

TRUST_NO_PATH: Final = "SET LOCAL search_path = pg_catalog, pg_temp"
"""Everything here is for a transaction that begins with it."""

WARN: Final = "SET LOCAL client_min_messages = warning"
HURRY: Final = "SET LOCAL synchronous_commit = off"
WAIT: Final = "SET LOCAL synchronous_commit = on"
WRITE: Final = "SELECT pg_catalog.pg_logical_emit_message(true, 'pgsession', '')"
"""Writes what a commit has to wait for, and nothing that stays."""


def notify(channel: str) -> sql.Composed:
    """Return the statement that sends an empty notification."""
    return sql.SQL("SELECT pg_catalog.pg_notify({}, '')").format(sql.Literal(channel))


def query(schema: str, prefix: str, long: int) -> sql.Composed:
    """Return the query whose one value is a JSON object; transactions count as long from so many seconds on."""
    names = (sql.Literal(prefix + name) for name in RELATIONS.values())
    return render(
        file("diagnosis.sql"),
        {
            "schema": sql.Literal(schema),
            "relations": sql.SQL("ARRAY[{}]::name[]").format(sql.SQL(", ").join(names)),
            "place": render(_PLACE, {}),
            "long": sql.Literal(long),
        },
    )
