"""Taking and giving back a lock that nobody else wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import psycopg

from . import ours
from .loops import awaiting_loop, loop
from .race import Race, Round
from .stage import Stage

PAIRS = 100

OURS, THREADS = "pgsession, asyncio", "pgsession, threads"
ROW = "PostgreSQL, a row inserted and deleted"

race = Race("lock", "Lock and unlock", baseline=THREADS)


def _names() -> Sequence[str]:
    return [f"resource {number}" for number in range(PAIRS)]


@race.contender(OURS)
def _tasks(stage: Stage) -> Iterator[Round]:
    with ours.async_manager(stage) as sessions:

        async def pair(name: str) -> None:
            async with sessions.lock(name):
                pass

        yield awaiting_loop(stage.loop, pair, _names, waits=True)


@race.contender(THREADS)
def _threads(stage: Stage) -> Iterator[Round]:
    with ours.manager(stage) as sessions:

        def pair(name: str) -> None:
            with sessions.lock(name):
                pass

        yield loop(pair, _names, waits=True)


@race.contender(ROW)
def _row(stage: Stage) -> Iterator[Round]:
    with psycopg.connect(stage.new_database(), autocommit=True) as connection:
        connection.execute("CREATE TABLE locks (name text PRIMARY KEY, taken timestamptz DEFAULT now())")

        def pair(name: str) -> None:
            connection.execute("INSERT INTO locks (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
            connection.execute("DELETE FROM locks WHERE name = %s", (name,))

        yield loop(pair, _names, waits=True)


@race.contender("redis-py Lock")
def _redis(stage: Stage) -> Iterator[Round]:
    import redis

    client = redis.Redis.from_url(stage.redis)

    def pair(name: str) -> None:
        with client.lock(f"pgsession-benchmark:{name}", timeout=60):
            pass

    yield loop(pair, _names, waits=True)
    client.close()


test_lock = race.test()
