"""Caches that share an arena. Two mappings of one file stand for two processes; where it matters there are two."""

from __future__ import annotations

import gc
import os
import random
import subprocess
import sys
import tempfile
import textwrap
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from pgsession._core.arena import Arena, ArenaError
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.reader import Reader
from pgsession._core.record import Record

from .conftest import HOUR, MINUTE, START

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="there are arenas on Linux only")

MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Record]
SIZE = 4 << 20
GONE = 1 << 63


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def file() -> Iterator[int]:
    with tempfile.TemporaryFile() as opened:
        os.ftruncate(opened.fileno(), SIZE)
        Arena.create(opened.fileno(), SIZE).close()
        yield opened.fileno()


class Node(Reader):
    """A process of the host: a cache that is tied to the arena."""

    def __init__(self, file: int, cache: Cache) -> None:
        super().__init__(cache)
        self.cache = cache
        self.arena = Arena.attach(file)
        cache.in_sync_until = 0
        cache.share(self.arena)
        cache.tie()

    def _check_open(self) -> None:
        pass

    def _load(self, *arguments: object) -> None:
        return None

    def _write_access_soon(self, key: bytes) -> None:
        pass

    def version(self, number: int) -> int:
        """Return the version that memory answers with; 0: it does not."""
        session = self.get_cached_session(key_of(number), touch=False)
        return 0 if session is None else session.version


@pytest.fixture
def make_node(file: int, make_cache: MakeCache) -> Callable[..., Node]:
    return lambda *arguments, **options: Node(file, make_cache(*arguments, **options))


@pytest.fixture
def nodes(make_node: Callable[..., Node]) -> list[Node]:
    """Return three nodes of a host in sync; the first of them leads."""
    made = [make_node() for _ in range(3)]
    lead(made[0])
    return made


def lead(node: Node) -> int:
    number = node.arena.take(node.arena.number, True)
    assert number
    assert node.cache.new_epoch(number, False)
    assert node.cache.prove(number, START + 1000 * HOUR, START)
    return number


# ---- arenas ----


def test_an_arena_says_what_it_is(file: int) -> None:
    first, second = Arena.attach(file), Arena.attach(file)
    assert first.id == second.id
    assert len(first.id) == 16
    assert (first.size, first.number, first.state, first.epoch, first.sessions) == (SIZE, 0, "lost", 0, 0)
    assert first.incarnation is None
    assert not first.poisoned
    assert Arena.self_test()
    assert Arena.layout() == Arena.layout() != 0


@pytest.mark.parametrize(
    ("size", "content", "reason"),
    [(SIZE, b"", "no arena"), (4096, b"", "too small"), (SIZE, b"PGSARENA", "version")],
)
def test_what_is_no_arena_is_refused(size: int, content: bytes, reason: str) -> None:
    with tempfile.TemporaryFile() as opened:
        opened.write(content)
        opened.flush()
        os.ftruncate(opened.fileno(), size)
        with pytest.raises(ArenaError, match=reason) as caught:
            Arena.attach(opened.fileno())
        assert reason in caught.value.reason


def test_an_arena_of_another_length_than_it_says_is_refused(file: int) -> None:
    os.ftruncate(file, SIZE + 65536)
    with pytest.raises(ArenaError, match="as long"):
        Arena.attach(file)


def test_one_that_cannot_be_mapped_is_refused() -> None:
    with pytest.raises(ArenaError, match="mapped"):
        Arena.create(-1, SIZE)
    with pytest.raises(ArenaError, match="too small"):
        Arena.create(-1, 4096)
    with pytest.raises(TypeError, match="create"):
        Arena()


def test_there_is_one_leader(file: int) -> None:
    first, second = Arena.attach(file), Arena.attach(file)
    assert first.take(0, True) == 1
    assert second.take(0, True) == 0
    assert first.beat(1, 5)
    assert second.last_beat == 5
    assert second.take(1, False) == 2
    assert not first.beat(1, 7)
    assert second.beat(2, 8)
    assert (first.number, first.last_beat) == (2, 8)
    assert second.beat(2)
    assert second.last_beat > 8


def test_facts_of_the_host(file: int) -> None:
    first, second = Arena.attach(file), Arena.attach(file)
    number = first.take(0, True)
    assert first.set_incarnation(number, "server 1")
    assert second.incarnation == "server 1"
    assert not second.set_incarnation(number + 1, "another")
    assert first.set_incarnation(number, "s" * 63)
    assert second.incarnation == "s" * 63
    with pytest.raises(ValueError, match="incarnation"):
        first.set_incarnation(number, "s" * 64)
    second.raise_longest(7)
    first.raise_longest(5)
    assert first.longest == second.longest == 7
    first.set_nodes(3)
    assert second.nodes == 3


def test_the_bell_wakes_who_waits(file: int) -> None:
    first, second = Arena.attach(file), Arena.attach(file)
    seen = first.bell
    heard: list[int] = []
    waiting = threading.Thread(target=lambda: heard.append(first.wait_bell(seen, 60)))
    waiting.start()
    second.ring_bell()
    waiting.join(30)
    assert heard == [seen + 1]
    assert first.wait_bell(seen, 60) == seen + 1, "it has rung before: nobody waits"
    assert first.wait_bell(seen + 1, 0) == seen + 1


def test_a_closed_arena_is_of_no_use(file: int) -> None:
    arena = Arena.attach(file)
    closed = [arena.closed]
    arena.close()
    arena.close()
    assert [*closed, arena.closed] == [False, True]
    for use in (
        lambda: arena.number,
        lambda: arena.state,
        lambda: arena.id,
        arena.counters,
        lambda: arena.take(0, True),
        lambda: arena.incarnation,
        arena.poison,
        lambda: arena.wait_bell(0, 0),
    ):
        with pytest.raises(ArenaError, match="closed"):
            use()


def test_who_is_inside_an_arena_that_is_closed_goes_on(file: int, make_cache: MakeCache) -> None:
    arena, other = Arena.attach(file), Arena.attach(file)
    seen = arena.bell
    inside = threading.Event()
    heard: list[int] = []

    def wait() -> None:
        inside.set()
        try:
            heard.append(arena.wait_bell(seen, 60))
        except ArenaError:
            heard.append(-1)

    waiting = threading.Thread(target=wait)
    waiting.start()
    inside.wait()
    arena.close()
    other.ring_bell()
    waiting.join(30)
    assert heard in ([seen + 1], [-1])


def test_a_cache_goes_on_with_an_arena_that_is_closed(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    second.arena.close()
    assert second.version(1) == 1, "what it has mapped stays until it leaves"
    with pytest.raises(ArenaError, match="given up"):
        second.cache.begin()
    assert second.cache.shared is None
    assert second.version(1) == 0
    assert first.version(1) == 1


# ---- what is shared ----


def test_a_record_that_one_has_read_is_there_for_all(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, third = nodes
    record = make_record(key_of(1), user="u", group="g")
    assert first.cache.put(record)
    assert (second.version(1), third.version(1)) == (1, 1)
    copy = second.cache.get(key_of(1), False)
    assert copy is not None
    assert copy is not record
    assert (copy.user_id, copy.group_id, copy.attributes()) == ("u", "g", record.attributes())
    stats = second.cache.stats()
    assert (stats["hits"], stats["shared_hits"], stats["misses"]) == (1, 1, 0)
    assert second.version(1) == 1
    stats = second.cache.stats()
    assert (stats["hits"], stats["shared_hits"], stats["misses"]) == (2, 1, 0)
    assert first.cache.stats()["shared_hits"] == 0
    assert first.arena.sessions == 1


@pytest.mark.parametrize("by", ["discard", "discard_older", "discard_user", "discard_group", "clear", "put"])
def test_what_leaves_one_leaves_all(nodes: list[Node], make_record: MakeRecord, by: str) -> None:
    first, second, third = nodes
    first.cache.put(make_record(key_of(1), user="u" * 50, group="g"))
    first.cache.put(make_record(key_of(2), user="other"))
    assert (second.version(1), third.version(1), second.version(2)) == (1, 1, 1)
    if by == "put":
        first.cache.put(make_record(key_of(1), version=2))
    else:
        arguments: dict[str, tuple[object, ...]] = {
            "discard": (key_of(1),),
            "discard_older": (key_of(1), 2),
            "discard_user": ("u" * 50,),
            "discard_group": ("g",),
            "clear": (),
        }
        assert getattr(first.cache, by)(*arguments[by]) >= 1
    now = 2 if by == "put" else 0
    assert [node.version(1) for node in nodes] == [now] * 3
    assert [node.version(2) for node in nodes] == [0 if by == "clear" else 1] * 3


def test_an_owner_whose_name_is_long_takes_all_caches_with_him_but_not_the_arena(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1), user="u" * 200))
    first.cache.put(make_record(key_of(2), user="v" * 200))
    assert (second.version(1), second.version(2)) == (1, 1)
    first.cache.discard_user("u" * 200)
    assert len(second.cache) == 2
    assert (second.version(1), second.version(2)) == (0, 1)
    assert second.cache.stats()["shared_hits"] == 3
    assert first.arena.sessions == 1


def test_nothing_older_comes_back(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    assert first.cache.put(make_record(key_of(1), version=5))
    assert not second.cache.put(make_record(key_of(1), version=4))
    assert [node.version(1) for node in nodes] == [5, 5, 5]
    assert not first.cache.discard_older(key_of(1), 5)
    assert second.cache.version(key_of(1)) == 5


def test_a_version_is_known_that_is_only_in_the_arena(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1), version=5))
    assert second.cache.version(key_of(1)) == 5
    assert second.cache.version(key_of(2)) == 0
    assert second.cache.identities() == ([key_of(1)], [5], [0])


def test_identities_of_more_than_fit_under_one_lock(
    make_node: Callable[..., Node], make_record: MakeRecord
) -> None:
    node = make_node()
    lead(node)
    for number in range(3000):
        assert node.cache.put(make_record(key_of(number), version=number + 1))
    keys, versions, generations = node.cache.identities()
    assert len(keys) == len(versions) == len(generations) == node.arena.sessions
    assert all(int.from_bytes(key, "big") + 1 == version for key, version in zip(keys, versions, strict=True))


def test_a_record_that_is_put_behind_reaches_the_arena_though_there_is_no_room_for_it_here(
    nodes: list[Node], make_node: Callable[..., Node], make_record: MakeRecord
) -> None:
    small = make_node(1)
    assert small.cache.put(make_record(key_of(1)))
    assert small.cache.put(make_record(key_of(2)), True)
    assert small.cache.versions()[0] == [key_of(1)]
    assert nodes[1].version(2) == 1


def test_an_absence_is_forgotten_once_another_has_the_session(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    second.cache.begin()
    second.cache.put_absence(key_of(1), 0, START + HOUR)
    second.cache.end()
    assert second.cache.is_absent(key_of(1))
    first.cache.put(make_record(key_of(1)))
    assert not second.cache.is_absent(key_of(1))
    assert second.version(1) == 1
    second.cache.put_absence(key_of(2), 0, START + HOUR)
    first.cache.discard_older(key_of(2), 7)
    assert second.version(2) == 0
    assert not second.cache.is_absent(key_of(2))


def test_c8_what_is_expired_is_not_served_from_the_arena(
    nodes: list[Node], clock: Clock, make_record: MakeRecord
) -> None:
    first, second, third = nodes
    first.cache.put(make_record(key_of(1), expires_at=START + MINUTE))
    assert second.version(1) == 1
    clock.advance(MINUTE)
    assert [node.version(1) for node in nodes] == [0, 0, 0]
    assert first.arena.sessions == 1
    third.cache.expire()
    assert first.arena.sessions == 0


def test_the_lifetime_in_memory_is_counted_from_when_the_first_had_it(
    make_node: Callable[..., Node], clock: Clock, make_record: MakeRecord
) -> None:
    first, second = make_node(lifetime=HOUR), make_node(lifetime=HOUR)
    lead(first)
    first.cache.put(make_record(key_of(1)))
    clock.advance(HOUR - 1)
    assert second.version(1) == 1
    clock.advance(1)
    assert (first.version(1), second.version(1)) == (0, 0)


def test_a_large_record_is_copied_as_well(nodes: list[Node], make_record: MakeRecord) -> None:
    value = b'"' + b"x" * 30_000 + b'"'
    nodes[0].cache.put(make_record(key_of(1), attributes={"k": value}))
    assert nodes[1].version(1) == 1
    copy = nodes[1].cache.get(key_of(1))
    assert copy is not None
    assert copy.attributes()[0][3] == value
    huge = b'"' + b"x" * 100_000 + b'"'
    assert nodes[0].cache.put(make_record(key_of(2), attributes={"k": huge})), "it is here, if not there"
    assert (nodes[0].version(2), nodes[1].version(2)) == (1, 0)


def test_what_is_used_here_is_marked_there(make_node: Callable[..., Node], make_record: MakeRecord) -> None:
    node = make_node()
    lead(node)
    for number in range(5):
        node.cache.put(make_record(key_of(number)))
    assert node.cache.mark_used() == 0
    for number in (1, 2, 1):
        node.version(number)
    assert node.cache.mark_used() == 3, "one more than were used is looked at"
    assert node.cache.mark_used() == 0


# ---- the line ----


def test_c6_nothing_is_served_before_or_beyond_the_proof_of_the_leader(
    make_node: Callable[..., Node], clock: Clock, make_record: MakeRecord
) -> None:
    first, second = make_node(), make_node()
    number = first.arena.take(0, True)
    first.cache.new_epoch(number, False)
    first.cache.put(make_record(key_of(1)))
    assert (first.version(1), second.version(1)) == (0, 0)
    assert first.cache.stats()["misses_out_of_sync"] == 1
    assert first.cache.prove(number, START + MINUTE, START - 5)
    assert second.arena.proved_until == START - 5
    assert first.arena.state == "synced"
    assert (first.version(1), second.version(1)) == (1, 1)
    assert first.cache.in_sync_until == second.cache.in_sync_until == START + MINUTE
    clock.advance(MINUTE)
    assert (first.version(1), second.version(1)) == (0, 0)
    assert not second.cache.prove(number + 1, START + HOUR, START), "S6"
    assert (first.version(1), second.version(1)) == (0, 0)


def test_s8_nothing_is_served_from_memory_before_the_tie(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    second.cache.untie()
    assert not second.cache.tied
    assert second.version(1) == 0
    assert second.cache.get(key_of(1)) is None
    assert second.cache.in_sync_until == 0
    assert not second.cache.put(make_record(key_of(2)))
    assert first.version(2) == 0
    first.cache.prove(1, START + 2000 * HOUR, START)
    assert second.version(1) == 0
    second.cache.tie()
    assert second.version(1) == 1
    assert second.cache.in_sync_until == START + 2000 * HOUR


def test_what_is_told_to_one_that_is_not_tied_is_done_all_the_same(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    second.cache.untie()
    first.cache.discard(key_of(1))
    second.cache.tie()
    assert second.version(1) == 0


def test_the_database_clock_comes_from_the_line(file: int, make_record: MakeRecord) -> None:
    options: dict[str, Any] = {"access_interval": HOUR, "lifetime": 0, "max_attribute_length": 1000}
    clocks = [Clock(manual=START), Clock(manual=START)]
    first, second = (Node(file, Cache(10, clock, **options)) for clock in clocks)
    clocks[0].set_offset(5 * MINUTE, 7)
    lead(first)
    first.cache.put(make_record(key_of(1), expires_at=START + 6 * MINUTE))
    assert second.version(1) == 1
    assert clocks[1].offset == 5 * MINUTE
    assert clocks[1].earliest_database_now() == START + 5 * MINUTE - 7
    clocks[1].advance(MINUTE - 8)
    assert second.version(1) == 1
    clocks[1].advance(1)
    assert second.version(1) == 0, "it may be over: the clock is 7 us wrong"


def test_without_a_listener_nothing_enters_the_arena_and_nothing_leaves(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    number, epoch = first.arena.number, first.arena.epoch
    assert first.cache.new_epoch(number, True)
    assert (first.arena.state, first.arena.epoch) == ("lost", epoch)
    assert not first.cache.put(make_record(key_of(2)))
    assert (second.version(1), second.version(2)) == (1, 0)
    assert not second.cache.new_epoch(number + 1, False)
    assert first.cache.new_epoch(number, False)
    assert (first.arena.state, first.arena.epoch) == ("listening", epoch + 1)
    assert first.cache.put(make_record(key_of(2)))


def test_a_new_epoch_empties_what_each_has_but_not_the_arena(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    first.cache.new_epoch(first.arena.number, False)
    assert len(first.cache) == 0
    assert first.arena.sessions == 1
    assert second.version(1) == 1
    assert second.cache.stats()["shared_hits"] == 2


def test_stale_if_error_reaches_the_arena(nodes: list[Node], clock: Clock, make_record: MakeRecord) -> None:
    nodes[0].cache.put(make_record(key_of(1)))
    clock.advance(1000 * HOUR)
    record = make_record(key_of(2), expires_at=START + 9000 * HOUR, inactivity=0)
    nodes[0].cache.put(record)
    assert nodes[1].version(2) == 0
    stale = nodes[1].cache.get(key_of(2), False)
    assert stale is not None
    assert stale.version == 1
    assert nodes[1].cache.stats()["shared_hits"] == 0


def test_only_a_private_cache_is_told_its_proof_by_its_owner(nodes: list[Node]) -> None:
    with pytest.raises(TypeError, match="prove"):
        nodes[0].cache.in_sync_until = 5
    nodes[0].cache.unshare()
    nodes[0].cache.in_sync_until = 5
    assert nodes[0].cache.in_sync_until == 5


# ---- sections ----


def test_in_a_section_nobody_else_changes_anything(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.cache.begin()
    assert second.cache.begin(), "sections are nested"
    assert not first.cache.begin(False)
    second.cache.end()
    assert not first.cache.begin(False)
    changed = threading.Thread(target=first.cache.discard, args=(key_of(1),))
    changed.start()
    assert second.cache.get(key_of(1)) is not None
    second.cache.end()
    changed.join(30)
    assert second.version(1) == 0
    assert first.cache.begin(False)
    first.cache.end()
    first.cache.end()
    assert second.cache.begin(False)
    second.cache.end()


def test_a_section_begins_with_what_the_others_have_done(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    first.cache.discard(key_of(1))
    assert len(second.cache) == 1
    assert second.cache.begin()
    assert len(second.cache) == 0
    second.cache.end()


def test_a_private_cache_has_no_sections(make_cache: MakeCache) -> None:
    cache = make_cache()
    assert cache.begin(False)
    assert cache.begin()
    cache.end()
    assert cache.shared is None
    assert cache.news({}) == (False, [])
    assert cache.lock_news() == []
    assert not cache.prove(1, 1, 1)
    assert not cache.new_epoch(1, False)
    assert cache.mark_used() == 0
    cache.share_lock("l")
    cache.tie()
    assert not cache.tied
    cache.unshare()
    cache.untie()
    assert cache.in_sync_until > 0


def test_a_section_outlasts_the_sharing(nodes: list[Node]) -> None:
    first, second, _ = nodes
    first.cache.begin()
    first.cache.unshare()
    assert not second.cache.begin(False)
    first.cache.end()
    assert second.cache.begin(False)
    second.cache.end()
    first.cache.share(first.arena)
    with pytest.raises(TypeError, match="already"):
        first.cache.share(first.arena)


def test_news_are_of_the_sessions_that_are_asked_for(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    asked = dict.fromkeys(map(key_of, range(1, 4)))
    assert second.cache.news({}) == (False, [])
    first.cache.put(make_record(key_of(1), version=3))
    first.cache.discard_older(key_of(2), 4)
    first.cache.discard(key_of(3))
    first.cache.put(make_record(key_of(4), version=3))
    first.cache.share_lock("l")
    second.version(1)
    assert second.cache.news(asked) == (False, [(key_of(1), 3), (key_of(2), 4), (key_of(3), GONE)])
    assert second.cache.news(asked) == (False, [])
    first.cache.discard(key_of(1))
    assert second.cache.news({}) == (False, [])
    assert second.cache.news(asked) == (False, [])


@pytest.mark.parametrize("by", ["user", "group", "clear", "epoch", "overrun"])
def test_what_is_about_many_is_about_every_lease(nodes: list[Node], by: str) -> None:
    first, second, _ = nodes
    second.cache.news({})
    if by == "user":
        first.cache.discard_user("u")
    elif by == "group":
        first.cache.discard_group("g")
    elif by == "clear":
        first.cache.clear()
    elif by == "epoch":
        first.cache.new_epoch(first.arena.number, False)
    else:
        for _ in range(16_385):
            first.cache.discard_older(bytes(16), 1)
    assert second.cache.news({bytes(16): None})[0]
    assert not second.cache.news({bytes(16): None})[0]


def test_locks_are_told(nodes: list[Node]) -> None:
    first, second, third = nodes
    bell = second.arena.bell
    first.cache.share_lock("lock")
    first.cache.share_lock("ü" * 24, 7)
    assert second.arena.wait_bell(bell, 60) > bell
    assert second.cache.lock_news() == [("lock", 0), ("ü" * 24, 7)]
    assert second.cache.lock_news() == []
    first.cache.share_lock("l" * 49)
    assert second.cache.lock_news() == [(None, 0)]
    for _ in range(1500):
        first.cache.share_lock("many", 1)
    events = third.cache.lock_news()
    assert len(events) <= 1000
    assert (None, 0) in events


def test_who_is_too_slow_is_overrun_and_starts_over(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    first.cache.put(make_record(key_of(1), version=2))
    for _ in range(16_384):
        first.cache.discard_older(key_of(9), 1)
    assert len(second.cache) == 1
    assert second.version(1) == 2
    assert second.cache.stats()["ring_overruns"] == 1
    assert (None, 0) in second.cache.lock_news()


# ---- ends ----


def test_a_poisoned_arena_is_left_by_all(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, third = nodes
    first.cache.put(make_record(key_of(1)))
    assert second.version(1) == 1
    second.arena.poison()
    assert third.arena.poisoned
    assert [node.version(1) for node in nodes] == [0, 0, 0]
    assert [node.cache.shared for node in nodes] == [None] * 3
    assert [len(node.cache) for node in nodes] == [0] * 3
    assert first.cache.stats()["misses_out_of_sync"] == 1
    assert first.cache.begin(), "it is private"
    first.cache.end()


@pytest.mark.parametrize("what", ["begin", "discard", "put", "clear", "prove", "new_epoch", "share_lock"])
def test_what_meets_a_poisoned_arena_first(nodes: list[Node], make_record: MakeRecord, what: str) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    second.arena.poison()
    if what == "begin":
        with pytest.raises(ArenaError, match="given up"):
            first.cache.begin()
    else:
        arguments: dict[str, tuple[object, ...]] = {
            "discard": (key_of(1),),
            "put": (make_record(key_of(2)),),
            "clear": (),
            "prove": (1, 2, 3),
            "new_epoch": (1, True),
            "share_lock": ("l",),
        }
        assert not getattr(first.cache, what)(*arguments[what])
    assert first.cache.shared is None
    assert len(first.cache) == 0
    assert first.cache.in_sync_until == 0


def test_poisoned_in_a_section(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.begin()
    second.arena.poison()
    assert not first.cache.put(make_record(key_of(1)))
    assert first.cache.shared is None
    first.cache.end()
    assert first.cache.begin()
    first.cache.end()


def test_unshared_a_cache_has_nothing_of_the_host(nodes: list[Node], make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    first.cache.unshare()
    assert (len(first.cache), first.version(1), first.cache.in_sync_until) == (0, 0, 0)
    first.cache.in_sync_until = START + HOUR
    first.cache.put(make_record(key_of(1), version=7))
    first.cache.clear()
    assert second.version(1) == 1
    first.cache.share(second.arena)
    assert first.version(1) == 0
    first.cache.tie()
    assert first.version(1) == 1


def test_accesses_are_kept_when_the_host_takes_a_record_away(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1), last_accessed=START - MINUTE))
    first.cache.put(make_record(key_of(2), last_accessed=START - MINUTE))
    for number in (1, 2):
        assert second.get_cached_session(key_of(number)) is not None
    first.cache.discard(key_of(1))
    assert second.version(1) == 0
    first.cache.clear()
    assert second.version(2) == 0
    assert sorted(second.cache.take_accesses(10)) == [(key_of(1), START), (key_of(2), START)]


def test_no_memory_is_left_behind(file: int, make_cache: MakeCache, make_record: MakeRecord) -> None:
    def mappings() -> int:
        with open("/proc/self/maps") as maps:
            return sum(str(os.fstat(file).st_ino) in line.split() for line in maps)

    before = mappings()
    node = Node(file, make_cache())
    assert mappings() == before + 1
    node.arena.close()
    assert mappings() == before + 1, "the cache has it still"
    node.cache.unshare()
    assert mappings() == before
    node = Node(file, make_cache())
    del node
    gc.collect()
    assert mappings() == before


# ---- processes ----


def run(file: int, text: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run Python code in another process; `arena` is there, `cache` shares it and is tied."""
    begin = f"""
        import os, signal, sys
        import tests.core.conftest
        from pgsession._core.arena import Arena, ArenaError
        from pgsession._core.cache import Cache
        from pgsession._core.clock import Clock
        from pgsession._core.record import Record
        arena = Arena.attach({file})
        cache = Cache(100, Clock(manual={START}), access_interval=1, lifetime=0, max_attribute_length=1000)
        cache.share(arena)
        cache.tie()
        def record(number, version):
            return Record(number.to_bytes(16, "big"), version, None, None, 0, 0, 0, {START + HOUR}, None)
    """
    code = textwrap.dedent(begin) + textwrap.dedent(text)
    return subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        pass_fds=[file],
        check=False,
        capture_output=True,
        text=True,
    )


def test_two_processes(nodes: list[Node], file: int, make_record: MakeRecord) -> None:
    nodes[0].cache.put(make_record(key_of(1)))
    nodes[0].cache.put(make_record(key_of(2)))
    done = run(
        file,
        """
        print(cache.get(bytes(15) + b"\\1").version, cache.discard(bytes(15) + b"\\2"), cache.put(record(3, 30)))
        """,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "1 False True\n", "")
    assert [nodes[0].version(number) for number in (1, 2, 3)] == [1, 0, 30]


def test_a_process_that_is_killed_in_a_section(nodes: list[Node], file: int, make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    assert (first.version(1), second.version(1)) == (1, 1)
    second.cache.news({})
    done = run(file, "cache.begin(); os.kill(os.getpid(), signal.SIGKILL)")
    assert done.returncode == -9
    assert first.cache.begin(), "its death is noticed, and what it may have left in pieces is thrown away"
    first.cache.end()
    assert first.arena.counters()["resets"] == 1
    assert [node.version(1) for node in nodes] == [0, 0, 0]
    assert second.cache.news({bytes(16): None})[0]
    assert first.cache.put(make_record(key_of(1), version=2))
    assert [node.version(1) for node in nodes] == [2, 2, 2]


def test_a_process_that_is_stopped_in_a_section_costs_the_arena(
    nodes: list[Node], file: int, make_record: MakeRecord
) -> None:
    """It is another thread that stands for it: it has the lock, and does not go on."""
    first, second, third = nodes
    first.cache.put(make_record(key_of(1)))
    begun, go_on = threading.Event(), threading.Event()

    def stopped() -> None:
        second.cache.begin()
        begun.set()
        go_on.wait()
        assert not second.cache.put(make_record(key_of(2)))
        second.cache.end()

    other = threading.Thread(target=stopped)
    other.start()
    begun.wait()
    assert not first.cache.begin(False)
    with pytest.raises(ArenaError, match="given up"):
        first.cache.begin()
    assert third.version(1) == 0
    go_on.set()
    other.join()
    assert [node.cache.shared for node in nodes] == [None] * 3


def test_the_child_of_a_fork_starts_over(nodes: list[Node], file: int, make_record: MakeRecord) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1), last_accessed=START - MINUTE))
    assert first.get_cached_session(key_of(1)) is not None
    first.cache.begin()
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        said = ""
        try:
            first.arena.forked()
            first.cache.forked()
            first.cache.end()
            said = repr(
                (
                    first.version(1),
                    first.cache.tied,
                    len(first.cache),
                    first.cache.begin(False),
                    first.cache.take_accesses(9),
                )
            )
            first.cache.tie()
            said += repr(first.version(1))
        finally:
            os.write(write, said.encode())
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as answers:
        said = answers.read()
    os.waitpid(child, 0)
    assert said == "(0, False, 0, False, [])1"
    first.cache.end()
    assert second.cache.begin(False)
    second.cache.end()
    assert first.cache.take_accesses(9) == [(key_of(1), START)]


def test_a_private_cache_in_the_child_of_a_fork(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache()
    cache.put(make_record(key_of(1)))
    cache.forked()
    assert (len(cache), cache.in_sync_until) == (0, 0)


# ---- threads ----


def test_a_finalizer_in_a_section_may_change_what_is_cached(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    first, second, _ = nodes
    first.cache.put(make_record(key_of(1)))
    first.cache.put(make_record(key_of(2)))

    class Dies:
        def __del__(self) -> None:
            first.cache.discard(key_of(2))

    assert first.cache.begin()
    dies = Dies()
    del dies
    assert not second.cache.begin(False)
    first.cache.end()
    assert (second.version(1), second.version(2)) == (1, 0)


def test_s9_a_copy_that_is_outdated_meanwhile_does_not_enter(
    nodes: list[Node], make_record: MakeRecord
) -> None:
    """A collection in the middle stands for another thread: it discards the session, and its own cache hears of it.

    From Python 3.12 on none runs there; then the threads below are all that shows it.
    """
    first, second, _ = nodes
    discarded: list[int] = []

    class Dies:
        def __init__(self, number: int) -> None:
            self.number = number
            self.me = self

        def __del__(self) -> None:
            first.cache.discard(key_of(self.number))
            second.version(0)
            discarded.append(self.number)

    thresholds = gc.get_threshold()
    gc.collect()
    for number in range(1, 100):
        first.cache.put(make_record(key_of(number), attributes={f"k {number} {i}": b"1" for i in range(40)}))
        gc.collect(0)
        Dies(number)
        gc.set_threshold(number)
        second.version(number)
        gc.set_threshold(*thresholds)
        gc.collect(1)
        assert discarded.pop() == number
        assert second.version(number) == 0


def test_threads_of_nodes_that_change_and_read(
    make_node: Callable[..., Node], make_record: MakeRecord
) -> None:
    """Nobody is answered with less than what anybody was answered with, or had put, before he asked (C2)."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    nodes = [make_node(4) for _ in range(3)]
    lead(nodes[0])
    keys = 8
    newest = [1] * keys
    locks = [threading.Lock() for _ in range(keys)]
    wrong: list[tuple[int, int, int]] = []
    start = threading.Barrier(6)

    def work(number: int) -> None:
        node = nodes[number % 3]
        chance = random.Random(seed + number)
        start.wait()
        for _ in range(1500):
            key = chance.randrange(keys)
            if chance.random() < 0.2:
                with locks[key]:
                    version = newest[key] + 1
                    if chance.random() < 0.5:
                        node.cache.put(make_record(key_of(key), version=version))
                    else:
                        node.cache.discard_older(key_of(key), version)
                    newest[key] = version
            else:
                least = newest[key]
                version = node.version(key)
                if 0 < version < least:
                    wrong.append((key, version, least))
                if version == 0:
                    with locks[key]:
                        node.cache.put(make_record(key_of(key), version=newest[key]))

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    finally:
        sys.setswitchinterval(interval)
    assert not wrong
    assert not nodes[0].arena.poisoned
    assert all(node.cache.shared is not None for node in nodes)
    assert sum(node.cache.stats()["shared_hits"] for node in nodes) > 0


def test_threads_inside_while_the_arena_is_closed(
    file: int, make_cache: MakeCache, make_record: MakeRecord
) -> None:
    for _ in range(20):
        node = Node(file, make_cache())
        start = threading.Barrier(4)
        failed: list[BaseException] = []

        def work(
            node: Node = node, start: threading.Barrier = start, failed: list[BaseException] = failed
        ) -> None:
            start.wait()
            try:
                for number in range(50):
                    node.cache.put(make_record(key_of(number)))
                    node.version(number)
                    node.cache.identities()
                    node.cache.expire()
                    node.cache.mark_used()
            except ArenaError:
                pass
            except BaseException as error:
                failed.append(error)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        start.wait()
        node.arena.close()
        node.cache.unshare()
        for thread in threads:
            thread.join()
        assert not failed
