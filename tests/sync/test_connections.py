# Generated from tests/aio/test_connections.py by tools/async_to_sync.py: never edit.

"""Connections of the pool: who waits is served first, and what is dead or leads elsewhere is not used."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql
from psycopg.adapt import Loader
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

import pgsession
from pgsession._database import script, statements
from pgsession._sync import server
from tests.crew import Crew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

# -- the queue -------------------------------------------------------------------------------------------------


def soon() -> float:
    return time.monotonic() + 20


def test_who_waits_is_served_before_who_comes(open_manager: OpenAsyncManager) -> None:
    """With one connection for all, nobody starves while it lies idle."""
    manager = open_manager(pool_max_size=1)
    sessions = [manager.create_session(f"u{number}") for number in range(16)]
    manager.clear_cache()
    with Crew() as crew:
        for session in sessions:
            crew.start(manager.get_session, session.id)
        found = crew.join(timeout=8)  # a pool would let them wait for 10 s
    assert [read.id for read in found] == [session.id for session in sessions]


def test_a_newcomer_does_not_overtake_the_queue(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(pool_max_size=1)
    pool = manager._open_runtime().connections
    order: list[int] = []

    def use(number: int) -> None:
        with pool.connection(soon()):
            order.append(number)

    def waiting(count: int) -> None:
        def so() -> bool:
            return manager._open_runtime().pool.get_stats()["requests_waiting"] == count

        eventually(so)

    with Crew() as crew:
        with pool.connection(soon()):
            for number in range(5):
                crew.start(use, number)
                waiting(number + 1)
        use(5)
    assert order == [0, 1, 2, 3, 4, 5]


def test_the_sizes_are_settings(open_manager: OpenAsyncManager) -> None:
    pool = (open_manager(pool_min_size=2, pool_max_size=3))._open_runtime().pool
    assert (pool.min_size, pool.max_size) == (2, 3)


# -- dead connections ------------------------------------------------------------------------------------------


def test_what_the_server_ended_with_a_message_is_not_written_on(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    manager = open_manager(make_conninfo(dsn, application_name=schema), listener_conninfo=dsn)
    session = manager.create_session("u", {"n": 0})
    for n in range(6):
        tables.run(
            "SELECT pg_terminate_backend(pid, 20000) FROM pg_stat_activity WHERE application_name = %s",
            schema,
        )
        session["n"] = n
        manager.update_session(session)


def test_news_for_an_idle_connection_are_not_its_end(
    manager: pgsession.SessionManager, tables: Tables
) -> None:
    """A connection may have settings and notifications to read."""
    pool = manager._open_runtime().connections
    with pool.connection(soon()) as connection:
        connection.execute("LISTEN news")
        pid = connection.info.backend_pid
        heard: list[str] = []
        connection.add_notify_handler(lambda notification: heard.append(notification.payload))
    for n in range(3):
        tables.run("SELECT pg_notify('news', %s)", str(n))
        with pool.connection(soon()) as connection:
            assert connection.info.backend_pid == pid

            def told(connection: Connection[Any] = connection, n: int = n) -> bool:
                connection.execute("SELECT 1")
                return heard == [str(number) for number in range(n + 1)]

            eventually(told)


# -- exceptions from outside -----------------------------------------------------------------------------------


class Interrupt(Exception):
    """What frameworks raise into whoever takes too long; no error of psycopg's."""


class Interrupting(Connection[Any]):
    """Raises at the end of a wait for the server, the `fuse`-th from now, when the statement is sent and done."""

    fuse = 0

    def wait(self, *args: Any, **options: Any) -> Any:
        result = super().wait(*args, **options)
        if Interrupting.fuse:
            Interrupting.fuse -= 1
            if not Interrupting.fuse:
                raise Interrupt
        return result


@contextmanager
def interrupting(dsn: str) -> Iterator[ConnectionPool[Any]]:
    with ConnectionPool(
        dsn, connection_class=Interrupting, min_size=1, max_size=2, timeout=10, open=False
    ) as pool:
        yield pool


def test_an_exception_from_outside_reaches_its_caller_unchanged(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    """The pool is not in autocommit mode, psycopg's default; nothing is retried, and it does not run dry."""
    used: list[Connection[Any]] = []

    def ask(connections: Any) -> None:
        with connections.connection(soon()) as connection:
            used.append(connection)
            Interrupting.fuse = 1
            connection.execute("SELECT 1")

    with interrupting(dsn) as pool:
        connections = (open_manager(pool, max_staleness=600))._open_runtime().connections
        for _ in range(5):
            with pytest.raises(Interrupt):
                ask(connections)
            assert used[-1].closed, "its state is not known"
        with connections.connection(soon()) as one, connections.connection(soon()) as other:
            assert one is not other
            one.execute("SELECT 1")


def test_a_write_that_was_interrupted_is_unknown(dsn: str, open_manager: OpenAsyncManager) -> None:
    with interrupting(dsn) as pool:
        manager = open_manager(pool, max_staleness=600)
        session = manager.create_session("u", {"n": 0})
        for n in range(1, 4):
            session["n"] = n
            Interrupting.fuse = 2  # the first wait is for autocommit
            with pytest.raises(pgsession.WriteOutcomeUnknown):
                manager.update_session(session)
            fresh = manager.get_session(session.id, refresh=True)
            assert fresh is not None and fresh["n"] == n, "it was written"
            session = fresh


def test_a_connection_that_could_not_be_set_up_is_closed(dsn: str) -> None:
    """A pool throws it away without that: it would stay open until the garbage is collected."""
    with Connection.connect(dsn) as connection:
        with pytest.raises(psycopg.errors.DivisionByZero):
            connection.execute("SELECT 1 / 0")
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            server._limit_statements(1.0, connection)
        assert connection.closed


def test_a_write_whose_second_commit_fails_is_unknown(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first commit has happened: it is there, though nobody can say if a crash would spare it."""
    manager = open_manager(max_staleness=60)
    session = manager.create_session("u", {"n": 0})
    monkeypatch.setattr(statements, "_DURABLE", script.step("SELECT 1 / 0"))
    session["n"] = 1
    with pytest.raises(pgsession.WriteOutcomeUnknown, match="perhaps not durable"):
        manager.update_session(session)
    monkeypatch.undo()
    read = manager.get_session(session.id)
    assert read is not None and read["n"] == 1 and not read.from_cache


def test_a_read_that_was_interrupted_is_not_tried_again(dsn: str, open_manager: OpenAsyncManager) -> None:
    with interrupting(dsn) as pool:
        manager = open_manager(pool, max_staleness=600)
        manager.create_session("u")
        for _ in range(4):  # twice as often as there are connections
            Interrupting.fuse = 2  # the first wait is for autocommit
            with pytest.raises(Interrupt):
                manager.list_user_sessions("u")
        assert len(manager.list_user_sessions("u")) == 1


# -- adapters of the connection's owner ------------------------------------------------------------------------


class Affirmative(Loader):
    """Reads every boolean as true, since it is a text that is not empty."""

    def load(self, data: Any) -> str:
        return "yes" if bytes(data) == b"t" else "no"


@pytest.mark.parametrize("everywhere", [False, True], ids=["of the pool", "of the program"])
def test_adapters_of_others_do_not_matter(dsn: str, open_manager: OpenAsyncManager, everywhere: bool) -> None:
    def configure(connection: Connection[Any]) -> None:
        connection.adapters.register_loader("bool", Affirmative)

    before = psycopg.adapters.get_loader(psycopg.adapters.types["bool"].oid, psycopg.pq.Format.TEXT)
    assert before is not None
    if everywhere:
        psycopg.adapters.register_loader("bool", Affirmative)
    try:
        with ConnectionPool(
            dsn, configure=None if everywhere else configure, min_size=1, max_size=2, open=False
        ) as pool:
            manager = open_manager(pool)
            with manager.lock("r"):
                assert not manager.lock("r").acquire(blocking=False), "one lock, two holders"
            assert manager.create_session("u", {"flag": True})
    finally:
        psycopg.adapters.register_loader("bool", before)


def test_a_check_of_the_callers_that_nobody_answers_is_not_waited_for(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    """The pool's own time limit does not bound it."""
    with FaultProxy(dsn) as way:
        check = ConnectionPool.check_connection
        with ConnectionPool(way.conninfo, min_size=1, max_size=2, check=check, open=False) as pool:
            manager = open_manager(pool, listener_conninfo=dsn, operation_timeout=1)
            session = manager.create_session("u", {"n": 1})
            way.freeze()
            began = time.monotonic()
            with pytest.raises(pgsession.OperationTimeout):
                manager.list_user_sessions("u")
            with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
                manager.update_session(session, group_id="g")
            assert time.monotonic() - began < 6
            way.forward()

            def written() -> bool:
                try:
                    manager.update_session(session, group_id="h")
                except (pgsession.OperationTimeout, pgsession.DatabaseUnavailable):
                    return False
                return True

            eventually(written, "a write")
            manager.close()


def test_a_write_that_waits_leaves_the_only_connection_to_the_others(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager(pool_max_size=1, operation_timeout=20)
    held, free = [manager.create_session(f"u{number}", {"n": 0}) for number in range(2)]
    for table, column in (("sessions", "id"), ("session_attributes", "session_id")):
        with Connection.connect(dsn) as foreign, Crew() as crew:
            foreign.execute(
                sql.SQL("SELECT FROM {} WHERE {} = %s FOR UPDATE").format(
                    sql.Identifier(schema, table), sql.Identifier(column)
                ),
                [held.id],
            )
            held["n"] = 1 + held["n"]
            crew.start(manager.update_session, held)
            began = time.monotonic()
            for number in range(10):
                free["n"] = number
                manager.update_session(free)
            assert time.monotonic() - began < 10
            foreign.rollback()
