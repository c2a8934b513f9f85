# Generated from tests/aio/test_prepared.py by tools/async_to_sync.py: never edit.

"""The statements of writes are prepared once for a connection, where that is wanted, and lost ones are not missed."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import Connection
from psycopg_pool import ConnectionPool

import pgsession
from pgsession import schema
from pgsession._database import statements
from pgsession._database.script import prepared_step
from tests.sync.conftest import OpenAsyncManager
from tests.tables import Tables

PREPARED: LiteralString = "SELECT statement FROM pg_prepared_statements WHERE name LIKE 'pgsession%'"


def pool_of_one(dsn: str, **options: Any) -> ConnectionPool[Any]:
    return ConnectionPool(dsn, min_size=1, max_size=1, open=False, **options)


def prepared(pool: ConnectionPool[Any]) -> list[str]:
    with pool.connection() as connection:
        rows = (connection.execute(PREPARED)).fetchall()
    return [row[0] for row in rows]


def write(manager: pgsession.SessionManager, times: int = 3) -> pgsession.Session:
    session = manager.create_session("u", {"n": 0})
    for n in range(1, times + 1):
        session["n"] = n
        manager.update_session(session)
        with manager.lock("resource"):
            pass
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and read["n"] == times
    return session


def test_each_statement_is_prepared_once(dsn: str, open_manager: OpenAsyncManager) -> None:
    with pool_of_one(dsn) as pool:
        write(open_manager(pool))
        texts = prepared(pool)
    for function in ("session_write_1", "session_lock_acquire_1", "session_lock_release_1"):
        assert sum(function in text for text in texts) == 1
    assert not any("statement_timeout" in text for text in texts), "its text is another each time"


def test_nothing_is_prepared_where_the_pools_owner_wants_none(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    with pool_of_one(dsn, kwargs={"prepare_threshold": None}) as pool:
        write(open_manager(pool))
        assert prepared(pool) == []


def test_a_pool_that_discards_all_in_between(dsn: str, open_manager: OpenAsyncManager) -> None:
    def discard(connection: Connection[Any]) -> None:
        connection.set_autocommit(True)
        connection.execute("DISCARD ALL")
        connection.set_autocommit(False)

    with pool_of_one(dsn, reset=discard) as pool:
        manager = open_manager(pool)
        write(manager, 8)
        # Not tried again each time: reads neither.
        assert prepared(pool) == []
        assert manager.stats().failed_writes == 0


def test_a_server_connection_on_which_another_client_has_prepared_them(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    """As behind a pooler that was not found out."""

    def configure(connection: Connection[Any]) -> None:
        step = statements._DURABLE  # the last one that a write prepares
        assert step.name is not None
        connection.pgconn.prepare(step.name, step.statement)

    with pool_of_one(dsn, configure=configure) as pool:
        write(open_manager(pool))


def test_what_was_prepared_for_a_write_that_failed_is_used_by_the_next(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    with pool_of_one(dsn) as pool:
        manager = open_manager(pool)
        tables.run("ALTER TABLE {sessions} ADD CHECK (user_id <> 'nobody')")
        with pytest.raises(psycopg.errors.CheckViolation):
            manager.create_session("nobody")
        write(manager)
        assert any("session_write_1" in text for text in prepared(pool))


def test_tables_that_are_made_anew(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    with pool_of_one(dsn) as pool:
        manager = open_manager(pool)
        write(manager, 8)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(tables.query("DROP SCHEMA {schema} CASCADE"))
            connection.execute(tables.query("CREATE SCHEMA {schema}"))
            schema.create(connection, tables.schema)
        write(manager, 8)


@pytest.mark.parametrize("statement", ["SELECT 1", "SELECT $1::int"])
def test_a_name_stands_for_one_text(statement: str) -> None:
    names = {prepared_step(text).name for text in (statement, statement, statement + " ")}
    assert len(names) == 2 and all(name is not None and len(name) < 64 for name in names)
