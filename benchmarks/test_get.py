"""Reading a session that this process holds, with every check that production makes, beside in-process caches."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from os import urandom
from typing import Any
from uuid import UUID

import pgsession

from . import frameworks, ours
from .loops import awaiting_loop, fresh_bytes, loop, shuffled
from .race import Contender, Race, Round
from .stage import Stage

COUNT = 10_000
DICT = "dict.get(bytes)"
AGAIN = 20_000  # look-ups of one key a round

race = Race("get", "Get a session from this process's memory, 10,000 of them, random order", baseline=DICT)
again = Race("get-again", "Get the same session again and again", baseline=DICT)
awaited = Race("get-async", "Await the same session again and again", baseline="empty coroutine")


def node(stage: Stage) -> AbstractContextManager[pgsession.SessionManager]:
    """A manager that several races read from."""
    return ours.manager(stage, count=COUNT)


def async_node(stage: Stage) -> AbstractContextManager[pgsession.AsyncSessionManager]:
    """The same with asyncio."""
    return ours.async_manager(stage, count=COUNT)


def _ours(make_id: Callable[[bytes], Any]) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        sessions = stage.once(node)
        ids = ours.cached_ids(sessions)
        yield loop(sessions.get_session, lambda: shuffled(ids, make_id))

    return contender


def _cache(fill: Callable[[dict[bytes, bytes]], Callable[[bytes], object]]) -> Contender:
    """A cache of encoded sessions by 16 bytes; `fill` returns its look-up."""

    def contender(stage: Stage) -> Iterator[Round]:
        entries = {urandom(16): urandom(100) for _ in range(COUNT)}
        ids = list(entries)
        yield loop(fill(entries), lambda: shuffled(ids, fresh_bytes))

    return contender


def _lru_cache(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    get = functools.lru_cache(maxsize=COUNT)(entries.__getitem__)
    for key in entries:
        get(key)
    return get


def _lru_dict(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    import lru

    cache: Any = lru.LRU(COUNT)
    cache.update(entries)
    get: Callable[[bytes], object] = cache.get
    return get


def _cachebox(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    import cachebox

    return cachebox.LRUCache(COUNT, entries).get


def _cachebox_ttl(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    import cachebox

    return cachebox.TTLCache(COUNT, 3600, entries).get


def _cachetools(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    import cachetools

    cache: Any = cachetools.LRUCache(COUNT)
    cache.update(entries)
    get: Callable[[bytes], object] = cache.get
    return get


def _cachetools_ttl(entries: dict[bytes, bytes]) -> Callable[[bytes], object]:
    import cachetools

    cache: Any = cachetools.TTLCache(COUNT, 3600)
    cache.update(entries)
    get: Callable[[bytes], object] = cache.get
    return get


race.contender(DICT)(_cache(lambda entries: entries.get))
race.contender("pgsession, UUID")(_ours(lambda key: UUID(bytes=key)))
race.contender("pgsession, 16 bytes")(_ours(fresh_bytes))
race.contender("pgsession, str of 36")(_ours(lambda key: str(UUID(bytes=key))))
race.contender("functools.lru_cache")(_cache(_lru_cache))
race.contender("lru-dict")(_cache(_lru_dict))
race.contender("cachebox LRUCache")(_cache(_cachebox))
race.contender("cachebox TTLCache")(_cache(_cachebox_ttl))
race.contender("cachetools LRUCache")(_cache(_cachetools))
race.contender("cachetools TTLCache")(_cache(_cachetools_ttl))


@race.contender("Django cached_db")
def _django(stage: Stage) -> Iterator[Round]:
    with frameworks.django(stage) as service:
        yield loop(service.read, lambda: shuffled(service.ids, str, most=500))


@again.contender(DICT)
def _dict_again(stage: Stage) -> Iterator[Round]:
    entries = {urandom(16): urandom(100) for _ in range(COUNT)}
    keys = [next(iter(entries))] * AGAIN
    yield loop(entries.get, lambda: keys)


@again.contender("pgsession, UUID")
def _ours_again(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    keys = [UUID(bytes=ours.cached_ids(sessions)[0])] * AGAIN
    yield loop(sessions.get_session, lambda: keys)


@again.contender("pgsession, 16 bytes")
def _ours_again_bytes(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    keys = [ours.cached_ids(sessions)[0]] * AGAIN
    yield loop(sessions.get_session, lambda: keys)


async def _nothing(_: object) -> None:
    pass


@race.contender("pgsession, UUID, awaited")
def _ours_awaited(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(async_node)
    ids = ours.cached_ids(sessions)
    yield awaiting_loop(stage.loop, sessions.get_session, lambda: shuffled(ids, lambda key: UUID(bytes=key)))


def _one_id(sessions: Any) -> Callable[[], Sequence[UUID]]:
    ids = [UUID(bytes=ours.cached_ids(sessions)[0])] * AGAIN
    return lambda: ids


@awaited.contender("empty coroutine")
def _empty(stage: Stage) -> Iterator[Round]:
    yield awaiting_loop(stage.loop, _nothing, _one_id(stage.once(async_node)))


@awaited.contender("await get_session")
def _await_get(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(async_node)
    yield awaiting_loop(stage.loop, sessions.get_session, _one_id(sessions))


@awaited.contender("get_cached_session, not awaited")
def _get_cached(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(async_node)
    yield loop(sessions.get_cached_session, _one_id(sessions))


@awaited.contender("get_session of the sync manager")
def _sync_get(stage: Stage) -> Iterator[Round]:
    sessions = stage.once(node)
    yield loop(sessions.get_session, _one_id(sessions))


test_get = race.test()
test_get_again = again.test()
test_get_async = awaited.test()
