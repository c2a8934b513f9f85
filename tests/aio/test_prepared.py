"""The statements of writes are prepared once for a connection, where that is wanted, and lost ones are not missed."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

import pgsession
from pgsession import schema
from pgsession._database import statements
from pgsession._database.script import prepared_step
from tests.aio.conftest import OpenAsyncManager
from tests.tables import Tables

PREPARED: LiteralString = "SELECT statement FROM pg_prepared_statements WHERE name LIKE 'pgsession%'"


def pool_of_one(dsn: str, **options: Any) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False, **options)


async def prepared(pool: AsyncConnectionPool[Any]) -> list[str]:
    async with pool.connection() as connection:
        rows = await (await connection.execute(PREPARED)).fetchall()
    return [row[0] for row in rows]


async def write(manager: pgsession.AsyncSessionManager, times: int = 3) -> pgsession.Session:
    session = await manager.create_session("u", {"n": 0})
    for n in range(1, times + 1):
        session["n"] = n
        await manager.update_session(session)
        async with manager.lock("resource"):
            pass
    read = await manager.get_session(session.id, refresh=True)
    assert read is not None and read["n"] == times
    return session


async def test_each_statement_is_prepared_once(dsn: str, open_manager: OpenAsyncManager) -> None:
    async with pool_of_one(dsn) as pool:
        await write(await open_manager(pool))
        texts = await prepared(pool)
    for function in ("session_write_1", "session_lock_acquire_1", "session_lock_release_1"):
        assert sum(function in text for text in texts) == 1
    assert not any("statement_timeout" in text for text in texts), "its text is another each time"


async def test_nothing_is_prepared_where_the_pools_owner_wants_none(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    async with pool_of_one(dsn, kwargs={"prepare_threshold": None}) as pool:
        await write(await open_manager(pool))
        assert await prepared(pool) == []


async def test_a_pool_that_discards_all_in_between(dsn: str, open_manager: OpenAsyncManager) -> None:
    async def discard(connection: AsyncConnection[Any]) -> None:
        await connection.set_autocommit(True)
        await connection.execute("DISCARD ALL")
        await connection.set_autocommit(False)

    async with pool_of_one(dsn, reset=discard) as pool:
        manager = await open_manager(pool)
        await write(manager, 8)
        # Not tried again each time: reads neither.
        assert await prepared(pool) == []
        assert manager.stats().failed_writes == 0


async def test_a_server_connection_on_which_another_client_has_prepared_them(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    """As behind a pooler that was not found out."""

    async def configure(connection: AsyncConnection[Any]) -> None:
        step = statements._DURABLE  # the last one that a write prepares
        assert step.name is not None
        connection.pgconn.prepare(step.name, step.statement)

    async with pool_of_one(dsn, configure=configure) as pool:
        await write(await open_manager(pool))


async def test_what_was_prepared_for_a_write_that_failed_is_used_by_the_next(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        tables.run("ALTER TABLE {sessions} ADD CHECK (user_id <> 'nobody')")
        with pytest.raises(psycopg.errors.CheckViolation):
            await manager.create_session("nobody")
        await write(manager)
        assert any("session_write_1" in text for text in await prepared(pool))


async def test_tables_that_are_made_anew(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        await write(manager, 8)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(tables.query("DROP SCHEMA {schema} CASCADE"))
            connection.execute(tables.query("CREATE SCHEMA {schema}"))
            schema.create(connection, tables.schema)
        await write(manager, 8)


@pytest.mark.parametrize("statement", ["SELECT 1", "SELECT $1::int"])
def test_a_name_stands_for_one_text(statement: str) -> None:
    names = {prepared_step(text).name for text in (statement, statement, statement + " ")}
    assert len(names) == 2 and all(name is not None and len(name) < 64 for name in names)
