"""Connections of the pool: who waits is served first, and what is dead or leads elsewhere is not used."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import psycopg
import pytest
from psycopg import AsyncConnection, sql
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

import pgsession
from pgsession._async import server
from pgsession._database import script, statements
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

# -- the queue -------------------------------------------------------------------------------------------------


def soon() -> float:
    return time.monotonic() + 20


async def test_who_waits_is_served_before_who_comes(open_manager: OpenAsyncManager) -> None:
    """With one connection for all, nobody starves while it lies idle."""
    manager = await open_manager(pool_max_size=1)
    sessions = [await manager.create_session(f"u{number}") for number in range(16)]
    await manager.clear_cache()
    async with AsyncCrew() as crew:
        for session in sessions:
            crew.start(manager.get_session, session.id)
        found = await crew.join(timeout=8)  # a pool would let them wait for 10 s
    assert [read.id for read in found] == [session.id for session in sessions]


async def test_a_newcomer_does_not_overtake_the_queue(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(pool_max_size=1)
    pool = manager._open_runtime().connections
    order: list[int] = []

    async def use(number: int) -> None:
        async with pool.connection(soon()):
            order.append(number)

    async def waiting(count: int) -> None:
        async def so() -> bool:
            return manager._open_runtime().pool.get_stats()["requests_waiting"] == count

        await eventually(so)

    async with AsyncCrew() as crew:
        async with pool.connection(soon()):
            for number in range(5):
                crew.start(use, number)
                await waiting(number + 1)
        await use(5)
    assert order == [0, 1, 2, 3, 4, 5]


async def test_the_sizes_are_settings(open_manager: OpenAsyncManager) -> None:
    pool = (await open_manager(pool_min_size=2, pool_max_size=3))._open_runtime().pool
    assert (pool.min_size, pool.max_size) == (2, 3)


# -- dead connections ------------------------------------------------------------------------------------------


async def test_what_the_server_ended_with_a_message_is_not_written_on(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    manager = await open_manager(make_conninfo(dsn, application_name=schema), listener_conninfo=dsn)
    session = await manager.create_session("u", {"n": 0})
    for n in range(6):
        tables.run(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = %s",
            schema,
        )
        session["n"] = n
        await manager.update_session(session)


async def test_news_for_an_idle_connection_are_not_its_end(
    manager: pgsession.AsyncSessionManager, tables: Tables
) -> None:
    """A connection may have settings and notifications to read."""
    pool = manager._open_runtime().connections
    async with pool.connection(soon()) as connection:
        await connection.execute("LISTEN news")
        pid = connection.info.backend_pid
        heard: list[str] = []
        connection.add_notify_handler(lambda notification: heard.append(notification.payload))
    for n in range(3):
        tables.run("SELECT pg_notify('news', %s)", str(n))
        async with pool.connection(soon()) as connection:
            assert connection.info.backend_pid == pid

            async def told(connection: AsyncConnection[Any] = connection, n: int = n) -> bool:
                await connection.execute("SELECT 1")
                return heard == [str(number) for number in range(n + 1)]

            await eventually(told)


# -- exceptions from outside -----------------------------------------------------------------------------------


class Interrupt(Exception):
    """What frameworks raise into whoever takes too long; no error of psycopg's."""


class AsyncInterrupting(AsyncConnection[Any]):
    """Raises at the end of a wait for the server, the `fuse`-th from now, when the statement is sent and done."""

    fuse = 0

    async def wait(self, *args: Any, **options: Any) -> Any:
        result = await super().wait(*args, **options)
        if AsyncInterrupting.fuse:
            AsyncInterrupting.fuse -= 1
            if not AsyncInterrupting.fuse:
                raise Interrupt
        return result


@asynccontextmanager
async def interrupting(dsn: str) -> AsyncIterator[AsyncConnectionPool[Any]]:
    async with AsyncConnectionPool(
        dsn, connection_class=AsyncInterrupting, min_size=1, max_size=2, timeout=10, open=False
    ) as pool:
        yield pool


async def test_an_exception_from_outside_reaches_its_caller_unchanged(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    """The pool is not in autocommit mode, psycopg's default; nothing is retried, and it does not run dry."""
    used: list[AsyncConnection[Any]] = []

    async def ask(connections: Any) -> None:
        async with connections.connection(soon()) as connection:
            used.append(connection)
            AsyncInterrupting.fuse = 1
            await connection.execute("SELECT 1")

    async with interrupting(dsn) as pool:
        connections = (await open_manager(pool, max_staleness=600))._open_runtime().connections
        for _ in range(5):
            with pytest.raises(Interrupt):
                await ask(connections)
            assert used[-1].closed, "its state is not known"
        async with connections.connection(soon()) as one, connections.connection(soon()) as other:
            assert one is not other
            await one.execute("SELECT 1")


async def test_a_write_that_was_interrupted_is_unknown(dsn: str, open_manager: OpenAsyncManager) -> None:
    async with interrupting(dsn) as pool:
        manager = await open_manager(pool, max_staleness=600)
        session = await manager.create_session("u", {"n": 0})
        for n in range(1, 4):
            session["n"] = n
            AsyncInterrupting.fuse = 2  # the first wait is for autocommit
            with pytest.raises(pgsession.WriteOutcomeUnknown):
                await manager.update_session(session)
            fresh = await manager.get_session(session.id, refresh=True)
            assert fresh is not None and fresh["n"] == n, "it was written"
            session = fresh


async def test_a_connection_that_could_not_be_set_up_is_closed(dsn: str) -> None:
    """A pool throws it away without that: it would stay open until the garbage is collected."""
    async with await AsyncConnection.connect(dsn) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            await connection.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await server._limit_statements(1.0, connection)
        assert connection.closed


async def test_a_write_whose_second_commit_fails_is_unknown(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit has happened: it is there, though nobody can say if a crash would spare it."""
    manager = await open_manager(max_staleness=60)
    session = await manager.create_session("u", {"n": 0})
    monkeypatch.setattr(statements, "_DURABLE", script.step("SELECT 1 / 0"))
    session["n"] = 1
    with pytest.raises(pgsession.WriteOutcomeUnknown, match="perhaps not durable"):
        await manager.update_session(session)
    monkeypatch.undo()
    read = await manager.get_session(session.id)
    assert read is not None and read["n"] == 1 and not read.from_cache


async def test_a_read_that_was_interrupted_is_not_tried_again(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    async with interrupting(dsn) as pool:
        manager = await open_manager(pool, max_staleness=600)
        await manager.create_session("u")
        for _ in range(4):  # twice as often as there are connections
            AsyncInterrupting.fuse = 2  # the first wait is for autocommit
            with pytest.raises(Interrupt):
                await manager.list_user_sessions("u")
        assert len(await manager.list_user_sessions("u")) == 1


# -- adapters of the connection's owner ------------------------------------------------------------------------


class Affirmative(Loader):
    """Reads every boolean as true, since it is a text that is not empty."""

    def load(self, data: Any) -> str:
        return "yes" if bytes(data) == b"t" else "no"


@pytest.mark.parametrize("everywhere", [False, True], ids=["of the pool", "of the program"])
async def test_adapters_of_others_do_not_matter(
    dsn: str, open_manager: OpenAsyncManager, everywhere: bool
) -> None:
    async def configure(connection: AsyncConnection[Any]) -> None:
        connection.adapters.register_loader("bool", Affirmative)

    before = psycopg.adapters.get_loader(psycopg.adapters.types["bool"].oid, psycopg.pq.Format.TEXT)
    assert before is not None
    if everywhere:
        psycopg.adapters.register_loader("bool", Affirmative)
    try:
        async with AsyncConnectionPool(
            dsn, configure=None if everywhere else configure, min_size=1, max_size=2, open=False
        ) as pool:
            manager = await open_manager(pool)
            async with manager.lock("r"):
                assert not await manager.lock("r").acquire(blocking=False), "one lock, two holders"
            assert await manager.create_session("u", {"flag": True})
    finally:
        psycopg.adapters.register_loader("bool", before)


async def test_a_check_of_the_callers_that_nobody_answers_is_not_waited_for(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    """The pool's own time limit does not bound it."""
    with FaultProxy(dsn) as way:
        check = AsyncConnectionPool.check_connection
        async with AsyncConnectionPool(way.conninfo, min_size=1, max_size=2, check=check, open=False) as pool:
            manager = await open_manager(pool, listener_conninfo=dsn, operation_timeout=1)
            session = await manager.create_session("u", {"n": 1})
            way.freeze()
            began = time.monotonic()
            with pytest.raises(pgsession.OperationTimeout):
                await manager.list_user_sessions("u")
            with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
                await manager.update_session(session, group_id="g")
            assert time.monotonic() - began < 6
            way.forward()

            async def written() -> bool:
                try:
                    await manager.update_session(session, group_id="h")
                except (pgsession.OperationTimeout, pgsession.DatabaseUnavailable):
                    return False
                return True

            await eventually(written, "a write")
            await manager.close()


async def test_a_write_that_waits_leaves_the_only_connection_to_the_others(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = await open_manager(pool_max_size=1, operation_timeout=20)
    held, free = [await manager.create_session(f"u{number}", {"n": 0}) for number in range(2)]
    for table, column in (("sessions", "id"), ("session_attributes", "session_id")):
        async with await AsyncConnection.connect(dsn) as foreign, AsyncCrew() as crew:
            await foreign.execute(
                sql.SQL("SELECT FROM {} WHERE {} = %s FOR UPDATE").format(
                    sql.Identifier(schema, table), sql.Identifier(column)
                ),
                [held.id],
            )
            held["n"] = 1 + held["n"]
            crew.start(manager.update_session, held)
            began = time.monotonic()
            for number in range(10):
                free["n"] = number
                await manager.update_session(free)
            assert time.monotonic() - began < 10
            await foreign.rollback()
