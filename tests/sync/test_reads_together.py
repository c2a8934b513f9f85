# Generated from tests/aio/test_reads_together.py by tools/async_to_sync.py: never edit.

"""Reads that wait at the same moment, on a real server: one statement for many, and each its own answer."""

from __future__ import annotations

import uuid
from datetime import timedelta
from functools import partial

import pgsession
from tests.crew import Crew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many
from .test_many_at_once import count_reads

CALLERS = 60


def test_each_who_waits_is_told_of_its_own_session(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    live = [session.id for session in create_many(a, CALLERS)]
    idle, ended = [(a.create_session(user, inactivity=timedelta(hours=1))).id for user in ("i", "e")]
    tables.run_unheard("UPDATE {sessions} SET last_accessed = now() - interval '2 hours' WHERE id = %s", idle)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '2 hours' WHERE id = %s", ended)
    asked = [*live, idle, ended, *(uuid.uuid4() for _ in range(5))]
    together = count_reads(b)
    with Crew() as crew:
        for session_id in asked:
            crew.start(b.get_session, session_id)
        found = crew.join()
    assert {of.id if isinstance(of, pgsession.Session) else of for of in found} == {*live, None}
    assert sum(of is None for of in found) == 7
    assert max(together) > 1, "some had to wait"
    assert sum(together) <= len(asked)
    again = [b.get_session(session_id) for session_id in asked]
    assert [of is not None and of.from_cache for of in again] == [True] * CALLERS + [False] * 7
    assert b.stats().negative_hits == 6, "no access on its way can bring those back"


def test_what_nobody_can_read_fails_its_own_reader_only(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    sessions = create_many(a, CALLERS)
    bad = sessions[7].id
    tables.run(
        "INSERT INTO {session_attributes} (session_id, key, value) VALUES (%s, 'k', '\"\\ud800\"')", bad
    )

    def read(session_id: uuid.UUID) -> str:
        try:
            session = b.get_session(session_id)
        except Exception as error:
            return type(error).__name__
        return "found" if session is not None and session.id == session_id else "lost"

    with Crew() as crew:
        for session in sessions:
            crew.start(read, session.id)
        told = crew.join()
    assert sorted(told) == ["DecodeError", *["found"] * (CALLERS - 1)]


def test_large_sessions_come_in_more_than_one_answer(open_manager: OpenAsyncManager) -> None:
    """Five of 900 kB are more than one answer takes."""
    a, b = open_manager(max_attribute_length=1_000_000), open_manager()
    large = [a.create_session(f"u{n}", {"n": n, "text": "x" * 900_000}) for n in range(14)]
    loaded = b.load_sessions([session.id for session in large])
    assert [loaded[session.id]["n"] for session in large] == list(range(14))
    with Crew() as crew:
        for session in large:
            crew.start(partial(b.get_session, session.id, refresh=True))
        again = crew.join()
    assert sorted(of["n"] for of in again) == list(range(14))
