"""Changing one attribute of a session, durably where the store can, with many callers at once in one process."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from . import five_round_trips, frameworks, one_statement, ours, redis_py
from .far import far
from .race import Contender, Race, Round, Sample
from .service import Service, changing
from .stage import Stage

OURS, OUR_THREADS = "pgsession, asyncio", "pgsession, threads"
FIVE, FIVE_THREADS = "PostgreSQL, 5 round trips, asyncio", "PostgreSQL, 5 round trips, threads"
REDIS, REDIS_THREADS = "redis-py HGETALL+HSET, asyncio", "redis-py HGETALL+HSET, threads"
REDIS_BLOB = "redis-py GET+SET, asyncio"
LEAST, LEAST_THREADS = "the least: one statement, asyncio", "the least: one statement, threads"
DELAY = 0.0005  # seconds that everything is under way, in each direction


def _race(callers: int) -> Race:
    noun = "caller" if callers == 1 else "callers at once"
    race = Race(f"update-{callers}", f"Change a session, {callers} {noun}", baseline=OURS, rounds=3)
    race.contender(OURS)(changing(ours.tasks, callers, awaited=True))
    race.contender(OUR_THREADS)(changing(ours.threads, callers, awaited=False))
    race.contender(FIVE)(changing(five_round_trips.tasks, callers, awaited=True))
    race.contender(FIVE_THREADS)(changing(five_round_trips.threads, callers, awaited=False))
    race.contender(REDIS)(changing(redis_py.tasks, callers, awaited=True))
    race.contender(REDIS_THREADS)(changing(redis_py.threads, callers, awaited=False))
    race.contender(REDIS_BLOB)(
        changing(lambda stage: redis_py.tasks(stage, blob=True), callers, awaited=True)
    )
    race.contender(f"{REDIS}, appendfsync always")(
        changing(redis_py.durable(redis_py.tasks), callers, awaited=True)
    )
    return race


def _enter_frameworks(race: Race, callers: int) -> None:
    race.contender("starsessions (Redis)")(changing(frameworks.starsessions, callers, awaited=True))
    if callers == 1:
        race.contender("Flask-Session (Redis)")(changing(frameworks.flask_session, 1, awaited=False))
        race.contender("Django cached_db")(changing(frameworks.django, 1, awaited=False))


def _far(opener: Callable[..., AbstractContextManager[Service]]) -> Contender:
    """A lone caller behind a proxy that holds back whatever passes. That computes in this process: no CPU is told."""

    @contextmanager
    def opened(stage: Stage) -> Iterator[Service]:
        with far(stage.new_database(), DELAY) as database, opener(stage, database=database) as service:
            yield service

    def contender(stage: Stage) -> Iterator[Round]:
        for take_turn in changing(opened, 1, awaited=True)(stage):

            def without_processor(take_turn: Round = take_turn) -> Sample:
                return take_turn()._replace(operations=0)

            yield without_processor

    return contender


alone, some, many, crowd = _race(1), _race(16), _race(64), _race(256)
alone.contender(LEAST)(changing(one_statement.tasks, 1, awaited=True))
alone.contender(LEAST_THREADS)(changing(one_statement.threads, 1, awaited=False))
delayed = Race(
    "update-delayed", "Change a session, 1 caller, 0.5 ms from the server", baseline=OURS, rounds=3
)
delayed.contender(OURS)(_far(ours.tasks))
delayed.contender(FIVE)(_far(five_round_trips.tasks))
_enter_frameworks(alone, 1)
_enter_frameworks(many, 64)

test_update_1 = alone.test()
test_update_16 = some.test()
test_update_64 = many.test()
test_update_256 = crowd.test()
test_update_delayed = delayed.test()
