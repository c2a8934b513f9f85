"""An event loop whose time jumps to the next timer once nothing happens: long bounds are tested in a moment.

While anything is still on its way, from a socket or a thread, time is real. `time.monotonic` of the whole process is
the loop's, so that what computes a deadline by the one and waits for it by the other agrees with itself.
"""

from __future__ import annotations

import asyncio
import selectors
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg.waiting
import pytest

QUIET = 0.1  # real seconds without an event, after which nothing is on its way any more

_monotonic = time.monotonic


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits no longer than `QUIET` for real; the rest of the time passes at once."""

    skipped = 0.0
    jumps = False

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None or timeout <= QUIET or not self.jumps:
            return super().select(timeout)
        events = super().select(QUIET)
        if not events:
            self.skipped += timeout - QUIET
        return events


def _seldom(wait: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def wait_seldom(*arguments: Any, interval: float = 0, **options: Any) -> Awaitable[Any]:
        return wait(*arguments, interval=1000.0, **options)

    return wait_seldom


def run(work: Callable[[Callable[[bool], None]], Awaitable[None]], patch: pytest.MonkeyPatch) -> None:
    """Runs a coroutine function in such a loop; it gets a function that says whether time may jump."""
    selector = _Selector()

    def monotonic() -> float:
        return _monotonic() + selector.skipped

    patch.setattr(time, "monotonic", monotonic)
    for name, module in list(sys.modules.items()):
        if name.startswith("psycopg") and hasattr(module, "monotonic"):
            patch.setattr(module, "monotonic", monotonic)
    # psycopg looks up ten times a second, which is too often to jump from one to the next.
    for name in ("wait_async", "wait_conn_async"):
        patch.setattr(psycopg.waiting, name, _seldom(getattr(psycopg.waiting, name)))
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selector)) as runner:

        def jump(may: bool) -> None:
            selector.jumps = may

        runner.run(work(jump))  # type: ignore[arg-type]
