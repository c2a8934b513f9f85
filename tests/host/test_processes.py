"""Processes that share one cache of their host, on a real PostgreSQL."""

from __future__ import annotations

import asyncio
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._host.offices import HOLDERS
from tests.fault_proxy import FaultProxy
from tests.host.processes import Host, Process, eventually
from tests.host.worker import (
    close,
    create,
    delete,
    forks_in_the_middle,
    in_child,
    in_memory,
    lock,
    poison,
    read,
    storm,
    unlock,
    warnings,
    write,
)

KINDS = ("threads", "tasks")


def registered(dsn: str, host_schema: str) -> int:
    with psycopg.connect(dsn) as connection:
        row = connection.execute(f"SELECT count(*) FROM {host_schema}.session_nodes").fetchone()
    assert row is not None
    return int(row[0])


def leader_of(processes: list[Process]) -> tuple[Process, list[Process]]:
    """The one that leads, and the others; there is one at any moment when nothing happens."""
    found = [process for process in processes if process.stats.leader]
    assert len(found) == 1
    return found[0], [process for process in processes if process is not found[0]]


def goes_on(processes: list[Process], session: str) -> None:
    """What one writes all have from memory, again."""
    for process in processes:
        eventually(lambda process=process: process.stats.in_sync, "in sync")  # type: ignore[misc]
    for number, writer in enumerate(processes):
        writer.do(write, session, n=number)
        for process in processes:
            found = process.do(read, session)
            assert found is not None and found[0] == {"n": number}
    for process in processes:
        eventually(lambda process=process: process.do(read, session)[1], "from memory")  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_writes_all_have_at_once(host: Host, kind: str, dsn: str, host_schema: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    first, second, third = processes
    session = first.do(create, "u", n=0)
    assert all(process.do(read, session) == ({"n": 0}, True) for process in processes)
    for number, writer in enumerate(processes):
        writer.do(write, session, n=number)
        assert all(process.do(read, session) == ({"n": number}, True) for process in processes)
    assert second.do(delete, session, 5)
    assert [process.do(read, session) for process in processes] == [None] * 3
    assert third.stats.shared_hits
    assert third.stats.shared_sessions == 0
    leader_of(processes)
    assert registered(dsn, host_schema) == 1
    assert [process.stats.nodes for process in processes] == [1] * 3


def test_plain_sql_reaches_all(host: Host, dsn: str, host_schema: str) -> None:
    processes = [host.start(kind) for kind in KINDS]
    session = processes[0].do(create, "u", n=0)
    assert all(process.do(read, session) == ({"n": 0}, True) for process in processes)
    with psycopg.connect(dsn) as connection:
        connection.execute(f"DELETE FROM {host_schema}.sessions")
    for process in processes:
        eventually(lambda process=process: process.do(read, session) is None, "the deletion")  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_another_leads_when_the_leader_is_killed(host: Host, kind: str, dsn: str, host_schema: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    session = processes[0].do(create, "u", n=0)
    leader, others = leader_of(processes)
    leader.kill()
    assert all(process.do(in_memory, session) == {"n": 0} for process in others)
    eventually(lambda: any(process.stats.leader for process in others), "a leader")
    goes_on(others, session)
    assert others[0].do(delete, session, 10)
    assert sum(process.stats.failovers for process in others) == 1
    assert registered(dsn, host_schema) == 1
    late = host.start(kind)
    goes_on([*others, late], late.do(create, "u", n=0))


@pytest.mark.parametrize("kind", KINDS)
def test_a_leader_that_is_stopped_is_deposed(host: Host, kind: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    session = processes[0].do(create, "u", n=0)
    leader, others = leader_of(processes)
    with leader.stopped():
        eventually(lambda: any(process.stats.leader for process in others), "a leader")
        goes_on(others, session)
    eventually(lambda: not leader.stats.leader, "that it knows")
    assert leader.do(read, session)[0] == {"n": 1}
    goes_on(processes, session)
    leader_of(processes)


@pytest.mark.parametrize("kind", KINDS)
def test_a_leader_that_closes_leaves_no_gap(host: Host, kind: str, dsn: str, host_schema: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    session = processes[0].do(create, "u", n=0)
    leader, others = leader_of(processes)
    before = [process.stats for process in others]
    leader.begin(close)
    while not leader.answered:
        assert all(process.do(in_memory, session) == {"n": 0} for process in others)
    leader.end()
    leader_of(others)
    assert [process.stats.misses_out_of_sync for process in others] == [
        now.misses_out_of_sync for now in before
    ]
    assert sum(process.stats.failovers for process in others) == 0
    goes_on(others, session)
    assert registered(dsn, host_schema) == 1
    for process in others:
        process.do(close)
    assert registered(dsn, host_schema) == 0


def test_no_process_goes_back(host: Host, tmp_path: Path) -> None:
    """C2 for a host, while processes read and write, and one, mostly the leader, is killed and one stopped."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    kinds = ("threads", "tasks", "threads", "tasks")
    processes = [host.start(kind) for kind in kinds]
    sessions = [processes[0].do(create, f"u{number}", n=0) for number in range(3)]
    shared = tmp_path / "versions"
    shared.write_bytes(bytes(8 * (1 + len(sessions) * len(kinds))))
    leader, others = leader_of(processes)
    order = [leader, *others]
    for number, process in enumerate(order):
        process.begin(storm, sessions, str(shared), number, seed)
    time.sleep(0.5)  # in which they go on
    order[1].kill() if seed % 4 == 0 else leader.kill()
    order = [process for process in order if process.alive]
    time.sleep(0.5)
    with random.Random(seed).choice(order).stopped():
        time.sleep(0.3)
    time.sleep(0.5)
    with shared.open("r+b") as file:
        file.write(b"\1")
    found = [process.end() for process in order]
    assert all(hits for _, hits in found), found
    for process in order:
        eventually(lambda process=process: process.stats.in_sync, "in sync")  # type: ignore[misc]


def test_an_outage_empties_nothing(host: Host, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        options: dict[str, Any] = {"stale_if_error": 60.0, "max_staleness": 1.0, "operation_timeout": 2.0}
        processes = [host.start(kind, proxy.conninfo, **options) for kind in ("threads", "tasks", "threads")]
        sessions = [processes[0].do(create, f"u{number}", n=number) for number in range(5)]
        _, others = leader_of(processes)
        proxy.refuse()
        proxy.cut()
        eventually(lambda: not any(process.stats.in_sync for process in processes), "out of sync")
        for process in processes:
            assert [process.do(read, session) for session in sessions] == [
                ({"n": number}, True) for number in range(5)
            ]
        leader, others = leader_of(processes)
        leader.kill()
        for process in others:  # also where nobody leads
            assert [process.do(read, session) for session in sessions] == [
                ({"n": number}, True) for number in range(5)
            ]
        proxy.forward()
        goes_on(others, sessions[0])
        assert others[0].stats.shared_sessions == 5


@pytest.mark.parametrize("kind", KINDS)
def test_whoever_waits_for_a_lock_hears_of_its_end(host: Host, kind: str) -> None:
    processes = [host.start(kind) for _ in range(2)]
    for holder, other in (processes, processes[::-1]):
        first = holder.do(lock, "r")
        other.begin(lock, "r")
        holder.do(unlock, "r")
        assert other.end() > first
        other.do(unlock, "r")


def test_the_child_of_a_fork_takes_part_anew(host: Host) -> None:
    processes = [host.start("threads") for _ in range(2)]
    session = processes[0].do(create, "u", n=0)
    leader, (other,) = leader_of(processes)
    assert leader.do(in_child, session) == (({"n": 0}, True), False, True)
    assert other.do(in_child, session) == (({"n": 0}, True), False, True)
    leader_of(processes)
    goes_on(processes, session)


def test_who_comes_while_the_last_one_goes_misses_no_leader(
    dsn: str, host_schema: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where all workers are recycled at once: what is about to be left is not joined, so nobody has died in it."""
    config = pgsession.Config(schema_name=host_schema, shared_cache=str(folder), shared_cache_size=2**24)

    async def one_goes_and_one_comes() -> None:
        coming, going = (pgsession.AsyncSessionManager(dsn, config) for _ in range(2))
        await going.open()
        host = going._runtime._host
        stop, opening = host._stop_synchronizer, []

        async def stops(deadline: float) -> None:
            opening.append(asyncio.create_task(coming.open()))  # the other one has seen that it is alone
            while not (opening[0].done() or host._opened.offices.has_others(HOLDERS)):  # noqa: ASYNC110
                await asyncio.sleep(0.005)
            await stop(deadline)

        monkeypatch.setattr(host, "_stop_synchronizer", stops)
        await going.close()
        await opening[0]
        async with coming:
            session = await coming.create_session("u")
            assert (await coming.get_session(session.id)).from_cache
            told = coming.stats()
            assert (told.leader, told.failovers, told.in_sync) == (True, 0, True)

    asyncio.run(one_goes_and_one_comes())
    assert list(folder.iterdir()) == [] and registered(dsn, host_schema) == 0


_UNCLOSED = """
import asyncio
import sys
import warnings

import pgsession

warnings.simplefilter("ignore", ResourceWarning)
kind, dsn, schema, folder = sys.argv[1:]
config = pgsession.Config(schema_name=schema, shared_cache=folder, shared_cache_size=2**24)


async def opened():
    manager = pgsession.AsyncSessionManager(dsn, config)
    await manager.open()
    return manager


if kind == "threads":
    manager = pgsession.SessionManager(dsn, config)
    manager.open()
else:
    manager = asyncio.new_event_loop().run_until_complete(opened())
print(manager.stats().leader)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_who_ends_without_a_close_leaves_nothing(
    host: Host, kind: str, dsn: str, host_schema: str, folder: Path
) -> None:
    """As gunicorn's master does that has imported the application, and the last one out takes the memory away."""
    command = [sys.executable, "-c", _UNCLOSED, kind, dsn, host_schema, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    ours = f'File "{Path(pgsession.__file__).parent}'  # asyncio and psycopg's pool tell of a loop that nobody ended
    assert (done.stdout, done.returncode) == ("True\n", 0) and ours not in done.stderr, done
    assert list(folder.iterdir()) == []
    process = host.start(max_staleness=10.0)
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout == "False\n" and ours not in done.stderr, done
    assert process.stats.leader and [path.suffix for path in folder.iterdir()].count(".arena") == 1


def test_forks_in_the_middle_of_writes(host: Host) -> None:
    """Whatever the other threads of the parent have in hand then, the child begins without, and both go on."""
    processes = [host.start("threads") for _ in range(2)]
    sessions = [processes[0].do(create, f"u{number}", n=0) for number in range(3)]
    for process in processes:
        wrong, written = process.do(forks_in_the_middle, sessions, 6)
        assert not wrong and written
    assert not any(process.stats.arena_resets for process in processes)
    leader_of(processes)
    goes_on(processes, sessions[0])


@pytest.mark.parametrize("kind", KINDS)
def test_a_process_that_was_spawned_finds_it_by_name(host: Host, kind: str, folder: Path) -> None:
    first = host.start(kind)
    session = first.do(create, "u", n=0)
    late = host.start(kind, spawned=True)
    assert late.do(read, session) == ({"n": 0}, True), "never read by it before"
    assert late.stats.shared_fallback_reason is None and late.stats.shared_hits == 1
    leader_of([first, late])
    goes_on([first, late], session)
    first.kill()
    eventually(lambda: late.stats.leader, "that it leads")
    assert [path.suffix for path in folder.iterdir()].count(".arena") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_poisoned_arena_is_replaced(host: Host, kind: str, dsn: str, host_schema: str) -> None:
    processes = [host.start(kind) for _ in range(3)]
    session = processes[0].do(create, "u", n=0)
    processes[1].do(poison)
    eventually(lambda: all(process.stats.arena_resets == 1 for process in processes), "another arena")
    goes_on(processes, session)
    assert processes[2].do(delete, session, 3)
    leader_of(processes)
    assert registered(dsn, host_schema) == 1


def test_who_may_serve_longest_counts(host: Host, dsn: str, host_schema: str) -> None:
    """The host is registered by what any of its processes may serve, and `wait=` knows of it (C13)."""
    leader = host.start("threads")
    host.start("tasks", stale_if_error=600.0)

    def longest() -> int:
        with psycopg.connect(dsn) as connection:
            row = connection.execute(
                f"SELECT extract(epoch FROM serves_for)::integer FROM {host_schema}.session_nodes"
            ).fetchone()
        return 0 if row is None else int(row[0])

    eventually(lambda: longest() == 604, "the registration")
    assert leader.stats.leader


def test_where_it_cannot_be_shared_each_has_its_own(
    host: Host, folder: Path, dsn: str, host_schema: str
) -> None:
    os.chmod(folder, 0o755)
    processes = [host.start(kind) for kind in KINDS]
    session = processes[0].do(create, "u", n=0)
    for process in processes:
        process.do(read, session)
        assert process.do(read, session) == ({"n": 0}, True)
        told = process.stats
        assert told.shared_fallback_reason and "0700" in told.shared_fallback_reason
        assert not told.leader
        assert len(process.do(warnings)) == 1
    assert registered(dsn, host_schema) == 2
