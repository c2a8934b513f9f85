"""The order of use is told, and what comes early is the first to leave again."""

from __future__ import annotations

from collections.abc import Callable

from pgsession._core.cache import Cache
from pgsession._core.record import Record

from .conftest import START


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def record(n: int, version: int = 1, expires: int = START + 10**12) -> Record:
    return Record(key(n), version, f"u{n}", None, START, START, START - 1, expires, None, [])


def order(cache: Cache) -> list[int]:
    keys = cache.keys_by_use()
    return [int.from_bytes(keys[at : at + 16], "big") for at in range(0, len(keys), 16)]


def test_the_last_used_is_told_first(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(4)
    assert cache.keys_by_use() == b""
    for n in range(5):
        cache.put(record(n))
    cache.get(key(2))
    assert order(cache) == [2, 4, 3, 1]
    cache.discard(key(3))
    assert order(cache) == [2, 4, 1]


def test_one_after_the_other_keep_their_order_behind_all_that_is_there(
    make_cache: Callable[..., Cache],
) -> None:
    cache = make_cache(6)
    cache.put(record(1))
    assert cache.put(record(10), behind=True) and cache.put(record(11), behind=True)
    cache.put(record(2))
    assert cache.put(record(12), behind=True)
    assert order(cache) == [2, 1, 10, 11, 12]
    cache.get(key(11))
    assert order(cache) == [11, 2, 1, 10, 12]
    for n in (20, 21, 22):
        cache.put(record(n))
    assert order(cache) == [22, 21, 20, 11, 2, 1], "the first of them was the first to leave"


def test_nothing_leaves_for_what_comes_early(make_cache: Callable[..., Cache]) -> None:
    cache = make_cache(2)
    cache.put(record(1))
    assert not cache.put(record(1, version=5), behind=True), "it is there, and keeps its place"
    assert cache.version(key(1)) == 1
    cache.put(record(2))
    assert not cache.put(record(3), behind=True)
    assert order(cache) == [2, 1] and cache.stats()["evictions"] == 0
    cache.discard(key(2))
    assert not cache.put(record(3, expires=START - 1), behind=True)
    assert order(cache) == [1]


def test_it_is_no_access_and_one_that_waits_to_be_written_is_not_lost(
    make_cache: Callable[..., Cache],
) -> None:
    cache = make_cache(3)
    assert cache.put(record(1), behind=True)
    assert cache.take_accesses(10) == []
    cache.get(key(1))
    cache.discard(key(1))
    assert cache.put(record(1), behind=True)
    assert [of for of, _ in cache.take_accesses(10)] == [key(1)]
