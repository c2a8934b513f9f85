"""The WSGI middleware, where a test over HTTP does not reach: how applications begin, what is done later, processes."""

from __future__ import annotations

import gc
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import psycopg
import pytest

import pgsession
from pgsession import Config, ConfigError, SessionManager
from pgsession.contrib._process import OncePerProcess
from pgsession.contrib.wsgi import SessionMiddleware, WsgiSession
from pgsession.web import SessionConflict, SessionRules
from tests.tables import Tables

KEY = b"k" * 32
ROOT = Path(__file__).parents[2]
PATIENCE = 30
Start = Callable[..., Any]
App = Callable[[dict[str, Any], Start], Iterable[bytes]]


class Client:
    """A browser that calls an application as a server does."""

    def __init__(self, app: App, *, valid: bool = True) -> None:
        self.app: Any = validator(app) if valid else app
        self.cookie: str | None = None

    def get(self, path: str = "/", **environ: Any) -> tuple[str, str]:
        """The status and the body."""
        environ = {"SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", **environ}
        if self.cookie is not None:
            environ["HTTP_COOKIE"] = f"__Host-session={self.cookie}"
        setup_testing_defaults(environ)
        told: list[Any] = []
        pieces: list[bytes] = []

        def start_response(status: str, headers: list[tuple[str, str]], exc_info: Any = None) -> Any:
            if exc_info is not None and any(pieces):
                raise exc_info[1]
            told[:] = [status, headers]
            return pieces.append

        body = self.app(environ, start_response)
        try:
            for piece in body:
                assert told, "it has begun"
                pieces.append(piece)
        finally:
            if hasattr(body, "close"):
                body.close()
        status, self.headers = told
        for name, value in self.headers:
            if name == "Set-Cookie":
                morsel = SimpleCookie(value)["__Host-session"]
                self.cookie = None if morsel["max-age"] == "0" else morsel.value
        return status, b"".join(pieces).decode()


@pytest.fixture
def make(manager: SessionManager) -> Callable[..., Client]:
    """`make(app, on_conflict="fail")`: a client of the application with the middleware."""

    def client(app: App, *, valid: bool = True, **options: Any) -> Client:
        return Client(SessionMiddleware(app, manager=manager, **options), valid=valid)

    return client


def session_of(environ: dict[str, Any]) -> WsgiSession:
    session: WsgiSession = environ["pgsession.session"]
    return session


HEADERS = [("Content-Type", "text/plain")]


def counting(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """It begins before it changes anything, as it may."""
    start_response("200 OK", [*HEADERS, ("Vary", "Accept")])
    session = session_of(environ)
    if environ["PATH_INFO"] == "/add":
        session["n"] = session.get("n", 0) + 1
    return [str(session.get("n")).encode()]


def generated(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
    """Nothing of it runs before its body is asked for."""
    yield from counting(environ, start_response)


def written(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    """It writes, as very old ones do."""
    write = start_response("200 OK", HEADERS)
    session = session_of(environ)
    if environ["PATH_INFO"] == "/add":
        session["n"] = session.get("n", 0) + 1
    write(str(session.get("n")).encode())
    return []


@pytest.mark.parametrize("app", [counting, generated, written])
def test_however_an_application_begins(make: Callable[..., Client], app: App, tables: Tables) -> None:
    client = make(app)
    assert client.get("/")[1] == "None" and client.cookie is None and tables.count() == 0
    assert client.get("/add") == ("200 OK", "1") and client.cookie is not None
    assert [value for name, value in client.headers if name == "Vary"][-1] == "Cookie"
    assert client.get("/add")[1] == "2"
    before = client.cookie
    assert client.get("/")[1] == "2" and client.cookie == before


@pytest.mark.parametrize("app", [counting, generated, written])
def test_a_conflict_is_answered_by_409(make: Callable[..., Client], app: App, tables: Tables) -> None:
    def overtaken(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session_of(environ).get("n")
        tables.run("UPDATE {session_attributes} SET value = '7', version = version + 1")
        tables.run("UPDATE {sessions} SET version = version + 1")
        return app(environ, start_response)

    client = make(app, on_conflict="fail")
    client.get("/add")
    other = make(overtaken, on_conflict="fail")
    other.cookie = client.cookie
    status, body = other.get("/add")
    assert status == "409 Conflict" and "repeat" in body and other.cookie == client.cookie
    assert client.get("/")[1] in ("7", "1")


@pytest.mark.parametrize("late", [False, True])
def test_what_raises_saves_nothing(make: Callable[..., Client], tables: Tables, late: bool) -> None:
    def failing(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        session_of(environ)["n"] = 1
        raise ZeroDivisionError
        yield b""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        body = failing(environ, start_response)
        return body if late else list(body)

    with pytest.raises(ZeroDivisionError):
        make(app, valid=False).get("/")
    assert tables.count() == 0


@pytest.mark.parametrize("app", [counting, generated, written])
def test_an_answer_that_something_failed_saves_nothing(
    make: Callable[..., Client], tables: Tables, app: App
) -> None:
    def failing(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        return app(environ, lambda _, *more: start_response("503 Later", *more))

    assert make(failing).get("/add")[0] == "503 Later" and tables.count() == 0


def test_a_conflict_that_the_application_has_answered_is_409(make: Callable[..., Client]) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        try:
            session_of(environ).log_in("alice")
        except SessionConflict:
            start_response("500 Error", HEADERS)
            return [b"error"]
        return counting(environ, start_response)

    client, late = make(app), make(app)
    client.get("/add")
    late.cookie = client.cookie
    client.get("/")
    assert late.get("/")[0] == "409 Conflict"


def test_an_error_page_in_place_of_what_was_begun_keeps_the_cookie(make: Callable[..., Client]) -> None:
    """An application may begin anew, with `exc_info`, while no byte was sent."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterator[bytes]:
        session_of(environ)["n"] = 1
        start_response("200 OK", HEADERS)
        yield b""
        try:
            raise ZeroDivisionError
        except ZeroDivisionError:
            start_response("500 Error", HEADERS, sys.exc_info())
        yield b"sorry"

    client = make(app, valid=False)
    assert client.get("/")[0] == "500 Error" and client.cookie is not None


def test_a_second_begin_is_refused(make: Callable[..., Client]) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        start_response("200 OK", HEADERS)
        start_response("200 OK", HEADERS)
        return []

    with pytest.raises(AssertionError, match="exc_info"):
        make(app, valid=False).get("/")


def test_what_servers_send_fast_is_left_as_it_is(manager: SessionManager) -> None:
    bodies: list[Any] = [[b"list"], (b"tuple",), FileWrapper(io.BytesIO(b"file"))]

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session_of(environ).get("n")
        start_response("200 OK", HEADERS)
        body: Iterable[bytes] = bodies[0]
        return body

    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    while bodies:
        assert SessionMiddleware(app, manager=manager)(environ, lambda *_: [].append) is bodies.pop(0)


def test_a_change_in_the_body_is_saved_by_save_or_warned_of(
    make: Callable[..., Client], caplog: pytest.LogCaptureFixture
) -> None:
    closed = []

    class Lines:
        def __init__(self, session: WsgiSession, save: bool) -> None:
            self.session, self.save = session, save

        def __iter__(self) -> Iterator[bytes]:
            yield b"first"
            self.session["n"] = 2
            if self.save:
                self.session.save()

        def close(self) -> None:
            closed.append(self.save)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = session_of(environ)
        session["n"] = 1
        start_response("200 OK", HEADERS)
        return Lines(session, environ["PATH_INFO"] == "/save")

    client, reader = make(app), make(counting)
    client.get("/save")
    assert not caplog.records
    reader.cookie = client.cookie
    assert reader.get("/")[1] == "2"
    client.get("/lose")
    assert "call `session.save()`" in caplog.text and closed == [True, False]


def test_serial_requests_wait_at_their_first_look_only(make: Callable[..., Client]) -> None:
    inside, go_on = threading.Event(), threading.Event()

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = session_of(environ)
        if environ["PATH_INFO"] == "/hold":
            session["n"] += 1
            inside.set()
            go_on.wait(PATIENCE)
        if environ["PATH_INFO"] == "/fail":
            session["n"] += 1
            raise ZeroDivisionError
        if environ["PATH_INFO"] != "/none":
            return counting(environ, start_response)
        start_response("200 OK", HEADERS)
        return [b"untouched"]

    client = make(app, on_conflict="serial", serial_timeout=PATIENCE)
    client.get("/add")
    other, hasty = make(app, on_conflict="serial"), make(app, on_conflict="serial", serial_timeout=1)
    other.cookie = hasty.cookie = client.cookie
    thread = threading.Thread(target=client.get, args=("/hold",))
    thread.start()
    assert inside.wait(PATIENCE)
    assert other.get("/none")[1] == "untouched"
    assert hasty.get("/add")[0] == "409 Conflict"
    go_on.set()
    thread.join(PATIENCE)
    with pytest.raises(ZeroDivisionError):
        client.get("/fail")
    assert client.get("/add")[1] == "3", "one that fails has ended its turn"


def test_two_sessions_in_one_application(dsn: str, config: Config, manager: SessionManager) -> None:
    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        environ["admin"]["who"], environ["pgsession.session"]["who"] = "admin", "visitor"
        start_response("200 OK", HEADERS)
        return []

    inner = SessionMiddleware(app, manager=manager, name="__Host-admin", environ_key="admin")
    client = Client(SessionMiddleware(inner, manager=manager))
    with pytest.raises(KeyError):
        client.get("/")  # two cookies, of which this client knows one
    assert sorted(value.split("=")[0] for name, value in client.headers if name == "Set-Cookie") == [
        "__Host-admin", "__Host-session",
    ]  # fmt: skip


def test_either_a_database_or_a_manager(manager: SessionManager) -> None:
    for arguments in ({}, {"database": "dbname=x", "keys": KEY, "manager": manager}):
        with pytest.raises(ConfigError, match="database: either"):
            SessionMiddleware(counting, **arguments)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="keys"):
        SessionMiddleware(counting, database="dbname=x")


def test_a_save_that_fails_is_not_tried_again_for_the_page_about_it(
    make: Callable[..., Client], manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = []

    def fail(*_: Any, **__: Any) -> None:
        tries.append(1)
        raise ZeroDivisionError

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = session_of(environ)
        session["n"] = 1
        if environ["PATH_INFO"] == "/save":
            with pytest.raises(ZeroDivisionError):
                session.save()
        start_response("299 Later" if environ["PATH_INFO"] == "/save" else "200 OK", HEADERS)
        return [b"sorry"]

    monkeypatch.setattr(manager, "create_session", fail)
    client = make(app, valid=False)
    assert client.get("/save")[0] == "299 Later" and tries == [1]
    with pytest.raises(ZeroDivisionError):
        client.get("/")


def test_what_cannot_be_loaded_is_not_replaced(
    make: Callable[..., Client], manager: SessionManager, monkeypatch: pytest.MonkeyPatch, tables: Tables
) -> None:
    """By one that the application begins in its stead, having caught the error; nor is its cookie."""

    def fail(*_: Any, **__: Any) -> None:
        raise pgsession.DatabaseUnavailable("down")

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = session_of(environ)
        with pytest.raises(pgsession.DatabaseUnavailable):
            session.get("n")
        session["n"] = 10
        session.flash("sorry")
        with pytest.raises(SessionConflict):
            session.log_in("ann")
        start_response("200 OK", HEADERS)
        return [b"sorry"]

    browser = make(counting)
    browser.get("/add")
    other = make(app)
    other.cookie = browser.cookie
    with monkeypatch.context() as patch:
        patch.setattr(manager, "open_token", fail)
        patch.setattr(SessionRules, "from_memory", lambda *_: None)
        assert other.get("/")[0] == "200 OK" and "Set-Cookie" not in dict(other.headers)
    assert browser.get("/add")[1] == "2" and tables.count() == 1


def test_threads_of_a_request_load_its_session_once(
    make: Callable[..., Client], manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    loading, go_on = threading.Event(), threading.Event()
    open_token, loads = manager.open_token, []

    def slow(token: str, **options: Any) -> Any:
        loads.append(1)
        loading.set()
        assert go_on.wait(PATIENCE)
        return open_token(token, **options)

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session, seen = session_of(environ), []
        first = threading.Thread(target=lambda: seen.append(session.get("n")))
        first.start()
        assert loading.wait(PATIENCE)
        second = threading.Thread(target=lambda: seen.append(session.get("n")))
        second.start()
        second.join(0.05)  # it would be over
        go_on.set()
        first.join(PATIENCE)
        second.join(PATIENCE)
        start_response("200 OK", HEADERS)
        return [repr(seen).encode()]

    client = make(counting)
    client.get("/add")
    other = make(app)
    other.cookie = client.cookie
    monkeypatch.setattr(manager, "open_token", slow)
    monkeypatch.setattr(SessionRules, "from_memory", lambda *_: None)
    assert other.get("/")[1] == "[1, 1]" and loads == [1]


def test_a_conflict_keeps_the_cookie_of_what_was_saved_before(
    make: Callable[..., Client], tables: Tables
) -> None:
    """Else its browser would have the token that this login has ended."""

    def app(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
        session = session_of(environ)
        session.log_in("ann")
        session.save()
        session["n"] = 2
        tables.run("UPDATE {session_attributes} SET value = '7', version = version + 1")
        tables.run("UPDATE {sessions} SET version = version + 1")
        start_response("200 OK", HEADERS)
        return []

    client, before = make(app, on_conflict="fail"), make(counting)
    before.get("/add")
    client.cookie = before.cookie
    assert client.get("/")[0] == "409 Conflict" and client.cookie != before.cookie
    assert ("Vary", "Cookie") in client.headers
    before.cookie = client.cookie
    assert before.get("/")[1] in ("7", "1"), "who is logged in"


# ---- processes ----


def nodes(dsn: str, config: Config) -> int:
    return len(pgsession.Admin(dsn, config).nodes())


def test_a_request_without_a_cookie_opens_nothing() -> None:
    client = Client(SessionMiddleware(counting, database="host=/nowhere dbname=none", keys=KEY))
    assert client.get("/")[1] == "None"


def test_an_application_that_is_dropped_closes_its_manager(dsn: str, config: Config) -> None:
    before = nodes(dsn, config)
    app = SessionMiddleware(counting, database=dsn, keys=KEY, config=config)
    assert Client(app).get("/add")[1] == "1" and nodes(dsn, config) == before + 1
    threads = set(threading.enumerate())
    del app
    gc.collect()
    for thread in set(threading.enumerate()) - threads:
        if thread.name == "pgsession close":
            thread.join(PATIENCE)
    assert nodes(dsn, config) == before


SCRIPT = """
import json, os, sys
from pgsession import Config
from pgsession.contrib.wsgi import SessionMiddleware
from tests.web.test_wsgi import KEY, Client, counting

dsn, schema = sys.argv[1:]
app = SessionMiddleware(counting, database=dsn, keys=KEY, config=Config(schema_name=schema))
parent = Client(app)
numbers = [parent.get("/add")[1]]
sys.stdout.flush()
reading, writing = os.pipe()
child = os.fork()
if child == 0:
    os.write(writing, parent.get("/add")[1].encode())
    sys.exit()
numbers.append(os.read(reading, 10).decode())
assert os.waitpid(child, 0)[1] == 0
other = Client(app)
numbers.append(other.get("/add")[1])
print(json.dumps(numbers))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_each_process_has_a_manager_that_is_closed_when_it_exits(
    dsn: str, config: Config, tables: Tables
) -> None:
    before = nodes(dsn, config)
    done = subprocess.run(
        [sys.executable, "-W", "error::ResourceWarning", "-c", SCRIPT, dsn, config.schema_name],
        cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert done.returncode == 0 and not done.stderr, done.stderr
    assert json.loads(done.stdout) == ["1", "2", "1"] and nodes(dsn, config) == before


def test_what_a_process_holds_is_opened_once_and_anew_after_a_close(monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[int] = []
    closed: list[tuple[int, float | None]] = []
    found_nothing = threading.Semaphore(0)

    def open() -> int:
        for _ in range(0 if opened else 8):
            assert found_nothing.acquire(timeout=PATIENCE)
        opened.append(len(opened))
        return opened[-1]

    held = OncePerProcess(open, lambda number, timeout: closed.append((number, timeout)))
    held.close()
    assert held.opened is None and not closed
    lock = held._first_use._lock()

    def noted() -> threading.Lock:
        found_nothing.release()
        return lock

    with monkeypatch.context() as patch:
        patch.setattr(held._first_use, "_lock", noted)
        threads = [threading.Thread(target=held.get) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(PATIENCE)
    assert opened == [0] and held.get() == 0
    held.close(2)
    assert held.get() == 1 and closed == [(0, 2)]


def test_a_manager_that_cannot_be_opened_is_tried_again(dsn: str, config: Config) -> None:
    conninfos = ["host=/nowhere dbname=none", dsn]
    app = SessionMiddleware(counting, database=lambda: conninfos[0], keys=KEY, config=config)
    client = Client(app, valid=False)
    with pytest.raises(psycopg.Error):
        client.get("/add")
    del conninfos[0]
    assert client.get("/add")[1] == "1"
