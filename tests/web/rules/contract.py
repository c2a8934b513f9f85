"""What the rules ask of an adapter, and what they have to ask it with.

An adapter's site is one application on two nodes, each a process of its own. It answers two routes, for each of the
settings in `SETTINGS` (below a URL of its own, or by processes of its own):

`POST /do`      performs the actions in the body, a JSON list, in their order, on the request's session, and answers
                with the JSON list of their results
`POST /stream`  does so, and then answers with a stream: a line with that list; `meet` of the port in the query
                string (`?port=1234`); then the line `end`

An action is a list: a name and its arguments.

    ["read", key]               the value as it is at this moment, null where there is none
    ["all"]                     everything that the application sees in it
    ["set", key, value]         session[key] = value
    ["append", key, value]      session[key].append(value): a nested change
    ["delete", key]             del session[key]
    ["log_in", user, remember]  as the framework does it; remember: seconds, or false
    ["log_out"]                 likewise
    ["user"]                    who is logged in, null for nobody
    ["rotate"]                  a new token, with the usual grace
    ["expire", seconds]         the session's lifetime from now on; null: as long as the browser's
    ["flash", message]          keeps a message for the next page
    ["flashes"]                 the messages, once
    ["meet", port]              `meet(port)` below: waits until the test lets it go on

Sites whose framework does not offer an action name it in `lacks`; the tests that need it are skipped. So are those of
`log_in again`, by which who is logged in gets a new token, of `renew`, by which a session that is only read is, and of
`one process`, which is what each node is then.
"""

from __future__ import annotations

import http.client
import json
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any, NamedTuple, Protocol
from urllib.parse import urlsplit

ROOT = Path(__file__).parents[3]
PATIENCE = 30
KEY = "k" * 32  # of the sites' signers
HOUR = 3600

# Arguments of the adapter, beside the database, the key, and schema_name.
SETTINGS: dict[str, dict[str, Any]] = {
    "merge": {},
    "fail": {"on_conflict": "fail"},
    "serial": {"on_conflict": "serial"},
    "lasting": {"max_age": HOUR},
}


class Place(NamedTuple):
    """Where a site keeps its sessions. The tables are there already."""

    dsn: str
    schema: str


class Site(Protocol):
    """A running application on two nodes."""

    @property
    def cookie_name(self) -> str:
        """The name of the session's cookie."""

    @property
    def conflict_status(self) -> int:
        """What a request gets that another one was faster than."""

    @property
    def dropped_status(self) -> int:
        """What a request gets whose changes are dropped, since it came with an older token."""

    @property
    def lacks(self) -> frozenset[str]:
        """The actions that it does not offer."""

    def nodes(self, setting: str) -> tuple[str, str]:
        """The URLs of both nodes, for one of `SETTINGS`, without a slash at the end."""


Adapter = Callable[[Place], AbstractContextManager[Site]]


# ---- for the sites ----


def meet(port: int) -> None:
    """Wait until the test, which listens at the port, lets this request go on."""
    with socket.create_connection(("127.0.0.1", port), timeout=PATIENCE) as connection:
        connection.recv(1)


@contextmanager
def process(module: str, *arguments: str) -> Iterator[list[int]]:
    """A node: a process that prints its ports in a line, and ends when its stdin does."""
    command = [sys.executable, "-W", "error::ResourceWarning", "-m", module, *arguments]
    node = subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert node.stdin is not None and node.stdout is not None
    try:
        with selectors.DefaultSelector() as selector:
            selector.register(node.stdout, selectors.EVENT_READ)
            assert selector.select(PATIENCE), "the node does not start"
        yield [int(port) for port in node.stdout.readline().split()]
    finally:
        node.stdin.close()
        try:
            assert node.wait(PATIENCE) == 0
        finally:
            node.kill()
            node.wait()
            node.stdout.close()


def end_with_stdin(end: Callable[[], object]) -> None:
    """For a node: call `end` once the test has closed its stdin."""

    def wait() -> None:
        sys.stdin.read()
        end()

    threading.Thread(target=wait, daemon=True).start()


# ---- for the tests ----


class Answer(NamedTuple):
    status: int
    results: Any
    set_cookie: list[str]  # of the session
    vary: str

    @property
    def max_age(self) -> int | None:
        """The seconds for which the browser is to keep the cookie that was set."""
        [header] = self.set_cookie
        for part in header.split("; "):
            if part.lower().startswith("max-age="):
                return int(part.partition("=")[2])
        return None


class Browser:
    """A browser with the session's cookie; `tab()` makes a client that has the same, and changes none of this one."""

    def __init__(self, site: Site, setting: str = "merge") -> None:
        self.site = site
        self.nodes = site.nodes(setting)
        self.cookie: str | None = None

    def tab(self) -> Browser:
        other = Browser.__new__(Browser)
        other.site, other.nodes, other.cookie = self.site, self.nodes, self.cookie
        return other

    def do(self, *actions: list[Any], node: int = 0) -> Answer:
        """Send the actions; keep the cookie as a browser does. They all have to succeed."""
        answer = self.try_to(*actions, node=node)
        assert answer.status == 200, answer
        return answer

    def try_to(self, *actions: list[Any], node: int = 0) -> Answer:
        with self.sent("/do", list(actions), node) as response:
            body = response.read().decode()
            results = json.loads(body) if response.status == 200 else body
            return self._answer(response, results)

    @contextmanager
    def sent(self, path: str, actions: list[Any], node: int = 0) -> Iterator[http.client.HTTPResponse]:
        url = urlsplit(self.nodes[node])
        assert url.hostname is not None
        connection = http.client.HTTPConnection(url.hostname, url.port, timeout=PATIENCE)
        headers = {"Content-Type": "application/json"}
        if self.cookie is not None:
            headers["Cookie"] = f"theme=dark; {self.site.cookie_name}={self.cookie}"
        try:
            connection.request("POST", url.path + path, json.dumps(actions), headers)
            yield connection.getresponse()
        finally:
            connection.close()

    def _answer(self, response: http.client.HTTPResponse, results: Any) -> Answer:
        name = self.site.cookie_name
        given = [h for h in response.headers.get_all("Set-Cookie", []) if h.startswith(f"{name}=")]
        for header in given:
            morsel = SimpleCookie(header.replace("; Partitioned", ""))[name]
            self.cookie = None if morsel["max-age"] == "0" else morsel.value
        vary = ", ".join(response.headers.get_all("Vary", []))
        return Answer(response.status, results, given, vary)

    def begin_stream(self, response: http.client.HTTPResponse) -> Answer:
        """What the first line and the headers of a stream say."""
        return self._answer(response, json.loads(response.readline()))


class Meeting:
    """Where requests wait in the middle of their handlers: `["meet", meeting.port]`."""

    def __init__(self) -> None:
        self._listening = socket.create_server(("127.0.0.1", 0), backlog=100)
        self._listening.settimeout(PATIENCE)
        self.port: int = self._listening.getsockname()[1]
        self._waiting: list[socket.socket] = []

    def __enter__(self) -> Meeting:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
        self._listening.close()

    def gather(self, many: int = 1) -> None:
        """Return once so many more requests wait."""
        for _ in range(many):
            self._waiting.append(self._listening.accept()[0])

    def release(self) -> None:
        """Let all go on that have gathered."""
        while self._waiting:
            self._waiting.pop().close()


@contextmanager
def at_once(calls: list[Callable[[], Answer]]) -> Iterator[list[Future[Answer]]]:
    """All of the calls, each in a thread of its own; they have ended when the block has."""
    with ThreadPoolExecutor(len(calls)) as executor:
        yield [executor.submit(call) for call in calls]
