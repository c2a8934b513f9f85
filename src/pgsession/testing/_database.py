"""Makes the database of a test run: a server of its own, or one of the user's, and schemas in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import LiteralString

import psycopg
from psycopg import sql

from pgsession import schema
from pgsession.embedded import EmbeddedServer

__all__ = ["delete_rows", "given_conninfo", "schema_with_tables", "server_of_the_run"]

# What is written is gone with the run: nobody needs it after a crash.
_SETTINGS: dict[str, str | int] = {"max_connections": 300, "fsync": "off", "full_page_writes": "off"}

_PATIENCE: LiteralString = "SET lock_timeout = '10 s'"  # with a transaction that a test has left open


def given_conninfo() -> str:
    """Return the conninfo of the user's own database; empty where he names none."""
    return os.environ.get("PGSESSION_TEST_DSN", "")


def server_of_the_run() -> EmbeddedServer | None:
    """Return a server that is still to be started; None where the user has one.

    Raises:
        ModuleNotFoundError: The embedded PostgreSQL is not installed.
    """
    if given_conninfo():
        return None
    return EmbeddedServer(settings=_SETTINGS, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None)


@contextmanager
def schema_with_tables(conninfo: str) -> Iterator[str]:
    """Yield the name of a new schema that has the tables of pgsession; drop it afterwards, with all that is in it."""
    name = f"pgsession_test_{secrets.token_hex(6)}"
    with psycopg.connect(conninfo, autocommit=True) as connection:
        schema.create(connection, name)
    try:
        yield name
    finally:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            connection.execute(f"SET client_min_messages = warning; {_PATIENCE}")
            with _saying_who_waits():
                connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


def delete_rows(conninfo: str, schema_name: str) -> None:
    """Empty the tables of a schema. DELETE: of the few rows that a test leaves it takes less time than TRUNCATE."""
    with psycopg.connect(conninfo) as connection:
        connection.execute(_PATIENCE)
        for table in ("sessions", "session_locks"):
            with _saying_who_waits():
                connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema_name, table)))


@contextmanager
def _saying_who_waits() -> Iterator[None]:
    try:
        yield
    except psycopg.errors.LockNotAvailable as error:
        error.add_note("A test before has left a transaction open that has used the tables of pgsession.")
        raise
