# Generated from tests/aio/helpers.py by tools/async_to_sync.py: never edit.

"""Waiting for what must happen soon, without guessing how soon; and many sessions at once."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import pgsession
from pgsession._concurrency import sleep
from tests.crew import Crew


def eventually(condition: Callable[[], Awaitable[bool]], what: str = "it", timeout: float = 10.0) -> None:
    """Polls until the condition holds; it failing to, in a generous time, is the test's failure."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not happen within {timeout} s"
        sleep(0.005)


def create_many(
    manager: pgsession.SessionManager, count: int, user_id: str = "u", **options: Any
) -> list[pgsession.Session]:
    """Logs a user in often, several at once."""
    crew = Crew()

    def create_some(how_many: int) -> list[pgsession.Session]:
        return [manager.create_session(user_id, **options) for _ in range(how_many)]

    callers = min(count, 20)
    for number in range(callers):
        crew.start(create_some, count // callers + (number < count % callers))
    return [session for some in crew.join() for session in some]
