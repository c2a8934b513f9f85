"""A server that stays connected and answers nothing: each call ends, says what it knows, and leaves nothing behind."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._async import store
from pgsession._async.store import AsyncStore
from tests.aio.conftest import OpenAsyncManager
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

LIMIT = 0.3
GUARD = 3 * LIMIT + 1  # of a busy machine; a hang takes for ever

Call = Callable[[pgsession.AsyncSessionManager, pgsession.Session], Awaitable[Any]]

READS: dict[str, Call] = {
    "get_session": lambda manager, session: manager.get_session(session.id, refresh=True),
    "list_user_sessions": lambda manager, session: manager.list_user_sessions("u"),
    "load_sessions": lambda manager, session: manager.load_sessions([uuid.uuid4()]),
    "count_sessions": lambda manager, session: manager.count_sessions(),
    "list_group_sessions": lambda manager, session: manager.list_group_sessions("g"),
    "clear_cache": lambda manager, session: manager.clear_cache(),
}
WRITES: dict[str, Call] = {
    "create_session": lambda manager, session: manager.create_session("u"),
    "update_session": lambda manager, session: manager.update_session(session, group_id="h"),
    "delete_session": lambda manager, session: manager.delete_session(session.id),
    "lock": lambda manager, session: manager.lock("r").acquire(blocking=False),
}


@pytest.mark.parametrize("name", [*READS, *WRITES])
async def test_a_silent_server_is_not_waited_for(name: str, open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT)
        session = await manager.create_session("u", {"n": 1}, group_id="g")
        proxy.freeze()
        expected: list[type[Exception]] = [
            pgsession.WriteOutcomeUnknown if name in WRITES else pgsession.OperationTimeout
        ]
        if name == "lock":  # what comes after its caller's time is given back
            expected.append(pgsession.OperationTimeout)
        began = time.monotonic()
        with pytest.raises(tuple(expected)):
            await (WRITES | READS)[name](manager, session)
        assert time.monotonic() - began < GUARD
        # The connection is gone, and there is no other one to be had: known not to be done.
        began = time.monotonic()
        with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
            await (WRITES | READS)[name](manager, session)
        assert time.monotonic() - began < GUARD
        proxy.forward()


async def test_what_is_stale_is_served_once_the_limit_is_over(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(
            proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT, max_staleness=1, stale_if_error=60
        )
        session = await manager.create_session("u", {"n": 1})
        proxy.freeze()
        manager._coherence.on_lost()  # nothing is served as if it were in sync
        began = time.monotonic()
        found = await manager.get_session(session.id)
        assert found is not None and found["n"] == 1 and time.monotonic() - began < GUARD
        proxy.forward()


async def test_many_readers_wait_no_longer_than_one(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(
            proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT, pool_max_size=1
        )
        proxy.freeze()

        async def read() -> float:
            began = time.monotonic()
            with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
                await manager.get_session(uuid.uuid4())
            return time.monotonic() - began

        async with AsyncCrew() as crew:
            for _ in range(40):
                crew.start(read)
            assert max(await crew.join()) < GUARD
        proxy.forward()


async def test_who_is_late_is_not_sent_and_cuts_no_connection(open_manager: OpenAsyncManager) -> None:
    runtime = (await open_manager())._open_runtime()

    async def backend(**options: float) -> int:
        row = await runtime.store.query("SELECT pg_catalog.pg_backend_pid()", (), **options)
        return int(row[0])

    before = await backend()
    for _ in range(5):
        with pytest.raises(pgsession.OperationTimeout, match="nothing was sent"):
            await backend(deadline=time.monotonic() - 1)
    assert await backend() == before


async def test_what_the_server_gave_up_in_time_costs_no_connection(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Else every caller who is late would have the server begin another process, when it is busiest."""
    manager = await open_manager(operation_timeout=1, pool_max_size=1)
    session = await manager.create_session("u", {"n": 1})
    session["n"] = 2
    connections = manager._open_runtime().connections

    async def backend() -> int:
        async with connections.connection(time.monotonic() + 20) as connection:
            return connection.info.backend_pid

    before = await backend()
    with tables.locked("SELECT id FROM {sessions} FOR UPDATE"):
        with pytest.raises(pgsession.OperationTimeout):
            await manager.delete_user_sessions("u")
        assert await backend() == before
        with pytest.raises(pgsession.OperationTimeout):
            await manager.update_session(session)
        assert await backend() == before


async def test_a_server_that_is_silent_after_an_error_holds_up_nobody(
    open_manager: OpenAsyncManager, dsn: str, tables: Tables, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT)
        tables.run(
            "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'no'; END $$"
        )
        tables.run("CREATE TRIGGER refuse BEFORE INSERT ON {sessions} EXECUTE FUNCTION {schema}.refuse()")
        roll_back = store._roll_back

        async def roll_back_frozen(connection: Any) -> None:
            proxy.freeze()
            await roll_back(connection)

        monkeypatch.setattr(store, "_roll_back", roll_back_frozen)
        began = time.monotonic()
        with pytest.raises(psycopg.errors.RaiseException):  # the server has said that it was not done
            await manager.create_session("u")
        assert time.monotonic() - began < GUARD
        proxy.forward()


async def test_a_server_that_is_silent_while_it_is_opened(
    open_manager: OpenAsyncManager, dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(dsn) as proxy:
        look = AsyncStore.look_for_pooler

        async def look_frozen(its_store: AsyncStore) -> None:
            proxy.freeze()
            await look(its_store)

        monkeypatch.setattr(AsyncStore, "look_for_pooler", look_frozen)
        began = time.monotonic()
        with pytest.raises(pgsession.OperationTimeout):
            await open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT)
        assert time.monotonic() - began < GUARD + 10  # a pool's threads have five seconds to end
        proxy.forward()
