"""Changing one attribute of a session, durably where the store can, with many callers at once in one process."""

from __future__ import annotations

from . import five_round_trips, frameworks, ours, redis_py
from .race import Race
from .service import changing

OURS, OUR_THREADS = "pgsession, asyncio", "pgsession, threads"
FIVE, FIVE_THREADS = "PostgreSQL, 5 round trips, asyncio", "PostgreSQL, 5 round trips, threads"
REDIS, REDIS_THREADS = "redis-py HGETALL+HSET, asyncio", "redis-py HGETALL+HSET, threads"
REDIS_BLOB = "redis-py GET+SET, asyncio"


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


alone, some, many, crowd = _race(1), _race(16), _race(64), _race(256)
_enter_frameworks(alone, 1)
_enter_frameworks(many, 64)

test_update_1 = alone.test()
test_update_16 = some.test()
test_update_64 = many.test()
test_update_256 = crowd.test()
