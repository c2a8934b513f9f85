"""What one cache for the workers of a host costs and saves, beside a cache for each: hits, memory, events, failover."""

from __future__ import annotations

import os
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from uuid import UUID

import psycopg

from pgsession import SessionManager
from pgsession._core.arena import Arena

from . import eviction, ours
from .loops import loop, shuffled
from .race import Contender, Missing, Race, Round, Sample
from .stage import Stage
from .workers import Threads, Worker, fill, folder, key_of, leads, proportional, read, workers

MIB = 2**20
OWN, SHARED, COPIED = "each its own", "shared", "shared, copied from the arena"

# ---- a hit ----

SESSIONS = 10_000

hit = Race(
    "shared-hit", "Get a session from memory, 10,000 of them, UUID, random order", baseline=OWN, rounds=15
)


def _settings(place: Path | None, size: int, capacity: int) -> dict[str, Any]:
    if place is None:
        return {"cache_size": capacity}
    if sys.platform != "linux":
        raise Missing("caches are shared on Linux")
    return {"cache_size": capacity, "shared_cache": str(place), "shared_cache_size": size}


def _hitting(capacity: int, *, shared: bool) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        with folder() as place:
            settings = _settings(place if shared else None, 32 * MIB, capacity)
            with ours.manager(stage, **settings) as manager:
                fill(manager, SESSIONS)
                assert read(manager, SESSIONS) == SESSIONS
                keys = [key_of(number) for number in range(SESSIONS)]
                yield _checked(manager, loop(manager.get_session, lambda: shuffled(keys, _uuid, SESSIONS)))

    return contender


def _uuid(key: bytes) -> UUID:
    return UUID(bytes=key)


def _checked(manager: SessionManager, take_turn: Round) -> Round:
    """Every read is answered from memory."""

    def checked() -> Sample:
        before = manager.stats().misses
        sample = take_turn()
        assert manager.stats().misses == before
        return sample

    return checked


hit.contender(OWN)(_hitting(SESSIONS, shared=False))
hit.contender(SHARED)(_hitting(SESSIONS, shared=True))
hit.contender(COPIED)(_hitting(1, shared=True))

# ---- memory ----

HELD, DEFAULT = 100_000, 2_000
ARENA = 96 * MIB

memory = Race(
    "shared-memory",
    "Memory of the workers of a host that hold 100,000 sessions of 5 x 100 B",
    baseline=f"16 workers, {OWN}",
    rounds=1,
    unit="B",
    warm_up=False,
)


def _weighing(count: int, *, shared: bool, accesses: bool = False) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        with folder() as place:
            settings = _settings(place if shared else None, ARENA, DEFAULT if shared else HELD)
            database = stage.new_database()
            with ours.manager(stage, database=database), workers(database, count, **settings) as started:
                yield lambda: Sample(_weighed(started, place, shared, accesses))

    return contender


def _weighed(started: list[Worker], place: Path, shared: bool, accesses: bool) -> float:
    """The bytes that it adds to what they have when they are just open, and all of the arena's file."""
    pids = [worker.process.pid for worker in started]
    before = proportional(pids, place)
    for worker in started[:1] if shared else started:
        worker.do(fill, HELD)
    for worker in started if shared else []:
        assert worker.do(read, HELD, accesses) == HELD
    files = sum(file.stat().st_blocks * 512 for file in place.iterdir())
    return proportional(pids, place) - before + files


for _count in (4, 16):
    memory.contender(f"{_count} workers, {OWN}")(_weighing(_count, shared=False))
    memory.contender(f"{_count} workers, {SHARED}")(_weighing(_count, shared=True))
memory.contender(f"16 workers, {SHARED}, all used by each just now")(
    _weighing(16, shared=True, accesses=True)
)

# ---- events ----

EVENTS, PAUSE, REST = 120, 0.002, 2.0
SETTLED = 3.0  # seconds, after which is over what is done once after a manager was opened
NOBODY = "no worker"

events = Race(
    "shared-events",
    "A durable commit that changes a session, one each 2 ms or later",
    baseline=NOBODY,
    rounds=5,
    unit="",
)


class _Crew:
    """Workers that do nothing but hear what is committed by a process beside them."""

    def __init__(self, database: str, started: list[Worker], manager: SessionManager) -> None:
        self._manager = manager
        self._session = manager.create_session("user", {"number": 0})
        self._workers = [worker.process.pid for worker in started]
        with psycopg.connect(database, autocommit=True) as connection:
            found = connection.execute("SELECT pid FROM pg_stat_activity WHERE application_name = 'worker'")
            self._backends = [pid for (pid,) in found]
        self._facts: dict[str, list[float]] = defaultdict(list)
        time.sleep(SETTLED)
        _, *self._idle = self._spent_in(lambda: time.sleep(REST))

    def _spent_in(self, work: Callable[[], object]) -> tuple[float, float, float]:
        """Seconds of the processor of the workers; how often they and their backends were woken meanwhile."""
        before = Threads.of(self._workers), Threads.of(self._backends)
        work()
        spent, woken = Threads.of(self._workers).since(before[0])
        return spent, woken, Threads.of(self._backends).since(before[1])[1]

    def take_turn(self) -> Sample:
        began = time.perf_counter()
        spent, *woken = self._spent_in(self._write)
        lasted = time.perf_counter() - began
        for side, times, idle in zip(("workers", "their backends"), woken, self._idle, strict=True):
            self._facts[f"wake-ups: {side}"].append((times - lasted * idle / REST) / EVENTS)
        facts = {name: f"{statistics.median(found):.1f}" for name, found in self._facts.items()}
        facts["workers at rest, a second"] = f"{self._idle[0] / REST:.1f}"
        return Sample(lasted / EVENTS, operations=EVENTS, helpers=spent, facts=facts)

    def _write(self) -> None:
        for number in range(EVENTS):
            self._session["number"] = number
            self._session = self._manager.update_session(self._session)
            time.sleep(PAUSE)
        time.sleep(0.1)  # until all have heard it


def _hearing(count: int, *, shared: bool) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        with folder() as place:
            settings = _settings(place if shared else None, 8 * MIB, DEFAULT)
            database = stage.new_database()
            theirs = f"{database} application_name=worker"
            with ours.manager(stage, database=database) as writer:
                with workers(theirs, count, **settings) as started:
                    yield _Crew(database, started, writer).take_turn

    return contender


events.contender(NOBODY)(_hearing(0, shared=False))
for _count in (1, 4, 16):
    _noun = "worker" if _count == 1 else "workers"
    events.contender(f"{_count} {_noun}, {OWN}")(_hearing(_count, shared=False))
    events.contender(f"{_count} {_noun}, {SHARED}")(_hearing(_count, shared=True))

# ---- another leader ----

KILLS = 25
_dice = Random(22)
PATIENCE = 30.0

takeover = Race(
    "shared-takeover", "The leader of 4 workers is killed: until another one leads", baseline=SHARED, rounds=1,
    warm_up=False,
)  # fmt: skip


@takeover.contender(SHARED)
def _taking_over(stage: Stage) -> Iterator[Round]:
    with folder() as place:
        settings = _settings(place, 8 * MIB, DEFAULT)
        database = stage.new_database()
        with ours.manager(stage, database=database), workers(database, 4, **settings) as started:

            def take_turn() -> Sample:
                leading, proved = zip(
                    *(_killed(started, database, settings, place) for _ in range(KILLS)), strict=True
                )
                facts = {
                    "longest": f"{1e3 * max(leading):.3g} ms",
                    "until it has a proof: median": f"{1e3 * statistics.median(proved):.3g} ms",
                    "longest of these": f"{1e3 * max(proved):.3g} ms",
                }
                return Sample(statistics.median(leading), leading, facts=facts)

            yield take_turn


def _killed(
    started: list[Worker], database: str, settings: dict[str, Any], place: Path
) -> tuple[float, float]:
    """Seconds until there is another leader, and until it has proved that it hears every change."""
    (leader,) = (worker for worker in started if worker.do(leads))
    arena = _arena(place)
    time.sleep(_dice.uniform(0.2, 0.4))  # what was just done has woken all of them at the same moment
    number, proved_until = arena.number, arena.proved_until
    began = time.perf_counter()
    os.kill(leader.process.pid, signal.SIGKILL)
    leading = _seconds_until(lambda: arena.number != number, began)
    proved = _seconds_until(lambda: arena.state == "synced" and arena.proved_until > proved_until, began)
    arena.close()
    leader.kill()
    started.remove(leader)
    started.append(Worker(database, settings))
    started[-1].opened()
    return leading, proved


def _arena(place: Path) -> Arena:
    for file in place.iterdir():
        if file.stat().st_size >= MIB:
            with file.open("r+b") as opened:
                return Arena.attach(opened.fileno())
    raise AssertionError("no arena")


def _seconds_until(condition: Callable[[], bool], began: float) -> float:
    while not condition():
        assert time.perf_counter() < began + PATIENCE
        time.sleep(100e-6)
    return time.perf_counter() - began


# ---- what leaves ----

hits = Race(
    "shared-eviction",
    "Hits of 100 requests, 40,000 sessions and an arena of 6 MiB",
    baseline="steady, skew 0.8",
    rounds=1,
    unit="",
    warm_up=False,
)
_ROW = re.compile(r"^(.+?) +(\d+) +([\d.]+) +([\d.]+) +([+-][\d.]+)$", re.MULTILINE)


@cache
def _rates() -> dict[str, dict[str, str]]:
    with tempfile.TemporaryDirectory() as there:
        try:
            said = subprocess.run(
                [eviction.compiled(there), "1"], capture_output=True, text=True, check=True
            ).stdout
        except (OSError, subprocess.CalledProcessError) as error:
            raise Missing(f"no C compiler, or not Linux: {error}") from error
    heads = ("sessions", "arena (CLOCK)", "LRU of as many", "difference")
    return {row[1]: dict(zip(heads, row.groups()[1:], strict=True)) for row in _ROW.finditer(said)}


def _replaying(trace: str) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        found = _rates()[trace]
        yield lambda: Sample(0, facts=found)

    return contender


for _trace in eviction.traces():
    hits.contender(_trace)(_replaying(_trace))

test_shared_hit = hit.test()
test_shared_memory = memory.test()
test_shared_events = events.test()
test_shared_takeover = takeover.test()
test_shared_eviction = hits.test()
