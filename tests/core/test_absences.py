"""Memory knows of which ids there is no session: as a model of a few lines does, in fixed room, as readers need it."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable
from typing import Any
from uuid import UUID

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.record import Record
from pgsession.opened import Opened

from .conftest import START

SECOND = 1_000_000
LATER = START + 10 * SECOND
KEYS = [bytes([number]) * 16 for number in range(12)]
MOST = 2048 * 4

keys = st.sampled_from(KEYS)
versions = st.integers(0, 5)


class AbsenceMachine(RuleBasedStateMachine):
    @initialize()
    def start(self) -> None:
        self.clock = Clock(manual=0)
        self.cache = Cache(50, self.clock, access_interval=1, lifetime=0, max_attribute_length=100)
        self.cache.in_sync_until = self.in_sync_until = 0
        self.now = 0
        self.records: dict[bytes, int] = {}
        self.known: dict[bytes, tuple[int, int]] = {}

    @rule(us=st.integers(1, 700))
    def advance(self, us: int) -> None:
        self.clock.advance(us)
        self.now += us

    @rule(us=st.integers(0, 2000))
    def prove(self, us: int) -> None:
        self.cache.in_sync_until = self.in_sync_until = self.now + us

    @rule(key=keys, floor=versions, life=st.integers(-100, 1500))
    def put_absence(self, key: bytes, floor: int, life: int) -> None:
        self.cache.put_absence(key, floor, self.now + life)
        if key not in self.records:
            before = self.known.get(key, (0, 0))
            if before[1] <= self.now:
                before = (0, 0)
            self.known[key] = (max(before[0], floor), max(before[1], self.now + life))

    @rule(key=keys, version=st.integers(1, 5))
    def put(self, key: bytes, version: int) -> None:
        record = Record(key, version, "u", None, 0, 0, self.now, self.now + 10**9, None, [])
        if self.cache.put(record):
            self.records[key] = version
            self.known.pop(key, None)

    @rule(key=keys, version=versions)
    def discard_older(self, key: bytes, version: int) -> None:
        self.cache.discard_older(key, version)
        self.known.pop(key, None)
        if self.records.get(key, version) < version:
            del self.records[key]

    @rule(key=keys)
    def discard(self, key: bytes) -> None:
        self.cache.discard(key)
        self.known.pop(key, None)
        self.records.pop(key, None)

    @rule(everything=st.booleans())
    def clear(self, everything: bool) -> None:
        if everything:
            self.cache.clear()
            self.records.clear()
        else:
            self.cache.clear_absences()
        self.known.clear()

    @rule(user=st.booleans())
    def discard_user_or_group(self, user: bool) -> None:
        """What concerns a user or a group says nothing of who is not there."""
        if user:
            self.cache.discard_user("u")
            self.records.clear()
        else:
            self.cache.discard_group("g")

    @rule(key=keys, version=versions)
    def ask(self, key: bytes, version: int) -> None:
        floor, until = self.known.get(key, (0, 0))
        known = self.now < until and version <= floor and self.now < self.in_sync_until
        before = self.cache.stats()["negative_hits"]
        assert self.cache.is_absent(key, version) == known
        assert self.cache.stats()["negative_hits"] == before + known


AbsenceMachine.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestAbsences = AbsenceMachine.TestCase


def test_a_session_that_was_in_memory_is_not_absent(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> None:
    cache = make_cache(1)
    cache.put_absence(bytes(16), 0, LATER)
    assert cache.put(make_record(bytes(16)))
    assert cache.put(make_record(bytes([1]) * 16)) and cache.version(bytes(16)) == 0, "it was evicted"
    assert not cache.is_absent(bytes(16))


# -- the bound ---------------------------------------------------------------------------------------------------


def test_many_unknown_ids_take_fixed_room_and_drive_out_no_session(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> None:
    cache = make_cache(10)
    for number in range(10):
        assert cache.put(make_record(bytes([number]) * 16))
    source = random.Random(7)
    ids = [source.randbytes(16) for _ in range(100_000)]
    before = sys.getallocatedblocks()
    for key in ids:
        cache.put_absence(key, 0, LATER)
    assert sys.getallocatedblocks() - before < 100
    assert len(cache) == 10 and cache.stats()["evictions"] == 0
    remembered = sum(map(cache.is_absent, ids))
    assert MOST * 0.9 < remembered <= MOST


def test_of_a_full_set_the_one_that_ends_first_leaves(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache()
    keep = bytes(16)
    cache.put_absence(keep, 0, LATER + 1)
    source = random.Random(7)
    for _ in range(100_000):
        cache.put_absence(source.randbytes(16), 0, LATER)
    assert cache.is_absent(keep), "whatever came after it ends earlier"


def test_nobody_can_choose_whom_an_id_drives_out(make_cache: Callable[..., Cache]) -> None:
    """The hash is keyed: ids that share a set in one cache do not in another."""

    def rivals(cache: Cache) -> set[int]:
        """The ids that are gone after many more."""
        numbers = range(1, 20_000)
        for number in numbers:
            cache.put_absence(number.to_bytes(16, "big"), 0, LATER)
        return {number for number in numbers if not cache.is_absent(number.to_bytes(16, "big"))}

    first, second = rivals(make_cache()), rivals(make_cache())
    assert first != second


def test_what_has_ended_makes_room(make_cache: Callable[..., Cache], clock: Clock) -> None:
    cache = make_cache()
    for number in range(50_000):
        cache.put_absence(number.to_bytes(16, "big"), 0, LATER)
    clock.advance(LATER - START)
    late = [number.to_bytes(16, "little") for number in range(1, 500)]
    for key in late:
        cache.put_absence(key, 0, LATER + SECOND)
    assert all(map(cache.is_absent, late))


# -- the readers -------------------------------------------------------------------------------------------------

KEY = UUID(int=5)


class Knowing:
    _opened = Opened

    def _check_open(self) -> None:
        pass

    def _verify_token(self, token: str) -> tuple[bytes, int, int]:
        return KEY.bytes, 1, int(token)

    def _load(self, *arguments: object) -> object:
        return ("loaded", *arguments)

    _load_session_by_token = _load_by_token = _load


class Threads(Knowing, Reader):
    pass


class Loops(Knowing, AsyncReader):
    pass


def finished(found: Any) -> Any:
    if not hasattr(found, "send"):
        return found
    try:
        found.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError("it waits")


@pytest.fixture(params=[Threads, Loops])
def manager(request: pytest.FixtureRequest, make_cache: Callable[..., Cache]) -> Any:
    manager = request.param(make_cache())
    manager._cache.put_absence(KEY.bytes, 3, LATER)
    return manager


def asked(found: Any) -> bool:
    """Whether the database was."""
    return isinstance(found, tuple) and found[0] == "loaded"


def test_an_absence_answers_by_id(manager: Any) -> None:
    assert finished(manager.get_session(KEY)) is None
    assert finished(manager.get_session(KEY, min_version=3)) is None
    assert manager.get_cached_session(KEY) is None
    assert manager._cache.stats()["negative_hits"] == 2
    assert manager._cache.stats()["misses"] == 3
    assert asked(manager.get_session(UUID(int=6)))


def test_a_higher_version_is_read_again(manager: Any) -> None:
    assert asked(manager.get_session(KEY, min_version=4))
    assert asked(manager.get_session_by_token("4")) and asked(manager.open_token("4"))


def test_a_refresh_reads(manager: Any) -> None:
    assert asked(manager.get_session(KEY, refresh=True))
    assert asked(manager.get_session_by_token("3", refresh=True)) and asked(
        manager.open_token("3", refresh=True)
    )


def test_a_token_of_what_is_absent_has_ended(manager: Any) -> None:
    assert finished(manager.get_session_by_token("3")) is None
    assert finished(manager.open_token("2")) == Opened(None, "ended")
    assert manager._refused_tokens == 2


def test_c6_an_absence_is_not_served_longer_than_a_record(manager: Any) -> None:
    clock = manager._cache.clock
    manager._cache.in_sync_until = START + SECOND
    clock.advance(SECOND - 1)
    assert finished(manager.get_session(KEY)) is None
    clock.advance(1)
    assert asked(manager.get_session(KEY)), "out of sync"
    manager._cache.in_sync_until = LATER + SECOND
    assert finished(manager.get_session(KEY)) is None
    clock.advance(9 * SECOND)
    assert asked(manager.get_session(KEY)), "its own read is too old"
