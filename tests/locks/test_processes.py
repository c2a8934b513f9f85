"""Eight processes fight for one lock, while holders are killed, cut off and stopped. Never are there two."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

import pgsession
from tests.tables import Tables

PROCESSES = 8
PATIENCE = 60
ROOT = Path(__file__).parents[2]


class Line(NamedTuple):
    kind: str
    pid: int
    token: int
    moment: int


class Fight:
    def __init__(self, log: Path, processes: list[subprocess.Popen[str]]) -> None:
        self._log = log
        self.processes = processes

    def lines(self) -> list[Line]:
        whole = self._log.read_text().rpartition("\n")[0].splitlines()
        return [
            Line(kind, int(pid), int(token), int(moment))
            for kind, pid, token, moment in map(str.split, whole)
        ]

    def until(self, condition: Callable[[list[Line]], object], what: str) -> None:
        deadline = time.monotonic() + PATIENCE
        while not condition(self.lines()):
            dead = [p for p in self.processes if p.poll() not in (None, -signal.SIGKILL)]
            assert not dead, f"a holder ended with {dead[0].returncode}"
            assert time.monotonic() < deadline, f"no {what} within {PATIENCE} s: {self.lines()[-20:]}"
            time.sleep(0.002)

    def holder(self) -> Line:
        """Who holds the lock at this moment, as far as can be told."""
        found: list[Line] = []

        def somebody(lines: list[Line]) -> bool:
            if lines and lines[-1].kind in ("start", "alive"):
                found.append(lines[-1])
            return bool(found)

        self.until(somebody, "holder")
        return found[0]

    def goes_on(self, hand_overs: int = 3) -> None:
        """The lock changes hands that often from now on."""
        before = max((line.token for line in self.lines()), default=0)

        def enough(lines: list[Line]) -> bool:
            return len({line.token for line in lines if line.token > before}) >= hand_overs

        self.until(enough, "hand-overs")


@pytest.fixture
def fight(dsn: str, schema: str, tmp_path: Path) -> Iterator[Fight]:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    with pgsession.SessionManager(dsn, config):
        pass
    log = tmp_path / "log"
    log.touch()
    command = [sys.executable, "-m", "tests.locks.holder", dsn, schema, str(log)]
    processes = [
        subprocess.Popen(command, cwd=ROOT, stdin=subprocess.PIPE, text=True) for _ in range(PROCESSES)
    ]
    try:
        yield Fight(log, processes)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
            process.communicate()


@contextmanager
def stopped(fight: Fight) -> Iterator[Line]:
    """A holder that stands still in the middle of its critical section."""
    while True:
        line = fight.holder()
        os.kill(line.pid, signal.SIGSTOP)
        last = fight.lines()[-1]
        if last.pid == line.pid and last.kind in ("start", "alive"):
            break
        os.kill(line.pid, signal.SIGCONT)
    try:
        yield last
    finally:
        os.kill(line.pid, signal.SIGCONT)


@pytest.mark.skipif(sys.platform == "win32", reason="SIGSTOP")
def test_there_is_never_more_than_one_holder(fight: Fight, tables: Tables) -> None:
    everybody = {process.pid for process in fight.processes}
    fight.until(lambda lines: len({line.pid for line in lines}) >= PROCESSES // 2, "fight")

    victim = fight.holder()
    os.kill(victim.pid, signal.SIGKILL)
    fight.goes_on()

    victim = fight.holder()
    tables.run(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s",
        f"holder {victim.pid}",
    )
    fight.goes_on()

    with stopped(fight) as paused:
        fight.goes_on()  # its lease runs out
    fight.until(
        lambda lines: (
            Line("lost", paused.pid, paused.token, 0) in [line._replace(moment=0) for line in lines]
        ),
        "news for the holder that was stopped",
    )
    fight.goes_on(PROCESSES)

    for process in fight.processes:
        if process.poll() is None:
            process.communicate(timeout=PATIENCE)
    assert sorted({process.returncode for process in fight.processes}) == [-signal.SIGKILL, 0]
    lines = fight.lines()
    assert {line.pid for line in lines} <= everybody
    check(lines)
    after = [line for line in lines if (line.pid, line.token) == (paused.pid, paused.token)]
    told = [line.kind for line in after if line.moment > paused.moment]
    assert told[0] == "lost", f"it acted before it looked: {told}"


def check(lines: list[Line]) -> None:
    """Each token has one owner; where one was held at a moment, no later token had been given out before it."""
    owners = {line.token: line.pid for line in lines}
    assert all(owners[line.token] == line.pid for line in lines)
    alive: dict[int, int] = {}
    seen: dict[int, int] = {}
    for line in lines:
        if line.kind == "alive":
            alive[line.token] = max(line.moment, alive.get(line.token, 0))
        if line.kind in ("start", "alive"):
            seen[line.token] = min(line.moment, seen.get(line.token, line.moment))
    before = 0
    for token in sorted(seen):
        assert before <= seen[token], f"an older token was still held when {token} was"
        before = max(before, alive.get(token, 0))
