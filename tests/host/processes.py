"""The processes of a host, for a test to command."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import pgsession
from tests.host import worker
from tests.sharded import Shards

_SPAWNS = multiprocessing.get_context("spawn")
_FORKS = multiprocessing.get_context("forkserver")
_FORKS.set_forkserver_preload(["tests.host.worker", "psycopg_pool", "pgsession._async.runtime"])
PATIENCE = 20


class Process:
    """One of them."""

    def __init__(
        self, kind: str, dsn: str | Shards, fields: dict[str, Any], *, spawned: bool = False
    ) -> None:
        context = _SPAWNS if spawned else _FORKS
        self._line, theirs = context.Pipe()
        self._process = context.Process(target=worker.serve, args=(kind, theirs, dsn, fields), daemon=True)
        self._process.start()
        theirs.close()

    def begin(self, do: Callable[..., Any], *arguments: Any, **options: Any) -> None:
        self._line.send((partial(do, **options), arguments))

    def end(self) -> Any:
        assert self._line.poll(PATIENCE), "no answer"
        well, answer = self._line.recv()
        if not well:
            raise Failed(answer)
        return answer

    @property
    def answered(self) -> bool:
        return self._line.poll()

    def do(self, do: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        self.begin(do, *arguments, **options)
        return self.end()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def alive(self) -> bool:
        return self._process.is_alive()

    @property
    def stats(self) -> pgsession.Stats:
        return self.do(worker.stats)  # type: ignore[no-any-return]

    def kill(self) -> None:
        self._process.kill()
        self._process.join()

    @contextmanager
    def stopped(self) -> Iterator[None]:
        os.kill(self.pid, signal.SIGSTOP)
        try:
            yield
        finally:
            os.kill(self.pid, signal.SIGCONT)

    def leave(self) -> None:
        self._process.kill()
        self._process.join()
        self._line.close()


class Failed(Exception):
    """What a process was to do has raised this there."""


class Host:
    """All of them; `start` begins one on the host's cache, with what the fields say beside."""

    def __init__(self, dsn: str | Shards, fields: dict[str, Any]) -> None:
        self._dsn = dsn
        self._fields = fields
        self.all: list[Process] = []

    def start(
        self, kind: str = "threads", dsn: str | None = None, *, spawned: bool = False, **fields: Any
    ) -> Process:
        process = self.begin(kind, dsn, spawned=spawned, **fields)
        process.end()
        return process

    def begin(
        self, kind: str = "threads", dsn: str | None = None, *, spawned: bool = False, **fields: Any
    ) -> Process:
        process = Process(kind, dsn or self._dsn, self._fields | fields, spawned=spawned)
        self.all.append(process)
        process.begin(worker.open)
        return process

    def leaders(self) -> list[Process]:
        return [process for process in self.all if process.stats.leader]

    def forget(self, process: Process) -> None:
        self.all.remove(process)
        process.leave()

    def end(self) -> None:
        for process in self.all:
            process.leave()


def eventually(condition: Callable[[], object], what: str = "it") -> None:
    """Ask until it holds; that it does not, in a generous time, is the test's failure."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {PATIENCE} s"
        time.sleep(0.005)
