"""The web examples over HTTP: real servers, two nodes of each, and clients that keep cookies."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from http.cookies import Morsel, SimpleCookie
from types import ModuleType
from typing import Any
from urllib.parse import urlencode

import pytest

import pgsession
from pgsession._core.token import open_session_token
from tests.serving import serving

Example = Callable[[str], ModuleType]
PATIENCE = 30


class Client:
    """A browser with one cookie. It keeps secure ones too, as browsers do for localhost."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.cookie: Morsel[str] | None = None

    def request(
        self, port: int, method: str, path: str, body: str = "", kind: str = "application/json"
    ) -> tuple[int, str]:
        connection = HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        headers = {"Content-Type": kind, "Content-Length": str(len(body))}
        if self.cookie is not None:
            headers["Cookie"] = f"{self.name}={self.cookie.value}"
        try:
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            given = SimpleCookie(response.headers.get("Set-Cookie", ""))
            if self.name in given:
                self.cookie = given[self.name]
                if self.cookie["max-age"] == "0":
                    self.cookie = None
            return response.status, response.read().decode()
        finally:
            connection.close()

    def json(self, port: int, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, text = self.request(port, method, path, json.dumps(body))
        return status, json.loads(text)

    def form(self, port: int, path: str, **fields: str) -> tuple[int, str]:
        return self.request(port, "POST", path, urlencode(fields), "application/x-www-form-urlencoded")

    def assert_well_kept(self) -> None:
        """The cookie is out of reach of scripts, of plain HTTP and of other sites."""
        assert self.cookie is not None
        assert self.cookie["httponly"] and self.cookie["secure"]
        assert self.cookie["samesite"].lower() == "strict" and self.cookie["path"] == "/"


@contextmanager
def served_by_uvicorn(app: Any) -> Iterator[int]:
    uvicorn = pytest.importorskip("uvicorn")
    server = uvicorn.Server(
        uvicorn.Config(app, lifespan="on", ws="none", loop="asyncio", log_level="warning")
    )
    listening = socket.create_server(("127.0.0.1", 0))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
    thread.start()
    try:
        yield listening.getsockname()[1]  # connections wait in the backlog until it has started
    finally:
        server.should_exit = True
        thread.join(PATIENCE)
        listening.close()
        assert not thread.is_alive()


@contextmanager
def served_by_werkzeug(app: Any) -> Iterator[int]:
    werkzeug = pytest.importorskip("werkzeug.serving")
    server = werkzeug.make_server("127.0.0.1", 0, app, threaded=True)
    with serving(server):
        yield server.server_port


KEY = b"k" * 32
COOKIE = "__Host-session"


@pytest.fixture
def signer() -> pgsession.Signer:
    return pgsession.Signer(KEY)


@pytest.fixture
def asgi_nodes(example: Example, dsn: str, config: pgsession.Config) -> Iterator[list[int]]:
    pytest.importorskip("starlette")
    make_app = example("asgi_app").make_app
    with ExitStack() as stack:
        yield [stack.enter_context(served_by_uvicorn(make_app(dsn, config, KEY))) for _ in range(2)]


@pytest.fixture
def wsgi_nodes(example: Example, dsn: str, schema: str) -> Iterator[list[int]]:
    pytest.importorskip("flask")
    make_app = example("wsgi_app").make_app
    with ExitStack() as stack:
        apps = [make_app(dsn, schema, KEY.decode()) for _ in range(2)]
        yield [stack.enter_context(served_by_werkzeug(app)) for app in apps]
    for app in apps:
        app.extensions["pgsession"].process.close()


ALICE = {"username": "alice", "password": "wonderland"}


def test_log_in_and_out_of_an_asgi_app(asgi_nodes: list[int], signer: pgsession.Signer) -> None:
    here, there = asgi_nodes
    client = Client(COOKIE)
    assert client.json(here, "GET", "/cart") == (401, "no session")
    assert client.json(here, "POST", "/login", ALICE | {"password": "x"}) == (401, "authentication failed")
    assert client.cookie is None
    assert client.json(here, "POST", "/login", ALICE) == (200, "login successful")
    client.assert_well_kept()
    assert client.cookie is not None
    opened = open_session_token(signer._session_keys, client.cookie.value)
    assert opened is not None
    created = opened[2]
    for number, node in enumerate((there, here, there)):
        status, cart = client.json(node, "POST", "/cart", number)
        assert (status, cart) == (200, list(range(number + 1)))
        client.assert_well_kept()
        assert client.cookie is not None
        opened = open_session_token(signer._session_keys, client.cookie.value)
        assert opened is not None and opened[2] == created + number + 1
    thief = Client(COOKIE)
    thief.cookie = client.cookie
    assert client.json(there, "POST", "/logout") == (200, "logout successful")
    assert client.cookie is None
    assert client.json(there, "GET", "/cart") == (401, "no session")
    assert thief.json(there, "GET", "/cart") == (401, "no session"), "a kept cookie is of no use"


def test_log_in_and_out_of_a_wsgi_app(wsgi_nodes: list[int]) -> None:
    here, there = wsgi_nodes
    client = Client(COOKIE)
    assert client.request(here, "GET", "/") == (401, "please log in")
    assert client.form(here, "/login", username="alice", password="x") == (401, "authentication failed")
    assert client.form(here, "/login", username="bob") == (401, "authentication failed")
    assert client.form(here, "/login", **ALICE) == (200, "login successful")
    client.assert_well_kept()
    for node in (there, here):
        assert client.request(node, "GET", "/") == (200, "hello, alice")
    thief = Client(COOKIE)
    thief.cookie = client.cookie
    assert client.form(there, "/logout") == (200, "logout successful")
    assert client.cookie is None and client.form(there, "/logout") == (401, "no session")
    assert thief.request(there, "GET", "/") == (401, "please log in")
    devices = [Client(COOKIE) for _ in range(3)]
    for device in devices:
        device.form(here, "/login", **ALICE)
    assert devices[0].form(there, "/logout-everywhere") == (200, "3 sessions ended")
    assert devices[0].request(there, "GET", "/") == (401, "please log in")


def test_a_cart_over_http_keeps_a_hundred_items_of_twenty_clients(asgi_nodes: list[int]) -> None:
    """The tabs of one browser, at two nodes: their requests take turns."""
    browser = Client(COOKIE)
    browser.json(asgi_nodes[0], "POST", "/login", ALICE)

    def shop(tab: int) -> None:
        client = Client(COOKIE)
        client.cookie = browser.cookie
        for item in range(5):
            status, _ = client.json(asgi_nodes[(tab + item) % 2], "POST", "/cart", f"{tab}.{item}")
            assert status == 200

    with ThreadPoolExecutor(20) as executor:
        for done in [executor.submit(shop, tab) for tab in range(20)]:
            done.result()
    browser.json(asgi_nodes[1], "POST", "/cart", "last")
    _, cart = browser.json(asgi_nodes[1], "GET", "/cart")
    assert sorted(cart) == sorted([f"{tab}.{item}" for tab in range(20) for item in range(5)] + ["last"])
