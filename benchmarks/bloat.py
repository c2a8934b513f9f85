"""How much the tables grow under updates: `python -m benchmarks.bloat`, on an embedded PostgreSQL with its defaults.

2,000 sessions of three attributes are updated 200,000 times, one attribute at a time, with autovacuum as it comes.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Any

import psycopg

import pgsession
from pgsession.embedded import EmbeddedServer

SESSIONS = 2_000
UPDATES = 200_000
CALLERS = 64
TABLES = ("sessions", "session_attributes")

_SIZES = """
    SELECT relname, pg_table_size(relid), pg_indexes_size(relid), n_tup_upd, n_tup_hot_upd, n_dead_tup
    FROM pg_stat_user_tables WHERE relname = ANY (%s) ORDER BY relname
"""


def sizes(conninfo: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        time.sleep(1.5)  # the server publishes its counters about once a second
        return connection.execute(_SIZES, (list(TABLES),)).fetchall()


async def update(conninfo: str) -> float:
    config = pgsession.Config(create_schema_if_missing=True, max_sessions=0, cache_size=SESSIONS)
    async with pgsession.AsyncSessionManager(conninfo, config) as manager:
        sessions = await asyncio.gather(
            *(manager.create_session(n, {"a": 0, "b": "x" * 100, "c": True}) for n in range(SESSIONS))
        )
        await asyncio.to_thread(report, conninfo, "filled")
        todo = iter(range(UPDATES))

        async def caller(number: int) -> None:
            choose = random.Random(number)
            mine = sessions[number::CALLERS]
            for n in todo:
                session = choose.choice(mine)
                session["a"] = n
                await manager.update_session(session)

        start = time.perf_counter()
        await asyncio.gather(*map(caller, range(CALLERS)))
        return UPDATES / (time.perf_counter() - start)


def report(conninfo: str, moment: str) -> None:
    for name, table, indexes, updated, hot, dead in sizes(conninfo):
        share = f"{hot / updated:.1%} HOT" if updated else ""
        print(
            f"{moment:8} {name:20} table {table / 2**20:6.2f} MiB  indexes {indexes / 2**20:6.2f} MiB  "
            f"updates {updated:7}  dead {dead:6}  {share}"
        )


def main() -> None:
    with EmbeddedServer() as server:
        rate = asyncio.run(update(server.conninfo))
        report(server.conninfo, "updated")
        print(f"{UPDATES} durable updates, {rate:,.0f} a second")


if __name__ == "__main__":
    main()
