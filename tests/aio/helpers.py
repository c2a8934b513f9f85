"""Waiting for what must happen soon, without guessing how soon."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

from pgsession._primitives import async_sleep


async def eventually(
    condition: Callable[[], Awaitable[bool]], what: str = "it", timeout: float = 10.0
) -> None:
    """Polls until the condition holds; it failing to, in a generous time, is the test's failure."""
    deadline = time.monotonic() + timeout
    while not await condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        await async_sleep(0.005)
