"""How often each call goes to the server and back, counted at a proxy between the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import pgsession
from tests.fault_proxy import FaultProxy

from .conftest import OpenAsyncManager

Act = Callable[[pgsession.AsyncSessionManager, pgsession.Session], Awaitable[Any]]


async def update(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    session["n"] += 1
    await manager.update_session(session)


async def rotate(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.rotate_session(session, user_id="u")


async def create(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.create_session("v", {"n": 0})


async def delete(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.delete_session(session.id)


async def read(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.get_session(session.id, refresh=True)


async def hit(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    await manager.get_session(session.id)


async def lock_and_unlock(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    async with manager.lock("resource"):
        pass


@pytest.mark.parametrize(
    ("act", "round_trips"),
    [(update, 1), (rotate, 1), (create, 1), (delete, 1), (read, 1), (hit, 0), (lock_and_unlock, 2)],
)
async def test_how_often_a_call_goes_to_the_server(
    dsn: str, open_manager: OpenAsyncManager, act: Act, round_trips: int
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(proxy.conninfo, max_staleness=600, cleanup_interval=0)
        session = await manager.create_session("u", {"n": 0})
        for _ in range(3):  # also the first time, when statements are prepared
            before = proxy.round_trips
            await act(manager, session)
            assert proxy.round_trips - before == round_trips
        await manager.close()
