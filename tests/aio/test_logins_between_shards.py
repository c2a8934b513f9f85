"""A visitor who logs in moves to the user's shard: whatever fails meanwhile, the session is there once, or in doubt."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._async.shard import AsyncShardManager
from pgsession._protocol.operations import Create, Operation
from tests.sharded import Shards

Write = Callable[..., Any]


def user_elsewhere(manager: pgsession.AsyncShardedSessionManager, session: pgsession.Session) -> str:
    """A new user of another shard than the session's."""
    of = manager.shard_of_session(session.id)
    name = uuid.uuid4().hex
    return next(f"{name}{n}" for n in range(10_000) if manager.shard_of_user(f"{name}{n}") != of)


class Lossy:
    """Loses the answers to writes of the whole's making in each shard: of those `losing` says so of, in turn."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *losing: str) -> None:
        self._left = list(losing)  # "", "done", "not done", for each write
        self._write: Write = AsyncShardManager.write
        monkeypatch.setattr(AsyncShardManager, "write", lambda shard, operation: self.write(shard, operation))

    async def write(self, shard: AsyncShardManager, operation: Operation) -> Any:
        how = self._left.pop(0) if self._left else ""
        result = await self._write(shard, operation) if how != "not done" else None
        if how:
            raise pgsession.WriteOutcomeUnknown("lost") from psycopg.OperationalError("lost")
        return result


@pytest.mark.parametrize(
    ("losing", "moves"),
    [
        (["done"], False),
        (["not done"], False),
        (["", "done"], True),
        (["", "not done"], True),
        (["", "done", "done"], True),
        (["", "done", "not done"], None),
        (["", "not done", "not done"], None),
    ],
)
@pytest.mark.parametrize("how", ["rotate", "update"])
async def test_an_unknown_outcome_loses_nothing(
    empty_shards: Shards, monkeypatch: pytest.MonkeyPatch, losing: list[str], moves: bool | None, how: str
) -> None:
    """Of the copy's creation it says what became of the login; of the end it is found out, if that can be."""
    async with pgsession.AsyncShardedSessionManager(empty_shards) as manager:
        session = await manager.create_session(None, {"cart": 1})
        old, user = session.id, user_elsewhere(manager, session)
        session["name"] = "Alice"
        Lossy(monkeypatch, *losing)
        login = manager.rotate_session if how == "rotate" else manager.update_session
        if moves:
            await login(session, user_id=user)
        else:
            with pytest.raises(pgsession.WriteOutcomeUnknown):
                await login(session, user_id=user)
        there = await manager.get_session(old, refresh=True)
        copies = await manager.list_user_sessions(user)
        if moves is False:
            assert there is not None and copies == []
            await login(session, user_id=user)
            copies = await manager.list_user_sessions(user)
        elif moves:
            assert there is None
        assert [dict(copy) for copy in copies] == [{"cart": 1, "name": "Alice"}]
        if moves is not None:
            assert session.id == copies[0].id


async def test_what_ends_twice_was_there_once(empty_shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody has changed it, while the answer to its end was lost: it is copied again."""
    async with pgsession.AsyncShardedSessionManager(empty_shards) as manager:
        session = await manager.create_session(None, {"cart": 1})
        old, user = session.id, user_elsewhere(manager, session)
        lossy = Lossy(monkeypatch, "", "not done")
        write = lossy.write

        async def changed_first(shard: AsyncShardManager, operation: Operation) -> Any:
            if len(lossy._left) == 1 and not isinstance(operation, Create):
                other = await manager.get_session(old)
                assert other is not None
                other["cart"] = 2
                await manager.update_session(other)
            return await write(shard, operation)

        lossy.write = changed_first  # type: ignore[method-assign]
        await manager.rotate_session(session, user_id=user)
        assert await manager.get_session(old, refresh=True) is None
        assert [dict(copy) for copy in await manager.list_user_sessions(user)] == [{"cart": 2}]


async def of_before(dsn: str, config: pgsession.Config, user: str, count: int) -> list[pgsession.Session]:
    """So many sessions of a user of before there were shards."""
    async with pgsession.AsyncSessionManager(dsn, config) as before:
        return [await before.create_session(user, {"n": n}) for n in range(count)]


@pytest.fixture
def with_legacy(dsn: str, schema: str) -> Iterator[Shards]:
    """The first one has the sessions of before."""
    yield [
        pgsession.Shard(database=dsn, schema_name=schema, legacy=True),
        pgsession.Shard(database=dsn, schema_name=f"{schema}_1"),
    ]
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(f"DROP SCHEMA IF EXISTS {schema}_1 CASCADE".encode())


@pytest.mark.parametrize("policy", ["evict", "reject"])
async def test_a_session_of_before_does_not_make_room_for_itself(
    with_legacy: Shards, dsn: str, config: pgsession.Config, policy: Any
) -> None:
    """It is the user's, and is given to the user again: that makes no other one of it."""
    mine = pgsession.Config(max_sessions=2, max_sessions_policy=policy, create_schema_if_missing=True)
    async with pgsession.AsyncShardedSessionManager(with_legacy, mine) as manager:
        user = next(str(n) for n in range(99) if manager.shard_of_user(n) == 1)
        first, second = await of_before(dsn, config, user, 2)
        one = await manager.get_session(first.id)
        assert one is not None
        await manager.rotate_session(one, user_id=user)
        assert manager.shard_of_session(one.id) == manager.shard_of_user(user)
        assert await manager.get_session(second.id) is not None
        await manager.rotate_session(one, user_id=user)  # which is in the user's shard by now
        assert await manager.count_sessions(user_id=user) == 2


@pytest.mark.parametrize("how", ["rotate", "update", "modify"])
async def test_a_login_that_stays_counts_sessions_of_before(
    with_legacy: Shards, dsn: str, config: pgsession.Config, how: str
) -> None:
    mine = pgsession.Config(max_sessions=2, create_schema_if_missing=True)
    async with pgsession.AsyncShardedSessionManager(with_legacy, mine) as manager:
        user = next(str(n) for n in range(99) if manager.shard_of_user(n) == 1)
        await of_before(dsn, config, user, 2)
        visitor = await manager.create_session(session_id=manager.id_for(uuid.uuid4(), user))
        if how == "rotate":
            await manager.rotate_session(visitor, user_id=user)
        elif how == "update":
            await manager.update_session(visitor, user_id=user)
        else:
            await manager.modify_session(visitor.id, lambda session: None, user_id=user)
        assert await manager.count_sessions(user_id=user) == 2
        assert await manager.get_session(visitor.id) is not None


async def test_who_is_refused_has_ended_nothing_before(
    with_legacy: Shards, dsn: str, config: pgsession.Config
) -> None:
    mine = pgsession.Config(max_sessions=2, create_schema_if_missing=True)
    async with pgsession.AsyncShardedSessionManager(with_legacy, mine) as manager:
        user = next(str(n) for n in range(99) if manager.shard_of_user(n) == 1)
        await of_before(dsn, config, user, 2)
        for wrong in (
            {"attributes": {"x": object()}}, {"attributes": 3}, {"expires_in": -1}, {"group_id": 1.5},
            {"inactivity": 0}, {"if_exists": "no"},
        ):  # fmt: skip
            with pytest.raises((TypeError, ValueError)):
                await manager.create_session(user, **wrong)
        visitor = await manager.create_session()
        stale = await manager.get_session(visitor.id, refresh=True)
        assert stale is not None
        await manager.rotate_session(visitor)
        for arguments in ({}, {"check": "no"}, {"expires_in": -1}):
            with pytest.raises((pgsession.ConflictError, ValueError)):
                await manager.update_session(stale, user_id=user, **arguments)
        gone = await manager.create_session()
        await manager.delete_session(gone.id)
        with pytest.raises(pgsession.SessionNotFoundError):
            await manager.rotate_session(gone, user_id=user)
        assert await manager.count_sessions(user_id=user) == 2
