"""A database that is known to be down: nobody waits to find out, and what is known is answered at once."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import AsyncConnectionPool

import pgsession
from pgsession._async import group_commit, pool, reads
from pgsession._concurrency import AsyncEvent
from pgsession._protocol.breaker import TRUST
from pgsession.embedded import EmbeddedServer
from tests.aio.conftest import OpenAsyncManager
from tests.aio.helpers import eventually
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.versions import changes

LIMIT = 20  # seconds, so that whoever waits for it is found out
GUARD = LIMIT / 2  # of a busy machine


def shut(way: FaultProxy) -> None:
    way.refuse()
    way.cut()


async def until_down(manager: pgsession.AsyncSessionManager) -> None:
    async def down() -> bool:
        return (await manager.check_health()).database is not None

    await eventually(down, "the outage to be known")


async def test_calls_are_refused_at_once_and_pass_again_afterwards(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as way:
        manager = await open_manager(way.conninfo, operation_timeout=LIMIT)
        session = await manager.create_session("u", {"n": 1})
        shut(way)
        await until_down(manager)
        began = time.monotonic()
        for _ in range(100):
            with pytest.raises(pgsession.DatabaseUnavailable):
                await manager.get_session(uuid.uuid4())
            with pytest.raises(pgsession.DatabaseUnavailable):
                await manager.create_session("u")
            with pytest.raises(pgsession.DatabaseUnavailable):
                await manager.delete_user_sessions("u")
        assert time.monotonic() - began < GUARD
        session["n"] = 2
        with pytest.raises(pgsession.DatabaseUnavailable):
            await manager.update_session(session)
        assert session.is_modified
        way.forward()

        async def back() -> bool:
            return (await manager.check_health()).database is None

        await eventually(back, "the database to be back")
        assert changes(await manager.update_session(session)) == 1
        await manager.close()


async def test_what_is_stale_is_answered_at_once_and_what_was_to_end_is_not(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as way:
        manager = await open_manager(
            way.conninfo, operation_timeout=LIMIT, max_staleness=1, stale_if_error=600
        )
        known, ended = [await manager.create_session("u", {"n": number}) for number in range(2)]
        shut(way)
        await until_down(manager)
        began = time.monotonic()
        for _ in range(100):
            found = await manager.get_session(known.id)
            assert found is not None and found["n"] == 0
        assert time.monotonic() - began < GUARD
        assert manager.stats().stale_served
        assert (await manager.get_session(ended.id)) is not None
        with pytest.raises(pgsession.DatabaseUnavailable):
            await manager.delete_session(ended.id)  # a logout
        with pytest.raises(pgsession.DatabaseUnavailable):
            await manager.get_session(ended.id)
        way.forward()
        await manager.close()


async def test_who_waits_is_answered_once_it_is_known(open_manager: OpenAsyncManager, dsn: str) -> None:
    """They wait for a connection while others have all; then the server goes down."""
    with FaultProxy(dsn) as way:
        manager = await open_manager(
            way.conninfo, operation_timeout=LIMIT, pool_max_size=1, stale_if_error=600
        )
        known = await manager.create_session("u", {"n": 1})
        connections = manager._open_runtime().connections
        began = time.monotonic()
        async with AsyncCrew() as crew, connections.connection(began + 60):

            async def read(session_id: uuid.UUID) -> object:
                try:
                    found = await manager.get_session(session_id, refresh=False)
                except pgsession.DatabaseUnavailable:
                    return None
                assert found is not None
                return found["n"]

            async def write() -> object:
                with pytest.raises(pgsession.DatabaseUnavailable):
                    await manager.create_session("u")
                return None

            manager._cache.clear()
            for _ in range(3):
                crew.start(read, uuid.uuid4())
                crew.start(read, known.id)
                crew.start(write)

            async def all_wait() -> bool:
                return (
                    manager.stats().misses >= 6
                    and (await manager.check_health(timeout=0.01)).oldest_write is not None
                )

            await eventually(all_wait, "all to wait")
            shut(way)
            assert set(await crew.join()) == {None}
            assert time.monotonic() - began < GUARD
        way.forward()
        await manager.close()


async def test_a_write_is_refused_at_once_behind_one_that_waits_for_its_answer(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as way:
        manager = await open_manager(way.conninfo, operation_timeout=LIMIT)
        way.freeze()
        async with AsyncCrew() as crew:
            crew.start(manager.create_session, "sent")

            async def sent() -> bool:
                writes = list(manager._open_runtime().group_commit._waiting)
                return any(operation.sent for operation in writes)

            await eventually(sent)
            for _ in range(2):
                manager._open_runtime()._breaker.failed(TimeoutError())
            began = time.monotonic()
            with pytest.raises(pgsession.DatabaseUnavailable):
                await manager.create_session("later")
            assert time.monotonic() - began < GUARD
            way.forward()
            await crew.join()
        await manager.close()


async def test_what_was_refused_is_not_joined_by_who_comes_afterwards(open_manager: OpenAsyncManager) -> None:
    """The read that nobody waits for any more may hang on, long after the database is back."""
    a, manager = await open_manager(), await open_manager(operation_timeout=LIMIT)
    session = await a.create_session("u", {"n": 1})
    its = manager._open_runtime()
    read, begun, may_go_on = its.store.read, AsyncEvent(), AsyncEvent()

    async def hang(key: bytes, deadline: float) -> Any:
        its.store.read = read  # type: ignore[method-assign]
        begun.set()
        assert await may_go_on.wait(LIMIT)
        return await read(key, deadline)

    its.store.read = hang  # type: ignore[method-assign]

    async def refused() -> None:
        with pytest.raises(pgsession.DatabaseUnavailable):
            await manager.get_session(session.id)

    async with AsyncCrew() as crew:
        crew.start(refused)
        assert await begun.wait(LIMIT)
        its._on_down()
        await crew.join()
        found = await manager.get_session(session.id)
        assert found is not None and found["n"] == 1
        may_go_on.set()


@pytest.mark.parametrize("writes", [False, True])
async def test_so_many_wait_and_no_more(
    open_manager: OpenAsyncManager, dsn: str, monkeypatch: pytest.MonkeyPatch, writes: bool
) -> None:
    monkeypatch.setattr(group_commit, "MOST_WAITING", 30)
    monkeypatch.setattr(reads, "MOST_WAITING", 30)
    with FaultProxy(dsn) as way:
        manager = await open_manager(way.conninfo, listener_conninfo=dsn, operation_timeout=1)
        way.freeze()

        async def call() -> type[Exception]:
            try:
                await (manager.create_session("u") if writes else manager.get_session(uuid.uuid4()))
            except pgsession.PgSessionError as error:
                return type(error)
            raise AssertionError("nobody answers")

        async with AsyncCrew() as crew:
            for _ in range(40):
                crew.start(call)
            kinds = await crew.join()
        assert kinds.count(pgsession.DatabaseUnavailable) >= 10
        assert set(kinds) <= {
            pgsession.DatabaseUnavailable,
            pgsession.OperationTimeout,
            pgsession.WriteOutcomeUnknown,
        }
        way.forward()
        await manager.close()


async def test_so_many_wait_for_a_connection_and_no_more(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also those whose calls are of another kind."""
    manager = await open_manager(operation_timeout=1, pool_max_size=1)
    connections = manager._open_runtime().connections
    async with connections.connection(time.monotonic() + 60), AsyncCrew() as crew:
        monkeypatch.setattr(pool, "MOST_WAITING", 0)

        async def call() -> type[Exception]:
            with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)) as raised:
                await manager.list_user_sessions("u")
            return raised.type

        for _ in range(5):
            crew.start(call)
        assert pgsession.DatabaseUnavailable in await crew.join()


async def test_a_connection_that_is_cut_refuses_nobody(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as way:
        manager = await open_manager(way.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT)
        session = await manager.create_session("u", {"n": 1})
        for _ in range(5):
            way.cut()
            assert await manager.get_session(session.id, refresh=True) is not None
        await manager.close()


async def test_an_outage_is_known_where_the_pool_computes_its_conninfo(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as way:
        async with AsyncConnectionPool(way.conninfo, min_size=1, max_size=2, open=False) as pool:
            pool.conninfo = lambda: way.conninfo  # type: ignore[assignment]  # as newer pools allow
            manager = await open_manager(pool, listener_conninfo=way.conninfo, operation_timeout=LIMIT)
            pool.conninfo = way.conninfo
            shut(way)
            runtime = manager._open_runtime()

            async def down() -> bool:
                return runtime._breaker.is_open

            await eventually(down, "the outage to be known")
            with pytest.raises(pgsession.DatabaseUnavailable):
                await manager.create_session("u")
            way.forward()
            await manager.close()


async def test_who_is_let_in_no_more_uses_what_is_connected(
    own_server: Callable[..., EmbeddedServer], schema: str
) -> None:
    """As with a new password, or where others have all connections of the server."""
    server = own_server()
    fields = {"create_schema_if_missing": True, "operation_timeout": LIMIT, "schema_name": schema}
    with psycopg.connect(server.conninfo, autocommit=True) as console:
        console.execute("CREATE ROLE service LOGIN SUPERUSER")
        database = make_conninfo(server.conninfo, user="service")
        async with pgsession.AsyncSessionManager(database, pgsession.Config(**fields)) as manager:
            session = await manager.create_session("u")
            runtime = manager._open_runtime()
            console.execute("ALTER ROLE service NOLOGIN")
            runtime._prober.suspect()

            async def looked() -> bool:
                return runtime._breaker._found_at > 0 or runtime._breaker.is_open

            await eventually(looked, "a probe")
            assert await manager.get_session(session.id, refresh=True) is not None
            runtime._breaker._found_at = -TRUST  # what it has just found is no reason not to look again
            console.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'service'"
            )

            async def down() -> bool:
                return runtime._breaker.is_open

            await eventually(down, "the outage to be known")
            with pytest.raises(pgsession.DatabaseUnavailable, match="not permitted"):
                await manager.create_session("u")
            console.execute("ALTER ROLE service LOGIN")

            async def back() -> bool:
                return (await manager.check_health()).database is None

            await eventually(back, "the database to be back")
            await manager.create_session("u")


def test_the_waiting_is_bounded_for_real() -> None:
    assert {module.MOST_WAITING for module in (group_commit, pool, reads)} == {10_000}
