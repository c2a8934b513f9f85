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
from pgsession._database.script import Step, prepared, step
from pgsession._database.statements import Statements
from tests.sync.conftest import OpenAsyncManager
from tests.tables import Tables

PREPARED: LiteralString = "SELECT statement FROM pg_prepared_statements WHERE name LIKE 'pgs\\_%'"


def pool_of_one(dsn: str, **options: Any) -> ConnectionPool[Any]:
    return ConnectionPool(dsn, min_size=1, max_size=1, open=False, **options)


def statements_on(pool: ConnectionPool[Any]) -> list[str]:
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
        texts = statements_on(pool)
    # A batch of nothing but usual updates leaves most arguments out, so it is called by a text of its own.
    calls = {"session_write_1": 2, "session_lock_acquire_1": 1, "session_lock_release_1": 1}
    assert {function: sum(function in text for text in texts) for function in calls} == calls
    assert not any("statement_timeout" in text for text in texts), "its text is another each time"


def test_nothing_is_prepared_where_the_pools_owner_wants_none(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    with pool_of_one(dsn, kwargs={"prepare_threshold": None}) as pool:
        write(open_manager(pool))
        assert statements_on(pool) == []


def test_a_pool_that_discards_all_in_between(dsn: str, open_manager: OpenAsyncManager) -> None:
    def discard(connection: Connection[Any]) -> None:
        connection.set_autocommit(True)
        connection.execute("DISCARD ALL")
        connection.set_autocommit(False)

    with pool_of_one(dsn, reset=discard) as pool:
        manager = open_manager(pool)
        write(manager, 8)
        # Not tried again each time: reads neither.
        assert statements_on(pool) == []
        assert manager.stats().failed_writes == 0


def test_a_server_connection_on_which_another_client_has_prepared_them(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """As behind a pooler that was not found out."""
    locking = Statements(tables.schema).acquire("resource", "0" * 32, 1, None)
    (taking,) = [one for one in locking.steps if one.name is not None]
    assert taking.name is not None

    def configure(connection: Connection[Any]) -> None:
        assert taking.name is not None
        connection.pgconn.prepare(taking.name, taking.statement)

    with pool_of_one(dsn, configure=configure) as pool:
        write(open_manager(pool))


def test_a_connection_that_loses_them_in_between(dsn: str, open_manager: OpenAsyncManager) -> None:
    """psycopg, too, says that after a ROLLBACK of the pool's owner: no doubt comes of it."""
    with pool_of_one(dsn) as pool:
        manager = open_manager(pool)
        session = write(manager)
        for check in (None, "session", "attributes"):
            with pool.connection() as connection:
                connection.execute("DEALLOCATE ALL")
            session["n"] = check
            manager.update_session(session, check=check)  # type: ignore[arg-type]
        assert manager.stats().failed_writes == 0


def test_what_was_prepared_for_a_write_that_failed_is_used_by_the_next(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    with pool_of_one(dsn) as pool:
        manager = open_manager(pool)
        session = manager.create_session("u")
        for _ in range(8):  # until psycopg has prepared what reads it
            manager.get_session(session.id, refresh=True)
        tables.run("ALTER TABLE {sessions} ADD CHECK (user_id <> 'nobody')")
        with pytest.raises(psycopg.errors.CheckViolation):
            manager.create_session("nobody")
        write(manager)
        assert any("session_write_1" in text for text in statements_on(pool))


def test_what_bounds_a_wait_bounds_that_of_the_preparation_too(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """To prepare a statement the server looks at the tables in it, which somebody may have locked."""
    open_manager()
    node, register = "0" * 16, Statements(tables.schema).register
    with psycopg.connect(dsn) as holder:
        holder.execute(tables.query("LOCK TABLE {schema}.session_incarnation IN ACCESS EXCLUSIVE MODE"))
        for script, error, guard in (
            (register(node, 1, lock_timeout=10), psycopg.errors.LockNotAvailable, "statement_timeout"),
            (register(node, 1).limited(0.01), psycopg.errors.QueryCanceled, "lock_timeout"),
        ):
            with Connection.connect(dsn, autocommit=True, options=f"-c {guard}=3s") as connection:
                with pytest.raises(error):
                    connection.wait(script.run(connection.pgconn, prepares=True))


def test_tables_that_are_made_anew(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    with pool_of_one(dsn) as pool:
        manager = open_manager(pool)
        write(manager, 8)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(tables.query("DROP SCHEMA {schema} CASCADE"))
            connection.execute(tables.query("CREATE SCHEMA {schema}"))
            schema.create(connection, tables.schema)
        write(manager, 8)


def test_a_name_stands_for_the_texts_of_a_script() -> None:
    first, second, third = step("SELECT 1"), step("SELECT 2"), step("SELECT $1::int")
    names = [one.name for some in ((first, second), (first,), (first, third)) for one in prepared(*some)]
    assert len(set(names)) == len(names), "where one of a script's is lost, none is there"
    assert [one.name for one in prepared(step("SELECT 1"), step("SELECT 2"))] == names[:2]
    assert all(name is not None and len(name) < 64 for name in names)
    assert prepared(third)[0].bound(7) == Step(b"SELECT $1::int", (b"7",), prepared(third)[0].name)
