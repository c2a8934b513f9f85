"""What the model does not say: accesses in time, floors, proofs, memory, and callbacks in the middle."""

from __future__ import annotations

import gc
import random
import sys
import threading
import weakref
from collections.abc import Callable

import msgspec
import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.reader import Reader
from pgsession._core.record import Record

from .conftest import HOUR, MINUTE, START

MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Record]
KEY = bytes(16)


def key_of(number: int) -> bytes:
    return number.to_bytes(16, "big")


class Manager(Reader):
    """Notes what goes to the database."""

    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.loads: list[tuple[object, ...]] = []
        self.touched: list[bytes] = []

    def _check_open(self) -> None:
        pass

    def _load(self, *arguments: object) -> None:
        self.loads.append(arguments)

    def _write_access_soon(self, key: bytes) -> None:
        self.touched.append(key)


@pytest.mark.parametrize("capacity", [0, -1, 2**31])
def test_a_capacity_that_cannot_be_is_refused(make_cache: MakeCache, capacity: int) -> None:
    with pytest.raises(ValueError, match="capacity"):
        make_cache(capacity)


def test_a_cache_of_one_works(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache(1)
    for number in range(5):
        assert cache.put(make_record(key_of(number)))
        assert cache.versions() == ([key_of(number)], [1])
    assert cache.stats()["evictions"] == 4


def test_the_least_recently_used_leaves_first_at_the_exact_size(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache(3)
    for number in range(3):
        cache.put(make_record(key_of(number)))
    cache.get(key_of(0))
    cache.put(make_record(key_of(3)))
    assert sorted(cache.versions()[0]) == [key_of(0), key_of(2), key_of(3)]


def test_c2_the_cache_never_goes_back(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache()
    newer, older = make_record(version=5), make_record(version=4)
    assert cache.put(newer) and not cache.put(older)
    assert cache.get(KEY) is newer
    assert cache.stats()["refused"] == 1


def test_a_version_is_discarded_by_a_newer_one_alone(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache()
    cache.put(make_record(version=5))
    assert not cache.discard_older(KEY, 4) and not cache.discard_older(KEY, 5)
    assert cache.discard_older(KEY, 6) and not cache.discard_older(KEY, 6)


def test_c2_a_newer_version_that_has_expired_takes_the_older_one_with_it(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache()
    cache.put(make_record())
    assert not cache.put(make_record(version=2, expires_at=START))
    assert len(cache) == 0


def test_c6_nothing_is_served_without_the_proof(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record())
    assert manager.get_session(KEY) is not None
    cache.in_sync_until = clock.now()
    assert manager.get_session(KEY) is None and manager.get_cached_session(KEY) is None
    assert manager.loads == [(KEY, True, False, 0)]
    assert cache.stats()["misses_out_of_sync"] == cache.stats()["misses"] == 2
    cache.in_sync_until = clock.now() + 1
    assert manager.get_session(KEY) is not None
    clock.advance(1)
    assert manager.get_cached_session(KEY) is None


def test_c6_the_time_by_which_the_clock_of_a_hit_lags_is_allowed_for(make_record: MakeRecord) -> None:
    """A hit reads a clock that may be behind; by the exact one the proof has just run out."""
    clock = Clock()
    cache = Cache(1, clock, access_interval=MINUTE, lifetime=0, max_attribute_length=10)
    now = clock.database_now()
    cache.put(make_record(last_accessed=now, expires_at=now + HOUR))
    manager = Manager(cache)
    for _ in range(1000):
        cache.in_sync_until = clock.now()
        assert manager.get_session(KEY) is None
    cache.in_sync_until = clock.now() + HOUR
    assert manager.get_session(KEY) is not None


def test_what_has_replaced_an_expired_record_stays(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    """Another thread may come between a hit that finds an entry to be over and its removal."""
    cache = make_cache()
    cache.put(make_record(expires_at=START + HOUR))
    clock.advance(HOUR)
    cache.put(make_record(version=2))
    cache._drop(KEY)
    assert cache.version(KEY) == 2
    clock.advance(24 * HOUR)
    cache._drop(KEY)
    cache._drop(KEY)
    assert cache.version(KEY) == 0 and cache.stats()["expirations"] == 1


def test_c8_an_expired_record_leaves_and_an_inactive_one_is_read_again(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record(key_of(1), expires_at=START + HOUR))
    cache.put(make_record(key_of(2)))
    cache.put(make_record(key_of(3), inactivity=None))
    clock.advance(HOUR - 1)
    assert cache.get(key_of(1)) is not None
    clock.advance(1)
    assert cache.get(key_of(1)) is None and len(cache) == 2
    clock.advance(HOUR)
    assert cache.get(key_of(2)) is None and len(cache) == 2
    assert cache.get(key_of(3)) is not None
    cache.put(make_record(key_of(2), last_accessed=clock.database_now()))
    assert cache.get(key_of(2)) is not None


def test_the_longest_time_in_the_cache_ends_an_entry(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache(lifetime=5 * MINUTE)
    cache.put(make_record())
    clock.advance(5 * MINUTE - 1)
    assert cache.get(KEY) is not None
    clock.advance(1)
    assert cache.get(KEY) is None and len(cache) == 0


def test_a_late_access_is_to_be_written_at_once_and_only_once(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record())
    clock.advance(HOUR + 49 * MINUTE)
    manager.get_session(KEY)
    assert manager.touched == []
    clock.advance(2 * MINUTE)
    manager.get_session(KEY, touch=False)
    assert manager.touched == []
    manager.get_session(KEY)
    manager.get_session(KEY)
    assert manager.touched == [KEY]
    cache.confirm_accesses(cache.take_accesses(10))
    manager.get_session(KEY)
    assert manager.touched == [KEY]
    clock.advance(HOUR + 51 * MINUTE)
    manager.get_session(KEY)
    assert manager.touched == [KEY, KEY]


def test_a_version_that_was_asked_for_is_served_or_read(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(version=3))
    assert manager.get_session(KEY, min_version=3) is not None
    assert manager.get_session(KEY, min_version=4) is None
    cache.set_floor(KEY, 4)
    assert manager.get_session(KEY, min_version=4) is not None
    assert manager.get_session(KEY, min_version=5) is None
    assert [load[3] for load in manager.loads] == [4, 5]
    cache.put(make_record(version=3))
    assert manager.get_session(KEY, min_version=4) is not None
    cache.set_floor(KEY, 1)
    assert manager.get_session(KEY, min_version=4) is not None, "a floor does not move back"


def test_a_version_that_is_there_is_served_whatever_else_is_looked_at(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    manager = Manager(cache)
    cache.put(make_record(version=3))
    clock.advance(2 * HOUR - MINUTE)
    assert manager.get_session(KEY, min_version=3) is not None
    assert manager.touched == [KEY], "the access is late: more was looked at than a deadline"


def test_c11_a_pending_access_survives_its_entry_and_never_moves_back(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache(1)
    cache.put(make_record(key_of(1)))
    clock.advance(MINUTE)
    cache.get(key_of(1))
    cache.put(make_record(key_of(2), user="bob"))
    assert cache.accesses_of_user("ann") == [(key_of(1), START + MINUTE)]
    assert cache.accesses_of_user("bob") == []
    taken = cache.take_accesses(10)
    assert taken == [(key_of(1), START + MINUTE)] and cache.take_accesses(10) == []
    cache.restore_accesses([(key_of(1), START + 5), *taken, (key_of(1), START + 7)])
    assert cache.take_accesses(10) == taken
    cache.restore_accesses(taken)
    cache.put(make_record(key_of(1)))
    assert cache.accesses_of_user("ann") == taken
    cache.clear()
    assert cache.take_accesses(10) == taken


def test_c11_a_newer_record_does_not_move_a_noted_access_back(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record())
    clock.advance(MINUTE)
    cache.get(KEY)
    cache.put(make_record(version=2, last_accessed=START + 1))
    assert cache.take_accesses(10) == [(KEY, START + MINUTE)]


def test_c11_what_the_database_has_of_an_access_does_not_move_back(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record())
    clock.advance(MINUTE)
    cache.get(KEY)
    cache.confirm_accesses(cache.take_accesses(10))
    cache.put(make_record(version=2))
    assert cache.accesses_of_user("ann") == [] and cache.take_accesses(10) == []


def test_an_access_that_the_database_has_is_not_written(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record())
    clock.advance(MINUTE)
    cache.get(KEY)
    cache.put(make_record(version=2, last_accessed=START + MINUTE))
    assert cache.take_accesses(10) == []


def test_the_sweeper_leaves_what_another_node_may_keep_alive(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record())
    clock.advance(3 * HOUR)
    assert cache.get(KEY) is None and cache.expire() == 0 and len(cache) == 1


def test_an_access_is_one_only_where_it_is_meant_and_newer(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache()
    cache.put(make_record(last_accessed=START + MINUTE))
    manager = Manager(cache)
    assert cache.get(KEY) is not None and cache.take_accesses(10) == [], "the database knows of a later one"
    clock.advance(2 * MINUTE)
    assert manager.get_session(KEY, touch=False) is not None and cache.get(KEY, touch=False) is not None
    assert cache.take_accesses(10) == []
    assert manager.get_session(KEY) is not None
    assert cache.take_accesses(10) == [(KEY, START + 2 * MINUTE)]


def test_c8_the_time_by_which_the_clock_of_a_hit_lags_is_allowed_for(make_record: MakeRecord) -> None:
    clock = Clock()
    cache = Cache(1, clock, access_interval=MINUTE, lifetime=0, max_attribute_length=10)
    cache.in_sync_until = clock.now() + HOUR
    manager = Manager(cache)
    for version in range(1000):
        ends = clock.database_now() + 50
        cache.put(make_record(version=version, last_accessed=ends, expires_at=ends))
        manager.get_session(KEY)
        while clock.database_now() < ends:
            pass
        assert manager.get_session(KEY) is None


def test_pending_accesses_are_taken_in_bounded_portions(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache(10)
    for number in range(30):
        cache.put(make_record(key_of(number)))
        clock.advance(1)
        cache.get(key_of(number))
    assert cache.stats()["pending_accesses"] == 30
    portions = [cache.take_accesses(7) for _ in range(6)]
    assert [len(portion) for portion in portions] == [7, 7, 7, 7, 2, 0]
    assert cache.stats()["pending_accesses"] == 0
    assert {key for portion in portions for key, _ in portion} == {key_of(number) for number in range(30)}


def test_expired_entries_are_swept_in_portions_and_their_memory_is_given_back(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    cache = make_cache(5000)
    for number in range(5000):
        cache.put(make_record(key_of(number), expires_at=START + (1 if number % 100 else HOUR)))
    clock.advance(10)
    swept = [cache.expire(limit=1000) for _ in range(5)]
    assert sum(swept) == 4950 and len(cache) == 50
    assert all(cache.get(key_of(number)) is not None for number in range(0, 5000, 100))


def test_a_user_is_dropped_without_looking_at_the_others(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache(3000)
    for number in range(3000):
        cache.put(make_record(key_of(number), user=f"user{number % 3}", group=f"group{number % 2}"))
    assert cache.discard_user("user1") == 1000
    assert cache.discard_group("group0") == 1000
    assert cache.discard_user("user1") == cache.discard_user("") == cache.discard_group("nobody") == 0
    assert len(cache) == 1000


def test_a_change_of_group_moves_the_entry(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache()
    cache.put(make_record(group="old"))
    cache.put(make_record(version=2, group="new"))
    assert cache.discard_group("old") == 0
    cache.put(make_record(version=3, group=None))
    assert cache.discard_group("new") == 0
    cache.put(make_record(version=4, group="new"))
    assert cache.discard_group("new") == 1


@pytest.mark.parametrize("moving", range(3))
def test_a_change_of_group_leaves_the_others_in_theirs(
    make_cache: MakeCache, make_record: MakeRecord, moving: int
) -> None:
    """Whichever of them goes: the list of the old group begins with one of them."""
    cache = make_cache()
    for number in range(3):
        cache.put(make_record(key_of(number), group="old"))
    cache.put(make_record(key_of(moving), version=2, group="new"))
    assert cache.discard_group("old") == 2
    assert cache.versions() == ([key_of(moving)], [2])
    assert cache.discard_group("new") == 1


def test_an_entry_that_takes_the_place_of_another_stays_with_its_user(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    """The last one fills the gap, and the next one comes where it was."""
    cache = make_cache()
    for number, user in enumerate(["bob", "ann", "ann"]):
        cache.put(make_record(key_of(number), user=user))
    cache.discard(key_of(0))
    cache.put(make_record(key_of(3), user="carl"))
    assert cache.discard_user("ann") == 2
    assert cache.versions() == ([key_of(3)], [1])


class Frozen(msgspec.Struct, frozen=True, weakref=True):
    number: int


@pytest.mark.parametrize("way", ["put", "discard", "discard_user", "clear", "evict", "expire"])
def test_finalizers_may_use_the_cache(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock, way: str
) -> None:
    cache = make_cache(4)
    called: list[str] = []
    watched = []

    def act(_: object) -> None:
        called.append(way)
        cache.put(make_record(key_of(100 + len(called)), user="ann"))
        cache.discard(key_of(1))
        cache.take_accesses(10)
        cache.discard_user("bob")

    for number in range(4):
        record = make_record(
            key_of(number), user="ann" if number else "bob", attributes={"s": b'{"number":1}'}
        )
        cache.put(record)
        value = session_of(cache, record, from_cache=True).get("s", type=Frozen)
        watched.append(weakref.ref(value, act))
    del record, value
    clock.advance(1)
    cache.get(key_of(2))
    {
        "put": lambda: cache.put(make_record(key_of(0), version=2)),
        "discard": lambda: cache.discard(key_of(0)),
        "discard_user": lambda: cache.discard_user("ann"),
        "clear": cache.clear,
        "evict": lambda: cache.put(make_record(key_of(50))),
        "expire": lambda: (clock.advance(25 * HOUR), cache.expire(limit=10)),
    }[way]()
    assert called
    watched.clear()
    keys = cache.versions()[0]
    assert len(keys) == len(set(keys)) == len(cache) <= 4
    for key in keys:
        assert cache.discard(key)
    assert len(cache) == 0


def test_references_are_given_back(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache = make_cache(8)
    records = [make_record(key_of(number), attributes={"a": b'"text"', "b": b"[1]"}) for number in range(16)]
    before = [sys.getrefcount(record) for record in records]
    manager = Manager(cache)
    for turn in range(200):
        record = random.Random(turn).choice(records)
        cache.put(record)
        session = manager.get_session(record.key)
        assert session is not None
        session["b"].append(1)
        session["c"] = session["a"]
        if turn % 50 == 0:
            cache.discard_user("ann")
    del session, record
    cache.clear()
    assert [sys.getrefcount(record) for record in records] == before


def test_a_dropped_cache_gives_back_its_records(make_cache: MakeCache, make_record: MakeRecord) -> None:
    cache, record = make_cache(), make_record()
    before = sys.getrefcount(record)
    cache.put(record)
    session = session_of(cache, record, from_cache=True)
    del cache, session
    gc.collect()
    assert sys.getrefcount(record) == before


def test_threads_hammering_one_cache_break_nothing(make_record: MakeRecord) -> None:
    cache = Cache(50, Clock(), access_interval=MINUTE, lifetime=HOUR, max_attribute_length=100)
    cache.in_sync_until = 2**62
    manager = Manager(cache)
    far = cache.clock.database_now() + 100 * HOUR
    barrier = threading.Barrier(4)
    failures: list[BaseException] = []

    def hammer(seed: int) -> None:
        chance = random.Random(seed)
        barrier.wait()
        try:
            for _ in range(3000):
                key = key_of(chance.randrange(100))
                match chance.randrange(8):
                    case 0 | 1:
                        cache.put(
                            make_record(key, user=f"u{key[-1] % 5}", expires_at=far, attributes={"a": b"[1]"})
                        )
                    case 2:
                        cache.discard(key)
                    case 3:
                        cache.confirm_accesses(cache.take_accesses(5))
                    case 4 if chance.random() < 0.1:
                        cache.discard_user(f"u{chance.randrange(5)}")
                    case _:
                        session = manager.get_session(key)
                        assert session is None or (session.id.bytes == key and session["a"] == [1])
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=hammer, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    assert len(cache) <= 50 and len(set(cache.versions()[0])) == len(cache)


def test_accesses_of_evicted_sessions_are_bounded(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> None:
    cache = make_cache(capacity=1)
    many = 70_000
    for number in range(many):
        key = number.to_bytes(16, "big")
        cache.put(make_record(key))
        cache.restore_accesses([(key, START + 1 + number)])
        if number == 32_768:
            assert not cache.many_evicted_accesses
        if number == 32_769:
            assert cache.many_evicted_accesses
    stats = cache.stats()
    assert stats["pending_accesses"] <= 65_536 + 1
    assert stats["lost_accesses"] == many - stats["pending_accesses"] > 0
    newest = (many - 2).to_bytes(16, "big"), START + many - 1
    assert newest in cache.take_accesses(many)
