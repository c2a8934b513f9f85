# Generated from tests/aio/test_absences.py by tools/async_to_sync.py: never edit.

"""Whom the database does not know is not asked for again and again; and nobody who is there is ever called absent."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import pgsession
from pgsession import Signer
from tests.crew import Crew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually

FOR_EVER = 3600  # seconds of max_staleness: what ends an absence in these tests is no clock
SIGNER = Signer(b"k" * 32)


def count_reads(manager: pgsession.SessionManager) -> list[Any]:
    """Which sessions were read from the database since."""
    store = manager._open_runtime().store
    read, read_many, asked = store.read, store.read_many, []

    def counted(key: bytes, deadline: float) -> Any:
        asked.append(key)
        return read(key, deadline)

    def counted_many(keys: Any, deadline: float) -> Any:
        asked.extend(keys)
        return read_many(keys, deadline)

    store.read, store.read_many = counted, counted_many  # type: ignore[method-assign]
    return asked


def test_the_same_unknown_ids_again_and_again_cost_one_query_each(
    open_manager: OpenAsyncManager,
) -> None:
    manager = open_manager(max_staleness=FOR_EVER)
    asked = count_reads(manager)
    unknown = [uuid.uuid4() for _ in range(50)]
    for _ in range(20):
        for key in unknown:
            assert manager.get_session(key) is None
    assert len(asked) == 50
    stats = manager.stats()
    assert (stats.misses, stats.negative_hits, stats.fills) == (1000, 950, 50)
    assert manager.load_sessions(unknown) == {} and len(asked) == 50
    assert manager.get_session(unknown[0], refresh=True) is None and len(asked) == 51


def test_the_tokens_of_ended_sessions_cost_one_query_each(open_manager: OpenAsyncManager) -> None:
    a = open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    b = open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    sessions = create_many(a, 3)
    tokens = [a.token(session) for session in sessions]
    assert None not in [b.get_session_by_token(token) for token in tokens]
    assert a.delete_user_sessions("u") == 3
    eventually_gone(b, sessions)
    asked = count_reads(b)
    for _ in range(5):
        for token in tokens:
            assert b.get_session_by_token(token) is None
            assert (b.open_token(token)).state == "ended"
    assert len(asked) == 3
    assert b.stats().refused_tokens == 30


def eventually_gone(manager: pgsession.SessionManager, sessions: list[pgsession.Session]) -> None:
    def gone() -> bool:
        return all(manager.get_cached_session(session.id) is None for session in sessions)

    eventually(gone)


def test_many_callers_with_many_ids(open_manager: OpenAsyncManager) -> None:
    """Ids that nobody has asked for have to be read, each once, whoever asks at the same moment."""
    manager = open_manager(max_staleness=FOR_EVER)
    asked = count_reads(manager)
    unknown = [uuid.uuid4() for _ in range(40)]
    crew = Crew()

    def ask() -> None:
        for key in unknown:
            assert manager.get_session(key) is None

    for _ in range(8):
        crew.start(ask)
    crew.join()
    assert sorted(asked) == sorted(key.bytes for key in unknown)


# -- who is there ------------------------------------------------------------------------------------------------


def test_what_is_inserted_is_there(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert manager.get_session(key) is None and manager.get_session(key) is None
    tables.run(
        "INSERT INTO {sessions} (id, user_id, expires_at) VALUES (%s, 'u', now() + interval '1 hour')", key
    )

    def there() -> bool:
        return manager.get_session(key) is not None

    eventually(there, "the event")
    assert manager.stats().negative_hits > 0


def test_who_comes_with_a_newer_token_is_never_called_absent(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Not even where no event says that the session is there."""
    manager = open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    session = manager.create_session("u")
    old = manager.token(session)
    manager.delete_session(session.id, wait=20)  # its event is heard, and drops no absence any more
    assert manager.get_session_by_token(old) is None
    row = "(id, version, owner_since, generation, user_id, expires_at)"
    again = session.version + 5
    tables.run_unheard(
        f"INSERT INTO {{sessions}} {row} VALUES (%s, %s, %s, %s, 'v', now() + interval '1 hour')",  # type: ignore[arg-type]
        session.id, again, again, 1,
    )  # fmt: skip
    assert manager.get_session_by_token(old) is None
    assert manager.get_session(session.id) is None, "memory says so, for max_staleness"
    new = SIGNER._session_token(session.id.bytes, 1, again)
    found = manager.get_session_by_token(new)
    assert found is not None and found.user_id == "v"
    found = manager.get_session(session.id)
    assert found is not None, "it is in memory now"


@pytest.mark.parametrize("by_token", [False, True])
def test_a_session_of_a_chosen_id_is_there_for_who_asked_before(
    open_manager: OpenAsyncManager, by_token: bool
) -> None:
    """For a user, who comes with its token, at once; for who has the bare id, with the event."""
    a = open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    b = open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert a.get_session(key) is None and b.get_session(key) is None
    session = a.create_session("u", session_id=key)
    assert a.get_session(key) is not None, "whoever has created it never waits for the event"
    token = a.token(session)

    def there() -> bool:
        found = b.get_session_by_token(token) if by_token else b.get_session(key)
        assert found is not None or not by_token
        return found is not None

    eventually(there, "the event")


def test_c8_an_inactive_session_is_not_taken_for_absent(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Another node has an access of it that is not written yet."""
    session = (open_manager()).create_session("u")
    manager = open_manager(max_staleness=FOR_EVER)
    move = "UPDATE {sessions} SET last_accessed = last_accessed + %s * interval '1 day'"
    tables.run_unheard(move, -30)
    assert manager.get_session(session.id) is None
    tables.run_unheard(move, 30)
    assert manager.get_session(session.id) is not None


def test_c8_what_has_just_ended_may_yet_be_prolonged(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """By a write of which nobody is told, that began before the end and is not committed yet."""
    session = (open_manager()).create_session("u")
    manager = open_manager(max_staleness=FOR_EVER)
    move = "UPDATE {sessions} SET expires_at = now() + %s * interval '1 second'"
    tables.run_unheard(move, -50)
    assert manager.get_session(session.id) is None
    tables.run_unheard(move, 3600)
    assert manager.get_session(session.id) is not None


def test_what_has_ended_for_good_is_remembered(open_manager: OpenAsyncManager, tables: Tables) -> None:
    session = (open_manager()).create_session("u")
    manager = open_manager(max_staleness=FOR_EVER)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '70 seconds'")
    asked = count_reads(manager)
    for _ in range(3):
        assert manager.get_session(session.id) is None
    assert len(asked) == 1
    tables.run("UPDATE {sessions} SET expires_at = now() + interval '1 hour'")

    def there() -> bool:
        return manager.get_session(session.id) is not None

    eventually(there, "the event")


def test_clear_cache_forgets_who_is_not_there(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(max_staleness=FOR_EVER), open_manager(max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert a.get_session(key) is None and b.get_session(key) is None
    asked = count_reads(b)
    a.evict_user_sessions("u")
    assert b.get_session(key) is None and not asked
    a.clear_cache()

    def asked_again() -> bool:
        assert b.get_session(key) is None
        return bool(asked)

    eventually(asked_again)
