"""Logging users in: sessions with three attributes."""

from __future__ import annotations

from . import five_round_trips, frameworks, ours, redis_py
from .race import Race
from .service import creating
from .test_update import FIVE, FIVE_THREADS, OUR_THREADS, OURS


def _race(callers: int) -> Race:
    noun = "caller" if callers == 1 else "callers at once"
    race = Race(
        f"create-{callers}", f"Create a session with 3 attributes, {callers} {noun}", baseline=OURS, rounds=3
    )
    race.contender(OURS)(creating(ours.tasks, callers, awaited=True))
    race.contender(OUR_THREADS)(creating(ours.threads, callers, awaited=False))
    race.contender(FIVE)(creating(five_round_trips.tasks, callers, awaited=True))
    race.contender(FIVE_THREADS)(creating(five_round_trips.threads, callers, awaited=False))
    race.contender("redis-py HSET, asyncio")(creating(redis_py.tasks, callers, awaited=True))
    race.contender("starsessions (Redis)")(creating(frameworks.starsessions, callers, awaited=True))
    return race


test_create_1 = _race(1).test()
test_create_64 = _race(64).test()
