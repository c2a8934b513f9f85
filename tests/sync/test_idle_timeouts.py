# Generated from tests/aio/test_idle_timeouts.py by tools/async_to_sync.py: never edit.

"""Each session has an idle timeout of its own, stored with it: every node, list, limit and cleanup goes by that."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession import DEFAULT
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

MINUTES = {number: timedelta(minutes=number) for number in (15, 20, 30, 60)}


def make_old(tables: Tables, session: pgsession.Session, age: timedelta) -> None:
    """As if it had been accessed last so long ago; what is in memory still knows better."""
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = clock_timestamp() - %s WHERE id = %s", age, session.id
    )


def seen(session: pgsession.Session, *nodes: pgsession.SessionManager) -> set[tuple[timedelta | None, bool]]:
    """What the session itself and all nodes say of its idle timeout."""
    read = [node.get_session(session.id, refresh=True) for node in nodes]
    said = [session, *(one for one in read if one is not None)]
    assert len(said) == 1 + len(nodes)
    return {(one.inactivity, one.include_inactivity) for one in said}


# -- saying it ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, MINUTES[60]),
        ({"inactivity": DEFAULT}, MINUTES[60]),
        ({"include_inactivity": True, "inactivity": 900}, MINUTES[15]),
        ({"inactivity": MINUTES[15]}, MINUTES[15]),
        ({"inactivity": 1}, timedelta(seconds=1)),
        ({"inactivity": 1.000001}, timedelta(seconds=1, microseconds=1)),
        ({"inactivity": timedelta(days=36500)}, timedelta(days=36500)),
        ({"inactivity": None}, None),
        ({"include_inactivity": False}, None),
        ({"include_inactivity": False, "inactivity": None}, None),
    ],
)
def test_a_new_session_has_what_was_asked_for_on_every_node(
    open_manager: OpenAsyncManager, tables: Tables, options: dict[str, Any], expected: timedelta | None
) -> None:
    a, b = open_manager(inactivity_duration=3600), open_manager()
    session = a.create_session("u", **options)
    assert seen(session, a, b) == {(expected, expected is not None)}
    assert tables.one("SELECT inactivity FROM {sessions}") == expected
    for node in (a, b):
        (listed,) = node.list_user_sessions("u")
        assert listed.inactivity == expected


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"inactivity": 900}, [MINUTES[15]] * 2),
        ({"inactivity": None}, [None] * 2),
        ({"inactivity": DEFAULT}, [MINUTES[60]] * 2),
        ({"include_inactivity": False}, [None] * 2),
        ({"include_inactivity": True}, [MINUTES[20], MINUTES[60]]),
        ({"include_inactivity": True, "inactivity": 900}, [MINUTES[15]] * 2),
        ({"include_inactivity": False, "inactivity": None}, [None] * 2),
        ({"expires_in": 50}, [MINUTES[20], None]),
    ],
)
@pytest.mark.parametrize("how", ["update", "modify"])
def test_it_is_changed_and_otherwise_stays(
    open_manager: OpenAsyncManager, how: str, options: dict[str, Any], expected: list[timedelta | None]
) -> None:
    a, b = open_manager(inactivity_duration=3600), open_manager()
    for before, after in zip([MINUTES[20], None], expected, strict=True):
        session = b.create_session("u", inactivity=before)
        if how == "update":
            a.get_session(session.id)
            a.update_session(session, **options)
        else:
            session = a.modify_session(session.id, lambda _: None, **options)
        assert seen(session, a, b) == {(after, after is not None)}
        session["n"] = 1
        b.update_session(session)
        assert seen(session, a, b) == {(after, after is not None)}


@pytest.mark.parametrize("before", [1200, None])
def test_to_include_it_leaves_what_another_node_has_made_of_it(
    open_manager: OpenAsyncManager, before: int | None
) -> None:
    """Also for an object that was read before that."""
    a, b = open_manager(), open_manager()
    session = a.create_session("u", inactivity=before)
    held = b.get_session(session.id)
    assert held is not None
    a.update_session(session, inactivity=900)
    held = b.update_session(held, include_inactivity=True)
    assert held.inactivity == MINUTES[15]
    assert seen(session, a, b) == {(MINUTES[15], True)}


def test_a_login_gives_another_one_in_the_same_write(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session(inactivity=900)
    a.rotate_session(session, grace=0)
    assert seen(session, a, b) == {(MINUTES[15], True)}
    before = session.version
    a.rotate_session(session, user_id="u", inactivity=timedelta(days=30), expires_in=timedelta(days=365))
    assert session.version > before
    assert seen(session, a, b) == {(timedelta(days=30), True)}
    a.rotate_session(session, inactivity=DEFAULT)
    assert seen(session, a, b) == {(timedelta(hours=48), True)}
    a.rotate_session(session, inactivity=None)
    assert seen(session, a, b) == {(None, False)}


def test_what_contradicts_itself_is_refused(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    refused = r"inactivity: must be None or left out where include_inactivity is False, not 60"
    with pytest.raises(ValueError, match=refused):
        manager.create_session("u", inactivity=60, include_inactivity=False)
    with pytest.raises(ValueError, match=refused):
        manager.update_session(session, inactivity=60, include_inactivity=False)
    with pytest.raises(ValueError, match=r"inactivity: must be None or left out .*, not DEFAULT"):
        manager.modify_session(session.id, lambda _: None, inactivity=DEFAULT, include_inactivity=False)
    with pytest.raises(ValueError, match="inactivity: must not be None where include_inactivity is True"):
        manager.update_session(session, inactivity=None, include_inactivity=True)
    for change in (manager.update_session, manager.rotate_session):
        with pytest.raises(ValueError, match=r"inactivity: must be from 1 s to 36500 days, not 0\.999"):
            change(session, inactivity=0.999)
        with pytest.raises(
            TypeError, match="inactivity: a timedelta or a number of seconds is needed, not str"
        ):
            change(session, inactivity="60")  # type: ignore[arg-type]
    assert tables.count() == 1 and (seen(session, manager)) == {(timedelta(hours=48), True)}


# -- what goes by it ---------------------------------------------------------------------------------------------


def test_every_node_goes_by_it_whatever_its_own_setting(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    nodes = [open_manager(inactivity_duration=hours * 3600) for hours in (1, 48)]
    sessions = {
        "short": (nodes[1].create_session("u", inactivity=900), MINUTES[15]),
        "default": (nodes[0].create_session("u"), MINUTES[60]),
        "long": (nodes[0].create_session("u", inactivity=timedelta(days=5)), timedelta(days=5)),
    }
    for session, timeout in sessions.values():
        for age, live in ((timeout - timedelta(seconds=30), True), (timeout, False)):
            make_old(tables, session, age)
            for node in nodes:
                assert (node.get_session(session.id, touch=False, refresh=True) is not None) == live
    forever = nodes[0].create_session("u", inactivity=None)
    make_old(tables, forever, timedelta(days=10_000))
    for node in nodes:
        assert node.get_session(forever.id, touch=False, refresh=True) is not None


def test_everything_else_goes_by_it_too(
    open_manager: OpenAsyncManager, tables: Tables, dsn: str, schema: str
) -> None:
    a = open_manager(inactivity_duration=1800, max_sessions=2, max_sessions_policy="reject")
    ended = a.create_session("u", group_id="g", inactivity=900)
    live = a.create_session("u", group_id="g", inactivity=MINUTES[60])
    for session in (ended, live):
        make_old(tables, session, MINUTES[20])
    b = open_manager(max_sessions=2, max_sessions_policy="reject")
    admin = pgsession.Admin(dsn, pgsession.Config(schema_name=schema))
    assert [one.id for one in b.list_user_sessions("u")] == [live.id]
    assert [one.id for one in b.list_group_sessions("g")] == [live.id]
    assert b.count_sessions(user_id="u") == b.count_sessions(group_id="g") == 1
    assert list(b.load_sessions([ended.id, live.id], touch=False)) == [live.id]
    assert [(one.id, one.inactivity) for one in admin.list_sessions()] == [(live.id, MINUTES[60])]
    assert admin.count(active_within=timedelta(days=1)) == 1
    ended["n"] = 1
    with pytest.raises(pgsession.SessionNotFoundError):
        b.update_session(ended)
    with pytest.raises(pgsession.SessionNotFoundError):
        b.lock("r", session_id=ended.id).acquire()
    with b.lock("r", session_id=live.id):
        pass
    # It takes no place: nobody is turned away for it, at a login either.
    b.rotate_session(b.create_session(), user_id="u")
    with pytest.raises(pgsession.TooManySessionsError):
        b.create_session("u")
    assert not b.delete_session(ended.id)
    assert b.delete_session(live.id)


def test_only_live_ones_are_evicted(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager, unlimited = open_manager(max_sessions=2), open_manager(max_sessions=0)
    ended, oldest, newest = [
        unlimited.create_session("u", inactivity=seconds) for seconds in (900, None, 3600)
    ]
    for session, age in ((ended, 30), (oldest, 20), (newest, 1)):
        make_old(tables, session, timedelta(minutes=age))
    new = manager.create_session("u", inactivity=3600)
    left = {row[0] for row in tables.run("SELECT id FROM {sessions}")}
    assert left == {ended.id, newest.id, new.id}


def test_the_cleanup_waits_for_accesses_that_are_on_their_way(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Another node may have noted one: with the interval of accesses over it has written it, or has lost it."""
    manager = open_manager(inactivity_duration=1)
    ages = {
        "live": (MINUTES[60], timedelta(minutes=59)),
        "inactive": (MINUTES[60], timedelta(minutes=69)),
        "long inactive": (MINUTES[60], timedelta(minutes=70, seconds=1)),
        "long inactive, short": (MINUTES[15], timedelta(minutes=26)),
        "forever": (None, timedelta(days=1000)),
    }
    sessions = {}
    for name, (timeout, age) in ages.items():
        sessions[name] = manager.create_session(name, inactivity=timeout)
        make_old(tables, sessions[name], age)
    assert manager.get_session(sessions["inactive"].id, refresh=True) is None
    assert manager.delete_expired_sessions() == 2
    assert {row[0] for row in tables.run("SELECT user_id FROM {sessions}")} == {"live", "inactive", "forever"}
    # The access arrives: its user goes on.
    make_old(tables, sessions["inactive"], timedelta(minutes=12))
    assert manager.get_session(sessions["inactive"].id, refresh=True) is not None


def test_an_access_is_written_in_time_for_a_short_one(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """The usual interval is ten minutes; in a quarter of the idle timeout the others see it, hit or miss."""
    manager = open_manager(inactivity_duration=4)  # no other setting has to follow
    ordinary = manager.create_session("u", inactivity=MINUTES[60])
    session = manager.create_session("u")
    for fresh in (False, True):
        before = tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", session.id)
        manager.get_session(ordinary.id)
        assert manager.get_session(session.id, refresh=fresh) is not None

        def written(before: datetime = before) -> bool:
            return bool(
                tables.one("SELECT last_accessed > %s FROM {sessions} WHERE id = %s", before, session.id)
            )

        eventually(written)
    assert manager.stats().pending_accesses == 1, "the ordinary one"


def test_who_is_there_stays_in_a_session_of_a_second(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", inactivity=1)
    read = b.get_session(session.id, touch=False)

    since = datetime.now(UTC)

    def used_for_long() -> bool:
        assert a.get_session(session.id) is not None, "an active user was thrown out (C8)"
        return datetime.now(UTC) - since > timedelta(seconds=2.5)

    eventually(used_for_long)
    assert read is not None and b.get_session(session.id, touch=False) is not None

    def ended() -> bool:
        gone = [node.get_session(session.id, touch=False) is None for node in (a, b)]
        return all(gone)

    eventually(ended)


# -- plain SQL ---------------------------------------------------------------------------------------------------

Insert = Callable[..., Awaitable[pgsession.Session | None]]


@pytest.fixture
def insert(open_manager: OpenAsyncManager, tables: Tables) -> Insert:
    """A session by plain SQL with `inactivity = ...`, as a node reads it."""
    node = open_manager(inactivity_duration=60)

    def insert(text: str | None) -> pgsession.Session | None:
        (row,) = tables.run(
            "INSERT INTO {sessions} (expires_at, inactivity) VALUES (now() + interval '1 day', %s::interval)"
            " RETURNING id",
            text,
        )
        return node.get_session(row[0])

    return insert


def test_plain_sql_has_the_default_of_the_column(open_manager: OpenAsyncManager, tables: Tables) -> None:
    node = open_manager(inactivity_duration=60)
    (row,) = tables.run(
        "INSERT INTO {sessions} (expires_at) VALUES (now() + interval '1 day') RETURNING id, inactivity"
    )
    read = node.get_session(row[0])
    assert read is not None and read.inactivity == row[1] == pgsession.Config().inactivity_duration


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("15 min", MINUTES[15]),
        ("1 second", timedelta(seconds=1)),
        ("2 days", timedelta(days=2)),
        ("1 month", timedelta(days=30)),
        ("1 year", timedelta(days=365, hours=6)),
        (None, None),
    ],
)
def test_plain_sql_says_it_in_any_unit(
    insert: Insert, tables: Tables, text: str | None, expected: timedelta | None
) -> None:
    """It is kept in hours: days are as long as the time zone of whoever asks says."""
    read = insert(text)
    assert read is not None and read.inactivity == expected
    kept = "SELECT extract(day FROM inactivity) + extract(month FROM inactivity) FROM {sessions}"
    assert tables.one(kept) == (None if text is None else 0)


@pytest.mark.parametrize("text", ["999 ms", "0", "-1 hour", "101 years", "infinity"])
def test_plain_sql_cannot_say_what_no_node_could_read(insert: Insert, tables: Tables, text: str) -> None:
    with pytest.raises((psycopg.errors.CheckViolation, psycopg.DataError)):
        insert(text)
    assert tables.count() == 0


def test_plain_sql_changes_it_on_every_node(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    b.get_session(session.id)
    tables.run("UPDATE {sessions} SET inactivity = interval '1 day 2 hours' WHERE id = %s", session.id)

    def heard() -> bool:
        read = [node.get_session(session.id) for node in (a, b)]
        return {one and one.inactivity for one in read} == {timedelta(hours=26)}

    eventually(heard)
