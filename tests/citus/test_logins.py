"""Logins that change shards while both shards move."""

from __future__ import annotations

import asyncio
import random
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import psycopg
import pytest

import pgsession
from tests.citus.mover import Mover, moving

CALLERS = 4
MOVES = 8
NODES = 2


@pytest.fixture
def mover() -> Iterator[Mover]:
    with moving(f"pgsession_{secrets.token_hex(4)}", 2) as running:
        yield running


async def test_who_logs_in_while_both_shards_move_loses_nothing(mover: Mover) -> None:
    """Until the shards have moved several times; each visitor has a cart, a token and, as a user, a lock."""
    seed = random.SystemRandom().getrandbits(32)
    print(f"seed {seed}")
    signer = pgsession.Signer(b"k" * 32)
    config = pgsession.Config(schema_name=mover.sharding.schema_name, max_staleness=2)
    async with (
        pgsession.AsyncShardedSessionManager(mover.sharding.shards, config, signer=signer) as a,
        pgsession.AsyncShardedSessionManager(mover.sharding.shards, config, signer=signer) as b,
    ):
        outcomes = await asyncio.gather(
            *(_visit(mover, (a, b), random.Random(f"{seed} {caller}"), caller) for caller in range(CALLERS))
        )
    done, failed = map(sum, zip(*outcomes, strict=True))
    print(f"{done} logins, {failed} more that failed and left everything as it was, {mover.moves} moves")
    assert done


async def _visit(
    mover: Mover, nodes: tuple[pgsession.AsyncShardedSessionManager, ...], chance: random.Random, caller: int
) -> tuple[int, int]:
    """Log in again and again, each time as another user; return how many logins were done, and how many failed."""
    done = failed = number = 0
    while mover.moves < MOVES:
        number += 1
        node, other = chance.sample(nodes, NODES)
        cart = f"{caller} {number}"
        try:
            visitor = await node.create_session(None, {"cart": cart})
        except (psycopg.Error, pgsession.PgSessionError):
            continue
        before, token = visitor.id, node.token(visitor)
        home = node.shard_of_session(before)
        user = next(u for u in (f"{cart} {n}" for n in range(99)) if node.shard_of_user(u) != home)
        visitor["role"] = "admin"
        try:
            if number % 2:
                session = await node.rotate_session(visitor, user_id=user)
            else:
                session = await node.update_session(visitor, user_id=user)
        except (psycopg.Error, pgsession.PgSessionError) as error:
            failed += 1
            await _check_failed(
                other, before, user, cart, unknown=isinstance(error, pgsession.WriteOutcomeUnknown)
            )
            continue
        done += 1
        assert session.id != before and node.shard_of_session(session.id) != home
        assert await _asked(other.get_session, before, refresh=True) is None
        opened = await _asked(other.open_token, node.token(session))
        assert opened.state == "current" and dict(opened.session) == {"cart": cart, "role": "admin"}
        assert (await _asked(other.open_token, token)).session is None
        [listed] = await _asked(other.list_user_sessions, user)
        assert listed.id == session.id
        await _asked(_lock, node, session)
    return done, failed


async def _check_failed(
    node: pgsession.AsyncShardedSessionManager, before: object, user: str, cart: str, *, unknown: bool
) -> None:
    """Check that the visitor's session is as it was; or that the user's is there, where that is not known."""
    visitor = await _asked(node.get_session, before, refresh=True)
    users = await _asked(node.list_user_sessions, user)
    if visitor is not None:
        assert dict(visitor) == {"cart": cart} and visitor.user_id is None
    else:
        assert unknown and [dict(session) for session in users] == [{"cart": cart, "role": "admin"}]


async def _lock(node: pgsession.AsyncShardedSessionManager, session: pgsession.Session) -> None:
    lock = node.lock(f"cart:{session.id}", session_id=session.id, lease_time=30)
    assert await lock.acquire(timeout=60)
    await lock.release()


async def _asked(call: Callable[..., Awaitable[Any]], *arguments: Any, **options: Any) -> Any:
    """What a call gives, made again while the shard is in the midst of a move."""
    async with asyncio.timeout(60):
        while True:
            try:
                return await call(*arguments, **options)
            except (psycopg.Error, pgsession.OperationTimeout, pgsession.DatabaseUnavailable):
                await asyncio.sleep(0.05)
