"""Session ids, values, users, tokens and the channels' names are in no log and no error's text at default settings.

Marked ones are driven through what can fail or wait. That they would be found is shown with logging switched on.
"""

from __future__ import annotations

import ctypes
import enum
import hashlib
import logging
import re
import threading
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Literal, LiteralString
from unittest import mock
from uuid import UUID, uuid4

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._sync import store
from pgsession.embedded import EmbeddedServer
from tests.conftest import needs_postgres, start_server
from tests.tables import Tables

PATIENCE = 30  # seconds
SHORT = 1.0  # what a call may take on a node that is to wait in vain
CHANNEL = re.compile(r"\bp_[0-9a-f]{32}\b")
WORDY = {  # settings with which the server's log has all of it
    "log_statement": "all",
    "log_parameter_max_length": "-1",
    "log_parameter_max_length_on_error": "-1",
    "log_error_verbosity": "verbose",
    "log_lock_waits": "on",
}


class Kind(enum.Enum):
    GOOD = "good"


class Closed(msgspec.Struct, forbid_unknown_fields=True):
    a: int = 0


class Interrupt(BaseException):
    pass


@pytest.fixture(scope="module")
def server() -> Iterator[EmbeddedServer]:
    """One whose logging is as PostgreSQL has it by default."""
    needs_postgres()
    with start_server(settings={"shared_preload_libraries": "pg_stat_statements"}) as server:
        yield server


@pytest.fixture
def dsn(server: EmbeddedServer) -> str:
    return server.conninfo


class Marked:
    """What must not be found, and where it is looked for."""

    def __init__(self, server: EmbeddedServer, schema: str, said: list[logging.LogRecord]) -> None:
        self.tables = Tables(server.conninfo, schema)
        self.value = f"VALUE{uuid4().hex}"
        self.user = f"USER{uuid4().hex}"
        self.signer = pgsession.Signer(b"k" * 32)
        self.errors: list[BaseException] = []
        self._marks: set[str] = {self.value, self.user}
        self._server = server
        self._schema = schema
        self._said = said
        self._start = server.log.stat().st_size

    @contextmanager
    def node(self, database: str | None = None, **fields: Any) -> Iterator[pgsession.SessionManager]:
        config = pgsession.Config(schema_name=self._schema, create_schema_if_missing=True, **fields)
        with pgsession.SessionManager(database or self._server.conninfo, config, signer=self.signer) as node:
            yield node

    def session(self, node: pgsession.SessionManager, **options: Any) -> pgsession.Session:
        made = node.create_session(self.user, {"v": self.value}, group_id=self.user, **options)
        self.mark(made.id)
        self._marks.add(str(node.token(made))[30:])
        return made

    def mark(self, session_id: UUID) -> UUID:
        token = self.signer._session_token(session_id.bytes, 0, 1)
        self._marks |= {str(session_id), session_id.hex, repr(session_id.bytes)[2:-1], token, token[30:]}
        return session_id

    def fails(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> BaseException:
        """The error in which the call must end."""
        try:
            answer = call(*arguments, **options)
        except (Exception, Interrupt) as error:
            self.errors.append(error)
            return error
        raise AssertionError(f"{call} {arguments} answered {answer!r}")

    def begin(self, *calls: Callable[[], Any]) -> list[threading.Thread]:
        """Each in a thread of its own; all must fail."""
        threads = [threading.Thread(target=self.fails, args=(call,)) for call in calls]
        for thread in threads:
            thread.start()
        return threads

    def join(self, threads: list[threading.Thread]) -> None:
        for thread in threads:
            thread.join(PATIENCE)
            assert not thread.is_alive()

    @contextmanager
    def held(self, statement: LiteralString, *parameters: Any) -> Iterator[psycopg.Connection[Any]]:
        with psycopg.connect(self._server.conninfo) as connection:
            connection.execute(self.tables.query(statement), parameters)
            yield connection
            connection.rollback()

    def in_log(self) -> str:
        with self._server.log.open(errors="replace") as log:
            log.seek(self._start)
            return log.read()

    def found(self, text: str) -> list[str]:
        return sorted({mark for mark in self._marks if mark in text} | set(CHANNEL.findall(text)))

    def check(self) -> None:
        """Nothing is in the server's log, in what the library has logged, in the errors that it has raised."""
        assert not self.found(self.in_log()), _lines(self.in_log(), self.found(self.in_log()))
        formatter = logging.Formatter("%(message)s")
        for record in self._said:
            assert not self.found(formatter.format(record)), formatter.format(record)
        for error in self.errors:
            told = "\n".join([*traceback.format_exception(error), *_texts(error)])
            assert not self.found(told), _lines(told, self.found(told))

    def ended_with(self, *kinds: type[BaseException]) -> None:
        found = {type(error) for error in self.errors}
        assert found >= set(kinds), found


def _texts(error: BaseException | None) -> list[str]:
    """What an error, what caused it and what it came in place of show."""
    if error is None:
        return []
    own = [str(error), repr(error), repr(error.args), *getattr(error, "__notes__", ())]
    return own + _texts(error.__cause__) + _texts(error.__context__)


def _lines(text: str, marks: list[str]) -> str:
    return "\n".join(line for line in text.split("\n") if any(mark in line for mark in marks))


class Catcher(logging.Handler):
    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.records: list[logging.LogRecord] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)


@pytest.fixture
def marked(server: EmbeddedServer, schema: str) -> Iterator[Marked]:
    catcher = Catcher()
    loggers = [logging.getLogger(name) for name in ("pgsession", "psycopg", "psycopg.pool", "asyncio")]
    before = [logger.level for logger in loggers]
    root = logging.getLogger()
    root.addHandler(catcher)
    for logger in loggers:
        logger.setLevel(logging.DEBUG)
    try:
        yield Marked(server, schema, catcher.records)
    finally:
        root.removeHandler(catcher)
        for logger, level in zip(loggers, before, strict=True):
            logger.setLevel(level)


def short_name(session_id: UUID) -> str:
    return hashlib.sha256(session_id.bytes).hexdigest()[:8]


def until(condition: Callable[[], Any], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


# ---- each a way to fail or to wait ----


def wait_in_vain(marked: Marked) -> None:
    """For tables, rows and locks that somebody holds: the server cancels what waits, and logs the statement."""
    with marked.node(
        operation_timeout=SHORT, last_access_update_interval=0.2, cleanup_interval=0.2, max_staleness=600
    ) as node:
        one, other, free = (marked.session(node) for _ in range(3))
        one["v"] = marked.value + "2"
        lock = node.lock(f"session:{one.id}", session_id=one.id)
        assert lock.acquire(blocking=False)
        with marked.held("SELECT FROM {session_attributes} WHERE session_id = %s FOR UPDATE", one.id):
            marked.join(marked.begin(lambda: node.update_session(one)))
        with marked.held("LOCK TABLE {sessions}, {session_attributes}, {session_locks}"):
            threads = marked.begin(
                lambda: node.update_session(one),
                lambda: node.delete_session(other.id),
                lambda: node.create_session(marked.user, {"v": marked.value}),
                lambda: node.get_session(other.id, refresh=True),
                lambda: node.list_user_sessions(marked.user),
                lambda: node.list_group_sessions(marked.user),
                lambda: node.delete_user_sessions(marked.user, keep=free.id),
                lambda: node.delete_group_sessions(marked.user),
                lambda: node.delete_attribute_from_user_sessions(marked.user, "v"),
                lambda: node.lock(str(other.id)).acquire(timeout=SHORT / 2),
                lambda: lock.extend(1),
            )
            until(
                lambda: len(marked.tables.run("SELECT 1 FROM pg_locks WHERE NOT granted")) > 5, "all who wait"
            )
            shown = watched(
                marked, "SELECT query FROM pg_stat_activity UNION ALL SELECT setting FROM pg_settings"
            )
            assert f'"{marked.tables.schema}"' in shown and not marked.found(shown)
            marked.join(threads)
        node.get_session(free.id)
    marked.ended_with(pgsession.OperationTimeout)
    assert "canceling statement due to statement timeout" in marked.in_log()
    assert "canceling statement due to lock timeout" in marked.in_log()


def watched(marked: Marked, query: LiteralString) -> str:
    """What a role that may watch everything sees."""
    with psycopg.connect(marked.tables.dsn, autocommit=True) as watcher:
        watcher.execute("SET ROLE pg_monitor")
        return "\n".join(str(row) for row in watcher.execute(query))


def deadlock(marked: Marked) -> None:
    """With more patience than the library has: it gives up before the server looks for deadlocks."""
    with mock.patch.object(store, "BATCH_LOCK_TIMEOUT", 20_000), marked.node() as node:
        first, last = sorted((marked.session(node) for _ in range(2)), key=lambda session: session.id)
        update: LiteralString = "UPDATE {sessions} SET updated_at = now() WHERE id = %s"
        waits: LiteralString = "SELECT pid FROM pg_locks WHERE NOT granted AND transactionid::text = %s"
        with marked.held(update, first.id) as one, marked.held(update, last.id) as other:
            other.execute("SET LOCAL deadlock_timeout = '20s'")  # so it is ours that is ended
            ends = [holder.execute("SELECT pg_current_xact_id()::text").fetchone() for holder in (one, other)]
            (first_end,), (last_end,) = [end or ("",) for end in ends]
            threads = marked.begin(lambda: node.delete_user_sessions(marked.user))
            until(lambda: marked.tables.run(waits, first_end), "our wait for the first")
            one.rollback()
            until(lambda: marked.tables.run(waits, last_end), "our wait for the last")
            other.execute(marked.tables.query(update), (first.id,))
            marked.join(threads)
    marked.ended_with(psycopg.errors.DeadlockDetected)
    assert "deadlock detected" in marked.in_log()


def conflict(marked: Marked) -> None:
    with marked.node(max_sessions=2, max_sessions_policy="reject") as a, marked.node() as b:
        session = marked.session(a)
        digits: LiteralString = "SELECT left(encode(sha256(uuid_send(id)), 'hex'), 8) FROM {sessions}"
        assert marked.tables.one(digits) == short_name(session.id), "what SECURITY.md says"
        held = a.get_session(session.id)
        assert held is not None
        session["v"] = marked.value + "3"
        b.update_session(session, notify=False)
        held["v"] = marked.value + "4"
        marked.fails(a.update_session, held, check="session")
        marked.fails(a.update_session, held, check="attributes")
        marked.session(a)
        marked.fails(a.create_session, marked.user)
        b.delete_session(session.id)
        marked.fails(a.update_session, held)
        marked.fails(b.modify_session, session.id, lambda _: None)
        held.invalidate()
        marked.fails(held.__setitem__, "v", marked.value)
    marked.ended_with(
        pgsession.SessionVersionConflict,
        pgsession.AttributeVersionConflict,
        pgsession.SessionNotFoundError,
        pgsession.TooManySessionsError,
    )
    assert short_name(session.id) in str(marked.errors[0])


def refused(marked: Marked) -> None:
    """What is wrong, too long, or not of the type that was asked for."""
    value = marked.value
    with marked.node(max_session_size=4000, max_attribute_length=2000, max_attributes=4) as node:
        session = marked.session(node)
        for bad in (
            value + "\0",
            value + "\ud800",
            {value: object()},
            [value, float("inf")],
            value * 100,
            msgspec.Raw(b'"' + value.encode() + b"\xff"),
            msgspec.Raw(b"[" + value.encode()),
            object(),
        ):
            marked.fails(session.__setitem__, "k", bad)
        for user in (marked.user * 20, marked.user + "\0", marked.user + "\ud800", "", [marked.user]):
            marked.fails(node.create_session, user)
            marked.fails(node.list_user_sessions, user)
            marked.fails(node.create_session, marked.user, group_id=user)
        for malformed in (str(session.id) + "0", session.id.hex + "-", session.id.bytes[1:], [session.id]):
            marked.fails(node.get_session, malformed)
        marked.fails(node.lock, marked.user + "\ud800")
        for kind in (Kind, int, Literal["a"], list[Kind], dict[str, int], UUID):
            marked.fails(session.get, "v", type=kind)
        session["d"] = {value: value}
        node.update_session(session)
        marked.fails(session.get, "d", type=Closed)
        marked.fails(session.get, "d", type=dict[str, Kind])
        for number in range(4):
            session[f"n{number}"] = value
        marked.fails(node.update_session, session)
        del session["n1"], session["n2"], session["n3"]
        session["l"], session["n0"] = [value] * 45, [value] * 45
        session["v"] = [value] * 45
        marked.fails(node.update_session, session)
        assert repr(session).startswith(
            f"<Session {short_name(session.id)}, version {session.version}, keys ["
        )
        token = node.token(session)
        assert token is not None
        for forged in (token[:-1], token + "A", token[::-1], token + "\ud800", token.encode()):
            marked.fails(marked.signer.verify, forged)
            assert node.get_session_by_token(forged) is None  # type: ignore[arg-type]
        for shown in (session, session._record, node.lock(str(session.id)), node, marked.signer):
            assert not marked.found(repr(shown)), repr(shown)
    marked.ended_with(
        pgsession.AttributeTooLargeError,
        pgsession.AttributeTypeError,
        pgsession.SessionTooLargeError,
        pgsession.TooManyAttributesError,
        pgsession.InvalidTokenError,
    )


def locks(marked: Marked) -> None:
    with marked.node() as a, marked.node(operation_timeout=SHORT) as b:
        session = marked.session(a)
        name = f"session:{session.id.hex}"
        with a.lock(name, session_id=session.id) as held:
            marked.fails(held.acquire)
            marked.fails(b.lock(name, max_retries=0).__enter__)
            marked.fails(b.lock(name).release)
            marked.tables.run("TRUNCATE {session_locks}")
            until(held.lost.is_set, "the loss")
            marked.fails(held.extend, 1)
            marked.fails(held.release)
        tied = a.lock(name, session_id=session.id)
        assert tied.acquire()
        b.delete_session(session.id)
        until(tied.lost.is_set, "the end of the session")
        marked.fails(tied.release)
        marked.fails(a.lock(name, session_id=session.id).acquire)
        with marked.held("LOCK TABLE {session_locks}"):
            kept = b.lock(str(session.id))
            marked.fails(kept.acquire, timeout=0.05)
    marked.ended_with(
        pgsession.LockNotAcquiredError, pgsession.LockExpiredError, pgsession.SessionNotFoundError
    )


def unreadable(marked: Marked) -> None:
    """What plain SQL has stored, or sent to the nodes, and nobody can read."""
    with marked.node(max_staleness=0.5) as node, psycopg.connect(marked.tables.dsn, autocommit=True) as sql:
        session = marked.session(node)
        insert = marked.tables.query(
            "INSERT INTO {session_attributes} (session_id, key, value) VALUES (%s, %s, %s)"
        )
        for value in ("[" * 1500 + f'"{marked.value}"' + "]" * 1500, f'"{marked.value}\\ud800"'):
            lost = marked.session(node)
            sql.execute(insert, (lost.id, "k", value))
            marked.fails(node.get_session, lost.id, refresh=True)
            marked.fails(node.list_user_sessions, marked.user)
            node.delete_session(lost.id)
        sql.execute(insert, (session.id, "huge", "1e999"))
        again = node.get_session(session.id, refresh=True)
        assert again is not None
        marked.fails(again.__getitem__, "huge")
        statement = Statements(marked.tables.schema).notify
        before = node.stats().malformed_events
        for payload in ("", marked.value, f"x{session.id.hex}", f"c{session.id}:1"):
            sql.execute(statement, ("0" * 16, payload))
        until(lambda: node.stats().malformed_events >= before + 3, "what cannot be understood")
        assert events.parse(marked.value).malformed
        change = marked.tables.query("UPDATE {sessions} SET id = %s WHERE id = %s")
        with pytest.raises(psycopg.errors.IntegrityConstraintViolation):
            sql.execute(change, (marked.mark(uuid4()), session.id))
    assert "the id of a session cannot be changed" in marked.in_log()


def fails_within(marked: Marked) -> None:
    """A trigger of somebody else's, on what our functions write: its error comes with all that called it."""
    with marked.node() as node:
        session = marked.session(node)
        marked.tables.run(
            "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
            " $$BEGIN RAISE 'not today' USING ERRCODE = 'P1234'; END$$;"
            "CREATE TRIGGER refuse BEFORE INSERT OR UPDATE OR DELETE ON {session_attributes}"
            " FOR EACH ROW EXECUTE FUNCTION {schema}.refuse()"
        )
        session["v"] = marked.value + "5"
        for call in (
            lambda: node.update_session(session),
            lambda: node.create_session(marked.user, {"v": marked.value}),
            lambda: node.delete_session(session.id),
            lambda: node.delete_user_sessions(marked.user),
            lambda: node.delete_attribute_from_user_sessions(marked.user, "v"),
        ):
            assert marked.fails(call).args == ("not today",)
        marked.tables.run("DROP TRIGGER refuse ON {session_attributes}")
    log = marked.in_log()
    assert "CONTEXT:  PL/pgSQL function" in log and "SQL statement" in log and "STATEMENT:  " in log


def loss(marked: Marked) -> None:
    """Of connections in the middle of writes, and of the listener; and an exception from outside."""
    with marked.node(max_staleness=0.5) as node:
        session, other = marked.session(node), marked.session(node)
        session["v"] = other["v"] = marked.value + "6"
        with marked.held("SELECT FROM {sessions} WHERE user_id = %s FOR UPDATE", marked.user):
            waits: LiteralString = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'"
            waiting = marked.begin(lambda: node.update_session(session))
            interrupted = marked.begin(lambda: node.update_session(other))
            until(lambda: marked.tables.run(waits), "the write's wait")
            ctypes.pythonapi.PyThreadState_SetAsyncExc(
                ctypes.c_ulong(interrupted[0].ident or 0), ctypes.py_object(Interrupt)
            )
            until(
                lambda: (
                    marked.tables.run(
                        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
                        " AND state <> 'idle in transaction'"
                    )
                    and not waiting[0].is_alive()
                ),
                "the end of the connections",
            )
            marked.join(waiting + interrupted)
        until(lambda: node.check_health().healthy, "the listener")
        node.delete_user_sessions(marked.user)
    marked.ended_with(pgsession.WriteOutcomeUnknown, Interrupt)
    assert "terminating connection due to administrator command" in marked.in_log()


WAYS = [wait_in_vain, deadlock, conflict, refused, locks, unreadable, fails_within, loss]


@pytest.mark.parametrize("way", WAYS)
def test_nothing_of_a_session_is_in_a_log(marked: Marked, way: Callable[[Marked], None]) -> None:
    way(marked)
    marked.check()


@pytest.mark.parametrize("way", [wait_in_vain, deadlock, fails_within])
def test_it_would_be_found(marked: Marked, server: EmbeddedServer, way: Callable[[Marked], None]) -> None:
    """With logging of statements and their parameters switched on, by an operator, it is all there."""
    with psycopg.connect(server.conninfo, autocommit=True) as admin:
        try:
            for name, value in WORDY.items():
                admin.execute(f"ALTER SYSTEM SET {name} = '{value}'")  # type: ignore[call-overload]
            admin.execute("SELECT pg_reload_conf()")
            way(marked)
        finally:
            admin.execute("ALTER SYSTEM RESET ALL")
            admin.execute("SELECT pg_reload_conf()")
    found = marked.found(marked.in_log())
    assert marked.value in found and marked.user in found
    with pytest.raises(AssertionError):
        marked.check()


def test_a_constraint_of_somebody_elses_shows_the_row(marked: Marked) -> None:
    """PostgreSQL logs the row that breaks it; an error's text does not have it, its `diag` has."""
    with marked.node() as node:
        marked.session(node)
        marked.tables.run("ALTER TABLE {session_attributes} ADD CHECK (key <> 'k')")
        error = marked.fails(node.create_session, marked.user, {"k": marked.value})
    assert isinstance(error, psycopg.errors.CheckViolation)
    assert not marked.found("\n".join(_texts(error))), _texts(error)
    assert marked.value in (error.diag.message_detail or "")
    assert marked.value in marked.in_log(), "log_error_verbosity = terse leaves it out"


def test_a_role_that_watches_the_server_sees_no_values(marked: Marked) -> None:
    """With `track = 'all'` pg_stat_statements has the names of channels, as those are in statements of LISTEN."""
    with psycopg.connect(marked.tables.dsn, autocommit=True) as admin:
        admin.execute("CREATE EXTENSION IF NOT EXISTS pg_stat_statements")
        for track in ("top", "all"):
            admin.execute("SELECT pg_stat_statements_reset()")
            database = make_conninfo(marked.tables.dsn, options=f"-c pg_stat_statements.track={track}")
            with marked.node(database) as node:
                session = marked.session(node)
                session["v"] = marked.value + "7"
                node.update_session(session)
                node.list_user_sessions(marked.user)
                with node.lock(str(session.id), session_id=session.id):
                    pass
                node.delete_user_sessions(marked.user)
                shown = watched(marked, "SELECT query FROM pg_stat_statements")
                shown += watched(marked, "SELECT query FROM pg_stat_activity")
            assert f'"{marked.tables.schema}"' in shown
            found = marked.found(shown)
            assert [mark for mark in found if not CHANNEL.match(mark)] == []
            assert bool(found) == (track == "all")
