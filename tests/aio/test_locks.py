"""Distributed locks: one holder at a time, told in time when it is the holder no more."""

from __future__ import annotations

import sys
import tempfile
import weakref
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg_pool import AsyncConnectionPool

import pgsession
from tests.crew import AsyncCrew
from tests.leftovers import UNRELEASED
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import eventually

pytestmark = UNRELEASED


async def test_one_holder_among_all_nodes(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    lock, here, there = a.lock("r"), a.lock("r"), b.lock("r")
    assert not lock.locked and lock.token is None and lock.resource == "r"
    assert await lock.acquire()
    assert lock.locked and not lock.lost.is_set() and lock.token is not None
    for other in (here, there):
        assert not await other.acquire(blocking=False)
        assert not await other.acquire()  # two more tries
        assert not await other.acquire(timeout=0.05)
        assert not other.locked and other.token is None
        with pytest.raises(pgsession.LockNotHeldError):
            await other.release()
        with pytest.raises(pgsession.LockNotHeldError):
            await other.extend(5)
    assert await b.lock("another resource").acquire()
    await lock.release()
    assert not lock.locked and lock.token is None
    assert await there.acquire()
    with pytest.raises(pgsession.LockNotHeldError):
        await lock.release()
    assert there.locked


async def test_as_a_context_manager(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    async with a.lock("r") as lock:
        assert lock.locked
        with pytest.raises(pgsession.LockNotAcquiredError):
            async with b.lock("r", max_retries=0):
                raise AssertionError("two holders")
        with pytest.raises(pgsession.LockNotAcquiredError, match="release it first"):
            await lock.acquire()
    assert not lock.locked
    with pytest.raises(RuntimeError, match="of the block"):
        async with b.lock("r"):
            raise RuntimeError("of the block")
    async with a.lock("r") as lock:
        await lock.release()  # earlier than the block's end
    assert await b.lock("r").acquire()


async def test_the_fencing_token_only_grows(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = await open_manager(), await open_manager()
    tokens = []
    for node in (a, b) * 3:
        async with node.lock("r") as lock:
            tokens.append(lock.token)
        tables.run("DELETE FROM {session_locks}")  # also when the row is long gone
    assert tokens == sorted(set(tokens))


async def test_waiting_ends_with_the_release(open_manager: OpenAsyncManager) -> None:
    """Woken by the notification: the next try would be in a minute."""
    a, b = await open_manager(), await open_manager()
    for resource, arguments, options in (
        ("r1", {"timeout": 60}, {"retry_delay": 60}),
        ("r2", {}, {"retry_delay": 60, "max_retries": 1}),
        ("r3", {}, {"retry_delay": timedelta(minutes=1), "max_retries": None}),
    ):
        lock = a.lock(resource)
        assert await lock.acquire()
        waiter = b.lock(resource, **options)  # type: ignore[arg-type]
        crew = AsyncCrew()

        async def wait(waiter: Any = waiter, arguments: Any = arguments) -> bool:
            acquired: bool = await waiter.acquire(**arguments)
            return acquired

        crew.start(wait)

        async def waits(resource: str = resource) -> bool:
            return resource in b._open_runtime().lock_renewal._waiting

        await eventually(waits)
        await lock.release()
        assert await crew.join(20) == [True]
        assert waiter.locked
        await waiter.release()


async def test_retries_are_counted(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    assert await a.lock("r").acquire()
    store = b._open_runtime().store
    acquire, calls = store.acquire, []

    async def counted(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        return await acquire(*arguments)

    store.acquire = counted  # type: ignore[method-assign]
    for retries in (0, 1, 4):
        calls.clear()
        assert not await b.lock("r", max_retries=retries).acquire()
        assert len(calls) == retries + 1
        assert len(set(calls)) == 1 and calls[0] is not None, "they share one deadline"
    calls.clear()
    assert not await b.lock("r", max_retries=4).acquire(blocking=False)
    assert len(calls) == 1


async def test_acquire_and_release_cost_a_round_trip_each(dsn: str, open_manager: OpenAsyncManager) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("libpq traces to a file of Linux")
    async with AsyncConnectionPool(
        dsn, kwargs={"autocommit": True}, min_size=1, max_size=1, open=False
    ) as pool:
        manager = await open_manager(pool, max_staleness=3600)
        session = await manager.create_session("u")
        with tempfile.TemporaryFile("w+") as trace:
            async with pool.connection() as connection:
                connection.pgconn.trace(trace.fileno())
            lock = manager.lock("r", session_id=session.id)
            assert await lock.acquire(timeout=10)
            await lock.release()
            async with pool.connection() as connection:
                connection.pgconn.untrace()
            trace.seek(0)
            messages = trace.read()
        assert messages.count("ReadyForQuery") == 2, messages


async def test_the_lease_is_renewed_and_the_session_is_left_alone(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"n": 1})
    lock = a.lock("r", session_id=session.id, lease_time=0.8, heartbeat_interval=0.05)
    assert await lock.acquire()
    token = lock.token

    async def older_than_two_leases() -> bool:
        assert lock.locked and not await b.lock("r").acquire(blocking=False)
        return bool(
            tables.one("SELECT clock_timestamp() > acquired_at + interval '1.6 s' FROM {session_locks}")
        )

    await eventually(older_than_two_leases)
    assert lock.token == token
    session["n"] = 2
    await a.update_session(session, check="session")
    assert changes(session) == 1
    await lock.release()


async def test_a_lease_that_cannot_be_renewed_is_lost(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = await open_manager(), await open_manager()
    lock = a.lock("r", lease_time=0.4, heartbeat_interval=0.1)
    assert await lock.acquire()
    with tables.locked("SELECT 1 FROM {session_locks} FOR UPDATE"):
        assert await lock.lost.wait(20)
        assert lock.lost.is_set() and not lock.locked
    other = b.lock("r")
    assert await other.acquire(timeout=20)
    assert other.token > lock.token
    with pytest.raises(pgsession.LockExpiredError):
        await lock.extend(5)
    with pytest.raises(pgsession.LockExpiredError):
        await lock.release()
    assert other.locked and not await a.lock("r").acquire(blocking=False)
    assert await lock.lost.wait(0)
    await other.release()
    assert await lock.acquire() and not lock.lost.is_set(), "the object can be used again"


async def test_it_is_lost_here_before_anybody_else_can_have_it(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = await open_manager(), await open_manager()
    lock = a.lock("r", lease_time=0.5, heartbeat_interval=0.4)
    assert await lock.acquire()
    lock._held.renew_at = 2**62  # nobody renews it
    other = b.lock("r", max_retries=None)
    assert await other.acquire()
    assert lock.lost.is_set()


async def test_the_end_of_the_session_ends_its_locks(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """The holder is told by notification, long before the lease is over."""
    a, b = await open_manager(), await open_manager()
    for number in range(3):
        session = await a.create_session("u")
        lock = a.lock("r", session_id=session.id)
        assert await lock.acquire()
        if number == 0:
            assert await b.delete_session(session.id)
        elif number == 1:
            assert await b.delete_user_sessions("u") == 1
        else:
            tables.run("DELETE FROM {sessions}")
        assert await lock.lost.wait(20)
        assert await b.lock("r").acquire(timeout=20)
        with pytest.raises(pgsession.LockExpiredError):
            await lock.release()
        with pytest.raises(pgsession.SessionNotFoundError):
            await a.lock("other", session_id=session.id).acquire()
        tables.run("DELETE FROM {session_locks}")


async def test_extend(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager()
    lock = manager.lock("r", lease_time=5, heartbeat_interval=1)
    assert await lock.acquire()
    await lock.extend(1000)
    left = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float FROM {session_locks}"
    assert 900 < tables.one(left) <= 1000  # type: ignore[arg-type]
    await lock._held.renew()  # a heartbeat does not shorten it
    await lock.extend(timedelta(seconds=10))
    assert 900 < tables.one(left) <= 1000  # type: ignore[arg-type]
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            await lock.extend(bad)
    await lock.release()


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
async def test_a_failed_try_is_no_success(open_manager: OpenAsyncManager, tables: Tables, how: str) -> None:
    manager = await open_manager()
    first = manager.lock("r")
    assert await first.acquire()
    tables.run("UPDATE {session_locks} SET expires_at = now()")
    lock = manager.lock("r")
    crew = AsyncCrew()

    async def fail() -> None:
        with pytest.raises((psycopg.errors.QueryCanceled, pgsession.WriteOutcomeUnknown)):
            await lock.acquire()

    with tables.locked("SELECT 1 FROM {session_locks} FOR UPDATE"):
        crew.start(fail)
        blocked = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%session_lock_acquire%' AND query LIKE '%{schema}%'".replace(
                "{schema}", tables.schema
            )
        )

        async def waits() -> bool:
            return bool(tables.run(blocked))  # type: ignore[arg-type]

        await eventually(waits)
        tables.run(f"SELECT {how}(pid) FROM ({blocked}) b")  # type: ignore[arg-type]
        await crew.join()
    assert not lock.locked and lock.token is None
    with pytest.raises(pgsession.LockNotHeldError):
        await lock.release()
    assert await lock.acquire(timeout=20)


async def test_a_release_that_fails_can_be_repeated(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager()
    lock = manager.lock("r")
    assert await lock.acquire()
    tables.run("ALTER TABLE {session_locks} RENAME TO away")
    with pytest.raises(psycopg.Error):
        await lock.release()
    assert lock.token is not None
    tables.run("ALTER TABLE {schema}.away RENAME TO session_locks")
    await lock.release()
    assert await manager.lock("r").acquire(blocking=False)


async def test_closing_gives_locks_back(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    lock = a.lock("r")
    assert await lock.acquire()
    await a.close()
    assert lock.lost.is_set() and not lock.locked
    assert await b.lock("r").acquire(blocking=False)
    with pytest.raises(pgsession.ManagerClosedError):
        a.lock("r")


@pytest.mark.parametrize(
    ("options", "error", "name"),
    [
        ({"resource": ""}, ValueError, "resource"),
        ({"resource": None}, TypeError, "resource"),
        ({"resource": "x" * 513}, ValueError, "resource"),
        ({"session_id": "x"}, ValueError, "session_id"),
        ({"lease_time": 0}, ValueError, "lease_time"),
        ({"lease_time": 5, "heartbeat_interval": 5}, ValueError, "heartbeat_interval"),
        ({"heartbeat_interval": "1"}, TypeError, "heartbeat_interval"),
        ({"retry_delay": -1}, ValueError, "retry_delay"),
        ({"max_retries": -1}, ValueError, "max_retries"),
        ({"max_retries": 1.5}, TypeError, "max_retries"),
    ],
)
async def test_bad_arguments_are_named(
    manager: pgsession.AsyncSessionManager, options: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        manager.lock(**{"resource": "r", **options})


async def test_a_lock_that_is_taken_again_and_again_leaves_nothing(
    manager: pgsession.AsyncSessionManager,
) -> None:
    lock = manager.lock("r")
    for _ in range(3):
        async with lock:
            pass
    before = len(weakref.finalize._registry)  # type: ignore[attr-defined]
    for _ in range(30):
        async with lock:
            pass
    assert len(weakref.finalize._registry) <= before  # type: ignore[attr-defined]
