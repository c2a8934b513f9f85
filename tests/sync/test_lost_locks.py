# Generated from tests/aio/test_lost_locks.py by tools/async_to_sync.py: never edit.

"""Locks that end before their time: told late, and fenced. Objects that nobody has any more: not renewed."""

from __future__ import annotations

import gc
from collections.abc import Awaitable, Callable

import psycopg
import pytest

import pgsession
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

HEARTBEAT = 0.3
LEASE = 0.8
UNHEARD_ENDS = {
    "its session is deleted": "DELETE FROM {sessions}",
    "its row is removed": "DELETE FROM {session_locks}",
    "the locks are truncated": "TRUNCATE {session_locks}",
    # To the row it is the same: its end is compared with that clock alone.
    "the server's clock steps": "UPDATE {session_locks} SET expires_at = expires_at - interval '1 hour'",
}


class Store:
    """A store that compares fencing tokens."""

    def __init__(self) -> None:
        self.highest = 0

    def write(self, token: int | None) -> bool:
        assert token is not None
        accepted = token >= self.highest
        self.highest = max(self.highest, token)
        return accepted


@pytest.mark.parametrize("how", UNHEARD_ENDS)
def test_an_end_that_is_not_heard_of_is_known_by_the_next_heartbeat(
    open_manager: OpenAsyncManager, tables: Tables, dsn: str, how: str
) -> None:
    with FaultProxy(dsn) as proxy:
        a = open_manager(listener_conninfo=proxy.conninfo)
        b = open_manager()
        session = a.create_session("u")
        lock = a.lock("r", session_id=session.id, lease_time=60, heartbeat_interval=HEARTBEAT)
        assert lock.acquire()
        proxy.freeze()
        tables.run(UNHEARD_ENDS[how])  # type: ignore[arg-type]
        other, store = b.lock("r"), Store()
        assert other.acquire(blocking=False), "at once"
        assert store.write(other.token)
        assert not store.write(lock.token), "whatever its holder knows by now"
        assert lock.lost.wait(3 * HEARTBEAT + 5) and not lock.locked
        with pytest.raises(pgsession.LockExpiredError):
            lock.release()
        assert other.locked
        other.release()
        proxy.forward()


def test_a_holder_who_reaches_nobody_knows_when_the_lease_time_is_over(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        a, b = open_manager(proxy.conninfo), open_manager()
        session = b.create_session("u")
        lock = a.lock("r", session_id=session.id, lease_time=LEASE, heartbeat_interval=HEARTBEAT)
        assert lock.acquire()
        proxy.freeze()
        assert b.delete_session(session.id)
        other, store = b.lock("r"), Store()
        assert other.acquire(blocking=False)
        assert store.write(other.token) and not store.write(lock.token)
        assert lock.lost.wait(3 * LEASE)
        proxy.forward()
        other.release()


def test_a_row_that_somebody_holds_keeps_no_other_lock_from_being_renewed(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager()
    held = manager.lock("held", lease_time=60, heartbeat_interval=0.05)
    lock = manager.lock("r", lease_time=LEASE, heartbeat_interval=0.1)
    assert held.acquire() and lock.acquire()
    with tables.locked("SELECT FROM {session_locks} WHERE resource = 'held' FOR UPDATE"):

        def older_than_two_leases() -> bool:
            assert lock.locked
            return bool(
                tables.one(
                    "SELECT clock_timestamp() > acquired_at + interval '1.6 s' FROM {session_locks}"
                    " WHERE resource = 'r'"
                )
            )

        eventually(older_than_two_leases)
        assert held.locked
    held.release()
    lock.release()


def test_what_is_lost_here_is_not_renewed(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    lock = manager.lock("r", lease_time=60, heartbeat_interval=50)
    assert lock.acquire()
    ends = tables.one("SELECT expires_at FROM {session_locks}")
    held = lock._held
    assert held is not None
    held.end()
    held.renew()
    assert tables.one("SELECT expires_at FROM {session_locks}") == ends


def test_an_object_that_nobody_has_any_more_is_not_renewed(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    lock = a.lock("r", lease_time=LEASE, heartbeat_interval=0.1)
    assert lock.acquire()
    lost = lock.lost
    objects = [lock]
    del lock
    with pytest.warns(ResourceWarning, match=r"the lock on .* was not released: call release"):
        objects.clear()
    assert a.stats().held_locks == 0
    other = b.lock("r")
    assert other.acquire(timeout=20), "after the lease time"
    assert lost.is_set(), "whoever kept that is told"
    other.release()


def test_an_error_that_was_dealt_with_does_not_keep_the_lock_object(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager()

    def use() -> None:
        lock = manager.lock("r", lease_time=60)
        assert lock.acquire()
        tables.run("ALTER TABLE {session_locks} RENAME TO away")
        try:
            lock.extend(60)
        except psycopg.errors.UndefinedTable:
            return
        raise AssertionError("extended")

    gc.collect()
    gc.disable()  # with what goes round in circles, it would be renewed until the next collection
    try:
        with pytest.warns(ResourceWarning, match="was not released"):
            use()
        assert manager.stats().held_locks == 0
    finally:
        gc.enable()
        tables.run("ALTER TABLE {schema}.away RENAME TO session_locks")


def test_an_object_that_is_done_with_warns_of_nothing(
    open_manager: OpenAsyncManager, tables: Tables, recwarn: pytest.WarningsRecorder
) -> None:
    def never_acquired(manager: pgsession.SessionManager) -> None:
        manager.lock("r")

    def released(manager: pgsession.SessionManager) -> None:
        with manager.lock("r"):
            pass

    def refused(manager: pgsession.SessionManager) -> None:
        with manager.lock("r"):
            assert not manager.lock("r").acquire(blocking=False)

    def lost(manager: pgsession.SessionManager) -> None:
        lock = manager.lock("r")
        assert lock.acquire()
        tables.run("DELETE FROM {session_locks}")
        assert lock.lost.wait(20)

    def failed(manager: pgsession.SessionManager) -> None:
        lock = manager.lock("r")
        assert lock.acquire()
        tables.run("ALTER TABLE {session_locks} RENAME TO away")
        with pytest.raises(Exception, match="session_locks"):
            lock.release()
        tables.run("ALTER TABLE {schema}.away RENAME TO session_locks")

    def closed(manager: pgsession.SessionManager) -> None:
        tables.run("TRUNCATE {session_locks}")
        lock = manager.lock("r")
        assert lock.acquire()
        manager.close()

    manager = open_manager()
    ends: list[Callable[[pgsession.SessionManager], Awaitable[None]]] = [
        never_acquired, released, refused, lost, failed, closed,
    ]  # fmt: skip
    for end in ends:
        end(manager)
        gc.collect()
        assert [str(warning.message) for warning in recwarn] == [], end
