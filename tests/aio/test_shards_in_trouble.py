"""Shards whose server is silent: who waits for it is in nobody else's way; and what is opened and closed meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.leftovers import Leftovers
from tests.sharded import Shards, number_of_servers

from .helpers import eventually

pytestmark = pytest.mark.skipif(number_of_servers() != 2, reason="it is about one server of two")


def user_in(manager: pgsession.AsyncShardedSessionManager, number: int) -> str:
    """A user of that shard."""
    return next(str(user) for user in range(10_000) if manager.shard_of_user(user) == number)


@contextmanager
def proxies(shards: Shards, dsn: str) -> Iterator[list[FaultProxy]]:
    """One before the server of the shards 1 and 3, and one before the other; nothing is left afterwards."""
    with Leftovers(dsn), ExitStack() as running:
        yield [running.enter_context(FaultProxy(str(shards[n].database))) for n in (1, 0)]


def behind(shards: Shards, *proxies: FaultProxy, **options: Any) -> Shards:
    """Those shards, by way of these proxies."""
    led = {
        shards[number].database: make_conninfo(proxy.conninfo, **options)
        for number, proxy in zip((1, 0), proxies, strict=False)
    }
    return [
        msgspec.structs.replace(shard, database=led.get(shard.database, shard.database)) for shard in shards
    ]


async def test_who_waits_for_a_silent_server_is_in_nobody_elses_way(empty_shards: Shards, dsn: str) -> None:
    with proxies(empty_shards, dsn) as both:
        proxy, _ = both
        config = pgsession.Config(operation_timeout=60, pool_max_size=1)
        crew = AsyncCrew()
        async with pgsession.AsyncShardedSessionManager(behind(empty_shards, proxy), config) as manager:
            here = [(await manager.create_session(user_in(manager, number))).id for number in (0, 2)]
            proxy.freeze()
            waiting: list[None] = []

            async def wait_for_all() -> None:
                waiting.append(None)
                await manager.count_sessions()
                waiting.pop()

            for _ in range(10):
                crew.start(wait_for_all)

            async def all_wait() -> bool:
                return len(waiting) == 10

            await eventually(all_wait)
            assert set(await manager.load_sessions(here)) == set(here)
            health = await manager.check_health(timeout=0.2)
            assert health.ready and not health.healthy
            assert len(waiting) == 10
            proxy.forward()
            await crew.join()


async def test_a_call_waits_for_others_no_longer_than_it_may_take(empty_shards: Shards, dsn: str) -> None:
    """However many wait already for the silent server."""
    with proxies(empty_shards, dsn) as both:
        proxy, _ = both
        config = pgsession.Config(operation_timeout=1, pool_max_size=1)
        crew = AsyncCrew()
        async with pgsession.AsyncShardedSessionManager(behind(empty_shards, proxy), config) as manager:
            proxy.freeze()

            async def fails() -> pgsession.ShardsFailed:
                with pytest.raises(pgsession.ShardsFailed) as failed:
                    await manager.clear_cache()
                return failed.value

            for _ in range(20):
                crew.start(fails)
            failures = await crew.join()
            assert all(list(failure.failed) == [1, 3] for failure in failures)
            proxy.forward()


async def test_a_manager_that_could_not_be_opened_can_be_opened_again(empty_shards: Shards, dsn: str) -> None:
    with proxies(empty_shards, dsn) as both:
        for proxy in both:
            proxy.refuse()
        manager = pgsession.AsyncShardedSessionManager(behind(empty_shards, *both))
        with pytest.raises(psycopg.OperationalError):
            await manager.open()
        with pytest.raises(pgsession.ManagerClosedError, match="is not open"):
            await manager.create_session("u")
        for proxy in both:
            proxy.forward()
        async with manager:
            session = await manager.create_session("u")
            assert manager.get_cached_session(session.id) is not None or await manager.get_session(session.id)
        with pytest.raises(pgsession.ManagerClosedError):
            await manager.open()


async def test_a_close_ends_an_open_that_is_under_way(empty_shards: Shards, dsn: str) -> None:
    with proxies(empty_shards, dsn) as both:
        proxy, _ = both
        crew = AsyncCrew()
        proxy.freeze()
        manager = pgsession.AsyncShardedSessionManager(behind(empty_shards, proxy, connect_timeout=600))

        async def is_refused() -> None:
            with pytest.raises(pgsession.ManagerClosedError, match="while it was opened"):
                await manager.open()

        async def is_opening() -> bool:
            return proxy.connections > 0

        crew.start(is_refused)
        await eventually(is_opening)
        await manager.close(None)
        await crew.join()
        with pytest.raises(pgsession.ManagerClosedError):
            await manager.open()
        proxy.forward()


async def test_a_silent_server_is_not_in_the_way_of_one_that_is_back(empty_shards: Shards, dsn: str) -> None:
    """Each of those that were down is tried again by itself; and a close waits for none of them."""
    with proxies(empty_shards, dsn) as both:
        silent, back = both
        for proxy in both:
            proxy.refuse()
        shards = behind(empty_shards, *both, connect_timeout=600)
        shards[0] = empty_shards[0]
        manager = pgsession.AsyncShardedSessionManager(shards)
        await manager.open()
        silent.freeze()
        silent.accept()

        async def is_silent() -> bool:
            return silent.connections > 0

        await eventually(is_silent)
        back.forward()

        async def is_back() -> bool:
            return (await manager.check_health_by_shard(timeout=1))[2].ready

        await eventually(is_back, timeout=30)
        await manager.close(None)
        silent.forward()
