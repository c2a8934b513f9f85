"""The processor's time that an operation takes, of the client and of its servers: the operating system's accounting."""

from __future__ import annotations

from collections.abc import Callable, Collection
from pathlib import Path
from time import process_time
from typing import NamedTuple, TypeVar

import psutil

T = TypeVar("T")


class Server(NamedTuple):
    """A server that contenders use."""

    address: str
    process: psutil.Process | None
    """None where it is not ours: what it computes is not known."""


class Spent(NamedTuple):
    """Seconds of the processor."""

    client: float
    """This process, with all of its threads."""
    server: float | None
    """The processes of all servers that are used, helpers included; None where one of them is not ours."""


def accounted(work: Callable[[], T], servers: Collection[Server]) -> tuple[T, Spent]:
    """Does the work; returns what it returned, and what was spent meanwhile."""
    roots = [server.process for server in servers if server.process is not None]
    before = sum(map(_of_tree, roots))
    own = process_time()
    result = work()
    own = process_time() - own
    spent = sum(map(_of_tree, roots)) - before
    return result, Spent(own, spent if len(roots) == len(servers) else None)


def _of_tree(root: psutil.Process) -> float:
    """Of a process with all that it began, those included that have ended."""
    ended = _of_ended(root)
    while True:
        living = sum(map(_computed, [root, *root.children(recursive=True)]))
        before, ended = ended, _of_ended(root)
        if ended == before:  # else one of them has ended in between
            return living + ended


def _of_ended(root: psutil.Process) -> float:
    times = root.cpu_times()
    return times.children_user + times.children_system


def _computed(process: psutil.Process) -> float:
    """In nanoseconds where Linux tells them; nothing of a process that has just ended."""
    try:
        tasks = list(Path(f"/proc/{process.pid}/task").glob("*/schedstat"))
        if tasks:
            return sum(int(task.read_text().split()[0]) for task in tasks) / 1e9
        times = process.cpu_times()
        return times.user + times.system
    except (OSError, psutil.NoSuchProcess):
        return 0.0
