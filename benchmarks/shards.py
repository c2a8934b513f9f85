"""What an operation costs with one, two and four servers, four shards in all: CPU of this process and of the servers.

    python -m benchmarks.shards [ROUNDS]

Rounds of the three are interleaved, and each figure is the median of them. "at rest" is what an idle node costs.
"""

from __future__ import annotations

import os
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

import pgsession
from pgsession.embedded import EmbeddedServer

SERVERS = (1, 2, 4)
SHARDS = 4
CALLS = {
    "read from memory": 20_000,
    "update": 300,
    "login of a user": 300,
    "login of a visitor": 60,
    "at rest, 1 s": 1,
}
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
        shards = [
            pgsession.Shard(
                database=servers[number % len(servers)].conninfo, schema_name=f"of_{len(servers)}_{number}"
            )
            for number in range(SHARDS)
        ]
        config = pgsession.Config(create_schema_if_missing=True, cleanup_interval=0)
        self.manager = stack.enter_context(pgsession.ShardedSessionManager(shards, config))
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
                case _:
                    time.sleep(1)


def measured(node: Node, work: Callable[[], None], calls: int) -> tuple[float, float]:
    """CPU microseconds of a call: of this process, and of the servers."""
    ours, theirs = time.process_time(), server_seconds(node.servers)
    work()
    spent = time.process_time() - ours, server_seconds(node.servers) - theirs
    return spent[0] / calls * 1e6, spent[1] / calls * 1e6


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 9
    figures: dict[tuple[str, int], list[tuple[float, float]]] = {}
    with ExitStack() as stack:
        servers = [stack.enter_context(EmbeddedServer()) for _ in range(max(SERVERS))]
        nodes = {count: Node(servers[:count], stack) for count in SERVERS}
        for _ in range(rounds):
            for what, calls in CALLS.items():
                for count, node in nodes.items():
                    found = measured(
                        node, lambda node=node, what=what, calls=calls: node.do(what, calls), calls
                    )  # type: ignore[misc]
                    figures.setdefault((what, count), []).append(found)
    print(f"CPU us a call, of the client / of the servers; {SHARDS} shards, medians of {rounds} rounds")
    for what in CALLS:
        cells = []
        for count in SERVERS:
            ours, theirs = (statistics.median(column) for column in zip(*figures[what, count], strict=True))
            cells.append(f"{count}: {ours:8.2f} / {theirs:8.1f}")
        print(f"{what:20} {'   '.join(cells)}")


if __name__ == "__main__":
    main()
