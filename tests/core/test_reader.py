"""Hits and misses of both readers, and the awaitable of a hit wherever a coroutine may be."""

from __future__ import annotations

import asyncio
import gc
import inspect
import sys
import threading
import uuid
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from pgsession._core.cache import Cache
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.record import Record
from pgsession.opened import Opened

KEY = uuid.UUID(int=5)


def good(number: int) -> str:
    """A token as long as they are; only those are remembered."""
    return f"good-{number}".ljust(60, ".") + f"{number * 2654435761:028}"


class Manager(Reader):
    def __init__(self, cache: Cache) -> None:
        super().__init__(cache)
        self.verified: list[str] = []

    def _check_open(self) -> None:
        pass

    _opened = Opened

    def _load(self, *arguments: object) -> object:
        return ("loaded", *arguments)

    _load_session_by_token = _load

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        self.verified.append(token)
        return (KEY.bytes, 0, int(token[5:60].rstrip("."))) if token.startswith("good-") else None


class AsyncManager(AsyncReader):
    _opened = Opened

    def _check_open(self) -> None:
        pass

    async def _load(self, *arguments: object) -> object:
        await asyncio.sleep(0)
        return ("loaded", *arguments)

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        return (KEY.bytes, 0, 1) if token == "good" else None


@pytest.fixture
def cache(make_cache: Callable[..., Cache], make_record: Callable[..., Record]) -> Cache:
    cache = make_cache()
    cache.put(make_record(KEY.bytes, attributes={"a": b"1"}))
    return cache


def test_a_hit_is_a_new_session_on_the_shared_record(cache: Cache) -> None:
    manager = Manager(cache)
    first, second = manager.get_session(KEY), manager.get_session(str(KEY))
    assert first is not None and second is not None and first is not second
    assert first._record is second._record is cache.get(KEY)
    assert first.from_cache and first.id == KEY


def test_the_id_may_come_by_name(cache: Cache) -> None:
    for manager in (Manager(cache), AsyncManager(cache)):
        assert manager.get_cached_session(session_id=KEY) is not None
        for method in (manager.get_session, manager.get_cached_session):
            for arguments in ((), (KEY, True)):
                with pytest.raises(TypeError, match="argument"):
                    method(*arguments)  # type: ignore[call-arg, arg-type]
    session = Manager(cache).get_session(session_id=KEY)
    assert session is not None and session.id == KEY


class Discarding:
    """Garbage that takes the session out of the cache when it is collected."""

    def __init__(self, cache: Cache) -> None:
        self.cache, self.itself = cache, self

    def __del__(self) -> None:
        self.cache.discard(KEY)


def test_making_a_session_survives_a_collection_that_drops_its_record(
    cache: Cache, make_record: Callable[..., Record]
) -> None:
    manager = Manager(cache)
    held = [manager.get_session(KEY) for _ in range(100)]  # more than are kept to be used again
    before = gc.get_threshold()
    for _ in range(5):
        cache.put(make_record(KEY.bytes, attributes={"a": b"1"}))
        gc.collect()
        Discarding(cache)
        gc.set_threshold(1)
        try:
            session = manager.get_session(KEY)
        finally:
            gc.set_threshold(*before)
        if isinstance(session, tuple):  # collected on the way in: a miss
            continue
        assert session is not None and session._record.user_id
        held.append(session)
    assert {session["a"] for session in held if session is not None} == {1}


def test_a_miss_goes_to_load_with_everything(cache: Cache) -> None:
    manager, other = Manager(cache), uuid.uuid4()
    assert manager.get_session(other) == ("loaded", other.bytes, True, False, 0)
    assert manager.get_session(other, touch=False, min_version=3) == ("loaded", other.bytes, False, False, 3)
    assert manager.get_session(KEY, refresh=True) == ("loaded", KEY.bytes, True, True, 0)
    assert manager.get_cached_session(other) is None


def test_what_is_not_an_id_is_an_error_before_anything_else(cache: Cache) -> None:
    for manager in (Manager(cache), AsyncManager(cache)):
        for method in (manager.get_session, manager.get_cached_session):
            with pytest.raises(TypeError, match="session_id"):
                method(5)  # type: ignore[arg-type]
            with pytest.raises(ValueError, match="session_id"):
                method("nonsense")


def test_a_reader_without_a_cache_knows_nothing() -> None:
    class Lazy(Reader):
        def __init__(self) -> None:
            pass

        def _load(self, *arguments: object) -> object:
            return "loaded"

    assert Lazy().get_session(KEY) == "loaded"


def test_a_token_is_verified_once_and_a_bad_one_is_none(cache: Cache) -> None:
    manager = Manager(cache)
    for _ in range(3):
        session = manager.get_session_by_token(good(1))
        assert session is not None and session.id == KEY
    assert manager.get_session_by_token("bad") is None
    assert manager.get_session_by_token(None) is None  # type: ignore[arg-type]
    assert manager.get_session_by_token(good(2)) == ("loaded", KEY.bytes, 0, True, False, 2)
    assert manager.get_session_by_token(good(2), min_version=9) == ("loaded", KEY.bytes, 0, True, False, 9)
    assert manager.verified == [good(1), "bad", good(2)]


def test_a_token_of_a_kind_of_str_is_the_text_it_is(cache: Cache) -> None:
    class Cookie(str):
        __hash__ = None  # type: ignore[assignment]

    manager = Manager(cache)
    for _ in range(2):
        session = manager.get_session_by_token(Cookie(good(1)))
        assert session is not None and session.id == KEY
    assert manager.verified == [good(1)]


def test_tokens_are_remembered_within_bounds(cache: Cache) -> None:
    manager = Manager(cache)
    for number in range(1000):
        manager.get_session_by_token(good(number))
    assert len(manager.verified) == 1000
    manager.get_session_by_token(good(999))
    assert len(manager.verified) == 1000
    manager.get_session_by_token(good(0))
    assert len(manager.verified) == 1001


def test_a_token_that_comes_again_stays_remembered(cache: Cache) -> None:
    manager = Manager(cache)
    for number in range(10 * cache.capacity):
        manager.get_session_by_token(good(7777))
        manager.get_session_by_token(good(number))
    assert manager.verified.count(good(7777)) == 1


async def test_awaiting_a_hit_a_miss_and_a_bad_token(cache: Cache) -> None:
    manager, other = AsyncManager(cache), uuid.uuid4()
    assert (await manager.get_session(KEY))["a"] == 1  # type: ignore[index]
    assert await manager.get_session(other) == ("loaded", other.bytes, True, False, 0)
    assert (await manager.get_session_by_token("good"))["a"] == 1  # type: ignore[index]
    assert await manager.get_session_by_token("bad") is None


async def test_a_hit_works_wherever_a_coroutine_does(cache: Cache) -> None:
    manager = AsyncManager(cache)
    loop = asyncio.get_running_loop()
    found = [
        await asyncio.create_task(manager.get_session(KEY)),
        await asyncio.wait_for(manager.get_session(KEY), 5),
        await asyncio.ensure_future(manager.get_session(KEY)),
        await asyncio.shield(manager.get_session(KEY)),
        *await asyncio.gather(manager.get_session(KEY), manager.get_session(KEY)),
        await loop.create_task(manager.get_session(KEY), name="named"),
        await asyncio.to_thread(
            lambda: asyncio.run_coroutine_threadsafe(manager.get_session(KEY), loop).result(5)
        ),
    ]
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(manager.get_session(KEY)) for _ in range(3)]
    async with asyncio.timeout(5):
        found.append(await manager.get_session(KEY))
    found += [task.result() for task in tasks]
    assert all(session is not None and session.id == KEY for session in found)


def test_asyncio_run_and_eager_tasks_take_a_hit(cache: Cache) -> None:
    manager = AsyncManager(cache)
    session = asyncio.run(manager.get_session(KEY))
    assert session is not None and session.id == KEY
    if sys.version_info >= (3, 12):

        async def eagerly() -> Any:
            asyncio.get_running_loop().set_task_factory(asyncio.eager_task_factory)
            return await asyncio.create_task(manager.get_session(KEY))

        assert asyncio.run(eagerly()).id == KEY


def test_a_hit_that_nobody_awaits_says_nothing(cache: Cache) -> None:
    AsyncManager(cache).get_session(KEY)
    gc.collect()


def resumed(awaitable: Coroutine[Any, Any, Any]) -> Any:
    with pytest.raises(StopIteration) as done:
        awaitable.send(None)
    return done.value.value


async def test_a_result_comes_as_it_is_in_each_way_to_wait(cache: Cache) -> None:
    manager = AsyncManager(cache)
    for found in (
        await manager.get_session(KEY),
        await asyncio.create_task(manager.get_session(KEY)),
        resumed(manager.get_session(KEY)),
    ):
        assert found is not None and found.id == KEY
    assert await manager.get_session_by_token("bad") is None
    assert await asyncio.create_task(manager.get_session_by_token("bad")) is None
    assert resumed(manager.get_session_by_token("bad")) is None


async def test_a_result_is_given_once(cache: Cache) -> None:
    awaitable = AsyncManager(cache).get_session(KEY)
    assert (await awaitable).id == KEY
    for _ in range(2):
        with pytest.raises(RuntimeError, match="reuse"):
            await awaitable
    with pytest.raises(RuntimeError, match="reuse"):
        awaitable.send(None)


def test_throw_and_close(cache: Cache) -> None:
    awaitable = AsyncManager(cache).get_session(KEY)
    with pytest.raises(KeyError):
        awaitable.throw(KeyError("thrown"))
    with pytest.raises(RuntimeError, match="reuse"):
        awaitable.send(None)
    awaitable = AsyncManager(cache).get_session(KEY)
    awaitable.close()
    with pytest.raises(RuntimeError, match="reuse"):
        next(awaitable.__await__())


async def test_results_do_not_live_on_in_what_is_used_again(cache: Cache) -> None:
    manager, record = AsyncManager(cache), cache.get(KEY)
    before = sys.getrefcount(record)
    for _ in range(100):
        found = await manager.get_session(KEY)
    del found
    kept = []
    for _ in range(40):
        with pytest.raises(StopIteration) as done:
            next(manager.get_session(KEY).__await__())
        kept.append(done.value)
    assert all(stop.value.id == KEY for stop in kept)
    del kept, done
    gc.collect()
    assert sys.getrefcount(record) == before


async def test_nested_awaits_each_get_their_own(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> None:
    cache = make_cache()
    ids = [uuid.UUID(int=number) for number in range(50)]
    for one in ids:
        cache.put(make_record(one.bytes))
    manager = AsyncManager(cache)

    async def all_of_them() -> list[object]:
        pending = [manager.get_session(one) for one in ids]
        return [(await one).id for one in pending]

    assert await asyncio.gather(all_of_them(), all_of_them()) == [ids] * 2


def test_threads_may_await_at_once(cache: Cache) -> None:
    manager, failures = AsyncManager(cache), []

    async def many() -> None:
        for _ in range(2000):
            session = await manager.get_session(KEY)
            assert session is not None and session["a"] == 1

    def run() -> None:
        try:
            asyncio.run(many())
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_signatures_can_be_asked_for() -> None:
    for base in (Reader, AsyncReader):
        parameters = inspect.signature(base.get_session).parameters
        assert list(parameters) == ["self", "session_id", "touch", "refresh", "min_version"]
        assert base.get_session.__doc__
