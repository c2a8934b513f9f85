# Generated from tests/aio/test_locks.py by tools/async_to_sync.py: never edit.

"""Distributed locks: one holder at a time, told in time when it is the holder no more."""

from __future__ import annotations

import sys
import tempfile
import weakref
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg_pool import ConnectionPool

import pgsession
from tests.crew import Crew
from tests.leftovers import UNRELEASED
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import eventually

pytestmark = UNRELEASED


def test_one_holder_among_all_nodes(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    lock, here, there = a.lock("r"), a.lock("r"), b.lock("r")
    assert not lock.locked and lock.token is None and lock.resource == "r"
    assert lock.acquire()
    assert lock.locked and not lock.lost.is_set() and lock.token is not None
    for other in (here, there):
        assert not other.acquire(blocking=False)
        assert not other.acquire()  # two more tries
        assert not other.acquire(timeout=0.05)
        assert not other.locked and other.token is None
        with pytest.raises(pgsession.LockNotHeldError):
            other.release()
        with pytest.raises(pgsession.LockNotHeldError):
            other.extend(5)
    assert b.lock("another resource").acquire()
    lock.release()
    assert not lock.locked and lock.token is None
    assert there.acquire()
    with pytest.raises(pgsession.LockNotHeldError):
        lock.release()
    assert there.locked


def test_as_a_context_manager(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    with a.lock("r") as lock:
        assert lock.locked
        with pytest.raises(pgsession.LockNotAcquiredError):
            with b.lock("r", max_retries=0):
                raise AssertionError("two holders")
        with pytest.raises(pgsession.LockNotAcquiredError, match="release it first"):
            lock.acquire()
    assert not lock.locked
    with pytest.raises(RuntimeError, match="of the block"):
        with b.lock("r"):
            raise RuntimeError("of the block")
    with a.lock("r") as lock:
        lock.release()  # earlier than the block's end
    assert b.lock("r").acquire()


def test_the_fencing_token_only_grows(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    tokens = []
    for node in (a, b) * 3:
        with node.lock("r") as lock:
            tokens.append(lock.token)
        tables.run("DELETE FROM {session_locks}")  # also when the row is long gone
    assert tokens == sorted(set(tokens))


def test_waiting_ends_with_the_release(open_manager: OpenAsyncManager) -> None:
    """Woken by the notification: the next try would be in a minute."""
    a, b = open_manager(), open_manager()
    for resource, arguments, options in (
        ("r1", {"timeout": 60}, {"retry_delay": 60}),
        ("r2", {}, {"retry_delay": 60, "max_retries": 1}),
        ("r3", {}, {"retry_delay": timedelta(minutes=1), "max_retries": None}),
    ):
        lock = a.lock(resource)
        assert lock.acquire()
        waiter = b.lock(resource, **options)  # type: ignore[arg-type]
        crew = Crew()

        def wait(waiter: Any = waiter, arguments: Any = arguments) -> bool:
            acquired: bool = waiter.acquire(**arguments)
            return acquired

        crew.start(wait)

        def waits(resource: str = resource) -> bool:
            return resource in b._open_runtime().lock_renewal._waiting

        eventually(waits)
        lock.release()
        assert crew.join(20) == [True]
        assert waiter.locked
        waiter.release()


def test_retries_are_counted(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    assert a.lock("r").acquire()
    store = b._open_runtime().store
    acquire, calls = store.acquire, []

    def counted(*arguments: Any) -> Any:
        calls.append(arguments[-1])
        return acquire(*arguments)

    store.acquire = counted  # type: ignore[method-assign]
    for retries in (0, 1, 4):
        calls.clear()
        assert not b.lock("r", max_retries=retries).acquire()
        assert len(calls) == retries + 1
        assert len(set(calls)) == 1 and calls[0] is not None, "they share one deadline"
    calls.clear()
    assert not b.lock("r", max_retries=4).acquire(blocking=False)
    assert len(calls) == 1


def test_acquire_and_release_cost_a_round_trip_each(dsn: str, open_manager: OpenAsyncManager) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("libpq traces to a file of Linux")
    with ConnectionPool(dsn, kwargs={"autocommit": True}, min_size=1, max_size=1, open=False) as pool:
        manager = open_manager(pool, max_staleness=3600)
        session = manager.create_session("u")
        with tempfile.TemporaryFile("w+") as trace:
            with pool.connection() as connection:
                connection.pgconn.trace(trace.fileno())
            lock = manager.lock("r", session_id=session.id)
            assert lock.acquire(timeout=10)
            lock.release()
            with pool.connection() as connection:
                connection.pgconn.untrace()
            trace.seek(0)
            messages = trace.read()
        assert messages.count("ReadyForQuery") == 2, messages


def test_the_lease_is_renewed_and_the_session_is_left_alone(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1})
    lock = a.lock("r", session_id=session.id, lease_time=0.8, heartbeat_interval=0.05)
    assert lock.acquire()
    token = lock.token

    def older_than_two_leases() -> bool:
        assert lock.locked and not b.lock("r").acquire(blocking=False)
        return bool(
            tables.one("SELECT clock_timestamp() > acquired_at + interval '1.6 s' FROM {session_locks}")
        )

    eventually(older_than_two_leases)
    assert lock.token == token
    session["n"] = 2
    a.update_session(session, check="session")
    assert changes(session) == 1
    lock.release()


def test_a_lease_that_cannot_be_renewed_is_lost(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    lock = a.lock("r", lease_time=0.4, heartbeat_interval=0.1)
    assert lock.acquire()
    with tables.locked("SELECT 1 FROM {session_locks} FOR UPDATE"):
        assert lock.lost.wait(20)
        assert lock.lost.is_set() and not lock.locked
    other = b.lock("r")
    assert other.acquire(timeout=20)
    assert other.token > lock.token
    with pytest.raises(pgsession.LockExpiredError):
        lock.extend(5)
    with pytest.raises(pgsession.LockExpiredError):
        lock.release()
    assert other.locked and not a.lock("r").acquire(blocking=False)
    assert lock.lost.wait(0)
    other.release()
    assert lock.acquire() and not lock.lost.is_set(), "the object can be used again"


def test_it_is_lost_here_before_anybody_else_can_have_it(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = open_manager(), open_manager()
    lock = a.lock("r", lease_time=0.5, heartbeat_interval=0.4)
    assert lock.acquire()
    lock._held.renew_at = 2**62  # nobody renews it
    other = b.lock("r", max_retries=None)
    assert other.acquire()
    assert lock.lost.is_set()


def test_the_end_of_the_session_ends_its_locks(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """The holder is told by notification, long before the lease is over."""
    a, b = open_manager(), open_manager()
    for number in range(3):
        session = a.create_session("u")
        lock = a.lock("r", session_id=session.id)
        assert lock.acquire()
        if number == 0:
            assert b.delete_session(session.id)
        elif number == 1:
            assert b.delete_user_sessions("u") == 1
        else:
            tables.run("DELETE FROM {sessions}")
        assert lock.lost.wait(20)
        assert b.lock("r").acquire(timeout=20)
        with pytest.raises(pgsession.LockExpiredError):
            lock.release()
        with pytest.raises(pgsession.SessionNotFoundError):
            a.lock("other", session_id=session.id).acquire()
        tables.run("DELETE FROM {session_locks}")


def test_extend(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    lock = manager.lock("r", lease_time=5, heartbeat_interval=1)
    assert lock.acquire()
    lock.extend(1000)
    left = "SELECT extract(epoch FROM expires_at - clock_timestamp())::float FROM {session_locks}"
    assert 900 < tables.one(left) <= 1000  # type: ignore[arg-type]
    lock._held.renew()  # a heartbeat does not shorten it
    lock.extend(timedelta(seconds=10))
    assert 900 < tables.one(left) <= 1000  # type: ignore[arg-type]
    for bad in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="seconds"):
            lock.extend(bad)
    lock.release()


@pytest.mark.parametrize("how", ["pg_cancel_backend", "pg_terminate_backend"])
def test_a_failed_try_is_no_success(open_manager: OpenAsyncManager, tables: Tables, how: str) -> None:
    manager = open_manager()
    first = manager.lock("r")
    assert first.acquire()
    tables.run("UPDATE {session_locks} SET expires_at = now()")
    lock = manager.lock("r")
    crew = Crew()

    def fail() -> None:
        with pytest.raises((psycopg.errors.QueryCanceled, pgsession.WriteOutcomeUnknown)):
            lock.acquire()

    with tables.locked("SELECT 1 FROM {session_locks} FOR UPDATE"):
        crew.start(fail)
        blocked = (
            "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            " AND query LIKE '%session_lock_acquire%' AND query LIKE '%{schema}%'".replace(
                "{schema}", tables.schema
            )
        )

        def waits() -> bool:
            return bool(tables.run(blocked))  # type: ignore[arg-type]

        eventually(waits)
        tables.run(f"SELECT {how}(pid) FROM ({blocked}) b")  # type: ignore[arg-type]
        crew.join()
    assert not lock.locked and lock.token is None
    with pytest.raises(pgsession.LockNotHeldError):
        lock.release()
    assert lock.acquire(timeout=20)


def test_a_release_that_fails_can_be_repeated(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    lock = manager.lock("r")
    assert lock.acquire()
    tables.run("ALTER TABLE {session_locks} RENAME TO away")
    with pytest.raises(psycopg.Error):
        lock.release()
    assert lock.token is not None
    tables.run("ALTER TABLE {schema}.away RENAME TO session_locks")
    lock.release()
    assert manager.lock("r").acquire(blocking=False)


def test_closing_gives_locks_back(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    lock = a.lock("r")
    assert lock.acquire()
    a.close()
    assert lock.lost.is_set() and not lock.locked
    assert b.lock("r").acquire(blocking=False)
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
def test_bad_arguments_are_named(
    manager: pgsession.SessionManager, options: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        manager.lock(**{"resource": "r", **options})


def test_a_lock_that_is_taken_again_and_again_leaves_nothing(
    manager: pgsession.SessionManager,
) -> None:
    lock = manager.lock("r")
    for _ in range(3):
        with lock:
            pass
    before = len(weakref.finalize._registry)  # type: ignore[attr-defined]
    for _ in range(30):
        with lock:
            pass
    assert len(weakref.finalize._registry) <= before  # type: ignore[attr-defined]
