"""The secret from which the names of the channels follow: made where there is none, shared with no copy, rotated."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession._protocol import events
from tests.leftovers import UNRELEASED
from tests.roles import Roles
from tests.versions import changes

from .conftest import Database, Ear

PATIENCE = 30  # seconds


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


def begun(*targets: Callable[[], Any]) -> list[threading.Thread]:
    threads = [threading.Thread(target=target) for target in targets]
    for thread in threads:
        thread.start()
    return threads


def waits(database: Database, connection: psycopg.Connection[Any]) -> bool:
    query = "SELECT FROM pg_locks WHERE NOT granted AND pid = %s"
    return bool(database.execute(query, connection.info.backend_pid))


def is_cached(node: pgsession.SessionManager, session_id: Any) -> bool:
    read = node.get_session(session_id, touch=False)
    return read is not None and read.from_cache


# ---- whose it is ----


def test_two_sets_of_tables_never_share_a_name(dsn: str, schema: str) -> None:
    """Also where their names look the same when put together: they hear nothing of each other."""
    names = ((f"{schema}.b", "c"), (schema, "b.c"))
    configs = [
        pgsession.Config(
            schema_name=name, table_prefix=prefix, create_schema_if_missing=True, max_staleness=0.3
        )
        for name, prefix in names
    ]
    try:
        with (
            pgsession.SessionManager(dsn, configs[0]) as speaker,
            pgsession.SessionManager(dsn, configs[1]) as other,
        ):
            lock = other.lock("r")
            lock.acquire()
            before = other.stats()
            with speaker.lock("r"):
                speaker.clear_cache()
            speaker.delete_session(speaker.create_session("ann").id)
            until(lambda: other.stats().proofs > before.proofs + 1, "proofs")
            assert speaker.stats().events >= 3
            assert (other.stats().events, other.stats().nodes) == (before.events, before.nodes)
    finally:
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f'SET client_min_messages = warning; DROP SCHEMA "{schema}.b" CASCADE')


def test_each_label_has_a_name_of_its_own(database: Database) -> None:
    connection = database.connect()
    names = {
        connection.execute(database.statements.listen, (label, True)).fetchone()
        for label in ("events", "label 1", "label 2", "label", "")
    }
    assert len(names) == 5 and all(name and len(name[0]) == 34 for name in names)
    assert connection.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (5,)
    assert connection.execute(database.statements.listen, ("events", False)).fetchone() in names
    assert connection.execute("SELECT count(*) FROM pg_listening_channels()").fetchone() == (4,)


@pytest.mark.parametrize("gone", ["DELETE FROM", "TRUNCATE"])
def test_who_finds_no_secret_makes_one(database: Database, gone: str) -> None:
    """And whoever comes to listen meanwhile waits for it: what is announced under it is heard."""
    database.create()
    before = database.ear().channel
    database.execute(f"{gone} app_session_incarnation")
    operator, listener = database.connect(), database.connect()
    ears: list[Ear] = []
    with operator.transaction():
        operator.execute("DELETE FROM app_sessions")
        (thread,) = begun(lambda: ears.append(Ear(listener, database.statements)))
        until(lambda: waits(database, listener), "the listener to wait")
    thread.join(PATIENCE)
    assert ears[0].channel not in (before,) and ears[0].channel == database.ear().channel
    database.incarnation = database.run(database.statements.incarnate())[0]
    session = database.create()
    ears[0].payloads()
    operator.execute("DELETE FROM app_sessions")
    assert ears[0].items() == [events.Deleted(bytes.fromhex(session))]


def test_a_row_that_is_loaded_is_ignored(database: Database) -> None:
    before = database.ear().channel
    (row,) = database.execute("SELECT * FROM app_session_incarnation")
    load = f"INSERT INTO app_session_incarnation VALUES ({', '.join(['%s'] * len(row))})"
    database.execute(load, *row)
    assert database.ear().channel == before
    database.execute("TRUNCATE app_session_incarnation")
    database.execute(load, *row)
    assert database.execute("SELECT count(*) FROM app_session_incarnation") == [(0,)]
    assert database.ear().channel != before


def test_a_row_that_came_by_a_back_door_counts_for_nothing(database: Database) -> None:
    """Copied into other tables with the triggers off, as a dump can be loaded."""
    other = Database(database.dsn, database.schema, "copy_")
    try:
        database.execute("ALTER TABLE copy_session_incarnation DISABLE TRIGGER ALL")
        database.execute("TRUNCATE copy_session_incarnation")
        database.execute("INSERT INTO copy_session_incarnation SELECT * FROM app_session_incarnation")
        read = other.statements.read
        assert database.execute(read, "0" * 32)[0][0] is None
        assert other.ear().channel != database.ear().channel
        assert database.execute(read, "0" * 32)[0][0] not in (None, database.incarnation)
    finally:
        other.close()


# ---- rotation ----


def rotation(database: Database) -> sql.Composed:
    return sql.SQL("SELECT {}()").format(sql.Identifier(database.schema, "app_session_rotate_secret"))


def test_only_the_owner_rotates(roles: Roles, schema: str) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, max_staleness=600)
    with pgsession.SessionManager(roles.dsn("owner"), config) as node:
        before = node.stats().resyncs
        roles.execute("owner", f"GRANT USAGE ON SCHEMA {schema} TO {roles.stranger}")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.execute("stranger", f"SELECT {schema}.session_rotate_secret()")
        roles.execute("owner", f"SELECT {schema}.session_rotate_secret()")
        until(lambda: node.stats().resyncs > before, "a resync")


def test_after_a_rotation_nothing_comes_on_the_old_name(database: Database) -> None:
    session = database.create()
    old = database.ear()
    database.execute(rotation(database))
    new = database.ear()
    assert new.channel != old.channel
    assert database.run(database.statements.incarnate())[0] == database.incarnation
    database.update(session, 1, {"a": 1})
    database.execute("DELETE FROM app_sessions")
    assert len(new.items()) == 2 and old.items() == [events.Moved()]


def test_who_has_read_the_name_is_waited_for_but_not_for_long(database: Database) -> None:
    session = database.create()
    old, operator, owner = database.ear(), database.connect(), database.connect()
    with operator.transaction():
        operator.execute("DELETE FROM app_sessions")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            owner.execute(rotation(database))
        (thread,) = begun(lambda: owner.execute(rotation(database)))
        until(lambda: waits(database, owner), "the rotation to wait")
    thread.join(PATIENCE)
    assert old.items() == [events.Deleted(bytes.fromhex(session)), events.Moved()]


@pytest.mark.parametrize("level", ["READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"])
def test_an_old_snapshot_does_not_bring_back_the_old_name(database: Database, level: str) -> None:
    """What the transaction does is announced on the new name, or the transaction fails."""
    database.create()
    operator = database.connect()
    operator.execute(f"BEGIN ISOLATION LEVEL {level}")  # type: ignore[arg-type]
    operator.execute("SELECT count(*) FROM app_sessions")  # so it has its snapshot, and has not read the name
    database.execute(rotation(database))
    new = database.ear()
    if level == "READ COMMITTED":
        operator.execute("DELETE FROM app_sessions")
    else:
        with pytest.raises(psycopg.errors.SerializationFailure):
            operator.execute("DELETE FROM app_sessions")
    operator.execute("COMMIT")
    deleted = database.execute("SELECT 1 - count(*) FROM app_sessions")[0][0]
    assert len(new.items()) == deleted == (level == "READ COMMITTED")


def test_a_rotation_that_is_undone_moves_nobody(database: Database) -> None:
    session, ear = database.create(), database.ear()
    with database.connection.transaction(force_rollback=True):
        database.execute(rotation(database))
    database.execute("DELETE FROM app_sessions")
    assert ear.items() == [events.Deleted(bytes.fromhex(session))] and database.ear().channel == ear.channel


class Traffic:
    """Writes and reads in two threads, until it is stopped; `wrong` holds what was read too late."""

    def __init__(
        self, node: pgsession.SessionManager, other: pgsession.SessionManager, dsn: str, schema: str
    ) -> None:
        self._node, self._other, self._dsn = node, other, dsn
        self._edit = f"UPDATE {schema}.session_attributes SET value = %s::text::json WHERE session_id = %s"
        self.written = {node.create_session("ann", {"n": 0}).id: (0, 0.0) for _ in range(4)}
        self.wrong: list[Any] = []
        self._stop = threading.Event()
        self._threads = begun(self._write, self._read)

    def _write(self) -> None:
        number = 0
        with psycopg.connect(self._dsn, autocommit=True) as plain:
            while not self._stop.is_set():
                number += 1
                for session_id in self.written:
                    if number % 2:
                        self._other.modify_session(session_id, lambda session: session.set("n", number))  # noqa: B023
                    else:
                        plain.execute(self._edit, (str(number), session_id))  # type: ignore[call-overload]
                    self.written[session_id] = (number, time.monotonic())

    def _read(self) -> None:
        while not self._stop.is_set():
            for session_id in self.written:
                began = time.monotonic()
                number, at = self.written[session_id]
                read = self._node.get_session(session_id, touch=False)
                if read is None or (read["n"] < number and began - at > 3):
                    self.wrong.append((number, read and read["n"], began - at))

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(PATIENCE)


def test_nodes_move_while_others_write_and_serve_nothing_stale(dsn: str, schema: str) -> None:
    """Each write is seen soon, whatever moment of a rotation it falls into: long before a proof is missed."""
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, max_staleness=600)
    with (
        pgsession.SessionManager(dsn, config) as node,
        pgsession.SessionManager(dsn, config) as other,
        psycopg.connect(dsn, autocommit=True) as owner,
    ):
        traffic = Traffic(node, other, dsn, schema)
        try:
            for _ in range(5):
                before = [moving.stats().resyncs for moving in (node, other)]
                owner.execute(f"SELECT {schema}.session_rotate_secret()")  # type: ignore[arg-type]
                for moving, resyncs in zip((node, other), before, strict=True):
                    until(
                        lambda m=moving, r=resyncs: m.stats().resyncs > r and m._coherence.in_sync, "a move"
                    )  # type: ignore[misc]
        finally:
            traffic.stop()
        assert traffic.wrong == [] and node.stats().malformed_events == 0
        for session_id, (number, _) in traffic.written.items():
            until(lambda i=session_id, n=number: is_cached(node, i) and node.get_session(i)["n"] == n, "it")  # type: ignore[misc]


# ---- copies ----


@pytest.fixture
def databases(dsn: str, schema: str) -> Iterator[tuple[str, str, str]]:
    """The names of three databases that are there no more after the test."""
    names = (f"here_{schema}", f"copy_{schema}", f"former_{schema}")
    yield names
    with psycopg.connect(dsn, autocommit=True) as admin:
        for name in names:
            admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]


def test_a_copy_in_the_place_of_a_database_is_another_one(dsn: str, databases: tuple[str, str, str]) -> None:
    """Made with CREATE DATABASE ... TEMPLATE, and put there by renaming, with other contents of the same version."""
    here, copy, former = databases
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=1)
    role = "UPDATE session_attributes SET value = %s::text::json"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"CREATE DATABASE {here}")  # type: ignore[arg-type]
        with pgsession.SessionManager(make_conninfo(dsn, dbname=here), config) as node:
            session = node.create_session("ann", {"role": "user"})
        until(lambda: tried(admin, f"CREATE DATABASE {copy} TEMPLATE {here}"), "the copy")
        with psycopg.connect(make_conninfo(dsn, dbname=copy), autocommit=True) as connection:
            connection.execute(role, ('"guest"',))
        with pgsession.SessionManager(make_conninfo(dsn, dbname=here), config) as node:
            with psycopg.connect(make_conninfo(dsn, dbname=here), autocommit=True) as connection:
                connection.execute(role, ('"root"',))
            until(lambda: is_cached(node, session.id), "the cache")
            assert contents(node, session.id) == ("root", 1)
            for old, new in ((here, former), (copy, here)):
                admin.execute(f"ALTER DATABASE {old} ALLOW_CONNECTIONS false")  # type: ignore[arg-type]
                admin.execute(
                    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s", (old,)
                )
                until(
                    lambda old=old, new=new: tried(admin, f"ALTER DATABASE {old} RENAME TO {new}"),
                    "the rename",
                )  # type: ignore[misc]
            admin.execute(f"ALTER DATABASE {here} ALLOW_CONNECTIONS true")  # type: ignore[arg-type]
            # Until the node notices that its connections have ended it may still answer from memory.
            until(lambda: contents(node, session.id) == ("guest", 1), "the other database")
            until(lambda: is_cached(node, session.id), "the cache")
            assert contents(node, session.id) == ("guest", 1)


def tried(admin: psycopg.Connection[Any], statement: str) -> bool:
    """Do it, unless somebody is just connecting to the database, or leaving it."""
    try:
        admin.execute(statement)  # type: ignore[call-overload]
    except psycopg.errors.ObjectInUse:
        return False
    return True


def contents(node: pgsession.SessionManager, session_id: Any) -> tuple[str, int] | None:
    """Return what the node says, None while it has no connection to say it."""
    try:
        read = node.get_session(session_id)
    except (psycopg.Error, pgsession.PgSessionError):
        return None
    return None if read is None else (read["role"], changes(read))


# ---- locks ----


@UNRELEASED
def test_a_truncate_of_the_locks_is_told_to_their_holders(dsn: str, schema: str) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with (
        pgsession.SessionManager(dsn, config) as node,
        psycopg.connect(dsn, autocommit=True) as operator,
    ):
        session = node.create_session("ann")
        for tables in (
            "session_locks",
            "sessions, {0}.session_locks",
            "session_attributes, {0}.session_locks",
        ):
            tied = [None, session.id] if tables == "session_locks" else [None]
            locks = [
                node.lock(f"r{n}", session_id=tied[n % len(tied)], lease_time=600, heartbeat_interval=300)
                for n in range(10)
            ]
            for lock in locks:
                lock.acquire()
            operator.execute(f"TRUNCATE {{0}}.{tables}".format(schema))  # type: ignore[arg-type]
            until(lambda: all(lock.lost.is_set() for lock in locks), "the holders to know")  # noqa: B023
            assert node.lock("r1").acquire(blocking=False)
            operator.execute(f"DELETE FROM {schema}.session_locks")  # type: ignore[arg-type]
