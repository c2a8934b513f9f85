"""How long `wait=` takes: `python -m benchmarks.wait_for_all`, on an embedded PostgreSQL.

So many nodes, in at most four processes, and one more that creates sessions, has them read elsewhere, and deletes them:
without `wait=`, and with it. Idle, and while each process updates sessions without pause.
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pgsession
from pgsession.embedded import EmbeddedServer

NODES = (3, 30)
PROCESSES = 4
CALLS = 300


async def be_nodes(conninfo: str, count: int, writes: bool) -> None:
    """Be so many nodes until the standard input ends."""
    config = pgsession.Config(cleanup_interval=0)
    managers = [pgsession.AsyncSessionManager(conninfo, config) for _ in range(count)]
    for manager in managers:
        await manager.open()
    print("ready", flush=True)
    over = asyncio.create_task(asyncio.to_thread(sys.stdin.read))
    session = await managers[0].create_session(f"writer {time.monotonic_ns()}")
    while writes and not over.done():
        session["n"] = time.monotonic_ns()
        await managers[0].update_session(session)
    await over
    for manager in managers:
        await manager.close()


@contextmanager
def nodes(conninfo: str, count: int, writes: bool) -> Iterator[None]:
    processes = []
    for number in range(min(PROCESSES, count)):
        share = str(len(range(number, count, PROCESSES)))
        command = [sys.executable, "-m", "benchmarks.wait_for_all", "--be", conninfo, share]
        processes.append(
            subprocess.Popen(
                command + ["--writes"] * writes, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        )
    for process in processes:
        assert process.stdout is not None and process.stdout.readline() == "ready\n"
    yield
    for process in processes:
        process.communicate("", timeout=120)


async def ends(conninfo: str, calls: int) -> tuple[list[float], list[float]]:
    """Return the milliseconds of each deletion that did not wait, and of each that did; in turn."""
    without: list[float] = []
    waited: list[float] = []
    async with pgsession.AsyncSessionManager(conninfo, pgsession.Config(cleanup_interval=0)) as manager:
        for number in range(2 * calls):
            session = await manager.create_session("u")
            began = time.perf_counter()
            await manager.delete_session(session.id, wait=None if number % 2 else 30)
            (without if number % 2 else waited).append(1000 * (time.perf_counter() - began))
    return without, waited


def p(times: list[float], percent: int) -> float:
    return statistics.quantiles(times, n=100)[percent - 1]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.wait_for_all", description=__doc__)
    parser.add_argument("--calls", type=int, default=CALLS)
    parser.add_argument("--be", nargs=2, metavar=("CONNINFO", "COUNT"), help=argparse.SUPPRESS)
    parser.add_argument("--writes", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.be:
        asyncio.run(be_nodes(arguments.be[0], int(arguments.be[1]), arguments.writes))
        return
    print(f"{'nodes':>5}  {'':8}  {'delete p50':>10} {'p99':>7}  {'with wait= p50':>14} {'p99':>7}   (ms)")
    for count in NODES:
        for writes in (False, True):
            with EmbeddedServer(settings={"max_connections": "300"}) as server:
                asyncio.run(ends_of_none(server.conninfo))
                with nodes(server.conninfo, count, writes):
                    without, waited = asyncio.run(ends(server.conninfo, arguments.calls))
            print(
                f"{count:5}  {'writing' if writes else 'idle':8}  {p(without, 50):10.2f} {p(without, 99):7.2f}"
                f"  {p(waited, 50):14.2f} {p(waited, 99):7.2f}",
                flush=True,
            )


async def ends_of_none(conninfo: str) -> None:
    """Create the schema."""
    config = pgsession.Config(create_schema_if_missing=True, cleanup_interval=0)
    async with pgsession.AsyncSessionManager(conninfo, config):
        pass


if __name__ == "__main__":
    main()
