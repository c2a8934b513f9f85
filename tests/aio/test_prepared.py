"""The statements of writes are prepared once for a connection, where that is wanted, and lost ones are not missed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

import pgsession
from pgsession import schema
from pgsession._database import script
from pgsession._database.script import FIRST_PAUSE, LONGEST_PAUSE, Prepared, Step, prepared, step
from pgsession._database.statements import Statements
from tests.aio.conftest import OpenAsyncManager
from tests.tables import Tables

PREPARED: LiteralString = "SELECT statement FROM pg_prepared_statements WHERE name LIKE 'pgs\\_%'"


def pool_of_one(dsn: str, **options: Any) -> AsyncConnectionPool[Any]:
    return AsyncConnectionPool(dsn, min_size=1, max_size=1, open=False, **options)


async def statements_on(pool: AsyncConnectionPool[Any]) -> list[str]:
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
        texts = await statements_on(pool)
    # A batch of nothing but usual updates leaves most arguments out, so it is called by a text of its own.
    calls = {"session_write_1": 2, "session_lock_acquire_1": 1, "session_lock_release_1": 1}
    assert {function: sum(function in text for text in texts) for function in calls} == calls
    assert not any("statement_timeout" in text for text in texts), "its text is another each time"


async def test_nothing_is_prepared_where_the_pools_owner_wants_none(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    async with pool_of_one(dsn, kwargs={"prepare_threshold": None}) as pool:
        await write(await open_manager(pool))
        assert await statements_on(pool) == []


async def test_a_pool_that_discards_all_in_between(
    dsn: str, open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(script, "FIRST_PAUSE", 600)
    losses: list[Prepared] = []
    note_lost = Prepared.note_lost
    monkeypatch.setattr(Prepared, "note_lost", lambda known: losses.append(known) or note_lost(known))

    async def discard(connection: AsyncConnection[Any]) -> None:
        await connection.set_autocommit(True)
        await connection.execute("DISCARD ALL", prepare=False)
        await connection.set_autocommit(False)

    async with pool_of_one(dsn, reset=discard) as pool:
        manager = await open_manager(pool)
        await write(manager, 8)
        # Not tried again each time: reads neither.
        assert await statements_on(pool) == [] and len(losses) == 1
        assert manager.stats().failed_writes == 0


async def test_a_server_connection_on_which_another_client_has_prepared_them(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """As behind a pooler that was not found out."""
    locking = Statements(tables.schema).acquire("resource", "0" * 32, 1, None)
    (taking,) = [one for one in locking.steps if one.name is not None]
    assert taking.name is not None

    async def configure(connection: AsyncConnection[Any]) -> None:
        assert taking.name is not None
        connection.pgconn.prepare(taking.name, taking.statement)

    async with pool_of_one(dsn, configure=configure) as pool:
        await write(await open_manager(pool))


async def test_a_connection_that_loses_them_in_between(dsn: str, open_manager: OpenAsyncManager) -> None:
    """psycopg, too, says that after a ROLLBACK of the pool's owner: no doubt comes of it."""
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        session = await write(manager)
        for check in (None, "session", "attributes"):
            async with pool.connection() as connection:
                await connection.execute("DEALLOCATE ALL")
            session["n"] = check
            await manager.update_session(session, check=check)  # type: ignore[arg-type]
        assert manager.stats().failed_writes == 0


@pytest.mark.parametrize("lost", ["once", "on a connection of somebody else's"])
async def test_what_was_lost_is_prepared_again(
    dsn: str, open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    monkeypatch.setattr(script, "FIRST_PAUSE", 0.0)
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        await write(manager)
        async with pool.connection() as connection:
            if lost == "once":
                await connection.execute("DEALLOCATE ALL")
            else:  # what we know of, and what is there, are no longer the same
                del script._PREPARED[connection.pgconn]
        await write(manager, 12)
        assert any("session_write_1" in text for text in await statements_on(pool))
        assert manager.stats().failed_writes == 0


async def test_a_trigger_that_fails_as_a_statement_does_that_is_there_twice(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    body = "BEGIN RAISE EXCEPTION 'mine' USING ERRCODE = '42P05'; END"
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        tables.run(f"CREATE FUNCTION {{schema}}.fail() RETURNS trigger LANGUAGE plpgsql AS $${body}$$")
        tables.run(
            "CREATE TRIGGER f BEFORE INSERT ON {sessions} FOR EACH ROW EXECUTE FUNCTION {schema}.fail()"
        )
        for _ in range(2):
            with pytest.raises(psycopg.errors.DuplicatePreparedStatement, match="mine"):
                await manager.create_session("u")


async def test_what_was_prepared_for_a_write_that_failed_is_used_by_the_next(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        session = await manager.create_session("u")
        for _ in range(8):  # until psycopg has prepared what reads it
            await manager.get_session(session.id, refresh=True)
        tables.run("ALTER TABLE {sessions} ADD CHECK (user_id <> 'nobody')")
        with pytest.raises(psycopg.errors.CheckViolation):
            await manager.create_session("nobody")
        await write(manager)
        assert any("session_write_1" in text for text in await statements_on(pool))


async def test_what_bounds_a_wait_bounds_that_of_the_preparation_too(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """To prepare a statement the server looks at the tables in it, which somebody may have locked."""
    await open_manager()
    node, register = "0" * 16, Statements(tables.schema).register
    with psycopg.connect(dsn) as holder:
        holder.execute(tables.query("LOCK TABLE {schema}.session_incarnation IN ACCESS EXCLUSIVE MODE"))
        for script, error, guard in (
            (register(node, 1, lock_timeout=10), psycopg.errors.LockNotAvailable, "statement_timeout"),
            (register(node, 1).limited(0.01), psycopg.errors.QueryCanceled, "lock_timeout"),
        ):
            async with await AsyncConnection.connect(
                dsn, autocommit=True, options=f"-c {guard}=3s"
            ) as connection:
                with pytest.raises(error):
                    await connection.wait(script.run(connection.pgconn, prepares=True))


async def test_tables_that_are_made_anew(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    async with pool_of_one(dsn) as pool:
        manager = await open_manager(pool)
        await write(manager, 8)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(tables.query("DROP SCHEMA {schema} CASCADE"))
            connection.execute(tables.query("CREATE SCHEMA {schema}"))
            schema.create(connection, tables.schema)
        await write(manager, 8)


def test_what_gets_lost_again_and_again_is_prepared_more_and_more_rarely(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 0.0
    monkeypatch.setattr(script, "time", SimpleNamespace(monotonic=lambda: now))
    known, pauses = Prepared(), []
    assert not known.pauses
    for _ in range(9):
        known.names.add(b"a")
        known.note_lost()
        began = now
        while known.pauses:
            now += FIRST_PAUSE
        pauses.append(now - began)
    assert not known.names
    assert pauses == [min(FIRST_PAUSE * 2**times, LONGEST_PAUSE) for times in range(9)]
    now += LONGEST_PAUSE + 1  # in which nothing was lost
    known.note_others(b"b")
    assert known.pauses and known.names == {b"b"}
    now += FIRST_PAUSE
    assert not known.pauses


def test_a_name_stands_for_the_texts_of_a_script() -> None:
    first, second, third = step("SELECT 1"), step("SELECT 2"), step("SELECT $1::int")
    names = [one.name for some in ((first, second), (first,), (first, third)) for one in prepared(*some)]
    assert len(set(names)) == len(names), "where one of a script's is lost, none is there"
    assert [one.name for one in prepared(step("SELECT 1"), step("SELECT 2"))] == names[:2]
    assert all(name is not None and len(name) < 64 for name in names)
    assert prepared(third)[0].bound(7) == Step(b"SELECT $1::int", (b"7",), prepared(third)[0].name)
