# Generated from tests/aio/test_pools.py by tools/async_to_sync.py: never edit.

"""What a manager is connected by: a pool of its own, a pool of the caller's in whatever mode, a listener, a DSN."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import Connection, RawCursor
from psycopg.conninfo import make_conninfo
from psycopg.rows import class_row, dict_row, scalar_row
from psycopg_pool import ConnectionPool

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually


def exercise(manager: pgsession.SessionManager) -> None:
    """A round through everything that talks to the database."""
    session = manager.create_session("Jürgen ☃", {"city": "Łódź", "cart": ["book"]}, group_id="g")
    session["cart"].append("pen")
    manager.update_session(session, check="session")
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and dict(read) == {"city": "Łódź", "cart": ["book", "pen"]}
    assert [found.id for found in manager.list_user_sessions("Jürgen ☃")] == [session.id]
    assert [found.id for found in manager.list_group_sessions("g")] == [session.id]
    assert manager.delete_attribute_from_user_sessions("Jürgen ☃", "city") == 1
    with manager.lock("rebuild ☃", session_id=session.id) as lock:
        lock.extend(100)
        assert lock.token is not None and not manager.lock("rebuild ☃").acquire(blocking=False)
    manager._open_runtime().maintenance.write_accesses()
    assert manager._open_runtime().maintenance.clean_up()
    assert manager.stats().written_accesses == 1
    manager.clear_cache()
    manager.evict_user_sessions("Jürgen ☃")
    session["x"] = 1
    with pytest.raises(pgsession.SessionVersionConflict):
        manager.update_session(session, check="session")
    assert manager.delete_session(session.id)
    other = manager.create_session("other", group_id="g")
    assert manager.delete_user_sessions("other", keep=other.id) == 0
    assert manager.delete_group_sessions("g") == 1
    assert manager.delete_all_sessions() == 0
    health = manager.check_health()
    assert health.healthy and health.database is None


class Anything:
    def __init__(self, **columns: Any) -> None:
        raise AssertionError("the pool's row factory was used")


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"autocommit": True, "row_factory": dict_row, "prepare_threshold": 0},
        {"row_factory": class_row(Anything), "cursor_factory": RawCursor, "client_encoding": "latin1"},
        {"row_factory": scalar_row, "autocommit": True, "client_encoding": "sql_ascii"},
        {
            "prepare_threshold": None,
            "options": "-c bytea_output=escape -c standard_conforming_strings=off -c escape_string_warning=off"
            " -c default_transaction_read_only=on -c default_transaction_isolation=serializable"
            " -c timezone=Asia/Kolkata -c synchronous_commit=off -c search_path=pg_catalog",
        },
    ],
    ids=["default", "dict rows", "raw cursors", "ascii", "odd settings"],
)
def test_a_pool_of_the_callers_in_whatever_mode(
    dsn: str, open_manager: OpenAsyncManager, settings: dict[str, Any]
) -> None:
    with ConnectionPool(dsn, kwargs=settings, min_size=1, max_size=3, open=False) as pool:
        manager = open_manager(pool)
        exercise(manager)
        with pool.connection() as connection:  # it comes back as it was
            assert connection.autocommit == settings.get("autocommit", False)
            assert connection.row_factory is settings.get("row_factory", psycopg.rows.tuple_row)
            assert connection.info.transaction_status == psycopg.pq.TransactionStatus.IDLE
        manager.close()
        with pool.connection() as connection:
            assert not connection.closed, "the pool stays the caller's"


def test_a_configured_and_checked_pool(dsn: str, open_manager: OpenAsyncManager) -> None:
    configured = []

    def configure(connection: Connection[Any]) -> None:
        connection.row_factory = dict_row
        connection.set_autocommit(True)
        configured.append(connection)

    with ConnectionPool(
        dsn,
        configure=configure,
        check=ConnectionPool.check_connection,
        min_size=1,
        max_size=2,
        open=False,
    ) as pool:
        exercise(open_manager(pool))
    assert configured


def test_the_listener_takes_the_pools_conninfo(
    dsn: str, open_manager: OpenAsyncManager, tables: Tables
) -> None:
    with ConnectionPool(
        dsn,
        kwargs={"application_name": "of the pool", "autocommit": True},
        min_size=1,
        max_size=2,
        open=False,
    ) as pool:
        manager = open_manager(pool)
        pid = manager._open_runtime().listener.pid
        assert (
            tables.one("SELECT application_name FROM pg_stat_activity WHERE pid = %s", pid) == "of the pool"
        )


def test_a_pool_whose_conninfo_is_computed_needs_one_for_the_listener(
    dsn: str, open_manager: OpenAsyncManager
) -> None:
    with ConnectionPool(min_size=0, max_size=2, open=False, conninfo=dsn) as pool:
        pool.conninfo = lambda: dsn  # type: ignore[assignment]  # as newer pools allow
        with pytest.raises(pgsession.ConfigError, match="listener_conninfo"):
            open_manager(pool)
        pool.conninfo = dsn


def test_a_listener_shared_by_two_managers(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    heard: list[str] = []
    with pgsession.Listener(dsn) as listener:
        listener.listen("caller", lambda notification: heard.append(notification.payload))
        a = open_manager(listener=listener)
        b = open_manager(listener=listener)
        session = a.create_session("u", {"n": 0})
        b.get_session(session.id)
        session["n"] = 1
        a.update_session(session)

        def seen() -> bool:
            read = b.get_session(session.id)
            return read is not None and read["n"] == 1 and read.from_cache

        eventually(seen)
        a.close()
        assert listener.connected, "it is not a's to close"
        changed = b.get_session(session.id)
        assert changed is not None
        tables.run("UPDATE {sessions} SET group_id = 'g' WHERE id = %s", session.id)

        def heard_without_a() -> bool:
            read = b.get_session(session.id)
            return read is not None and read.group_id == "g"

        eventually(heard_without_a)
        b.close()
        listener.notify("caller", "hello")

        def delivered() -> bool:
            return heard == ["hello"]

        eventually(delivered)


def test_the_listener_conninfo_is_used(dsn: str, open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(listener_conninfo=make_conninfo(dsn, application_name="the listener"))
    pid = manager._open_runtime().listener.pid
    assert tables.one("SELECT application_name FROM pg_stat_activity WHERE pid = %s", pid) == "the listener"


def test_a_listener_of_another_database_is_refused(
    own_server: Callable[..., EmbeddedServer], open_manager: OpenAsyncManager
) -> None:
    server = own_server()
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("CREATE DATABASE other")
    with pytest.raises(pgsession.ListenerError, match="same database"):
        open_manager(
            server.conninfo, listener_conninfo=make_conninfo(server.conninfo, dbname="other"), max_staleness=1
        )


class Mute:
    """A server that takes connections and never says a word."""

    def __enter__(self) -> str:
        self._socket = socket.create_server(("127.0.0.1", 0), backlog=64)
        self._taken: list[socket.socket] = []
        self._thread = threading.Thread(target=self._accept, daemon=True)
        self._thread.start()
        return make_conninfo(
            host="127.0.0.1", port=self._socket.getsockname()[1], dbname="x", user="x", sslmode="disable"
        )

    def _accept(self) -> None:
        try:
            while True:
                self._taken.append(self._socket.accept()[0])
        except OSError:
            return

    def __exit__(self, *_: object) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join()
        for taken in self._taken:
            taken.close()


def test_open_is_bounded_by_the_connect_timeout() -> None:
    with Mute() as conninfo:
        manager = pgsession.SessionManager(make_conninfo(conninfo, connect_timeout=2))
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            manager.open()
        assert time.monotonic() - began < 20, "a hang, not a time: the bound is 2 s"
        manager.close()


def test_open_where_nobody_listens_fails_and_can_be_tried_again(dsn: str, schema: str) -> None:
    with FaultProxy(dsn) as proxy:
        proxy.refuse()
        manager = pgsession.SessionManager(
            proxy.conninfo, pgsession.Config(create_schema_if_missing=True, schema_name=schema)
        )
        with pytest.raises(psycopg.OperationalError):
            manager.open()
        with pytest.raises(pgsession.ManagerClosedError):
            manager.list_user_sessions("u")
        proxy.forward()
        manager.open()
        exercise(manager)
        manager.close()


def test_from_env(dsn: str, schema: str) -> None:
    environ = {
        "PGSESSION_SCHEMA_NAME": schema,
        "PGSESSION_CREATE_SCHEMA_IF_MISSING": "true",
        "PGSESSION_TABLE_PREFIX": "app_",
        "PGSESSION_MAX_SESSIONS": "1",
        "PGSESSION_SESSION_EXPIRATION": "PT1H",
    }
    config = pgsession.Config.from_env(environ=environ)
    with pgsession.SessionManager(dsn, config) as manager:
        first = manager.create_session("u")
        second = manager.create_session("u")
        assert manager.get_session(first.id) is None
        assert 3599 <= (second.expires_at - second.created_at).total_seconds() <= 3601
    assert Tables(dsn, schema).one("SELECT count(*) FROM {schema}.app_sessions") == 1


def test_arguments_of_a_wrong_type(dsn: str) -> None:
    bad: list[tuple[tuple[Any, ...], dict[str, Any], str]] = [
        ((None,), {}, "database"),
        ((dsn, {}), {}, "config"),
        ((dsn,), {"listener": dsn}, "listener"),
        ((dsn,), {"signer": b"x" * 32}, "signer"),
    ]
    for arguments, named, name in bad:
        with pytest.raises(TypeError, match=name):
            pgsession.SessionManager(*arguments, **named)


def test_nothing_is_left_connected_after_close(dsn: str, schema: str, tables: Tables) -> None:
    conninfo = make_conninfo(dsn, application_name=schema)
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    with pgsession.SessionManager(conninfo, config) as manager:
        manager.create_session("u")

    def none() -> bool:
        return tables.one("SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", schema) == 0

    eventually(none)


def test_a_lone_caller_stays_with_one_server_process(manager: pgsession.SessionManager) -> None:
    """A pool would hand out the connection that rested longest: each of its server processes in turn."""
    pool = manager._open_runtime().connections
    end = time.monotonic() + 20
    with pool.connection(end) as one, pool.connection(end) as other:
        assert one.info.backend_pid != other.info.backend_pid
    met = set()
    for _ in range(10):
        with pool.connection(end) as connection:
            met.add(connection.info.backend_pid)
    assert len(met) == 1


def test_a_connection_that_cannot_write_is_not_lent_again(
    manager: pgsession.SessionManager,
) -> None:
    """A server before 14 does not say that it is a standby: the error does."""
    pool = manager._open_runtime().store._pool
    for error, closed in ((psycopg.errors.ReadOnlySqlTransaction(), True), (psycopg.DataError(), False)):
        with pytest.raises(type(error)):
            with pool.connection(time.monotonic() + 30) as connection:
                raise error
        assert connection.closed == closed
    manager.create_session("u")
