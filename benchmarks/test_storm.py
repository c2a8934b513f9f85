"""A login storm: everybody comes back after a deploy, to a node that has nothing in its memory, or that was warmed."""

from __future__ import annotations

import asyncio
import tempfile
from collections import Counter
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from random import Random
from time import perf_counter
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

import pgsession
from pgsession import schema

from . import ours
from .race import Contender, Race, Round, Sample
from .stage import Stage
from .tables import quantity

COUNT = 100_000
TICK = 0.001  # seconds: requests come in bunches of what is due then
REACHED = 0.9  # of the requests of a second are hits
CORES = "cores of the server"
COLD, WARM = "cold", "warm (`Config.warm`)"
SECONDS = {500: {COLD: 10, WARM: 5}, 5_000: {COLD: 50, WARM: 5}}

_random = Random(22)
# The setting keeps the triggers quiet that announce plain SQL.
_INSERT = """
WITH quiet AS MATERIALIZED (SELECT set_config('pgsession.own', 'on', true)), made AS (
    INSERT INTO sessions (id, version, owner_since, user_id, expires_at)
    SELECT gen_random_uuid(), 1, 1, 'user ' || number, now() + interval '1 day'
    FROM quiet, generate_series(1, %s) number RETURNING id
), attributes AS (
    INSERT INTO session_attributes (session_id, key, value)
    SELECT id, k, '"value"' FROM made, unnest(ARRAY['role', 'theme', 'cart']) k
)
SELECT id FROM made
"""


class Town(NamedTuple):
    """A database with many sessions, and the file that a node which had all of them in its memory has left."""

    database: str
    ids: list[UUID]
    warm: Path


@contextmanager
def town(stage: Stage) -> Iterator[Town]:
    """One for all races here."""
    database = stage.new_database()
    with psycopg.connect(database) as connection:
        schema.create(connection)
        ids = [row[0] for row in connection.execute(_INSERT, (COUNT,))]
    with psycopg.connect(database, autocommit=True) as connection:
        connection.execute("VACUUM ANALYZE")
    with tempfile.TemporaryDirectory(prefix="pgsession-benchmark-") as folder:
        warm = Path(folder) / "warm"
        with ours.manager(stage, database=database, cache_size=COUNT, warm=warm) as sessions:
            for start in range(0, COUNT, 1000):
                sessions.load_sessions(ids[start : start + 1000], touch=False)
        yield Town(database, ids, warm)


async def _arrivals(
    sessions: pgsession.AsyncSessionManager, ids: list[UUID], rate: int, seconds: int
) -> Sample:
    """So many requests a second, whether those before were answered or not, each for a session at random.

    They are no accesses: to write these is the same work for a node that is cold and for one that is warm.
    """
    hits: Counter[int] = Counter()
    errors: Counter[str] = Counter()
    waits: list[float] = []
    started = perf_counter()

    async def request(due: float) -> None:
        try:
            session = await sessions.get_session(_random.choice(ids), touch=False)
        except pgsession.PgSessionError as error:
            errors[type(error).__name__] += 1
        else:
            assert session is not None
            hits[int(due - started)] += session.from_cache
        waits.append(perf_counter() - due)

    async with asyncio.TaskGroup() as requests:
        for tick in range(1, round(seconds / TICK) + 1):
            due = started + tick * TICK
            await asyncio.sleep(max(0.0, due - perf_counter()))
            for _ in range(int(tick * TICK * rate) - int((tick - 1) * TICK * rate)):
                requests.create_task(request(due))
    shares = [hits[second] / rate for second in range(seconds)]
    reached = next((second for second, share in enumerate(shares) if share >= REACHED), None)
    facts = {
        "hits in the 1st second": f"{shares[0]:.0%}",
        "in the 5th": f"{shares[4]:.0%}",
        "in the last": f"{shares[-1]:.0%} ({seconds}th)",
        "90 % hits": f"not within {seconds} s"
        if reached is None
        else f"after {reached} s"
        if reached
        else "at once",
        "errors": ", ".join(f"{count} {name}" for name, count in errors.items()) or "0",
    }
    return Sample((perf_counter() - started) / len(waits), waits, len(waits), facts=facts)


def _storm(rate: int, name: str) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        database, ids, warm = stage.once(town)
        settings = {"warm": warm} if name == WARM else {}
        with ours.async_manager(stage, database=database, cache_size=COUNT, **settings) as sessions:
            yield lambda: stage.loop.run(_arrivals(sessions, ids, rate, SECONDS[rate][name]))

    return contender


def _race(rate: int) -> Race:
    title = f"{COUNT:,} sessions are asked for again, {rate:,} requests a second to a node"
    race = Race(f"storm-{rate}", title, baseline=COLD, rounds=1, warm_up=False, unit="")
    for name in (COLD, WARM):
        race.contender(name)(_storm(rate, name))
    return race


start = Race(
    "warm", f"Open a node that reads {COUNT:,} sessions", baseline="asyncio", rounds=1, warm_up=False
)


def _opened(stage: Stage, opening: AbstractContextManager[Any]) -> Sample:
    began = perf_counter()
    sessions, spent = stage.accounted(opening.__enter__)
    elapsed = perf_counter() - began
    held = len(ours.cached_ids(sessions))
    opening.__exit__(None, None, None)
    assert held == COUNT, held
    if spent.server is None:
        return Sample(elapsed)
    facts = {"CPU client": quantity(spent.client), "CPU servers": quantity(spent.server)}
    return Sample(elapsed, facts={**facts, CORES: f"{spent.server / elapsed:.2f}"})


@start.contender("asyncio")
def _asyncio(stage: Stage) -> Iterator[Round]:
    database, _, warm = stage.once(town)
    yield lambda: _opened(stage, ours.async_manager(stage, database=database, cache_size=COUNT, warm=warm))


@start.contender("threads")
def _threads(stage: Stage) -> Iterator[Round]:
    database, _, warm = stage.once(town)
    yield lambda: _opened(stage, ours.manager(stage, database=database, cache_size=COUNT, warm=warm))


test_warm = start.test()
test_storm_500 = _race(500).test()
test_storm_5000 = _race(5_000).test()
