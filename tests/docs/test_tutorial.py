"""The tutorial, worked through from its top to its end: its files are written, its commands run, its nodes started."""

from __future__ import annotations

import os
import re
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

import pytest

from tests.docs.terminal import BLOCK
from tests.fault.nodes import until
from tests.programs import needs_program

pytest.importorskip("fastapi")
pytest.importorskip("uvicorn")
pytest.importorskip("multipart")
pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="the page's commands are for a POSIX shell")

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "tutorial.md").read_text(encoding="utf-8")
SERVING = re.compile(r"^(?:python postgres\.py|uvicorn .*)$")  # commands that run until they are stopped
FILE = re.compile(r"# (\S+\.py)(, at its end)?\n")
PATIENCE = 60


class Reader:
    """Does what the page says, in a folder: one shell after the other, with two ports for 8000 and 8001."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        ports = [free_port(), free_port()]
        self.nodes = [f"http://localhost:{port}" for port in ports]
        self._ports = dict(zip(("8000", "8001"), map(str, ports), strict=True))
        ours = {name: value for name, value in os.environ.items() if not name.startswith(("PG", "PGSESSION"))}
        self._environment = ours | {"PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
        self.running: dict[str, subprocess.Popen[str]] = {}

    def here(self, text: str) -> str:
        return re.sub(r"\b800[01]\b", lambda found: self._ports[found[0]], text)

    def write(self, block: str) -> None:
        named = FILE.match(block)
        assert named, f"a snippet that begins with no file's name:\n{block}"
        path = self.folder / named[1]
        assert path.exists() == bool(named[2]), block
        path.write_text((f"{path.read_text()}\n\n" if named[2] else "") + block)

    def run(self, script: str) -> str:
        """What the commands print; what serves is started, and runs on."""
        lines = self.here(script).splitlines(keepends=True)
        serving = [line.strip() for line in lines if SERVING.match(line.strip())]
        rest = "".join(line for line in lines if not SERVING.match(line.strip()))
        printed = self._shell(rest).stdout if rest.strip() else ""
        for command in serving:
            self.start(command)
        return printed

    def _shell(self, script: str) -> subprocess.CompletedProcess[str]:
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", f"{self._set_up()}\n{script}"], cwd=self.folder, env=self._environment,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=PATIENCE,
        )  # fmt: skip
        assert done.returncode == 0, f"{script}\n{done.stdout}"
        return done

    def _set_up(self) -> str:
        """What the terminal was told before, as the page has it: env.sh, or at first the activation."""
        return ". ./env.sh" if (self.folder / "env.sh").exists() else ". .venv/bin/activate"

    def start(self, command: str) -> None:
        process = subprocess.Popen(
            ["bash", "-c", f"{self._set_up()}\nexec {command}"], cwd=self.folder, env=self._environment,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        self.running[command] = process
        assert process.stdout is not None
        ready = "PostgreSQL is there" if command.startswith("python") else "Uvicorn running"
        seen = ""
        for line in process.stdout:
            seen += line
            if ready in line:
                return
        raise AssertionError(f"{command}\n{seen}")

    def stop(self, command: str) -> None:
        """By Ctrl-C, or Enter where the command asks for it."""
        process = self.running.pop(command)
        if command.startswith("python"):
            process.communicate("\n", timeout=PATIENCE)
            assert process.returncode == 0
        else:
            process.terminate()
            process.communicate(timeout=PATIENCE)

    def kill(self) -> None:
        for process in self.running.values():
            process.kill()
            process.communicate()


class Browser:
    """Keeps the one cookie of localhost, whatever the port, and follows redirects."""

    cookie: str | None = None

    def __call__(self, url: str, **form: str) -> tuple[int, str]:
        request = Request(url, urlencode(form).encode() if form else None)
        if self.cookie:
            request.add_header("Cookie", self.cookie)
        try:
            with build_opener(Stay).open(request, timeout=PATIENCE) as answer:
                status, text, headers = answer.status, answer.read().decode(), answer.headers
        except HTTPError as error:
            with closing(error):
                status, text, headers = error.code, error.read().decode(), error.headers
        if headers["Set-Cookie"]:
            self.cookie = headers["Set-Cookie"].partition(";")[0]
            assert self.cookie.startswith("session="), self.cookie
        if status == 303:
            return self("/".join(url.split("/")[:3]) + headers["Location"])
        return status, text


class Stay(HTTPRedirectHandler):
    def redirect_request(self, *_: object) -> None:
        return None


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    with ExitStack() as stack:
        reader = Reader(tmp_path / "login")
        stack.callback(reader.kill)
        yield reader


def section(number: int) -> list[tuple[str, str]]:
    text = PAGE.partition(f"\n## {number}. ")[2].partition("\n## ")[0]
    return BLOCK.findall(text)


def work(reader: Reader, number: int, before: Callable[[str], object] = lambda block: None) -> None:
    """Do what a section shows, and compare what it says is printed."""
    printed = ""
    for language, block in section(number):
        before(block)
        if language == "python":
            reader.write(block)
        elif language == "sh":
            printed = reader.run(block)
        else:
            assert language == "text"
            assert reader.here(block).rstrip() in printed, printed


def test_the_page_from_its_top_to_its_end(reader: Reader) -> None:
    needs_program("curl")
    installs(reader)
    work(reader, 2)
    first, browser = reader.here("uvicorn app:app --port 8000"), Browser()
    work(reader, 3)
    assert [browser(reader.nodes[0])[1].partition(" of ")[0][-1] for _ in range(3)] == ["1", "2", "3"]
    visitors = browser.cookie
    reader.stop(first)
    work(reader, 4)
    reader.start(first)
    logs_in(reader, browser, visitors)
    work(reader, 5)
    assert "Visit 5 of alice" in browser(reader.nodes[1])[1]
    logs_out(reader, browser)
    work(reader, 6)
    for node in reader.nodes:
        until(lambda node=node: "a visitor" in browser(node)[1], "the browser to be logged out")
    for command in list(reader.running):
        reader.stop(command)
    shutil.rmtree(reader.folder)


def logs_out(reader: Reader, browser: Browser) -> None:
    """By the button, on one node; the former cookie opens nothing on the other, and a login is possible again."""
    first, second = reader.nodes
    assert "action='/logout'" in browser(second)[1]
    before = browser.cookie
    assert "a visitor" in browser(f"{second}/logout", confirmed="yes")[1]
    copied = Browser()
    copied.cookie = before
    until(lambda: "a visitor" in copied(first)[1], "the other node to know of the logout")
    browser(f"{first}/login", name="alice", password="wonderland")
    assert "of alice" in browser(first)[1]


def installs(reader: Reader) -> None:
    """The first section, but that the environment is this one's: pip finds that all is there which the page names."""
    [(_, commands)] = section(1)
    made, entered, *rest = commands.splitlines()
    assert (made, entered) == ("mkdir login && cd login", "python3 -m venv .venv")
    reader.folder.mkdir()
    (reader.folder / ".venv").symlink_to(sys.prefix)
    assert "already satisfied" in reader.run("\n".join(rest))


def logs_in(reader: Reader, browser: Browser, visitors: str | None) -> None:
    """What the page says of it: the visits stay, and the cookie of before opens nothing."""
    node = reader.nodes[0]
    assert browser(f"{node}/login")[0] == 200
    assert browser(f"{node}/login", name="alice", password="wrong")[0] == 401
    status, text = browser(f"{node}/login", name="alice", password="wonderland", remember="on")
    assert status == 200 and "Visit 4 of alice" in text
    old = Browser()
    old.cookie = visitors
    assert "of a visitor" in old(node)[1] and browser.cookie != visitors
