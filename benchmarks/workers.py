"""The worker processes of a host, each with a manager of its own, which share a cache or do not."""

from __future__ import annotations

import multiprocessing
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pgsession
from pgsession._core.record import Record

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__, "psycopg_pool", "pgsession._sync.runtime"])
DAY = 86_400_000_000
HUNDRED = b'"' + b"x" * 98 + b'"'


@contextmanager
def folder() -> Iterator[Path]:
    """Where an arena may lie: in memory, and closed to other users."""
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(prefix="pgsession-benchmark-", dir=memory if memory.is_dir() else None))
    try:
        yield path
    finally:
        shutil.rmtree(path)


def key_of(number: int) -> bytes:
    """Return the id of one of the sessions of `fill`; to make it anew takes no memory."""
    return blake2b(number.to_bytes(8, "big"), digest_size=16).digest()


def fill(manager: pgsession.SessionManager, count: int) -> None:
    """Put so many sessions of 5 x 100 B into memory, as reads would. To create them would take minutes."""
    now = manager._clock.database_now()
    for number in range(count):
        key = key_of(number)
        values = [(f"key_{place}", 1, None, bytes(bytearray(HUNDRED))) for place in range(5)]
        manager._cache.put(Record(key, 1, f"user {number}", None, now, now, now, now + DAY, 2 * DAY, values))


def read(manager: pgsession.SessionManager, count: int, touch: bool = False) -> int:
    """Return how many of these memory has; with `touch` each is an access."""
    found = (manager.get_cached_session(key_of(number), touch=touch) for number in range(count))
    return sum(session is not None for session in found)


def leads(manager: pgsession.SessionManager) -> bool:
    return manager.stats().leader


def _serve(control: Connection, database: str, settings: dict[str, Any]) -> None:
    with pgsession.SessionManager(database, pgsession.Config(**settings)) as manager:
        control.send(None)
        while (asked := control.recv()) is not None:
            work, arguments = asked
            control.send(work(manager, *arguments))


class Worker:
    """One of them, which does what it is asked for."""

    def __init__(self, database: str, settings: dict[str, Any]) -> None:
        self._control, theirs = _CONTEXT.Pipe()
        self.process: Any = _CONTEXT.Process(target=_serve, args=(theirs, database, settings), daemon=True)
        self.process.start()

    def opened(self) -> None:
        """Wait until its manager is open."""
        self._control.recv()

    def begin(self, work: Callable[..., Any], *arguments: Any) -> None:
        self._control.send((work, arguments))

    def end(self) -> Any:
        return self._control.recv()

    def do(self, work: Callable[..., Any], *arguments: Any) -> Any:
        self.begin(work, *arguments)
        return self.end()

    def kill(self) -> None:
        self.process.kill()
        self.process.join()

    def close(self) -> None:
        self._control.send(None)
        self.process.join()


@contextmanager
def workers(database: str, count: int, **settings: Any) -> Iterator[list[Worker]]:
    """So many, open and in sync."""
    started = [Worker(database, settings) for _ in range(count)]
    for worker in started:
        worker.opened()
    try:
        yield started
    finally:
        for worker in started:
            worker.close()


class Threads(dict[Path, tuple[float, int]]):
    """What the threads of some processes have done: the seconds of the processor, and how often they were woken.

    To be woken is to have waited for something and to go on: what Linux calls voluntary context switches.
    """

    @classmethod
    def of(cls, pids: list[int]) -> Threads:
        return cls({task: _done(task) for pid in pids for task in Path(f"/proc/{pid}/task").glob("*")})

    def since(self, before: Threads) -> tuple[float, int]:
        """Of those that have lived all the time; a pool ends some of its own when it has begun."""
        pairs = [(now, before[task]) for task, now in self.items() if task in before]
        return sum(now[0] - then[0] for now, then in pairs), sum(now[1] - then[1] for now, then in pairs)


def _done(task: Path) -> tuple[float, int]:
    (switches,) = re.findall(
        r"^voluntary_ctxt_switches:\s*(\d+)", (task / "status").read_text(), re.MULTILINE
    )
    return int((task / "schedstat").read_text().split()[0]) / 1e9, int(switches)


def proportional(pids: list[int], but: Path) -> int:
    """Return the bytes of memory that these processes have, each page divided among all who have it (PSS).

    What is mapped of files in the folder `but` is left out.
    """
    total, counts = 0, True
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            head = line.split(maxsplit=5)
            if not head[0].endswith(":"):
                counts = len(head) < 6 or not head[5].startswith(str(but))
            elif head[0] == "Pss:" and counts:
                total += 1024 * int(head[1])
    return total
