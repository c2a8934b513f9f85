"""What a test leaves behind: threads, tasks, descriptors, and processes of the server."""

from __future__ import annotations

import asyncio
import gc
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Self

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

UNRELEASED = pytest.mark.filterwarnings("ignore:the lock on:ResourceWarning")
"""For tests that do not release each lock that they take: the manager's close gives it back."""

GRACE = 5.0  # seconds for what is ending already


class Leftovers:
    """`with Leftovers(dsn) as left:` what connects with `left.conninfo` has to be gone at the end of the block.

    `nothing_runs()` checks the threads and tasks earlier, say while a server still hangs.
    """

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.name = f"leftovers {secrets.token_hex(4)}"
        self.conninfo = make_conninfo(dsn, application_name=self.name)

    def __enter__(self) -> Self:
        self._threads = set(threading.enumerate())
        self._tasks = _tasks()
        self._descriptors = _descriptors()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        if kind is None:
            self.nothing_runs()
            gc.collect()  # what errors' tracebacks hold
            _wait_until(lambda: _descriptors() <= self._descriptors, lambda: "descriptors")
            _wait_until(lambda: not self.backends(), lambda: f"backends {self.backends()}")

    def nothing_runs(self) -> None:
        """Neither a thread nor a task more than at the beginning."""
        assert not (left := _tasks() - self._tasks), left
        _wait_until(lambda: not self._left(), lambda: f"threads {self._left()}")

    def running(self) -> set[object]:
        """The threads and tasks that are more than at the beginning."""
        return {*self._left(), *(_tasks() - self._tasks)}

    def know(self) -> None:
        """What runs now was not left behind."""
        self._threads |= set(threading.enumerate())

    def backends(self) -> list[int]:
        """The server's processes for the connections of that name."""
        query = "SELECT pid FROM pg_stat_activity WHERE application_name = %s"
        with psycopg.connect(self._dsn) as connection:
            return [pid for (pid,) in connection.execute(query, [self.name])]

    def _left(self) -> set[threading.Thread]:
        return {thread for thread in threading.enumerate() if thread.is_alive()} - self._threads


def _tasks() -> set[asyncio.Task[object]]:
    try:
        return {task for task in asyncio.all_tasks() if not task.done()}
    except RuntimeError:
        return set()  # in a test of threads


def _descriptors() -> int:
    return len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0


def _wait_until(condition: Callable[[], bool], left: Callable[[], str]) -> None:
    end = time.monotonic() + GRACE
    while not condition():
        assert time.monotonic() < end, f"left behind: {left()}"
        time.sleep(0.005)
