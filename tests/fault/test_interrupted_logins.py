"""Who logs in and is cancelled or interrupted, at whatever step, has one session afterwards, the old or the new one."""

from __future__ import annotations

import asyncio
import contextlib
from functools import partial
from uuid import UUID

import pgsession
from tests.fault.interrupts import Interrupt, Interrupter
from tests.sharded import Shards

PATIENCE = 20
MOST_STEPS = 1000


def user_elsewhere(
    manager: pgsession.AsyncShardedSessionManager | pgsession.ShardedSessionManager,
    session: pgsession.Session,
    step: int,
) -> str:
    """A user of another shard than the session's, of whom there is no other session."""
    of = manager.shard_of_session(session.id)
    return next(f"{step}/{n}" for n in range(10_000) if manager.shard_of_user(f"{step}/{n}") != of)


def check(shards: Shards, logins: list[tuple[int, str, UUID]]) -> None:
    """Each has one live session, with all that was in it."""
    with pgsession.ShardedSessionManager(shards) as manager:
        for step, user, visitor in logins:
            there = manager.get_session(visitor)
            found = [*manager.list_user_sessions(user), *([] if there is None else [there])]
            assert [dict(session)["cart"] for session in found] == [step]


async def test_a_cancelled_login_is_done_or_not(empty_shards: Shards) -> None:
    logins: list[tuple[int, str, UUID]] = []
    async with pgsession.AsyncShardedSessionManager(empty_shards) as manager:
        for step in range(MOST_STEPS):
            session = await manager.create_session(None, {"cart": step})
            user = user_elsewhere(manager, session, step)
            logins.append((step, user, session.id))
            login = asyncio.create_task(manager.rotate_session(session, user_id=user))
            for _ in range(step):
                await asyncio.sleep(0)
            ended = login.done()
            login.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await login
            if ended:
                break
        else:
            raise AssertionError("it does not end")
    check(empty_shards, logins)


def test_an_interrupted_login_is_done_or_not(empty_shards: Shards) -> None:
    logins: list[tuple[int, str, UUID]] = []
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        for step in range(MOST_STEPS):
            session = manager.create_session(None, {"cart": step})
            user = user_elsewhere(manager, session, step)
            logins.append((step, user, session.id))
            interrupter = Interrupter(step, Interrupt)
            interrupter.run(partial(manager.rotate_session, session, user_id=user), PATIENCE)
            if not interrupter.raised:
                break
        else:
            raise AssertionError("it does not end")
    check(empty_shards, logins)
