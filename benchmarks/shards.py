"""What an operation costs with one, two and four servers, four shards in all: CPU of this process and of the servers.

    python -m benchmarks.shards [ROUNDS]

Rounds of the three are interleaved, and each figure is the median of them. "at rest" is what a node costs that
is idle and alone, the beacons that it sent for all shards together, and the proofs of sync that it got, which is what
those bring; under load, which is updates in all shards as fast as they go, events take their place. The run is kept in
shards.json, of which docs/shards.md has its table.
"""

from __future__ import annotations

import json
import os
import re
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import psycopg

import pgsession
from pgsession._database.connections import ADAPTERS
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession.embedded import EmbeddedServer

from .machine import versions

SERVERS = (1, 2, 4)
SHARDS = 4
AT_REST, REST = "at rest, 1 s", 10
PROOFS, BEACONS, BEACONS_OF_LOAD = "proofs, at rest", "beacons sent, at rest", "beacons sent, under load"
CALLS = {
    "read from memory": 20_000,
    "update": 300,
    "login of a user": 300,
    "login of a visitor": 60,
}
RECORDED = Path(__file__).with_suffix(".json")
PAGE = Path(__file__).parents[1] / "docs" / "shards.md"
_BLOCK = re.compile(r"(<!-- measured: shards -->\n).*?(<!-- end -->)", re.DOTALL)
TICK = os.sysconf("SC_CLK_TCK")


def server_seconds(servers: list[EmbeddedServer]) -> float:
    """CPU seconds that the servers' processes have used, those that have ended included."""
    masters = {server.pid for server in servers}
    used = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(fields[1]) in masters:
            used += int(fields[11]) + int(fields[12])
        elif int(stat.parent.name) in masters:
            used += sum(map(int, fields[11:15]))
    return used / TICK


class Node:
    """A sharded manager on so many servers, and a session for each of some users."""

    def __init__(self, servers: list[EmbeddedServer], stack: ExitStack) -> None:
        self.servers = servers
        self.shards = [
            pgsession.Shard(
                database=servers[number % len(servers)].conninfo, schema_name=f"of_{len(servers)}_{number}"
            )
            for number in range(SHARDS)
        ]
        config = pgsession.Config(create_schema_if_missing=True, cleanup_interval=0)
        self.manager = stack.enter_context(pgsession.ShardedSessionManager(self.shards, config))
        self.sessions = [self.manager.create_session(user, {"n": 0}) for user in range(64)]

    def do(self, what: str, calls: int) -> None:
        manager, sessions = self.manager, self.sessions
        for number in range(calls):
            session = sessions[number % len(sessions)]
            match what:
                case "read from memory":
                    manager.get_session(session.id)
                case "update":
                    session["n"] = session["n"] + 1
                    manager.update_session(session)
                case "login of a user":
                    manager.create_session(f"new {number}")
                case "login of a visitor":
                    manager.rotate_session(
                        manager.create_session(None, {"cart": 1}), user_id=f"visitor {number}"
                    )


def measured(node: Node, work: Callable[[], None], calls: int) -> tuple[float, float]:
    """CPU microseconds of a call: of this process, and of the servers."""
    ours, theirs = time.process_time(), server_seconds(node.servers)
    work()
    spent = time.process_time() - ours, server_seconds(node.servers) - theirs
    return spent[0] / calls * 1e6, spent[1] / calls * 1e6


def beacons(node: Node, calls: int) -> float:
    """The beacons a second that were sent in all shards, between so many updates at a time."""
    with ExitStack() as stack:
        connections = [
            stack.enter_context(psycopg.connect(str(shard.database), autocommit=True, context=ADAPTERS))
            for shard in node.shards
        ]
        for connection, shard in zip(connections, node.shards, strict=True):
            connection.execute(Statements(str(shard.schema_name), "").listen, [events.EVENTS, True])
        threads = stack.enter_context(ThreadPoolExecutor(len(connections)))
        heard = [threads.submit(_beacons_of, connection) for connection in connections]
        while calls and not all(each.done() for each in heard):
            node.do("update", calls)
        return sum(each.result() for each in heard) / REST


def _beacons_of(connection: psycopg.Connection[Any]) -> int:
    """How many notifications bring nothing but a proof."""
    return sum(not events.parse(each.payload).items for each in connection.notifies(timeout=REST))


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    figures: dict[str, dict[int, list[tuple[float, float]]]] = {
        what: {count: [] for count in SERVERS} for what in (*CALLS, AT_REST)
    }
    rates: dict[str, dict[int, list[float]]] = {
        what: {count: [] for count in SERVERS} for what in (PROOFS, BEACONS, BEACONS_OF_LOAD)
    }
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer()) for _ in range(max(SERVERS))]
        with ExitStack() as together:
            nodes = {count: Node(servers[:count], together) for count in SERVERS}
            for _ in range(rounds):
                for what, calls in CALLS.items():
                    for count, node in nodes.items():
                        figures[what][count].append(measured(node, partial(node.do, what, calls), calls))
        for _ in range(rounds):
            for count in SERVERS:
                with ExitStack() as alone:
                    node = Node(servers[:count], alone)
                    time.sleep(2)  # what it opens with is over
                    before = node.manager.stats().proofs
                    figures[AT_REST][count].append(measured(node, partial(time.sleep, REST), REST))
                    rates[PROOFS][count].append((node.manager.stats().proofs - before) / REST)
                    rates[BEACONS][count].append(beacons(node, 0))
                    rates[BEACONS_OF_LOAD][count].append(beacons(node, 20))
    run = {
        "measured": date.today().isoformat(),
        "versions": {
            name: versions()[name] for name in ("machine", "system", "Python", "PostgreSQL", "psycopg")
        },
        "rounds": rounds,
        "shards": SHARDS,
        "figures": {
            what: {
                str(count): [round(statistics.median(column), 2) for column in zip(*found, strict=True)]
                for count, found in by_count.items()
            }
            for what, by_count in figures.items()
        },
        "a_second": {
            what: {str(count): round(statistics.median(found), 2) for count, found in by_count.items()}
            for what, by_count in rates.items()
        },
    }
    RECORDED.write_text(json.dumps(run, indent=1) + "\n")
    PAGE.write_text(page_of(PAGE.read_text(), run))
    print(table(run))


def page_of(text: str, run: dict[str, Any]) -> str:
    """The page with the table of this run."""
    return _BLOCK.sub(lambda block: f"{block[1]}{table(run)}\n{block[2]}", text)


def table(run: dict[str, Any]) -> str:
    """What the run gave, as the page has it."""
    kinds = [f"{count} server{'s' * (count > 1)}" for count in SERVERS]
    lines = [f"| CPU of a call, client / servers | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    for what, found in run["figures"].items():
        unit, of = ("ms", 1000) if what == AT_REST else ("\u00b5s", 1)
        cells = [f"{found[str(n)][0] / of:,.1f} / {found[str(n)][1] / of:,.0f} {unit}" for n in SERVERS]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    for what, found in run["a_second"].items():
        lines.append(f"| {what}, 1 s | {' | '.join(f'{found[str(n)]:.1f}' for n in SERVERS)} |")
    told = ", ".join(f"{name} {version}" for name, version in run["versions"].items() if name != "machine")
    return "\n".join(
        [
            *lines,
            "",
            f"Measured on {run['measured']}, {run['versions']['machine']}, {told}; {run['shards']} shards, one node,"
            f" medians of {run['rounds']} rounds. Servers count in ticks of 10 ms, so single ones of theirs are rough.",
        ]
    )


if __name__ == "__main__":
    main()
