# Generated from tests/aio/test_lifetimes.py by tools/async_to_sync.py: never edit.

"""When a session, an attribute, a cached copy ends; and how an access is noted and written."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

import pgsession
from pgsession import Attribute
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually

HOUR = 3600 * 1_000_000


def flush(manager: pgsession.SessionManager) -> None:
    manager._open_runtime().maintenance.write_accesses()


def make_old(tables: Tables, session: pgsession.Session, age: timedelta) -> None:
    """As if it had been accessed last so long ago; what is in memory still knows better."""
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = clock_timestamp() - %s WHERE id = %s", age, session.id
    )


def last_access(tables: Tables, session: pgsession.Session) -> datetime:
    found: datetime = tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", session.id)
    return found


# -- sessions ----------------------------------------------------------------------------------------------------


def test_a_session_ends_at_its_expiry_on_every_node(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1}, expires_in=0.5)
    b.get_session(session.id)

    def gone() -> bool:
        return a.get_session(session.id) is None and b.get_session(session.id) is None

    eventually(gone)
    for node in (a, b):
        assert node.get_session(session.id, refresh=True) is None
        assert node.get_cached_session(session.id) is None
    session["n"] = 2
    with pytest.raises(pgsession.SessionNotFoundError):
        a.update_session(session, expires_in=100)
    assert not b.delete_session(session.id)


def test_an_expiry_can_be_moved_both_ways(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", expires_in=timedelta(hours=1))
    later = datetime.now(UTC) + timedelta(days=60)
    assert (a.update_session(session, expires_at=later)).expires_at == later
    read = b.get_session(session.id)
    assert read is not None and read.expires_at == later
    b.update_session(read, expires_in=0.1)

    def gone() -> bool:
        return a.get_session(session.id) is None

    eventually(gone)


@pytest.mark.parametrize("include_inactivity", [True, False])
def test_inactivity_ends_a_session_if_it_is_to(
    open_manager: OpenAsyncManager, tables: Tables, include_inactivity: bool
) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", include_inactivity=include_inactivity)
    make_old(tables, session, timedelta(hours=48, seconds=1))
    a.clear_cache()
    for node in (a, b):
        read = node.get_session(session.id)
        assert (read is None) == include_inactivity
    session["n"] = 1
    if include_inactivity:
        with pytest.raises(pgsession.SessionNotFoundError):
            a.update_session(session)
    else:
        a.update_session(session)


def test_a_cached_session_becomes_inactive(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    make_old(tables, session, timedelta(hours=48, seconds=-1))
    manager.clear_cache()
    read = manager.get_session(session.id, touch=False)
    assert read is not None

    def inactive() -> bool:
        return manager.get_session(session.id, touch=False) is None

    eventually(inactive)


def test_who_is_active_elsewhere_is_read_again_before_being_called_inactive(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    make_old(tables, session, timedelta(hours=48, seconds=-1))
    b.get_session(session.id, touch=False, refresh=True)
    a.get_session(session.id)
    flush(a)  # b hears nothing of it: an access is no event

    def read_again() -> bool:
        read = b.get_session(session.id, touch=False)
        assert read is not None, "an active user was thrown out (C8)"
        return read.last_accessed > datetime.now(UTC) - timedelta(hours=1)

    eventually(read_again)


def test_inactivity_can_be_switched(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", include_inactivity=False)
    make_old(tables, session, timedelta(days=10))
    a.clear_cache()
    read = b.get_session(session.id)
    assert read is not None and not read.include_inactivity
    # Its user is here at this moment, so switching it on must not end it at once.
    b.update_session(read, include_inactivity=True)
    assert read.include_inactivity
    for node in (a, b):
        again = node.get_session(session.id, refresh=True)
        assert again is not None and again.include_inactivity
    a.update_session(again, include_inactivity=False)
    make_old(tables, session, timedelta(days=10))
    assert a.get_session(session.id, refresh=True) is not None


# -- attributes --------------------------------------------------------------------------------------------------


def test_an_attribute_ends_on_its_own(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    until = datetime.now(UTC) + timedelta(seconds=0.5)
    session = a.create_session("u", {"code": Attribute("x", expires_at=until), "stay": 1})
    read = b.get_session(session.id)
    assert read is not None and read.attribute("code").expires_at == until

    def gone() -> bool:
        return "code" not in read

    eventually(gone)
    assert dict(read) == {"stay": 1} and len(read) == 1 and read.get("code") is None
    with pytest.raises(KeyError):
        read["code"]
    for node in (a, b):

        def gone_here(node: pgsession.SessionManager = node) -> bool:
            again = node.get_session(session.id)
            assert again is not None
            return dict(again) == {"stay": 1}

        eventually(gone_here)  # each node knows the database's time a little differently
    tables.run("SELECT value FROM {session_attributes} WHERE key = 'code'")
    read["code"] = "y"  # set anew without an end
    b.update_session(read, check="attributes")
    assert read.attribute("code").expires_at is None and read["code"] == "y"


def test_the_expiry_of_an_attribute_can_be_changed(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1})
    session.set("n", 1, expires_in=timedelta(hours=1))  # the value is the same, its end is not
    assert session.is_modified
    a.update_session(session)
    read = b.get_session(session.id)
    assert read is not None and read.attribute("n").expires_at is not None
    read.set("n", 1, expires_in=0.1)
    b.update_session(read)

    def gone() -> bool:
        again = a.get_session(session.id)
        return again is not None and "n" not in again

    eventually(gone)


# -- cached copies -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("limited", [True, False])
def test_the_longest_life_in_memory(open_manager: OpenAsyncManager, limited: bool) -> None:
    fields = {} if limited else {"max_session_lifetime_in_cache": 0}
    manager = open_manager(**fields)
    session = manager.create_session("u", include_inactivity=False)
    manager._clock.offset += 49 * HOUR  # until the next proof puts it right
    read = manager.get_session(session.id)
    assert read is not None and read.from_cache is not limited


def test_a_cached_copy_lives_its_time(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_session_lifetime_in_cache=0.3)
    session = manager.create_session("u")

    def read_again() -> bool:
        read = manager.get_session(session.id)
        return read is not None and not read.from_cache

    eventually(read_again)


# -- accesses ----------------------------------------------------------------------------------------------------


def test_accesses_are_noted_and_written_together(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(max_sessions=0, last_access_update_batch_size=4)
    sessions = create_many(manager, 10)
    calls: list[int] = []
    store = manager._open_runtime().store
    write = store.write_accesses

    def counted(accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        calls.append(len(accesses))
        return write(accesses)

    store.write_accesses = counted  # type: ignore[method-assign]
    before = [last_access(tables, session) for session in sessions]
    for session in sessions:
        for _ in range(3):
            assert manager.get_session(session.id) is not None
    assert manager.stats().pending_accesses == 10 and not calls
    assert [last_access(tables, session) for session in sessions] == before
    flush(manager)
    assert calls == [4, 4, 2]
    assert all(last_access(tables, session) > at for session, at in zip(sessions, before, strict=True))
    assert manager.stats().pending_accesses == 0 and manager.stats().written_accesses == 10
    flush(manager)
    assert len(calls) == 3, "nothing to write, nothing written"
    read = manager.get_session(sessions[0].id, touch=False)
    assert read is not None and manager.stats().pending_accesses == 0


def test_accesses_are_written_every_so_often(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(last_access_update_interval=0.2)
    session = manager.create_session("u")
    before = last_access(tables, session)
    manager.get_session(session.id)

    def written() -> bool:
        return last_access(tables, session) > before

    eventually(written)


def test_an_access_moves_no_version_and_tells_nobody(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1})
    b.get_session(session.id)
    flush(b)
    read = a.get_session(session.id)
    assert read is not None and read.from_cache
    read["n"] = 2
    a.update_session(read, check="session")
    assert changes(read) == 1 and tables.one("SELECT version FROM {sessions}") == read.version


def test_a_last_access_never_moves_back(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    a.get_session(session.id)
    b.get_session(session.id)  # later
    flush(b)
    newest = last_access(tables, session)
    flush(a)
    assert last_access(tables, session) == newest


def test_a_batch_that_fails_is_kept_and_written_later(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    before = last_access(tables, session)
    manager.get_session(session.id)
    tables.run("ALTER FUNCTION {schema}.session_write_accesses_1 RENAME TO away")
    flush(manager)
    stats = manager.stats()
    assert (stats.failed_access_batches, stats.pending_accesses, stats.written_accesses) == (1, 1, 0)
    manager.get_session(session.id)
    manager.clear_cache()
    assert manager.stats().pending_accesses == 1, "an access outlives the cached copy"
    tables.run("ALTER FUNCTION {schema}.away RENAME TO session_write_accesses_1")
    manager.close()
    assert last_access(tables, session) > before, "what is pending is written at the end"


def test_what_somebody_else_has_locked_is_written_later(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager()
    held, free = manager.create_session("u"), manager.create_session("u")
    before = last_access(tables, held), last_access(tables, free)
    for session in (held, free):
        manager.get_session(session.id)
    with tables.locked("SELECT 1 FROM {sessions} WHERE id = %s FOR UPDATE", held.id):
        flush(manager)
        assert last_access(tables, held) == before[0] and last_access(tables, free) > before[1]
        assert manager.stats().pending_accesses == 1
    flush(manager)
    assert last_access(tables, held) > before[0]


def test_a_late_access_is_written_at_once(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """Before another node could call the session inactive, not at the next of the usual times."""
    manager = open_manager()
    session = manager.create_session("u")
    make_old(tables, session, timedelta(hours=47, minutes=55))
    manager.clear_cache()
    assert manager.get_session(session.id, touch=False) is not None
    assert manager.stats().pending_accesses == 0
    assert manager.get_session(session.id) is not None

    def written() -> bool:
        return last_access(tables, session) > datetime.now(UTC) - timedelta(minutes=5)

    eventually(written)


def test_a_late_access_that_is_a_miss_is_written_at_once(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    make_old(tables, session, timedelta(hours=47, minutes=55))
    manager.clear_cache()
    assert manager.get_session(session.id) is not None

    def written() -> bool:
        return last_access(tables, session) > datetime.now(UTC) - timedelta(minutes=5)

    eventually(written)


def test_noted_during_the_last_flush(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """An access that comes while `close` waits for a flush under way is written too."""
    manager = open_manager()
    one, two = manager.create_session("u"), manager.create_session("u")
    before = last_access(tables, two)
    runtime = manager._open_runtime()
    write = runtime.store.write_accesses

    def slow(accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        runtime.store.write_accesses = write  # type: ignore[method-assign]
        result = write(accesses)
        runtime.maintenance._stopping.set()
        manager.get_session(two.id)
        return result

    runtime.store.write_accesses = slow  # type: ignore[method-assign]
    manager.get_session(one.id)
    runtime.maintenance.write_accesses_soon()

    def begun() -> bool:
        return runtime.maintenance._stopping.is_set()

    eventually(begun)
    manager.close()
    assert last_access(tables, two) > before


def test_closing_without_a_database_loses_accesses_but_ends(
    open_manager: OpenAsyncManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    manager.get_session(session.id)

    def down(accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        raise psycopg.OperationalError("the database is down")

    manager._open_runtime().store.write_accesses = down  # type: ignore[method-assign]
    manager.close()
    assert "could not be written" in caplog.text
