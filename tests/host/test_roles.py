"""What leading and following a host mean for the cache of a process: several `Coherence` on one arena, without I/O."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable, Iterator
from typing import Any
from uuid import uuid4

import pytest

from pgsession._async.section import AsyncSection
from pgsession._core.arena import Arena
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol import events
from pgsession._protocol.coherence import Coherence, Fill, Verdict

if not hasattr(os, "memfd_create"):
    pytest.skip("Linux only", allow_module_level=True)

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
HOUR = 3600 * SECOND
LOG = logging.getLogger("pgsession.test")


def record(key: bytes, version: int, incarnation: str = "one") -> Record:
    return Record(key, version, "u", None, NOW, NOW, NOW, NOW + HOUR, HOUR, (), incarnation=incarnation)


class Process:
    """One process's part: its own view of the arena, its cache, and what a shell does with them."""

    def __init__(self, file: int, clock: Clock, *, first: bool = False, stale_if_error: int = 0) -> None:
        size = os.fstat(file).st_size
        self.clock = clock
        self.arena = Arena.create(file, size) if first else Arena.attach(file)
        self.cache = Cache(100, clock, access_interval=HOUR, lifetime=0, max_attribute_length=1000)
        self.coherence = Coherence(
            self.cache, clock, max_staleness=10 * SECOND, stale_if_error=stale_if_error, logger=LOG
        )
        self.coherence.share(self.arena, 10 * SECOND + stale_if_error)

    def open(self, key: bytes) -> Fill:
        fill, leads = self.coherence.open_fill(key, new_future=object)
        assert leads
        return fill

    def close(self, fill: Fill, found: Record | None, incarnation: str = "one", xmax: int = 1) -> Verdict:
        now = NOW + self.clock.now()
        return self.coherence.close_fill(fill, found, incarnation, now, xmax, absent=found is None)

    def tie(self, incarnation: str = "one") -> None:
        self.coherence.answered(self.coherence.asked(), incarnation, 1)

    def lead(self, *, lost: bool = True) -> int:
        number = self.arena.take(self.arena.number, lost)
        self.coherence.lead(number)
        return number

    def listen(self, incarnation: str = "one") -> None:
        """What the synchronizer does, up to a proof."""
        assert self.coherence.on_listening(incarnation, since=self.coherence.on_lost()) is not None
        self.arena.set_registered(self.arena.longest, self.arena.longest, 1)
        self.coherence.registered(self.clock.now())
        resync = self.coherence.resync_started()
        assert self.coherence.resynced(resync, [])
        self.prove(incarnation)

    def prove(self, incarnation: str = "one") -> None:
        self.coherence.clock_sample(self.clock.now(), self.clock.now(), NOW + self.clock.now())
        self.coherence.answered(self.coherence.asked(), incarnation, 10)
        self.coherence.on_event(events.payload("0" * 16, 10 + self.clock.now()))

    def has(self, key: bytes) -> int:
        found = self.cache.get(key, False) if self.coherence.in_sync else None
        return 0 if found is None else found.version


Start = Callable[..., Process]


@pytest.fixture
def clock() -> Clock:
    return Clock(manual=1000 * SECOND)


@pytest.fixture
def start(clock: Clock) -> Iterator[Start]:
    file = os.memfd_create("arena")
    os.posix_fallocate(file, 0, max(2**22, Arena.smallest()))
    count = 0

    def start_one(**options: Any) -> Process:
        nonlocal count
        count += 1
        return Process(file, clock, first=count == 1, **options)

    yield start_one
    os.close(file)


@pytest.fixture
def leader(start: Start) -> Process:
    leader = start()
    leader.lead()
    leader.listen()
    return leader


@pytest.fixture
def follower(leader: Process, start: Start) -> Process:
    follower = start()
    follower.tie()
    return follower


def told(xid: int, *items: events.Item) -> str:
    (text,) = events.batches(items)
    return events.payload("0" * 16, xid, text)


def key() -> bytes:
    return uuid4().bytes


def test_who_has_read_nothing_serves_nothing(leader: Process, start: Start) -> None:
    """S8: before a read of its own has said so, a process does not know that it reads what the arena is about."""
    follower = start()
    assert leader.coherence.in_sync and not follower.coherence.in_sync
    follower.tie("another")
    assert not follower.coherence.in_sync
    follower.tie()
    assert follower.coherence.in_sync


def test_what_one_reads_the_other_has(leader: Process, follower: Process) -> None:
    session = key()
    assert follower.close(follower.open(session), record(session, 5)) is Verdict.CACHED
    assert leader.has(session) == follower.has(session) == 5


def test_what_the_leader_hears_forbids_a_followers_fill(leader: Process, follower: Process) -> None:
    """C1: for a follower, an event arrives when the leader has told it in the ring."""
    session = key()
    fill = follower.open(session)
    leader.coherence.on_event(told(5000, events.Changed(session, 6)))
    assert follower.close(fill, record(session, 5)) is Verdict.NOT_CACHED
    assert not follower.has(session)
    fill = follower.open(session)
    leader.coherence.on_event(told(5001, events.UserChanged("u")))
    assert follower.close(fill, record(session, 6)) is Verdict.NOT_CACHED


def test_a_fill_that_is_outdated_by_another_process_is_not_joined(leader: Process, follower: Process) -> None:
    """C2: whoever calls after another process's write has returned does not wait for what was read before it."""
    session = key()
    fill = follower.open(session)
    lease = leader.coherence.open_write(session)
    leader.coherence.write_saved(lease, record(session, 7), "one")
    assert follower.coherence.open_fill(session, new_future=object)[0] is not fill


def test_a_write_of_one_is_what_all_have(leader: Process, follower: Process) -> None:
    session = key()
    for version, process in enumerate((leader, follower, leader), 1):
        lease = process.coherence.open_write(session)
        assert process.coherence.write_saved(lease, record(session, version), "one") is Verdict.CACHED
        assert leader.has(session) == follower.has(session) == version
    follower.coherence.write_gone(follower.coherence.open_write(session))
    assert not leader.has(session)


def test_an_absence_ends_with_another_process_s_create(leader: Process, follower: Process) -> None:
    session = key()
    follower.close(follower.open(session), None)
    assert follower.cache.is_absent(session)
    leader.coherence.write_saved(
        leader.coherence.open_write(session, creates=True), record(session, 1), "one"
    )
    assert not follower.cache.is_absent(session)


def test_a_lost_listener_ends_nothing_before_its_time(leader: Process, start: Start, clock: Clock) -> None:
    """The last proof holds for all until it is over; then what is cached may be served if the database fails."""
    follower = start(stale_if_error=HOUR)
    follower.tie()
    session = key()
    follower.close(follower.open(session), record(session, 5))
    leader.arena.set_registered(leader.arena.longest, leader.arena.longest, 1)
    leader.coherence.on_lost()
    assert follower.has(session) == 5
    fill = follower.open(other := key())
    assert follower.close(fill, record(other, 1)) is Verdict.NOT_CACHED, (
        "what enters would be told of by nobody"
    )
    clock.advance(11 * SECOND)
    assert not follower.coherence.in_sync and not leader.coherence.in_sync
    found = follower.coherence.stale_if_error(session)
    assert found is not None and found.version == 5
    leader.listen()
    assert follower.has(session) == 5, "nothing was emptied"


def test_how_long_is_served_without_the_database_is_what_others_know(
    leader: Process, start: Start, clock: Clock
) -> None:
    """C13: until the leader has registered the host for that long, a process serves as the host is registered."""
    session = key()
    leader.close(leader.open(session), record(session, 5))
    follower = start(stale_if_error=HOUR)
    follower.tie()
    clock.advance(11 * SECOND)
    assert follower.coherence.stale_if_error(session) is None
    leader.arena.set_registered(leader.arena.longest, leader.arena.longest, 1)
    assert follower.coherence.stale_if_error(session) is not None


def test_another_takes_over(leader: Process, follower: Process, clock: Clock) -> None:
    session = key()
    leader.close(leader.open(session), record(session, 5))
    fill = follower.open(other := key())
    follower.lead()
    assert follower.has(session) == 5, "the last proof holds"
    assert follower.close(fill, record(other, 5)) is Verdict.NOT_CACHED
    follower.listen()
    assert leader.has(session) == follower.has(session) == 5
    until = leader.arena.in_sync_until
    clock.advance(SECOND)
    leader.prove()
    assert leader.arena.in_sync_until == until, "S6: only who leads proves"
    assert not leader.coherence.number
    follower.prove()
    assert leader.arena.in_sync_until > until


def test_who_stood_takes_over_without_a_gap(leader: Process, follower: Process, start: Start) -> None:
    session = key()
    leader.close(leader.open(session), record(session, 5))
    third = start()
    third.tie()
    fill = third.open(other := key())
    follower.coherence.stand()
    follower.listen()
    assert follower.coherence.proved and not follower.coherence.number
    follower.lead(lost=False)
    assert follower.coherence.number
    assert leader.has(session) == follower.has(session) == 5
    assert third.close(fill, record(other, 1)) is Verdict.CACHED, "no epoch has begun"


def test_another_server_empties_what_is_shared(leader: Process, follower: Process) -> None:
    session = key()
    leader.close(leader.open(session), record(session, 5))
    assert leader.close(leader.open(session), record(session, 5, "two"), "two") is Verdict.WRONG_SERVER
    assert not leader.coherence.in_sync and follower.has(session) == 5, "each by results of its own"
    assert follower.close(follower.open(session), record(session, 5, "two"), "two") is Verdict.WRONG_SERVER
    assert not follower.coherence.in_sync
    assert follower.close(follower.open(session), record(session, 5, "two"), "two") is Verdict.NOT_CACHED
    leader.listen("two")
    assert leader.has(session) == follower.has(session) == 0
    follower.tie("two")
    assert follower.coherence.in_sync
    follower.tie()
    assert not follower.coherence.in_sync


def test_a_late_answer_of_the_server_before_does_not_tie(leader: Process, follower: Process) -> None:
    asked = follower.coherence.asked()
    follower.tie("two")
    assert not follower.coherence.in_sync
    follower.coherence.answered(asked, "one", 1)
    assert not follower.coherence.in_sync


def test_a_poisoned_arena_leaves_each_alone(leader: Process, follower: Process) -> None:
    session = key()
    leader.close(leader.open(session), record(session, 5))
    fill = follower.open(session)
    leader.arena.poison()
    assert not follower.has(session) and not leader.has(session)
    assert follower.close(fill, record(session, 5)) is Verdict.NOT_CACHED
    assert not follower.coherence.shared and not follower.coherence.in_sync
    leader.coherence.on_lost()
    assert not leader.coherence.number


def test_nobody_waits_for_the_arena_with_the_lock_that_others_need(
    leader: Process, follower: Process
) -> None:
    """An event loop opens fills, asks and looks while another process is in a section, and a thread waits for that."""
    session = key()
    fill = follower.open(session)
    assert leader.coherence.begin(wait=True)
    waiting = threading.Thread(target=follower.close, args=(fill, record(session, 5)))
    try:
        waiting.start()
        assert not follower.coherence.begin(wait=False)
        follower.close_late = follower.open(key())  # type: ignore[attr-defined]
        assert follower.coherence.answered(follower.coherence.asked(), "one", 1) is None
        assert follower.coherence.on_lost()
        assert waiting.is_alive()
    finally:
        leader.coherence.end()
        waiting.join()
    assert not follower.arena.poisoned


def test_a_proof_that_finds_the_arena_busy_is_told_soon(
    leader: Process, follower: Process, clock: Clock
) -> None:
    until = leader.arena.in_sync_until
    clock.advance(SECOND)
    assert follower.coherence.begin(wait=True)
    answered = threading.Thread(target=leader.tie)
    answered.start()
    answered.join()
    follower.coherence.end()
    assert leader.arena.in_sync_until == until
    leader.coherence.drop()
    assert leader.arena.in_sync_until > until


async def test_an_event_loop_goes_on_while_another_process_has_the_arena(
    leader: Process, follower: Process
) -> None:
    entered = asyncio.Event()

    async def enter() -> None:
        async with AsyncSection(follower.coherence):
            entered.set()

    assert leader.coherence.begin(wait=True)
    try:
        entering = asyncio.create_task(enter())
        for _ in range(100):
            await asyncio.sleep(0)
        assert not entered.is_set()
    finally:
        leader.coherence.end()
    await asyncio.wait_for(entering, 10)
    assert leader.coherence.begin(wait=False), "it was given back"
    leader.coherence.end()


def test_who_comes_from_another_arena_serves_by_a_proof_that_was_asked_for_since(
    leader: Process, start: Start, clock: Clock
) -> None:
    """Apart, it has returned what the arena that it joins has not heard of yet (C2)."""
    session = key()
    leader.close(leader.open(session), record(session, 241))
    file = os.memfd_create("former")
    os.posix_fallocate(file, 0, Arena.smallest())
    former = Arena.create(file, Arena.smallest())
    os.close(file)
    comer = start()
    comer.coherence.share(former, 10 * SECOND)
    former.poison()
    comer.close(comer.open(session), record(session, 242))
    assert not comer.coherence.shared
    clock.advance(1)
    comer.coherence.share(comer.arena, 10 * SECOND)
    comer.tie()
    assert leader.has(session) == 241
    assert not comer.coherence.in_sync and not comer.has(session)
    leader.coherence.on_event(told(20, events.Changed(session, 242)))
    clock.advance(SECOND)
    leader.prove()
    assert comer.coherence.in_sync and not comer.has(session)
    comer.close(comer.open(session), record(session, 242))
    assert comer.has(session) == 242


def test_who_comes_from_another_arena_and_leads_does_not_go_on_by_the_proof_of_the_one_before(
    leader: Process, start: Start, clock: Clock
) -> None:
    session = key()
    leader.close(leader.open(session), record(session, 241))
    comer = start(stale_if_error=100 * SECOND)
    comer.coherence.unshare()
    comer.close(comer.open(session), record(session, 242))
    clock.advance(1)
    comer.coherence.share(comer.arena, 110 * SECOND)
    comer.arena.set_registered(110 * SECOND, 110 * SECOND, 1)
    comer.lead()
    assert comer.coherence.on_listening("one", since=comer.coherence.on_lost()) is not None
    assert not comer.has(session)
    assert comer.coherence.stale_if_error(session) is None
