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
LONGEST = 60  # real seconds without an event, after which none will come
_STEP = 1e-6  # seconds that each turn of a loop takes for which no real time passes

_monotonic = time.monotonic


class _Selector(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    """Waits no longer than `quiet` for real; the rest of the time passes at once."""

    def __init__(self, quiet: float, on_skip: Callable[[float], None]) -> None:
        super().__init__()
        self.quiet = quiet
        self.on_skip = on_skip
        self.skipped = 0.0
        self.jumps = False

    def select(self, timeout: float | None = None) -> list[Any]:
        if not self.jumps:
            return super().select(timeout)
        if not self.quiet:
            self._skip(_STEP)
        if timeout is None or timeout <= self.quiet:
            events = super().select(LONGEST if timeout is None else timeout)
            assert events or timeout is not None, "everybody waits for something that will never happen"
            return events
        events = super().select(self.quiet)
        if not events:
            self._skip(timeout - self.quiet)
        return events

    def _skip(self, seconds: float) -> None:
        self.skipped += seconds
        self.on_skip(seconds)


def _seldom(wait: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
    def wait_seldom(*arguments: Any, interval: float = 0, **options: Any) -> Awaitable[Any]:
        return wait(*arguments, interval=1000.0, **options)

    return wait_seldom


def run(
    work: Callable[[Callable[[bool], None]], Awaitable[None]],
    patch: pytest.MonkeyPatch,
    *,
    quiet: float = QUIET,
    on_skip: Callable[[float], None] = lambda seconds: None,
) -> None:
    """Runs a coroutine function in such a loop; it gets a function that says whether time may jump.

    Where both ends of all sockets are in the loop itself nothing has to be waited for: `quiet` is 0, and time passes by
    jumps alone. `on_skip` gets the seconds of each.
    """
    selector = _Selector(quiet, on_skip)
    began = _monotonic()

    def monotonic() -> float:
        return (_monotonic() if quiet else began) + selector.skipped

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
