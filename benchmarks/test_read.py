"""Reading a session that this process does not hold: one after the other, and many callers at once."""

from __future__ import annotations

from . import five_round_trips, frameworks, ours, redis_py
from .race import Race
from .service import reading, reading_at_once

OURS = "pgsession, sync"
CALLERS = 64
OURS_TOGETHER, ONE_EACH = "pgsession, asyncio", "PostgreSQL, one statement each, asyncio"

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

together = Race(
    f"read-{CALLERS}",
    f"Read a session that this process does not hold, {CALLERS} callers at once",
    baseline=OURS_TOGETHER,
    rounds=5,
)
together.contender(OURS_TOGETHER)(reading_at_once(ours.tasks, CALLERS, awaited=True))
together.contender("pgsession, threads")(reading_at_once(ours.threads, CALLERS, awaited=False))
together.contender(ONE_EACH)(
    reading_at_once(lambda stage: five_round_trips.tasks(stage, read_together=True), CALLERS, awaited=True)
)
together.contender("redis-py HGETALL, asyncio")(reading_at_once(redis_py.tasks, CALLERS, awaited=True))

test_read = race.test()
test_read_64 = together.test()
