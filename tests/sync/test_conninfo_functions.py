# Generated from tests/aio/test_conninfo_functions.py by tools/async_to_sync.py: never edit.

"""A function gives the conninfo: it is asked at each connect, and what it does wrong is a connect that failed."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession._concurrency import sleep
from pgsession.embedded import EmbeddedServer
from tests.leftovers import Leftovers

from .conftest import OpenAsyncManager
from .helpers import eventually

SECRET = "sesame"


class Credentials:
    """The password of a role, which a service reads from somewhere else whenever it connects."""

    def __init__(self, server: EmbeddedServer) -> None:
        self._admin = server.conninfo
        self.asked = 0
        self.rotate("first", "CREATE")

    def rotate(self, password: str, verb: Any = "ALTER") -> None:
        with psycopg.connect(self._admin, autocommit=True) as admin:
            admin.execute(
                sql.SQL("{} ROLE app SUPERUSER LOGIN PASSWORD {}").format(
                    sql.SQL(verb), sql.Literal(password)
                )
            )
        self.password = password

    def backends(self, what: str) -> int:
        with psycopg.connect(self._admin, autocommit=True) as admin:
            rows = admin.execute(f"SELECT {what} FROM pg_stat_activity WHERE usename = 'app'").fetchall()  # type: ignore[arg-type]
        return len(rows)

    def conninfo(self) -> str:
        sleep(0)
        self.asked += 1
        return make_conninfo(self._admin, user="app", password=self.password)

    def at_once(self) -> str:
        self.asked += 1
        return make_conninfo(self._admin, user="app", password=self.password)


@pytest.mark.parametrize("name", ["conninfo", "at_once"])
def test_a_password_that_changes(
    name: str, own_server: Callable[..., EmbeddedServer], open_manager: OpenAsyncManager
) -> None:
    credentials = Credentials(own_server(tcp=True))
    function = getattr(credentials, name)
    manager = open_manager(function, pool_max_size=3, listener_conninfo=function, schema_name="public")
    session = manager.create_session("u")
    connected, asked = credentials.backends("1"), credentials.asked
    credentials.rotate("second")

    session["n"] = 1
    manager.update_session(session)
    assert credentials.backends("1") == connected and credentials.asked == asked, "the old ones live on"

    pool = manager._open_runtime().connections
    end = time.monotonic() + 20
    with pool.connection(end), pool.connection(end), pool.connection(end):
        assert credentials.asked > asked, "one more is needed"

    credentials.rotate("third")
    credentials.backends("pg_terminate_backend(pid)")

    def healthy() -> bool:
        return (manager.check_health()).healthy

    eventually(healthy, "the listener's and the pool's new connections")
    session["n"] = 2
    manager.update_session(session)
    assert manager.get_session(session.id) is not None


def raises() -> str:
    raise KeyError(SECRET)


def returns_nothing() -> Any:
    return None


def returns_no_conninfo() -> str:
    return SECRET


def exits() -> str:
    raise SystemExit(SECRET) if threading.current_thread() is not threading.main_thread() else OSError(SECRET)


def returns_no_text_at_all() -> str:
    return ""


def returns_what_utf8_cannot_carry() -> str:
    return "host=\ud800" + SECRET


def returns_a_nul() -> str:
    return "host=localhost\0" + SECRET


@pytest.mark.parametrize(
    ("function", "rule"),
    [
        (returns_nothing, "a str is needed, not NoneType"),
        (returns_no_text_at_all, "must not be empty"),
        (returns_what_utf8_cannot_carry, "must not contain lone surrogates"),
        (returns_a_nul, "must not contain NUL"),
        (returns_no_conninfo, "must be a conninfo"),
    ],
)
def test_what_a_function_may_return(
    function: Any, rule: str, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is a mistake of configuration, and still an attempt to connect that has failed."""
    with Leftovers(dsn):
        manager = pgsession.SessionManager(function)
        with pytest.raises(
            pgsession.ConfigError, match=f"the function that gives the conninfo: its result: {rule}"
        ) as failure:
            manager.open()
        manager.close()
    assert isinstance(failure.value, psycopg.OperationalError)
    assert SECRET not in str(failure.value) + caplog.text


class Second:
    """A function that does what it does at the second call, by which the pool connects, and later ones."""

    def __init__(self, dsn: str, then: Any) -> None:
        self._dsn = dsn
        self._then = then
        self.asked = 0

    def conninfo(self) -> Any:
        self.asked += 1
        return self._dsn if self.asked == 1 else self._then(self._dsn)


def fails(dsn: str) -> str:
    raise OSError(SECRET)


def leads_to_no_database(dsn: str) -> str:
    return make_conninfo(dsn, dbname="there_is_none")


def gives_nothing(dsn: str) -> Any:
    return None


@pytest.mark.parametrize(
    ("then", "words"),
    [(fails, "OSError"), (leads_to_no_database, "there_is_none"), (gives_nothing, "not NoneType")],
)
def test_what_keeps_the_pool_from_connecting_is_what_open_raises(
    then: Any, words: str, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    """And at once: the listener was there, but a pool would try on, and say in the end that it took too long."""
    second = Second(dsn, then)
    began = time.monotonic()
    with Leftovers(dsn):
        manager = pgsession.SessionManager(second.conninfo, pgsession.Config(pool_min_size=2))
        with pytest.raises(psycopg.OperationalError, match=words):
            manager.open()
        manager.close()
    assert SECRET not in caplog.text and second.asked == 2
    assert time.monotonic() - began < 15


def test_a_function_that_hangs_when_the_pool_connects(dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pgsession._sync.server.CONNECT_TIMEOUT", 1)
    goes_on = threading.Event()

    def hangs(dsn: str) -> str:
        while not goes_on.is_set():
            sleep(0.01)
        return dsn

    began = time.monotonic()
    with Leftovers(dsn):
        manager = pgsession.SessionManager(Second(dsn, hangs).conninfo)
        with pytest.raises(psycopg.OperationalError, match="TimeoutError"):
            manager.open()
        goes_on.set()
        manager.close()
    assert time.monotonic() - began < 3 * 1


@pytest.mark.parametrize("function", [raises, returns_nothing, returns_no_conninfo, exits])
def test_a_function_that_fails_is_a_connect_that_failed(
    function: Any, dsn: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Leftovers(dsn):
        manager = pgsession.SessionManager(function)
        with pytest.raises(psycopg.OperationalError, match="the function that gives the conninfo") as failure:
            manager.open()
        manager.close()
    assert SECRET not in str(failure.value) + caplog.text


def test_a_function_that_never_returns_is_given_up(dsn: str) -> None:
    goes_on = threading.Event()

    def hangs() -> str:
        while not goes_on.is_set():
            sleep(0.01)
        return dsn

    began = time.monotonic()
    with Leftovers(dsn):
        with pytest.raises(psycopg.OperationalError, match="TimeoutError"):
            pgsession.Listener(hangs, connect_timeout=1).open()
        goes_on.set()
    assert time.monotonic() - began < 3 * 1


def test_a_function_that_fails_for_a_while(
    dsn: str, open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    """Calls end as they do where nobody can connect, and pass again afterwards."""
    caplog.set_level(logging.DEBUG)
    fails = False
    with Leftovers(dsn) as left:

        def conninfo() -> str:
            if fails:
                raise OSError(SECRET)
            return left.conninfo

        manager = open_manager(conninfo, operation_timeout=1)
        session = manager.create_session("u")
        fails = True
        with psycopg.connect(dsn, autocommit=True) as admin:
            for pid in left.backends():
                admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        began = time.monotonic()
        with pytest.raises((psycopg.Error, pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
            manager.get_session(session.id, refresh=True)
        assert time.monotonic() - began < 3 * 1
        fails = False

        def healthy() -> bool:
            return (manager.check_health()).healthy

        eventually(healthy)
        assert manager.get_session(session.id) is not None
        manager.close()
    assert "the function that gives the conninfo failed: OSError" in caplog.text
    assert SECRET not in caplog.text
