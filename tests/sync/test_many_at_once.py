# Generated from tests/aio/test_many_at_once.py by tools/async_to_sync.py: never edit.

"""Many sessions in one call: loaded together, counted, listed in pages, deleted once they have ended."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import msgspec
import psycopg
import pytest

import pgsession
from tests.crew import Crew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


def count_reads(manager: pgsession.SessionManager) -> list[int]:
    """How many sessions each statement asks for."""
    store = manager._open_runtime().store
    read_many, asked = store.read_many, []

    def counted(keys: Any, deadline: float) -> Any:
        asked.append(len(keys))
        return read_many(keys, deadline)

    store.read_many = counted  # type: ignore[method-assign]
    return asked


# -- loading -----------------------------------------------------------------------------------------------------


def test_many_sessions_are_loaded_by_few_statements_and_enter_the_cache(
    open_manager: OpenAsyncManager,
) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    sessions = create_many(a, 300)
    ids = [session.id for session in sessions]
    assert b.get_session(ids[0]) is not None
    asked = count_reads(b)
    loaded = b.load_sessions([*ids, uuid.uuid4()])
    assert loaded.keys() == set(ids) and all(loaded[key].id == key for key in ids)
    assert loaded[ids[0]].from_cache and not loaded[ids[1]].from_cache
    assert asked == [256, 44], "the first one was in memory, and one does not exist"
    again = b.load_sessions(ids)
    assert len(again) == 300 and all(session.from_cache for session in again.values())
    assert len(asked) == 2
    assert b.stats().pending_accesses == 300


def test_ids_are_taken_as_get_session_takes_them(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": []})
    forms: list[uuid.UUID | str | bytes] = [session.id, str(session.id), session.id.bytes, session.id]
    loaded = b.load_sessions(forms)
    assert list(loaded) == forms[:3]
    first, second, third = loaded.values()
    first["n"].append(1)
    assert second["n"] == third["n"] == [], "nobody reaches another's data"
    assert b.load_sessions([]) == {} and b.load_sessions({str(uuid.uuid4())}) == {}
    assert b.stats().pending_accesses == 1
    assert (b.load_sessions(iter([session.id]), touch=False))[session.id].user_id == "u"


def test_what_has_ended_is_not_loaded(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    sessions = create_many(a, 4)
    expired, inactive, deleted, live = (session.id for session in sessions)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", expired)
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE id = %s", inactive
    )
    assert a.delete_session(deleted)
    assert list(b.load_sessions([expired, inactive, deleted, live])) == [live]


def test_a_load_that_an_event_overtakes_leaves_nothing_old_in_memory(
    open_manager: OpenAsyncManager,
) -> None:
    """Each has a lease of its own (C1): the others stay."""
    a, b = open_manager(max_sessions=0), open_manager()
    sessions = create_many(a, 3)
    ids = [session.id for session in sessions]
    store = b._open_runtime().store
    read_many = store.read_many

    def overtaken(keys: Any, deadline: float) -> Any:
        result = read_many(keys, deadline)
        before = b.stats().events
        sessions[1]["n"] = 1
        a.update_session(sessions[1])

        def heard() -> bool:
            return b.stats().events > before

        eventually(heard)
        return result

    store.read_many = overtaken  # type: ignore[method-assign]
    loaded = b.load_sessions(ids)
    assert len(loaded) == 3 and "n" not in loaded[ids[1]]
    assert [b.get_cached_session(key) is None for key in ids] == [False, True, False]
    read = b.get_session(ids[1])
    assert read is not None and read["n"] == 1


def test_loads_and_reads_of_one_session_share_a_query(open_manager: OpenAsyncManager) -> None:
    """A thousand waiting readers cost one (C10)."""
    a, b = open_manager(max_sessions=0), open_manager()
    ids = [session.id for session in create_many(a, 20)]
    asked = count_reads(b)
    crew = Crew()
    for _ in range(10):
        crew.start(b.load_sessions, ids)
    assert all(len(loaded) == 20 for loaded in crew.join())
    assert sum(asked) == b.stats().fills == 20


def test_a_row_that_nobody_can_read_is_its_own_callers_problem(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    good, bad = create_many(a, 2)
    tables.run(
        "INSERT INTO {session_attributes} (session_id, key, value) VALUES (%s, 'k', '\"\\ud800\"')", bad.id
    )
    with pytest.raises(msgspec.DecodeError):
        b.load_sessions([good.id, bad.id])
    assert b.get_cached_session(good.id) is not None
    assert list(b.load_sessions([good.id])) == [good.id]


def test_what_fails_is_said_with_what_was_done(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(max_sessions=0), open_manager(stale_if_error=60)
    ids = [session.id for session in create_many(a, 300)]
    assert b.get_session(ids[0]) is not None
    store = b._open_runtime().store
    read_many = store.read_many
    failing: Exception = pgsession.OperationTimeout("too late")

    def fails_at_last(keys: Any, deadline: float) -> Any:
        if len(keys) < 256:
            raise failing
        return read_many(keys, deadline)

    store.read_many = fails_at_last  # type: ignore[method-assign]
    with pytest.raises(pgsession.OperationTimeout, match="; 257 sessions had been done before") as caught:
        b.load_sessions(ids)
    assert caught.value.done == 257
    failing = psycopg.OperationalError("gone")
    with pytest.raises(psycopg.OperationalError, match="gone"):
        b.load_sessions(ids)
    b._coherence.on_lost()
    assert len(b.load_sessions(ids[:200])) == 200, "stale_if_error allows it"


# -- counting ----------------------------------------------------------------------------------------------------


def test_live_sessions_are_counted(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(max_sessions=0)
    first, second, *_ = create_many(manager, 4, group_id="g")
    create_many(manager, 2, "v", group_id="g")
    create_many(manager, 1, "v")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", first.id)
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE id = %s", second.id
    )
    assert manager.count_sessions() == 5
    assert manager.count_sessions(user_id="u") == 2
    assert manager.count_sessions(group_id="g") == 4
    assert manager.count_sessions(user_id="v", group_id="g") == 2
    assert manager.count_sessions(user_id="nobody") == 0


# -- pages -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["session", "id"])
@pytest.mark.parametrize("subject", ["user", "group"])
def test_pages_have_every_session_once(
    open_manager: OpenAsyncManager, tables: Tables, subject: str, kind: str
) -> None:
    manager = open_manager(max_sessions=0)
    created = create_many(manager, 60, group_id="u")
    tables.run("UPDATE {sessions} SET last_accessed = now() WHERE random() < 0.5")  # many at one moment
    list_page = manager.list_user_sessions if subject == "user" else manager.list_group_sessions
    whole = list_page("u")
    assert {session.id for session in whole} == {session.id for session in created}
    assert [session.last_accessed for session in whole] == sorted(
        (session.last_accessed for session in whole), reverse=True
    )
    seen: list[uuid.UUID] = []
    after: Any = None
    while page := list_page("u", limit=7, after=after):
        assert len(page) <= 7
        seen += [session.id for session in page]
        after = page[-1] if kind == "session" else str(page[-1].id)
    assert seen == [session.id for session in whole]


def test_no_session_comes_twice_although_accesses_move(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    create_many(a, 20)
    first = b.list_user_sessions("u", limit=10)
    moved = a.list_user_sessions("u", limit=1, after=first[-1])
    for session in (*first[:5], *moved):
        assert a.get_session(session.id) is not None
    assert a._open_runtime().maintenance.write_accesses()
    rest = b.list_user_sessions("u", limit=100, after=first[-1])
    assert {session.id for session in rest}.isdisjoint(session.id for session in first)
    assert len(rest) == 9, "one has moved to the front"
    assert (b.list_user_sessions("u", limit=1))[0].id in {session.id for session in (*first[:5], *moved)}


def test_a_page_after_what_is_not_there_is_refused(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_sessions=0)
    create_many(manager, 3)
    other = manager.create_session("v", group_id="g")
    last = (manager.list_user_sessions("u", limit=2))[-1]
    assert manager.delete_session(last.id)
    for gone in (last.id, other.id, uuid.uuid4()):
        with pytest.raises(pgsession.SessionNotFoundError):
            manager.list_user_sessions("u", after=gone)
    with pytest.raises(pgsession.SessionNotFoundError):
        manager.list_group_sessions("h", after=other.id)
    assert len(manager.list_user_sessions("u", after=last)) == 1, "the session itself says where it was"


# -- the end -----------------------------------------------------------------------------------------------------


def test_what_has_ended_is_deleted_when_asked_for(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(max_sessions=0, cleanup_interval=0)
    sessions = create_many(manager, 5)
    manager.create_session("forever", include_inactivity=False, expires_in=timedelta(days=9))
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", sessions[0].id)
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE id <> %s", sessions[1].id
    )
    assert manager.delete_expired_sessions() == 4
    assert tables.count() == 2 and manager.stats().deleted_sessions == 4
    assert manager.delete_expired_sessions() == 0


def test_a_deletion_that_ends_too_late_says_what_it_did(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager(max_sessions=0, operation_timeout=0.5)
    create_many(manager, 3)
    last = manager.create_session("last", {"k": 1})
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id <> %s", last.id)
    tables.run_unheard("UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE id = %s", last.id)
    with tables.locked("SELECT FROM {session_attributes} WHERE session_id = %s FOR UPDATE", last.id):
        with pytest.raises(pgsession.OperationTimeout) as caught:
            manager.delete_expired_sessions()
        assert caught.value.done == 3
    assert manager.delete_expired_sessions() == 1
