"""Processes that share the caches of shards: each shard has an arena and a leader of its own."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._async.host import AsyncHost
from pgsession._concurrency import BackgroundTasks
from pgsession._host.place import Place, Refused
from pgsession.embedded import EmbeddedServer
from tests.host.processes import Failed, Host, Process, eventually
from tests.host.worker import (
    child_creates,
    close,
    create,
    delete,
    fork_one,
    forks_in_the_middle,
    in_child,
    in_memory,
    is_healthy,
    lead_no_more,
    read,
    stats_by_shard,
    warnings,
    write,
)
from tests.sharded import Shards, make_shards

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="arenas are for Linux")

KINDS = ("threads", "tasks")
EACH = range(4)
PART = 2**22


@pytest.fixture
def options(folder: Path) -> dict[str, Any]:
    return {"shared_cache": str(folder), "shared_cache_size": 4 * PART, "max_staleness": 4.0}


@pytest.fixture
def host(empty_shards: Shards, options: dict[str, Any]) -> Iterator[Host]:
    """Processes whose connections are known by the folder of their arenas."""
    host = Host(empty_shards, options)
    try:
        yield host
    finally:
        host.end()


def users(shards: Shards) -> list[str]:
    """A user of each shard."""
    manager = pgsession.ShardedSessionManager(shards)
    return [
        next(str(user) for user in range(1000) if manager.shard_of_user(user) == number) for number in EACH
    ]


def leads(process: Process) -> set[int]:
    """The shards that a process leads."""
    return {number for number, stats in process.do(stats_by_shard).items() if stats.leader}


def asked(shards: Shards, query: str, *parameters: object) -> list[Any]:
    """What each server says."""
    answers = []
    for dsn in dict.fromkeys(str(shard.database) for shard in shards):
        with psycopg.connect(dsn) as connection:
            row = connection.execute(query, parameters).fetchone()
        assert row is not None
        answers.append(row[0])
    return answers


def listeners(shards: Shards, since: list[Any]) -> list[int]:
    """How many connections listen on each server, of those that were made since then."""
    everywhere = asked(
        shards,
        "SELECT coalesce(array_agg(backend_start), '{}') FROM pg_stat_activity"
        " WHERE application_name = 'pgsession listener'",
    )
    return [sum(start > begun for start in starts) for starts, begun in zip(everywhere, since, strict=True)]


def arenas(folder: Path) -> list[int]:
    """The numbers of the shards that there are arenas of."""
    found = [re.fullmatch(r"shard(\d+)-[0-9a-f]{24}\.arena", path.name) for path in folder.iterdir()]
    return sorted(int(match[1]) for match in found if match)


def goes_on(processes: list[Process], sessions: list[str]) -> None:
    """What one writes all have, in each shard, and in the end from memory."""
    for process in processes:
        eventually(lambda process=process: process.stats.in_sync, "in sync")  # type: ignore[misc]
        assert not [text for text in process.do(warnings) if "ended with an error" in text]
    for number, writer in enumerate(processes):
        for session in sessions:
            writer.do(write, session, n=number)
            for process in processes:
                found = process.do(read, session)
                assert found is not None and found[0] == {"n": number}
    for process in processes:
        for session in sessions:
            eventually(lambda p=process, s=session: p.do(read, s)[1], "from memory")  # type: ignore[misc]


@pytest.mark.parametrize("kind", KINDS)
def test_what_one_writes_all_have_at_once(host: Host, kind: str, empty_shards: Shards, folder: Path) -> None:
    since = asked(empty_shards, "SELECT clock_timestamp()")
    processes = [host.start(kind) for _ in range(3)]
    first, second, third = processes
    sessions = [first.do(create, user, n=0) for user in users(empty_shards)]
    fills = [process.stats.fills for process in processes]
    for process in processes:
        assert [process.do(read, session) for session in sessions] == [({"n": 0}, True)] * 4
    for number, writer in enumerate(processes):
        for session in sessions:
            writer.do(write, session, n=number)
            assert all(process.do(read, session) == ({"n": number}, True) for process in processes)
    assert [process.stats.fills for process in processes] == fills, "a hit costs no query"
    assert [process.stats.shared_sessions for process in processes] == [4] * 3
    assert second.stats.shared_hits and third.stats.shared_hits and third.stats.cache_capacity == 2000
    assert arenas(folder) == list(EACH)
    assert {path.stat().st_size for path in folder.glob("*.arena")} == {PART}
    assert [leads(process) for process in processes] == [set(EACH), set(), set()]
    assert [process.stats.leader for process in processes] == [True, False, False]
    assert listeners(empty_shards, since) == [1] * len(since), (
        "who only follows has no connection that listens"
    )
    assert all(second.do(delete, session, 5) for session in sessions)
    assert [third.do(read, session) for session in sessions] == [None] * 4


@pytest.mark.parametrize("kind", KINDS)
def test_each_shard_has_a_leader_of_its_own(host: Host, kind: str, empty_shards: Shards) -> None:
    """One that is killed takes no others' shards: these go on without a step out of sync."""
    first = host.start(kind)
    second = host.start(kind)
    first.do(lead_no_more, 1)
    eventually(lambda: leads(second) == {1}, "another leader of shard 1")
    assert second.stats.leader
    third = host.start(kind)
    eventually(lambda: leads(first) == {0, 2, 3}, "that it knows")
    sessions = [third.do(create, user, n=0) for user in users(empty_shards)]
    goes_on([first, second, third], sessions)
    before = first.do(stats_by_shard)
    second.kill()
    others = [first, third]
    assert [process.do(in_memory, sessions[1]) for process in others] == [{"n": 2}] * 2
    eventually(lambda: any(1 in leads(process) for process in others), "a leader of shard 1")
    goes_on(others, sessions)
    assert leads(first) | leads(third) == set(EACH) and leads(first) >= {0, 2, 3}
    after = first.do(stats_by_shard)
    for number in (0, 2, 3):
        was, now = before[number], after[number]
        assert (now.resyncs, now.listener_losses, now.misses_out_of_sync, now.failovers) == (
            was.resyncs, was.listener_losses, was.misses_out_of_sync, was.failovers,
        )  # fmt: skip
    assert first.stats.failovers + third.stats.failovers == 1


@pytest.mark.parametrize("kind", KINDS)
def test_a_leader_that_closes_leaves_no_gap(
    host: Host, kind: str, empty_shards: Shards, folder: Path
) -> None:
    leader, *others = processes = [host.start(kind) for _ in range(3)]
    sessions = [leader.do(create, user, n=0) for user in users(empty_shards)]
    goes_on(processes, sessions)
    before = [process.stats.misses_out_of_sync for process in others]
    leader.begin(close)
    while not leader.answered:
        for process in others:
            assert [process.do(in_memory, session) for session in sessions] == [{"n": 2}] * 4
    leader.end()
    assert leads(others[0]) | leads(others[1]) == set(EACH)
    assert [process.stats.misses_out_of_sync for process in others] == before
    assert [process.stats.failovers for process in others] == [0, 0]
    goes_on(others, sessions)
    for process in others:
        process.do(close)
    assert list(folder.iterdir()) == []


def test_shards_are_handed_over_at_the_same_time(
    empty_shards: Shards, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One after the other they would take a close's patience for each; here nobody is ready before all are left."""
    config = pgsession.Config(**options)

    async def one_goes() -> None:
        going = pgsession.AsyncShardedSessionManager(empty_shards, config)
        staying = pgsession.AsyncShardedSessionManager(empty_shards, config)
        await going.open()
        await staying.open()
        stood = 0
        all_stand = asyncio.Event()
        for shard in staying._all:
            host = shard._runtime._host
            start = host._start_synchronizer

            async def starts(start: Callable[[], Any] = start) -> None:
                nonlocal stood
                stood += 1
                if stood == len(EACH):
                    all_stand.set()
                await all_stand.wait()
                await start()

            monkeypatch.setattr(host, "_start_synchronizer", starts)
        await going.close()
        told = staying.stats_by_shard()
        assert [told[number].leader for number in EACH] == [True] * 4
        assert [told[number].failovers for number in EACH] == [0] * 4
        await staying.close()

    asyncio.run(one_goes())


def test_the_child_of_a_fork_takes_part_anew(host: Host, empty_shards: Shards) -> None:
    processes = [host.start("threads") for _ in range(2)]
    sessions = [processes[0].do(create, user, n=0) for user in users(empty_shards)]
    for process in processes:
        for session in sessions:
            assert process.do(in_child, session) == (({"n": 0}, True), False, True)
    assert [leads(process) for process in processes] == [set(EACH), set()]
    wrong, written = processes[0].do(forks_in_the_middle, sessions, 4)
    assert not wrong and written
    assert not any(process.stats.arena_resets for process in processes)
    goes_on(processes, sessions)


def test_a_server_that_is_killed_takes_its_own_users_only(
    own_server: Callable[..., EmbeddedServer], folder: Path, options: dict[str, Any]
) -> None:
    """Also for a process that comes meanwhile: it shares what there is, and the rest once the server is back."""
    up, down = (own_server(settings={"fsync": "off"}) for _ in range(2))
    shards = make_shards([up.conninfo, down.conninfo], "s", 4)
    host = Host(shards, options | {"operation_timeout": 3.0})
    try:
        processes = [host.start(kind) for kind in ("threads", "tasks")]
        names = users(shards)
        sessions = [processes[0].do(create, user, n=0) for user in names]
        goes_on(processes, sessions)
        down.run("pg_ctl", "-D", down.folder, "-m", "immediate", "-w", "stop")
        late = host.start("threads")
        processes.append(late)
        for number in (0, 2):
            assert [process.do(read, sessions[number]) for process in processes] == [({"n": 1}, True)] * 3
            late.do(write, sessions[number], n=5)
            assert [process.do(read, sessions[number]) for process in processes] == [({"n": 5}, True)] * 3
        for number in (1, 3):
            for process in processes:
                with pytest.raises(Failed):
                    process.do(create, names[number])
        told = late.do(stats_by_shard)
        assert [told[number].shared_sessions for number in EACH] == [1, 0, 1, 0]
        assert arenas(folder) == list(EACH), "nothing of what the others share is taken away"
        late.do(fork_one, names[1])
        down.restart()
        made = late.do(child_creates)
        assert len(made) == 36, made
        for process in processes:
            eventually(lambda process=process: process.do(is_healthy), "the server's return")  # type: ignore[misc]
            assert process.do(read, made) is not None
        goes_on(processes, sessions)
        assert [late.do(stats_by_shard)[number].shared_sessions for number in EACH] == [1, 2, 1, 1]
        for process in processes:
            process.do(close)
        assert list(folder.iterdir()) == []
    finally:
        host.end()


def test_who_opens_while_a_server_is_down_leaves_nothing_of_it(
    own_server: Callable[..., EmbeddedServer], folder: Path, options: dict[str, Any]
) -> None:
    up, down = (own_server(settings={"fsync": "off"}) for _ in range(2))
    shards = make_shards([up.conninfo, down.conninfo], "s", 4)
    config = pgsession.Config(**options)
    down.run("pg_ctl", "-D", down.folder, "-m", "immediate", "-w", "stop")
    with pgsession.ShardedSessionManager(shards, config) as manager:
        assert arenas(folder) == [0, 2]
        manager.create_session(users(shards)[0])
        watching = [thread for thread in threading.enumerate() if thread.name == "pgsession host"]
        assert len(watching) == 2 * 2, "a watch and a loop for each shard that is there"
    assert list(folder.iterdir()) == []
    up.run("pg_ctl", "-D", up.folder, "-m", "immediate", "-w", "stop")
    with pytest.raises(psycopg.Error), pgsession.ShardedSessionManager(shards, config):
        pass
    assert list(folder.iterdir()) == []


def test_a_shard_that_cannot_be_shared_is_the_processes_own(
    empty_shards: Shards, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It listens on the connection that the others of its server listen on."""
    opened = Place.open

    def opens(place: Place) -> Any:
        if place._label == "shard2-":
            raise Refused("no room")
        return opened(place)

    monkeypatch.setattr(Place, "open", opens)
    since = asked(empty_shards, "SELECT clock_timestamp()")
    config = pgsession.Config(**options)
    with (
        pgsession.ShardedSessionManager(empty_shards, config) as one,
        pgsession.ShardedSessionManager(empty_shards, config) as other,
    ):
        sessions = [one.create_session(user, {"n": 0}) for user in users(empty_shards)]
        found = [other.get_session(session.id) for session in sessions]
        assert [session is not None and session.from_cache for session in found] == [True, True, False, True]
        told = other.stats_by_shard()
        assert [told[number].shared_fallback_reason for number in EACH] == [None, None, "no room", None]
        assert other.stats().shared_fallback_reason == "no room" and other.stats().in_sync
        servers = list(dict.fromkeys(shard.database for shard in empty_shards))
        assert listeners(empty_shards, since) == [
            2 if server == empty_shards[2].database else 1 for server in servers
        ]
        there = other.get_session(sessions[2].id)
        assert there is not None and there.from_cache
        sessions[2]["n"] = 1
        one.update_session(sessions[2])

        def has_heard() -> bool:
            there = other.get_session(sessions[2].id)
            return there is not None and there["n"] == 1

        eventually(has_heard)
    eventually(lambda: not any(listeners(empty_shards, since)), "the end of the connections")


_UNCLOSED = """
import asyncio
import json
import sys
import warnings

import pgsession

warnings.simplefilter("ignore", ResourceWarning)
kind, shards, folder = sys.argv[1:]
shards = [pgsession.Shard(database=database, schema_name=schema) for database, schema in json.loads(shards)]
config = pgsession.Config(shared_cache=folder, shared_cache_size=2**24)


async def opened():
    manager = pgsession.AsyncShardedSessionManager(shards, config)
    await manager.open()
    return manager


if kind == "threads":
    manager = pgsession.ShardedSessionManager(shards, config)
    manager.open()
else:
    manager = asyncio.new_event_loop().run_until_complete(opened())
print(manager.stats().leader)
"""


@pytest.mark.parametrize("kind", KINDS)
def test_who_ends_without_a_close_leaves_nothing(empty_shards: Shards, kind: str, folder: Path) -> None:
    shards = json.dumps([(shard.database, shard.schema_name) for shard in empty_shards])
    done = subprocess.run(
        [sys.executable, "-c", _UNCLOSED, kind, shards, str(folder)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    ours = f'File "{Path(pgsession.__file__).parent}'  # asyncio and psycopg's pool tell of a loop that nobody ended
    assert (done.stdout, done.returncode) == ("True\n", 0) and ours not in done.stderr, done
    assert list(folder.iterdir()) == []


def test_the_shards_of_a_server_wait_for_their_leaders_together(
    empty_shards: Shards, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A leader that has no proof, for its event loop is blocked, keeps a process no longer than with one server."""
    deadlines: list[float] = []
    join = AsyncHost.join

    async def joins(host: AsyncHost, deadline: float) -> None:
        deadlines.append(deadline)
        await join(host, deadline)

    monkeypatch.setattr(AsyncHost, "join", joins)

    async def opens() -> None:
        async with pgsession.AsyncShardedSessionManager(empty_shards, pgsession.Config(**options)):
            pass

    asyncio.run(opens())
    servers = {str(shard.database) for shard in empty_shards}
    assert len(deadlines) == len(empty_shards) and len(set(deadlines)) == len(servers)


def test_several_threads_of_the_library_may_open_one_listener(dsn: str) -> None:
    """As those do that are to lead shards of one server at the same moment."""
    listener = pgsession.Listener(dsn)
    both = threading.Barrier(2)
    watched: list[int] = []

    def watch() -> None:
        watched.append(1)
        with suppress(threading.BrokenBarrierError):
            both.wait(0.5)  # for a second one, who must not come

    tasks = BackgroundTasks(most=2)
    failed: list[Exception] = []

    def opens() -> None:
        try:
            listener._loop.open(watch)
        except Exception as error:
            failed.append(error)

    for _ in range(2):
        tasks.run(opens, "pgsession test")
    assert tasks.drain(20)
    assert not failed and watched == [1] and listener.connected
    listener.close()
