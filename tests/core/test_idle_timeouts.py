"""Each record has its own idle timeout; its accesses are written in time: nobody active looks inactive elsewhere."""

from __future__ import annotations

import math
import random
from collections.abc import Callable

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record

from .conftest import HOUR, MINUTE, START
from .test_cache import KEY, Manager, key_of

MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Record]
SECOND = 1_000_000


def write(cache: Cache, *, due: bool = True) -> list[bytes]:
    """What the writer does; the sessions whose accesses it has written."""
    written = []
    while taken := cache.take_accesses(2, due):
        cache.confirm_accesses(taken)
        written += [key for key, _ in taken]
    return written


def test_each_session_ends_by_its_own(make_cache: MakeCache, make_record: MakeRecord, clock: Clock) -> None:
    cache = make_cache()
    for number, inactivity in enumerate([SECOND, HOUR, None]):
        cache.put(make_record(key_of(number), inactivity=inactivity))
    clock.advance(SECOND - 1)
    assert all(cache.get(key_of(number), touch=False) for number in range(3))
    clock.advance(1)
    assert [cache.get(key_of(number), touch=False) is None for number in range(3)] == [True, False, False]
    clock.advance(HOUR - SECOND)
    assert [cache.get(key_of(number), touch=False) is None for number in range(3)] == [True, True, False]


@pytest.mark.parametrize(
    ("inactivity", "operation_timeout", "late_after"),
    [
        (48 * HOUR, 0, 48 * HOUR - 10 * MINUTE),
        (48 * HOUR, 10 * SECOND, 48 * HOUR - 10 * MINUTE - 10 * SECOND),
        (40 * MINUTE, 10 * SECOND, 30 * MINUTE - 10 * SECOND),
        (17 * SECOND, 12 * SECOND, 3 * SECOND // 4),
        (8 * SECOND, 10 * SECOND, 6 * SECOND),  # there is no time for a slow write
        (SECOND, 10 * SECOND, 3 * SECOND // 4),
    ],
)
def test_from_when_on_an_access_is_written_at_once(
    make_cache: MakeCache,
    make_record: MakeRecord,
    clock: Clock,
    inactivity: int,
    operation_timeout: int,
    late_after: int,
) -> None:
    cache = make_cache(operation_timeout=operation_timeout)
    manager = Manager(cache)
    cache.put(make_record(inactivity=inactivity, expires_at=START + 1000 * HOUR))
    clock.advance(late_after - 1)
    assert manager.get_session(KEY) is not None and cache.due_in() > 0
    assert write(cache, due=False) == [KEY]
    clock.advance(late_after)
    assert manager.get_session(KEY, touch=False) is not None and cache.due_in() == math.inf
    assert manager.get_session(KEY) is not None and cache.due_in() == 0
    assert write(cache) == [KEY] and cache.due_in() == math.inf


def test_an_access_is_written_within_a_quarter_of_the_idle_timeout(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(key_of(1), inactivity=MINUTE))
    cache.put(make_record(key_of(2)))
    clock.advance(SECOND)
    manager.get_session(key_of(2))
    assert manager.touched == [] and cache.due_in() == math.inf
    manager.get_session(key_of(1), touch=False)
    assert manager.touched == []
    for _ in range(3):
        manager.get_session(key_of(1))
    assert manager.touched == [key_of(1)] and cache.due_in() == 15
    clock.advance(15 * SECOND)
    assert cache.due_in() == 0
    assert write(cache) == [key_of(1)], "the other one waits for the usual time"
    assert cache.due_in() == math.inf and cache.stats()["pending_accesses"] == 1
    manager.get_session(key_of(1))
    assert cache.due_in() == 15
    assert write(cache, due=False) == [key_of(1), key_of(2)] and cache.due_in() == math.inf
    manager.get_session(key_of(1))
    assert cache.due_in() == math.inf, "at the same moment there is nothing new"


def test_the_writer_is_told_only_where_it_would_look_later(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    for number in range(5):
        cache.put(make_record(key_of(number), inactivity=(number + 1) * MINUTE))
    clock.advance(SECOND)
    manager.get_session(key_of(2))
    assert cache.due_in() == 45
    for number in (3, 2, 4):
        manager.get_session(key_of(number))
    assert manager.touched == [key_of(2)]
    manager.get_session(key_of(0))
    manager.get_session(key_of(1))
    assert manager.touched == [key_of(2), key_of(0), key_of(1)], "until it has looked again"
    assert cache.due_in() == 15


def test_what_can_wait_is_not_written_with_what_cannot(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    """A session with an idle timeout of a second has no other session written every quarter of a second."""
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(key_of(1), inactivity=SECOND))
    cache.put(make_record(key_of(2), inactivity=20 * MINUTE))
    written = []
    for _ in range(4 * 60 * 10):
        clock.advance(SECOND // 4)
        manager.get_session(key_of(1))
        manager.get_session(key_of(2))
        if cache.due_in() == 0:
            written += write(cache)
    assert written.count(key_of(1)) >= 600
    assert 2 <= written.count(key_of(2)) <= 5, "every 5 minutes, or up to twice as often"


def test_an_access_that_comes_while_one_is_written_is_asked_for_as_well(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    for number in (1, 2):
        cache.put(make_record(key_of(number), inactivity=MINUTE))
    clock.advance(SECOND)
    manager.get_session(key_of(1))
    taken = cache.take_accesses(10)
    clock.advance(SECOND)
    manager.get_session(key_of(1))
    cache.confirm_accesses(taken)
    assert cache.due_in() == 15, "the second access, of which nobody was told"
    clock.advance(15 * SECOND)
    assert write(cache) == [key_of(1)]


def test_an_access_that_could_not_be_written_is_asked_for_again(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(key_of(1), inactivity=MINUTE))
    cache.put(make_record(key_of(2)))
    clock.advance(SECOND)
    manager.get_session(key_of(2))
    manager.get_session(key_of(1))
    taken = cache.take_accesses(10, due=False)
    assert cache.due_in() == math.inf
    clock.advance(SECOND)
    cache.restore_accesses(taken)
    assert cache.due_in() == 15
    clock.advance(45 * SECOND)
    cache.restore_accesses([(key_of(1), START + SECOND)])
    assert cache.due_in() == 0, "it is late by now"
    assert write(cache) == [key_of(1)]


def test_what_left_memory_is_written_in_time(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache(1)
    manager = Manager(cache)
    cache.put(make_record(key_of(1), inactivity=MINUTE))
    clock.advance(SECOND)
    manager.get_session(key_of(1))
    cache.put(make_record(key_of(2)))
    assert cache.due_in() == 15
    taken = cache.take_accesses(10, due=True)
    assert [key for key, _ in taken] == [key_of(1)] and cache.due_in() == math.inf
    cache.restore_accesses(taken)
    assert cache.due_in() == 0, "nobody knows any more how long it can wait"
    assert write(cache) == [key_of(1)]


@pytest.mark.parametrize("cached", [True, False])
def test_a_read_from_the_database_is_an_access_like_a_hit(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock, cached: bool
) -> None:
    cache = make_cache()
    short, ordinary = make_record(key_of(1), inactivity=MINUTE), make_record(key_of(2))
    forever = make_record(key_of(3), inactivity=None)
    for record in (short, ordinary, forever):
        if cached:
            cache.put(record)
    clock.advance(SECOND)
    assert not cache.note_access(ordinary, clock.database_now())
    assert not cache.note_access(forever, clock.database_now())
    assert cache.due_in() == math.inf
    assert cache.note_access(short, clock.database_now()) and cache.due_in() == 15
    assert not cache.note_access(short, clock.database_now() + 1)
    assert len(cache.accesses_of_user("ann")) == 3
    late = make_record(key_of(4), last_accessed=clock.database_now() - 119 * MINUTE)
    assert cache.note_access(late, clock.database_now()) and cache.due_in() == 0


def test_a_record_with_another_idle_timeout_is_judged_by_that(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(inactivity=None))
    clock.advance(SECOND)
    manager.get_session(KEY)
    assert cache.due_in() == math.inf
    cache.put(make_record(version=2, inactivity=MINUTE))
    assert cache.due_in() == 15, "its access was noted before"
    clock.advance(MINUTE)
    assert manager.get_session(KEY) is None
    cache.put(make_record(version=3, inactivity=HOUR))
    assert manager.get_session(KEY) is not None


@pytest.mark.parametrize("seed", range(40))
def test_c8_nobody_active_looks_inactive_elsewhere(seed: int) -> None:
    """A node reads and writes as it may; what the database has never is too old by the time that it is needed."""
    rng = random.Random(seed)
    print(f"seed {seed}")
    interval, operation_timeout = 10 * MINUTE, 10 * SECOND
    clock = Clock(manual=START)
    cache = Cache(
        rng.choice([3, 20]), clock, access_interval=interval, lifetime=0, max_attribute_length=10,
        operation_timeout=operation_timeout,
    )  # fmt: skip
    cache.in_sync_until = 2**62
    manager = Manager(cache)
    timeouts = [SECOND, 10 * SECOND, 20 * SECOND, MINUTE, 13 * MINUTE, 30 * MINUTE, 50 * MINUTE, 48 * HOUR, 0]
    sessions = {key_of(number): rng.choice(timeouts) for number in range(8)}
    stored = dict.fromkeys(sessions, START)
    accessed = dict(stored)
    regular = START + interval
    writing: tuple[int, list[tuple[bytes, int]]] | None = None
    # What is due may have to wait for another writing. Where there is no time for slow ones, they have to be quick.
    room = 3 * min(filter(None, sessions.values()), default=HOUR) // 4
    lasting = operation_timeout // 2 if room >= operation_timeout else 10_000

    def pass_time(until: int) -> None:
        nonlocal regular, writing
        while True:
            now = clock.database_now()
            if writing is not None:
                at = writing[0]
            else:
                at = min(regular, now + round(cache.due_in() * 1e6) if cache.due_in() < 1e9 else regular)
            if at > until:
                clock.advance(until - now)
                return
            clock.advance(max(at - now, 0))
            if writing is None:
                whole = at == regular
                regular = at + interval if whole else regular
                if taken := cache.take_accesses(100, not whole):
                    writing = (at + rng.randint(0, lasting), taken)
            else:
                for key, us in writing[1]:
                    stored[key] = max(stored[key], us)
                if rng.random() < 0.9:
                    cache.confirm_accesses(writing[1])
                else:  # nobody heard that it was done
                    cache.restore_accesses(writing[1])
                writing = None

    for _ in range(400):
        shortest = min(filter(None, sessions.values()), default=HOUR)
        pass_time(clock.database_now() + rng.randint(1, rng.choice([shortest, 5 * MINUTE, HOUR])))
        now = clock.database_now()
        for key, inactivity in sessions.items():
            if inactivity and now < accessed[key] + inactivity:
                assert now < stored[key] + inactivity, (key, inactivity)
        key = rng.choice(list(sessions))
        if sessions[key] and now >= stored[key] + sessions[key]:
            stored[key] = accessed[key] = now  # a new login, with the same key
            version = now
        else:
            version = 1
        if manager.get_session(key) is None:
            record = Record(
                key, version, "ann", None, START, START, stored[key], now + 1000 * HOUR, sessions[key], []
            )
            cache.put(record)
            cache.note_access(record, now)
        accessed[key] = now
