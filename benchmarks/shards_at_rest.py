"""What workers of a host cost that do nothing, with shards on two servers: a cache each, and shared caches.

    python -m benchmarks.shards_at_rest [WORKERS]

CPU is of all workers, and of all processes of the servers; wake-ups are the voluntary switches of all threads. Linux.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import time
from contextlib import ExitStack
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import psycopg

import pgsession
from pgsession.embedded import EmbeddedServer

SETTLED, REST = 5.0, 20.0  # seconds
_LISTENING = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgsession listener'"


class Used(NamedTuple):
    """What a process has used so far."""

    seconds: float
    wake_ups: int
    threads: int

    @staticmethod
    def by(pid: int) -> Used:
        """What is told of each of its threads."""
        seconds, wake_ups, threads = 0.0, 0, 0
        for task in Path(f"/proc/{pid}/task").iterdir():
            seconds += int((task / "schedstat").read_text().split()[0]) / 1e9
            told = dict(line.split(":", 1) for line in (task / "status").read_text().splitlines())
            wake_ups += int(told["voluntary_ctxt_switches"])
            threads += 1
        return Used(seconds, wake_ups, threads)


def serve(line: Connection, shards: list[pgsession.Shard], fields: dict[str, Any]) -> None:
    """Do nothing with an open manager until it is said so."""
    with pgsession.ShardedSessionManager(shards, pgsession.Config(**fields)):
        line.send(None)
        line.recv()


def seconds_of(server: EmbeddedServer) -> float:
    """CPU seconds of a server's processes; those that end meanwhile are left out."""
    used = 0.0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(stat.read_text().rpartition(")")[2].split()[1])
            if server.pid in (parent, int(stat.parent.name)):
                used += Used.by(int(stat.parent.name)).seconds
        except OSError:
            continue
    return used


def at_rest(servers: list[EmbeddedServer], count: int, workers: int, shared: str | None) -> str:
    """A line about so many workers with so many shards."""
    shards = [
        pgsession.Shard(database=servers[number % len(servers)].conninfo, schema_name=f"of_{count}_{number}")
        for number in range(count)
    ]
    fields: dict[str, Any] = {
        "create_schema_if_missing": True, "cleanup_interval": 0, "shared_cache": shared,
    }  # fmt: skip
    spawned = multiprocessing.get_context("spawn")
    with ExitStack() as stack:
        pids = []
        for _ in range(workers):
            line, theirs = spawned.Pipe()
            process = spawned.Process(target=serve, args=(theirs, shards, fields))
            process.start()
            line.recv()
            stack.callback(process.join)
            stack.callback(line.send, None)
            pids.append(process.pid or 0)
        time.sleep(SETTLED)
        before, theirs_before = [Used.by(pid) for pid in pids], sum(map(seconds_of, servers))
        time.sleep(REST)
        after, theirs_after = [Used.by(pid) for pid in pids], sum(map(seconds_of, servers))
        listening = 0
        for server in servers:
            with psycopg.connect(server.conninfo) as connection:
                row = connection.execute(_LISTENING).fetchone()
                listening += row[0] if row else 0
    ours = sum(now.seconds - was.seconds for was, now in zip(before, after, strict=True)) / REST
    wake_ups = sum(now.wake_ups - was.wake_ups for was, now in zip(before, after, strict=True)) / REST
    return (
        f"{count} shards, {'shared' if shared else 'each its own'}: workers {ours * 1000:.1f} ms, servers "
        f"{(theirs_after - theirs_before) / REST * 1000:.1f} ms, {wake_ups:.0f} wake-ups, threads "
        f"{[used.threads for used in after]}, {listening} listening connections"
    )


def main() -> None:
    workers = int(sys.argv[1]) if len(sys.argv) > 1 else 4
    with ExitStack() as stack:
        options: dict[str, Any] = {"settings": {"max_connections": 300}}
        servers = [stack.enter_context(EmbeddedServer(**options)) for _ in range(2)]
        for count in (4, 16):
            for shares in (False, True):
                folder = stack.enter_context(tempfile.TemporaryDirectory())  # mode 0700
                print(at_rest(servers, count, workers, folder if shares else None), flush=True)


if __name__ == "__main__":
    main()
