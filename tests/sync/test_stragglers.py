# Generated from tests/aio/test_stragglers.py by tools/async_to_sync.py: never edit.

"""Writes of sessions whose rows somebody else holds: they wait apart, and come to an end."""

from __future__ import annotations

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg_pool import ConnectionPool

import pgsession
from tests.crew import Crew
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import eventually


def lock_sessions(foreign: Connection, schema: str) -> None:
    foreign.execute(
        sql.SQL("SELECT id FROM {}.sessions WHERE user_id LIKE 'locked%' FOR UPDATE").format(
            sql.Identifier(schema)
        )
    )


def test_a_login_that_would_evict_locked_sessions_waits_for_them(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager(max_sessions=2)
    for _ in range(2):
        manager.create_session("locked")
    with Connection.connect(dsn) as foreign, Crew() as crew:
        lock_sessions(foreign, schema)
        before = manager.stats().batches
        crew.start(manager.create_session, "locked", {"n": 1})

        def tried() -> bool:
            return manager.stats().batches >= before + 2

        eventually(tried)
        for n in range(20):
            manager.create_session(f"u{n}")  # nobody else waits
        assert manager.stats().batches < before + 60, "it tries again with pauses"
        foreign.rollback()
        (session,) = crew.join()
    assert isinstance(session, pgsession.Session) and session["n"] == 1
    sessions = manager.list_user_sessions("locked")
    assert session.id in [found.id for found in sessions] and len(sessions) == 2


def test_a_login_that_waits_too_long_is_refused_and_not_done_later(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager(max_sessions=2, operation_timeout=0.5)
    held = {(manager.create_session("locked")).id for _ in range(2)}
    with Connection.connect(dsn) as foreign:
        lock_sessions(foreign, schema)
        with pytest.raises(pgsession.OperationTimeout):
            manager.create_session("locked")
        foreign.rollback()
    manager.create_session("barrier")
    assert {found.id for found in manager.list_user_sessions("locked")} == held


def test_those_who_wait_leave_connections_to_the_others(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    with ConnectionPool(dsn, min_size=1, max_size=4, timeout=20, open=False) as pool:
        leave_connections(open_manager(pool), dsn, schema, tables)


def leave_connections(manager: pgsession.SessionManager, dsn: str, schema: str, tables: Tables) -> None:
    locked = [manager.create_session(f"locked{n}", {"n": 0}) for n in range(8)]
    free = [manager.create_session(f"u{n}", {"n": 0}) for n in range(8)]

    def save(session: pgsession.Session) -> None:
        session["n"] = 1
        manager.update_session(session)

    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%"
        + schema
        + "%'"
    )
    with Connection.connect(dsn) as foreign, Crew() as crew:
        lock_sessions(foreign, schema)
        for session in locked:
            crew.start(save, session)

        def wait() -> bool:
            return bool(tables.one(waiting) == 2)

        eventually(wait)
        with Crew() as others:
            for session in free:
                others.start(save, session)
        for session in free:
            assert manager.get_session(session.id, refresh=True) is not None
        assert tables.one(waiting) == 2
        foreign.rollback()
    for session in locked:
        fresh = manager.get_session(session.id, refresh=True)
        assert fresh is not None and fresh["n"] == 1


def test_walks_that_wait_leave_connections_to_the_others(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager(operation_timeout=8, pool_max_size=4)
    for _ in range(2):
        manager.create_session("locked", {"n": 0})
    free = manager.create_session("u", {"n": 0})
    with Connection.connect(dsn) as foreign, Crew() as crew:
        lock_sessions(foreign, schema)
        for _ in range(3):
            crew.start(manager.delete_user_sessions, "locked")
            crew.start(manager.delete_attribute_from_user_sessions, "locked", "n")

        def wait() -> bool:
            return manager._open_runtime().pool.get_stats()["requests_num"] >= 6

        eventually(wait)
        for n in range(3):
            free["n"] = n + 1
            manager.update_session(free)
            assert manager.get_session(free.id, refresh=True) is not None
        foreign.rollback()
        assert sum(crew.join()) >= 2  # nobody's time was over yet
    assert not manager.list_user_sessions("locked")


def test_a_walk_comes_back_for_those_whom_somebody_held(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    manager = open_manager()
    for user in ("locked", "locked-too"):
        manager.create_session(user, {"n": 0}, group_id="g")
    for _ in range(2):
        manager.create_session("free", {"n": 0}, group_id="g")
    with Connection.connect(dsn) as foreign, Crew() as crew:
        lock_sessions(foreign, schema)
        crew.start(manager.delete_group_sessions, "g")

        def passed() -> bool:
            return tables.count() == 2

        eventually(passed)
        foreign.rollback()
        assert crew.join() == [4]
    assert tables.count() == 0


def test_who_needs_a_locked_attribute_waits_alone(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    """Its session's row is free: the batch finds out only when it writes the attribute."""
    manager = open_manager(operation_timeout=2)
    sessions = [manager.create_session(f"u{n}", {"n": 0}) for n in range(4)]

    def save(session: pgsession.Session) -> None:
        session["n"] = 1
        manager.update_session(session)

    with Connection.connect(dsn) as foreign, Crew() as crew:
        foreign.execute(
            sql.SQL("SELECT FROM {}.session_attributes WHERE session_id = %s FOR UPDATE").format(
                sql.Identifier(schema)
            ),
            [sessions[0].id],
        )
        crew.start(save, sessions[0])
        with Crew() as others:
            for session in sessions[1:]:
                others.start(save, session)
        foreign.rollback()
    assert [changes(session) for session in sessions] == [1] * 4


def test_an_error_of_whatever_sqlstate_is_its_members_own(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager()
    with Connection.connect(dsn, autocommit=True) as connection:
        name = sql.Identifier(schema)
        connection.execute(
            sql.SQL(
                "CREATE FUNCTION {0}.refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
                " IF new.value::text = '666' THEN RAISE SQLSTATE 'ZZ666'; END IF; RETURN new; END $$;"
                " CREATE TRIGGER refuse BEFORE INSERT OR UPDATE ON {0}.session_attributes"
                " FOR EACH ROW EXECUTE FUNCTION {0}.refuse()"
            ).format(name)
        )
    sessions = [manager.create_session(f"u{n}", {"n": 0}) for n in range(20)]

    def save(number: int) -> str | None:
        sessions[number]["n"] = 666 if number == 7 else number
        try:
            manager.update_session(sessions[number])
        except psycopg.Error as error:
            return error.sqlstate
        return None

    with Crew() as crew:
        for number in range(20):
            crew.start(save, number)
        outcomes = crew.join()
    assert outcomes == [None] * 7 + ["ZZ666"] + [None] * 12
