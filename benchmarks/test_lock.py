"""Taking and giving back a lock that nobody else wants."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from time import perf_counter

from . import ours
from .loops import loop
from .race import Race, Round
from .stage import Stage

PAIRS = 100

race = Race("lock", "Lock and unlock", baseline="pgsession")


def _names() -> Sequence[str]:
    return [f"resource {number}" for number in range(PAIRS)]


@race.contender("pgsession")
def _ours(stage: Stage) -> Iterator[Round]:
    with ours.manager(stage) as sessions:

        def pair(name: str) -> None:
            with sessions.lock(name):
                pass

        yield loop(pair, _names, perf_counter)


@race.contender("redis-py Lock")
def _redis(stage: Stage) -> Iterator[Round]:
    import redis

    client = redis.Redis.from_url(stage.redis)

    def pair(name: str) -> None:
        with client.lock(f"pgsession-benchmark:{name}", timeout=60):
            pass

    yield loop(pair, _names, perf_counter)
    client.close()


test_lock = race.test()
