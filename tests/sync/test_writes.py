# Generated from tests/aio/test_writes.py by tools/async_to_sync.py: never edit.

"""Group commit: many callers, one transaction, each with its own result (docs/architecture.md, "Write")."""

from __future__ import annotations

import random
import threading

import psycopg
import pytest
from psycopg import Connection, sql

import pgsession
from tests.crew import Crew
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import eventually


def sessions_of(manager: pgsession.SessionManager, count: int, user: str = "u") -> list[pgsession.Session]:
    with Crew() as crew:
        for number in range(count):
            crew.start(manager.create_session, f"{user}{number}", {"n": 0})
        return list(crew.join())


def set_n(manager: pgsession.SessionManager, session: pgsession.Session, n: object) -> None:
    session["n"] = n
    manager.update_session(session)


def read_again(manager: pgsession.SessionManager, session: pgsession.Session) -> pgsession.Session:
    for _ in range(20):
        try:
            fresh = manager.get_session(session.id, refresh=True)
        except psycopg.OperationalError:
            continue  # this connection was cut as well
        assert fresh is not None
        return fresh
    raise AssertionError("the database is not there any more")


def test_writes_of_the_same_moment_share_transactions(manager: pgsession.SessionManager) -> None:
    sessions = sessions_of(manager, 48)
    before = manager.stats()
    for round_ in range(1, 4):
        with Crew() as crew:
            for session in sessions:
                crew.start(set_n, manager, session, round_)
    after = manager.stats()
    assert after.writes - before.writes == 3 * 48
    assert after.batches - before.batches <= 3 * 48 / 2, "batches must be shared"
    for session in sessions:
        read = manager.get_session(session.id, refresh=True)
        assert read is not None and read["n"] == changes(read) == 3


def test_each_caller_gets_its_own_result(manager: pgsession.SessionManager) -> None:
    sessions = sessions_of(manager, 30)
    for session in sessions[0:10]:  # outdated: somebody else wrote
        other = manager.get_session(session.id)
        assert other is not None
        set_n(manager, other, "theirs")
    for session in sessions[10:20]:  # gone
        manager.delete_session(session.id)
    outcomes: dict[int, type] = {}

    def update(number: int) -> None:
        sessions[number]["n"] = "mine"
        try:
            manager.update_session(sessions[number], check="attributes")
            outcomes[number] = type(None)
        except pgsession.PgSessionError as error:
            outcomes[number] = type(error)

    with Crew() as crew:
        for number in range(30):
            crew.start(update, number)
    assert {outcomes[number] for number in range(10)} == {pgsession.AttributeVersionConflict}
    assert {outcomes[number] for number in range(10, 20)} == {pgsession.SessionNotFoundError}
    assert {outcomes[number] for number in range(20, 30)} == {type(None)}
    for number in range(10):
        read = manager.get_session(sessions[number].id, refresh=True)
        assert read is not None and read["n"] == "theirs"
        assert sessions[number]["n"] == "mine" and sessions[number].is_modified


@pytest.mark.parametrize("stored", [r'"\ud800"', "[" * 10_000 + "]" * 10_000])
def test_what_plain_sql_stored_unreadably_is_the_error_of_its_own_session_only(
    manager: pgsession.SessionManager, tables: Tables, stored: str
) -> None:
    """PostgreSQL's json holds what no reader takes; the new record of such a session has to be read back."""
    sessions = sessions_of(manager, 20)
    tables.run_unheard(
        "INSERT INTO {session_attributes} (session_id, key, value) VALUES (%s, 'bad', %s::text::json)",
        sessions[0].id, stored,
    )  # fmt: skip
    tables.run_unheard("UPDATE {sessions} SET version = version + 1 WHERE id = %s", sessions[0].id)

    def update(number: int) -> type:
        try:
            set_n(manager, sessions[number], 1)
        except pgsession.PgSessionError as error:
            return type(error)
        return type(None)

    with Crew() as crew:
        for number in range(20):
            crew.start(update, number)
        outcomes = crew.join()
    assert outcomes == [pgsession.WriteOutcomeUnknown] + [type(None)] * 19


def test_a_foreign_lock_delays_only_those_who_want_that_row(
    manager: pgsession.SessionManager, dsn: str, schema: str
) -> None:
    sessions = sessions_of(manager, 40)
    locked, others = sessions[0], sessions[1:]
    done = threading.Event()
    lock = sql.SQL("SELECT id FROM {}.sessions WHERE id = %s FOR UPDATE").format(sql.Identifier(schema))

    def update_locked() -> None:
        set_n(manager, locked, 1)
        done.set()

    with Connection.connect(dsn) as foreign, Crew() as crew:
        foreign.execute(lock, (locked.id,))
        crew.start(update_locked)
        with Crew() as free:
            for session in others:
                free.start(set_n, manager, session, 1)
        with Crew() as free:  # and again, when the locked one waits by itself
            for session in others:
                free.start(set_n, manager, session, 2)
        assert not done.is_set()
        foreign.rollback()
    assert done.is_set() and changes(locked) == 1
    assert {changes(session) for session in others} == {2}


def test_operations_of_one_session_keep_their_order(manager: pgsession.SessionManager) -> None:
    (session,) = sessions_of(manager, 1)
    copies = []
    for _ in range(20):
        copy = manager.get_session(session.id)
        assert copy is not None
        copies.append(copy)
    numbers: list[int] = []

    def update(number: int) -> None:
        copies[number][f"k{number}"] = number
        manager.update_session(copies[number])
        numbers.append(changes(copies[number]))

    with Crew() as crew:
        for number in range(20):
            crew.start(update, number)
    assert sorted(numbers) == list(range(1, 21))
    last = manager.get_session(session.id)
    assert last is not None and changes(last) == 20
    assert dict(last) == {"n": 0, **{f"k{number}": number for number in range(20)}}
    newest = max(copies, key=lambda copy: copy.version)
    assert dict(newest) == dict(last), "the newest caller's session has everybody's changes"


@pytest.mark.parametrize("seed", range(3))
def test_nodes_do_not_deadlock(open_manager: OpenAsyncManager, dsn: str, seed: int) -> None:
    print("seed", seed)
    nodes = [open_manager(max_sessions=2) for _ in range(2)]
    sessions = sessions_of(nodes[0], 12)

    def churn(node: pgsession.SessionManager, number: int) -> int:
        choose = random.Random(f"{seed}.{number}")
        updates = 0
        for _ in range(15):
            session = node.get_session(choose.choice(sessions).id)
            if session is not None:
                session[f"by{number}"] = choose.random()
                try:
                    node.update_session(session)
                    updates += 1
                except pgsession.SessionNotFoundError:
                    pass
            if choose.random() < 0.2:
                node.create_session(f"u{choose.randrange(12)}")
            if choose.random() < 0.05:
                node.delete_user_sessions(f"u{choose.randrange(12)}")
        return updates

    query = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    with Connection.connect(dsn, autocommit=True) as connection:
        before = (connection.execute(query)).fetchone()
        with Crew() as crew:
            for number in range(16):
                crew.start(churn, nodes[number % 2], number)
            assert sum(crew.join()) > 0
        connection.execute("SELECT pg_stat_clear_snapshot()")
        assert (connection.execute(query)).fetchone() == before
    assert sum(node.stats().failed_writes for node in nodes) == 0


def test_a_lost_connection_is_told_to_every_caller(manager: pgsession.SessionManager, dsn: str) -> None:
    """What was acknowledged is there; what was not is one of: an error, or an outcome that is unknown."""
    sessions = sessions_of(manager, 30)
    acknowledged: dict[int, int] = {}
    stop = threading.Event()

    def update(number: int) -> None:
        while not stop.is_set():
            n = acknowledged.get(number, 0) + 1
            sessions[number]["n"] = n
            try:
                manager.update_session(sessions[number])
                acknowledged[number] = n
            except (psycopg.OperationalError, pgsession.WriteOutcomeUnknown):
                fresh = read_again(manager, sessions[number])
                assert fresh["n"] in (n, n - 1), "neither lost nor from nowhere"
                acknowledged[number] = fresh["n"]
                sessions[number] = fresh

    def cut() -> None:
        with Connection.connect(dsn, autocommit=True) as connection:
            for _ in range(10):
                before = manager.stats().writes

                def more(before: int = before) -> bool:
                    return manager.stats().writes > before + 30

                eventually(more, "progress")
                connection.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                    " WHERE application_name = 'pgsession' AND pid <> pg_backend_pid()"
                )
        stop.set()

    with Crew() as crew:
        for number in range(30):
            crew.start(update, number)
        crew.start(cut)
    for number, session in enumerate(sessions):
        read = manager.get_session(session.id)
        assert read is not None and read["n"] == acknowledged.get(number, 0)


def test_a_value_the_server_refuses_fails_its_own_caller_only(
    manager: pgsession.SessionManager, dsn: str, schema: str
) -> None:
    with Connection.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("ALTER TABLE {}.session_attributes ADD CHECK (value::text <> '666')").format(
                sql.Identifier(schema)
            )
        )
    sessions = sessions_of(manager, 20)
    failed: list[int] = []

    def update(number: int) -> None:
        sessions[number]["n"] = 666 if number == 7 else number
        try:
            manager.update_session(sessions[number])
        except psycopg.errors.CheckViolation:
            failed.append(number)

    with Crew() as crew:
        for number in range(20):
            crew.start(update, number)
    assert failed == [7]
    for number, session in enumerate(sessions):
        read = manager.get_session(session.id, refresh=True)
        assert read is not None and read["n"] == (0 if number == 7 else number)


def test_an_evicted_session_is_gone_here_at_once(open_manager: OpenAsyncManager) -> None:
    """Not only when the event has made its way round: a login that ended another must not see it live."""
    manager = open_manager(max_sessions=2)
    assert manager._runtime is not None
    manager._runtime.synchronizer._events.on_notification = lambda notification: None
    for _ in range(3):
        sessions = [manager.create_session("u") for _ in range(3)]
        assert manager.get_cached_session(sessions[0].id) is None
        assert manager.get_session(sessions[0].id) is None
        assert manager.get_session(sessions[2].id) is not None
