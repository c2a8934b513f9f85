"""Processes of one host that are in other namespaces, as in containers: one folder, and each has a cache of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.host.processes import Host, eventually
from tests.host.test_processes import goes_on, registered
from tests.host.worker import create, read, write

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="namespaces are Linux's"),
    pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root"),
]

PEER = """
import json
import sys

import pgsession

dsn, schema, folder, session_id = sys.argv[1:]
config = pgsession.Config(schema_name=schema, shared_cache=folder, shared_cache_size=2**24, max_staleness=4.0)
with pgsession.SessionManager(dsn, config) as sessions:
    for line in sys.stdin:
        wanted = json.loads(line)
        session = sessions.get_session(session_id)
        if wanted is not None:
            session["n"] = wanted
            sessions.update_session(session)
        told = sessions.stats()
        answer = [session["n"], session.from_cache, told.leader, told.in_sync, told.shared_fallback_reason]
        print(json.dumps(answer), flush=True)
"""
WAYS = {
    "another time": (
        "unshare",
        "--time",
        "--monotonic",
        "100000",
        "--boottime",
        "100000",
        "--fork",
        "--kill-child",
    ),
    "other process ids": ("unshare", "--pid", "--fork", "--kill-child", "--mount-proc"),
    "other process ids, the host's /proc": ("unshare", "--pid", "--fork", "--kill-child"),
}
NO_PROC = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs none /proc && exec "$0" "$@"')


class Peer:
    """A process in another namespace, that reads and writes what it is told to."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def ask(self, value: int | None = None) -> list[Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps(value)}\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            assert self._process.stderr is not None
            said = self._process.stderr.read()
            if said.startswith(("unshare:", "mount:")):
                pytest.skip(f"no such namespace is to be had here: {said.strip()}")
            raise AssertionError(said)
        answer: list[Any] = json.loads(line)
        return answer

    def end(self) -> str:
        """Have it end in order; return its warnings."""
        _, said = self._process.communicate(timeout=60)
        assert self._process.returncode == 0, said
        return said


@contextmanager
def peer(way: tuple[str, ...], *arguments: str) -> Iterator[Peer]:
    command = [*way, sys.executable, "-c", PEER, *arguments]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, text=True, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        try:
            yield Peer(process)
        finally:
            process.kill()
            assert process.stdout is not None
            if not process.stdout.closed:
                process.stdout.read()  # until all in the namespace are gone


def arenas(folder: Path) -> int:
    return [path.suffix for path in folder.iterdir()].count(".arena")


@pytest.mark.parametrize("way", WAYS)
def test_each_namespace_has_an_arena_of_its_own(
    host: Host, way: str, dsn: str, host_schema: str, folder: Path
) -> None:
    """Process ids and times mean nothing to each other there, and locks on the file are seen by all the same."""
    processes = [host.start("threads") for _ in range(2)]
    session = processes[0].do(create, "u", n=0)
    with peer(WAYS[way], dsn, host_schema, str(folder), session) as other:
        assert other.ask()[:1] == [0]
        assert other.ask() == [0, True, True, True, None]
        assert arenas(folder) == 2 and registered(dsn, host_schema) == 2
        other.ask(1)
        for process in processes:
            eventually(lambda process=process: process.do(read, session)[0] == {"n": 1}, "its write")  # type: ignore[misc]
        processes[1].do(write, session, n=2)
        eventually(lambda: other.ask()[0] == 2, "the host's write")
        goes_on(processes, session)
        assert not other.end()
    assert arenas(folder) == 1 and registered(dsn, host_schema) == 1


def test_who_cannot_tell_has_a_cache_of_its_own(host: Host, dsn: str, host_schema: str, folder: Path) -> None:
    process = host.start("threads")
    session = process.do(create, "u", n=0)
    with peer(NO_PROC, dsn, host_schema, str(folder), session) as other:
        other.ask()
        n, from_cache, leader, in_sync, reason = other.ask()
        assert (n, from_cache, leader, in_sync) == (0, True, False, True)
        assert "/proc/self/ns/pid" in reason
        assert arenas(folder) == 1
        said = other.end()
    assert said.count("the cache is not shared") == 1


def test_what_a_container_left_that_was_killed(host: Host, dsn: str, host_schema: str, folder: Path) -> None:
    """The next one has another PID namespace, so another name for its arena: that of the former must not stay."""
    session = host.start("threads").do(create, "u", n=0)
    for _ in range(2):
        with peer(WAYS["other process ids"], dsn, host_schema, str(folder), session) as other:
            assert other.ask()[0] == 0
            assert arenas(folder) == 2, "that of the host, and its own"
        assert arenas(folder) == 2, "nobody was left to take it away"
