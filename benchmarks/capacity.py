"""What single operations cost, for `pgsession plan`: `python -m benchmarks.capacity [--rounds N]`, a minute or so.

It measures on an embedded PostgreSQL of its own, by the operating system's accounting of processors, prints the
costs, and writes them into the data file of the command and into the examples of docs/capacity.md. Each cost is the
median of the rounds. Run it where nothing else runs: where processes wait for a processor as it begins, the file says
that it is provisional.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from statistics import linear_regression, median
from typing import Any
from uuid import UUID

import msgspec
import psycopg

from pgsession.cli._capacity import FILE, LISTENER, PROOFS_IN_A_BOUND, Constants, Measured
from tools import capacity_page

from . import machine, ours
from .service import ATTRIBUTES
from .stage import Stage

SESSIONS = 1_000
LISTENERS = (1, 8, 32)
OPERATIONS = 400
STALENESS = 10.0
IDLE_SECONDS = 10.0
"""A whole number of the times after which nodes ask for proof."""
LOAD = 0.5
"""More processes than this wanted to run: then the costs are provisional."""
VALUES = 5, 100
"""Of a cached session: so many attributes, of so many bytes."""

_BACKENDS = """
    SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


class Cost:
    """Microseconds of an operation, a round each."""

    def __init__(self) -> None:
        self.client: list[float] = []
        self.server: list[float] = []

    def measure(self, stage: Stage, count: int, work: Callable[[], object]) -> None:
        _, spent = stage.accounted(work)
        assert spent.server is not None, "a server of another machine says nothing of its processors"
        self.client.append(spent.client / count * 1e6)
        self.server.append(spent.server / count * 1e6)


def backends(database: str) -> list[int]:
    with psycopg.connect(database, autocommit=True) as connection:
        return [pid for (pid,) in connection.execute(_BACKENDS)]


def private_bytes(pid: int) -> int:
    lines = (line.split() for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines())
    return 1024 * sum(int(line[1]) for line in lines if line[0].startswith("Private_"))


def operations(stage: Stage, rounds: int) -> Iterator[tuple[str, float]]:
    """Lone operations of a node for threads."""
    read, update, create, access, hit = Cost(), Cost(), Cost(), Cost(), []
    with ours.manager(stage, count=SESSIONS, notify_on_updates=False) as sessions:
        ids = [UUID(bytes=key) for key in ours.cached_ids(sessions)]
        some = ids[:OPERATIONS]
        users = iter(range(10**9))

        def change() -> None:
            for session_id in some:
                session = sessions.get_session(session_id)
                assert session is not None
                session["cart"] = ["book", next(users)]
                sessions.update_session(session)

        def write_accesses() -> None:
            now = sessions._clock.database_now()
            sessions._runtime.store.write_accesses([(each.bytes, now) for each in ids])

        for number in range(-1, rounds):
            costs = [Cost() for _ in range(4)] if number < 0 else [read, update, create, access]
            costs[0].measure(stage, OPERATIONS, lambda: [sessions.get_session(i, refresh=True) for i in some])
            costs[1].measure(stage, OPERATIONS, change)
            costs[2].measure(
                stage,
                OPERATIONS,
                lambda: [
                    sessions.create_session(f"new {next(users)}", ATTRIBUTES) for _ in range(OPERATIONS)
                ],
            )
            time.sleep(0.01)  # an access is written where it is later than the one before
            costs[3].measure(stage, len(ids), write_accesses)
            began = time.thread_time()
            for _ in range(20):
                for session_id in ids:
                    sessions.get_session(session_id)
            hit.append((time.thread_time() - began) / (20 * len(ids)) * 1e6)
    yield "read_server_us", median(read.server)
    yield "update_server_us", median(update.server)
    yield "create_server_us", median(create.server)
    yield "access_server_us", median(access.server)
    yield "hit_client_us", median(hit)
    yield "read_client_us", median(read.client)
    yield "update_client_us", median(update.client)
    yield "create_client_us", median(create.client)


def connections(stage: Stage) -> Iterator[tuple[str, float]]:
    """Of one node, at rest and with more callers than its pool has connections."""
    database = stage.new_database()
    with ours.async_manager(stage, count=SESSIONS, database=database, pool_max_size=8) as sessions:
        ids = [UUID(bytes=key) for key in ours.cached_ids(sessions)]

        async def crowd() -> None:
            await asyncio.gather(*(sessions.get_session(i, refresh=True) for i in ids[:64]))

        most = 0
        for _ in range(30):
            stage.loop.run(crowd())
            most = max(most, len(backends(database)))
        weights = [private_bytes(pid) for pid in backends(database)]
    with ours.async_manager(stage, database=database):
        at_rest = len(backends(database))
    yield "connections_at_rest", at_rest
    print(f"connections of a node: {at_rest} at rest, {most} seen under load with pool_max_size=8")
    assert most <= 8 + LISTENER
    yield "connection_bytes", median(weights)


def notifications(stage: Stage, rounds: int) -> Iterator[tuple[str, float]]:
    """What the same updates cost more where nodes are told of them, and what nodes cost that do nothing."""
    servers: list[tuple[int, float]] = []
    clients: list[tuple[int, float]] = []
    proofs = 0.0
    for listeners in LISTENERS:
        database = stage.new_database()
        with ExitStack() as nodes:
            writer = nodes.enter_context(
                ours.async_manager(stage, count=SESSIONS, database=database, max_staleness=STALENESS)
            )
            for _ in range(listeners - 1):
                nodes.enter_context(
                    ours.async_manager(stage, database=database, max_staleness=STALENESS, cleanup_interval=0)
                )
            ids = [UUID(bytes=key) for key in ours.cached_ids(writer)][:OPERATIONS]
            costs = {True: Cost(), False: Cost()}
            numbers = iter(range(10**9))

            async def change(
                notify: bool, writer: Any = writer, ids: Any = ids, numbers: Any = numbers
            ) -> None:
                for session_id in ids:
                    session = await writer.get_session(session_id)
                    session["cart"] = ["book", next(numbers)]
                    await writer.update_session(session, notify=notify)

            for _ in range(rounds + 1):
                for notify, cost in costs.items():
                    cost.measure(stage, OPERATIONS, lambda notify=notify: stage.loop.run(change(notify)))
            for of, points in (("server", servers), ("client", clients)):
                more, less = getattr(costs[True], of)[1:], getattr(costs[False], of)[1:]
                points.append((listeners, median(a - b for a, b in zip(more, less, strict=True))))
            print(
                f"{listeners:3} listeners: {servers[-1][1]:.0f} us of the server, {clients[-1][1]:.0f} us of the nodes"
            )
            if listeners == LISTENERS[-1]:
                time.sleep(STALENESS / PROOFS_IN_A_BOUND)  # until the last save proves nothing more
                _, spent = stage.accounted(lambda: time.sleep(IDLE_SECONDS))
                assert spent.server is not None
                proofs = spent.server / IDLE_SECONDS * 1e6
    listener, notification = linear_regression(*zip(*servers, strict=True))
    event, _ = linear_regression(*zip(*clients, strict=True))
    yield "notification_server_us", max(notification, 0.0)
    yield "listener_server_us", max(listener, 0.0)
    yield "event_client_us", max(event, 0.0)
    rate = PROOFS_IN_A_BOUND / STALENESS
    beacons = rate * (notification + LISTENERS[-1] * listener)
    yield "proof_server_us", max(proofs - beacons, 0.0) / (LISTENERS[-1] * rate)


def memory() -> Iterator[tuple[str, float]]:
    """Of a cached session."""
    number, size = VALUES
    arguments = ("records", "20000", str(number), str(size))
    command = [sys.executable, "-m", "benchmarks.footprint", *arguments]
    weight = json.loads(subprocess.run(command, stdout=subprocess.PIPE, check=True).stdout)["bytes"]
    yield "session_bytes", weight - number * size


def measure(rounds: int) -> Measured:
    load = os.getloadavg()[0]
    with Stage() as stage:
        found = {
            **dict(operations(stage, rounds)),
            **dict(connections(stage)),
            **dict(notifications(stage, rounds)),
            **dict(memory()),
        }
    known = machine.versions()
    names = ("system", "Python", "PostgreSQL", "pgsession", "psycopg")
    return Measured(
        date=datetime.now(UTC).date().isoformat(),
        machine=known["machine"],
        versions={name: known[name] for name in names},
        load=load,
        provisional=load > LOAD,
        constants=msgspec.convert(
            {
                name: value if isinstance(value, int) else float(f"{value:.3g}")
                for name, value in found.items()
            },
            Constants,
        ),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    measured = measure(parser.parse_args().rounds)
    FILE.write_bytes(msgspec.json.format(msgspec.json.encode(measured), indent=2) + b"\n")
    print(FILE.read_text())
    if measured.provisional:
        print(
            f"provisional: {measured.load:.1f} processes wanted to run as it began; run it again on a quiet machine"
        )
    capacity_page.main()


if __name__ == "__main__":
    main()
