"""Waiting for what must happen soon, without guessing how soon; and many sessions at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pgsession
from pgsession._concurrency import async_sleep
from tests.crew import AsyncCrew


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str = "it", timeout: float = 10.0
) -> None:
    """Polls until the condition holds; it failing to, in a generous time, is the test's failure."""
    deadline = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        await async_sleep(0.005)


async def create_many(
    manager: pgsession.AsyncSessionManager, count: int, user_id: str = "u", **options: Any
) -> list[pgsession.Session]:
    """Logs a user in often, several at once."""
    crew = AsyncCrew()

    async def create_some(how_many: int) -> list[pgsession.Session]:
        return [await manager.create_session(user_id, **options) for _ in range(how_many)]

    callers = min(count, 20)
    for number in range(callers):
        crew.start(create_some, count // callers + (number < count % callers))
    return [session for some in await crew.join() for session in some]
