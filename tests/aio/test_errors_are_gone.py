"""An error is gone once nobody has it, and so are what its caller had, and his: no collection has to find it."""

from __future__ import annotations

import gc
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

import pgsession
from pgsession._async.shard import AsyncShardManager
from pgsession._async.store import AsyncStore
from tests.sharded import Shards

from .helpers import eventually

Manager = pgsession.AsyncSessionManager


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Failed(Exception):
    pass


async def create_again(manager: Manager, session: pgsession.Session) -> None:
    await manager.create_session("v", session_id=session.id)


async def create_too_many(manager: Manager, session: pgsession.Session) -> None:
    await manager.create_session("u")


async def update_what_is_gone(manager: Manager, session: pgsession.Session) -> None:
    await manager.delete_session(session.id)
    await manager.update_session(session, expires_in=9)


async def conflict(manager: Manager, session: pgsession.Session) -> None:
    other = await manager.get_session(session.id, refresh=True)
    assert other is not None
    await manager.update_session(other, expires_in=9)
    await manager.update_session(session, expires_in=9, check="session")


async def lock(manager: Manager, session: pgsession.Session) -> None:
    await manager.lock("r").acquire()


@pytest.mark.parametrize("act", [create_again, create_too_many, update_what_is_gone, conflict, lock])
async def test_who_is_refused(
    dsn: str,
    config: pgsession.Config,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Manager, pgsession.Session], Awaitable[None]],
) -> None:
    def refuse(*_: object) -> None:
        raise Failed

    limited = pgsession.Config(
        schema_name=config.schema_name,
        create_schema_if_missing=True,
        max_sessions=1,
        max_sessions_policy="reject",
    )
    async with pgsession.AsyncSessionManager(dsn, limited) as manager:
        session = await manager.create_session("u", session_id=uuid.uuid4())
        if act is lock:
            monkeypatch.setattr(AsyncStore, "acquire", refuse)
        seen: weakref.ref[Exception] | None = None
        try:
            await act(manager, session)
        except (pgsession.PgSessionError, Failed) as error:
            seen = weakref.ref(error)
        assert seen is not None

        async def is_gone() -> bool:
            return seen() is None

        await eventually(is_gone)


async def test_of_several_shards(empty_shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(shard: AsyncShardManager) -> None:
        raise Failed

    async with pgsession.AsyncShardedSessionManager(empty_shards) as manager:
        with monkeypatch.context() as patched:
            patched.setattr(AsyncShardManager, "clear_cache", fail)
            seen: list[weakref.ref[Exception]] = []
            try:
                await manager.clear_cache()
            except pgsession.ShardsFailed as error:
                seen = [weakref.ref(error), *map(weakref.ref, error.failed.values())]
        assert len(seen) == 5

        async def are_gone() -> bool:
            return not any(each() for each in seen)

        await eventually(are_gone)
