"""Reading a session that this process does not hold, one after the other."""

from __future__ import annotations

from . import five_round_trips, frameworks, ours, redis_py
from .race import Race
from .service import reading

OURS = "pgsession, sync"

race = Race("read", "Read a session that this process does not hold", baseline=OURS)
race.contender(OURS)(reading(ours.threads, awaited=False))
race.contender("pgsession, asyncio")(reading(ours.tasks, awaited=True))
race.contender("PostgreSQL, 2 queries, sync")(reading(five_round_trips.threads, awaited=False))
race.contender("PostgreSQL, 2 queries, asyncio")(reading(five_round_trips.tasks, awaited=True))
race.contender("redis-py HGETALL, sync")(reading(redis_py.threads, awaited=False))
race.contender("redis-py HGETALL, asyncio")(reading(redis_py.tasks, awaited=True))
race.contender("starsessions (Redis)")(reading(frameworks.starsessions, awaited=True))
race.contender("Flask-Session (Redis)")(reading(frameworks.flask_session, awaited=False))
race.contender("Django db")(reading(lambda stage: frameworks.django(stage, "db"), awaited=False))

test_read = race.test()
