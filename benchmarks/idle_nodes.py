"""What idle nodes cost their server: `python -m benchmarks.idle_nodes`, on an embedded PostgreSQL.

So many managers for asyncio, in four processes, do nothing but stay in sync. A wake-up is one time that a server
process which listens had waited and went on: what Linux counts as voluntary context switches of these processes. CPU is
that of all processes of the server.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg

import pgsession
from pgsession.embedded import EmbeddedServer

NODES = (1, 8, 32, 100, 300)
PROCESSES = 4
WARM_UP = 12.0  # seconds, longer than `max_staleness`
_LISTENING = "SELECT pid FROM pg_stat_activity WHERE application_name = 'listener'"
_ALL = (
    "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND backend_type <> 'autovacuum worker'"
)


async def stay_in_sync(conninfo: str, count: int) -> None:
    """Be so many nodes until the standard input ends."""
    config = pgsession.Config(listener_conninfo=f"{conninfo} application_name=listener", cleanup_interval=0)
    managers = [pgsession.AsyncSessionManager(conninfo, config) for _ in range(count)]
    for manager in managers:
        await manager.open()
    print("ready", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    in_sync = [(await manager.check_health()).in_sync for manager in managers]
    print(sum(in_sync), sum(manager.stats().listener_losses for manager in managers), flush=True)
    for manager in managers:
        await manager.close()


@contextmanager
def idle(conninfo: str, count: int) -> Iterator[None]:
    processes = []
    for number in range(min(PROCESSES, count)):
        share = str(len(range(number, count, PROCESSES)))
        command = [sys.executable, "-m", "benchmarks.idle_nodes", "--be", conninfo, share]
        processes.append(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    time.sleep(WARM_UP)
    yield
    ended = [process.communicate("", timeout=120)[0].split() for process in processes]
    in_sync, losses = (sum(int(row[place]) for row in ended) for place in (0, 1))
    assert in_sync == count and not losses, f"{in_sync} of {count} in sync, {losses} listeners lost"


def pids(conninfo: str, query: str) -> list[int]:
    with psycopg.connect(conninfo, autocommit=True) as connection:
        return [row[0] for row in connection.execute(query)]  # type: ignore[call-overload]


def wake_ups(processes: list[int]) -> int:
    lines = (line for pid in processes for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return sum(int(line.split()[1]) for line in lines if line.startswith("voluntary_ctxt_switches"))


def cpu(processes: list[int]) -> float:
    """Seconds for which they ran."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in processes) / 1e9


def measure(conninfo: str, count: int, seconds: float) -> tuple[float, float]:
    with idle(conninfo, count):
        listening, everything = pids(conninfo, _LISTENING), pids(conninfo, _ALL)
        assert len(listening) == count
        woken, ran, began = wake_ups(listening), cpu(everything), time.perf_counter()
        time.sleep(seconds)
        lasted = time.perf_counter() - began
        return (wake_ups(listening) - woken) / lasted, (cpu(everything) - ran) / lasted


def slope(points: list[tuple[int, float]]) -> float:
    """Return the exponent with which the values grow with the number of nodes, by least squares of the logarithms."""
    logs = [(math.log(count), math.log(value)) for count, value in points if count >= 8]
    x, y = (sum(pair[place] for pair in logs) / len(logs) for place in (0, 1))
    return sum((a - x) * (b - y) for a, b in logs) / sum((a - x) ** 2 for a, _ in logs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--be", nargs=2, metavar=("CONNINFO", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--nodes", type=int, nargs="+", default=NODES)
    parser.add_argument("--seconds", type=float, default=20.0)
    arguments = parser.parse_args()
    if arguments.be:
        asyncio.run(stay_in_sync(arguments.be[0], int(arguments.be[1])))
        return
    with EmbeddedServer(settings={"max_connections": 2 * max(arguments.nodes) + 50}) as server:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            pgsession.schema.create(connection)
        found = []
        for count in arguments.nodes:
            woken, cores = measure(server.conninfo, count, arguments.seconds)
            found.append((count, woken, cores))
            print(f"{count:4} nodes  {woken:9.1f} wake-ups/s  {cores:8.4f} cores", flush=True)
        if len(found) > 2:
            print(
                f"from 8 nodes on wake-ups grow with the number of nodes to the power of"
                f" {slope([row[:2] for row in found]):.2f}, cores {slope([row[::2] for row in found]):.2f}"
            )


if __name__ == "__main__":
    main()
