"""A handler of the log is the application's: it may ask the manager something, or close it, while it is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._protocol.coherence import Answered, Coherence

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KEY = bytes(16)
GUARD = 10.0  # seconds


class Asking(logging.Handler):
    """Asks what `check_health` asks, and loses the listener as a close does."""

    def __init__(self) -> None:
        super().__init__()
        self.coherence: Coherence | None = None
        self.said: list[str] = []

    def createLock(self) -> None:
        self.lock = None  # or the interpreter would wait at its end for a thread that hangs in here

    def emit(self, record: logging.LogRecord) -> None:
        assert self.coherence is not None
        self.said.append(record.getMessage())
        assert self.coherence.proof_age is None
        self.coherence.on_lost()


def unreadable(coherence: Coherence) -> None:
    coherence.on_event("unreadable")


def restarted(coherence: Coherence) -> None:
    coherence.on_listening("two")


def clock_stepped(coherence: Coherence) -> None:
    coherence.clock_sample(NOW, NOW, NOW)
    coherence.clock_sample(NOW, NOW, NOW + 60 * SECOND)


def clock_stepped_by_a_read(coherence: Coherence) -> None:
    for database_time in (NOW, NOW + 60 * SECOND):
        fill, _ = coherence.open_fill(KEY, new_future=object)
        coherence.close_fills([Answered(fill, None)], "one", database_time, 7)


@pytest.mark.parametrize("happens", [unreadable, restarted, clock_stepped, clock_stepped_by_a_read])
def test_who_is_told_may_ask(happens: Callable[[Coherence], None]) -> None:
    handler = Asking()
    logger = logging.Logger("pgsession.test")  # of this test alone
    logger.addHandler(handler)
    clock = Clock(manual=NOW)
    cache = Cache(10, clock, access_interval=SECOND, lifetime=0, max_attribute_length=100)
    handler.coherence = coherence = Coherence(cache, clock, max_staleness=10 * SECOND, logger=logger)
    assert coherence.on_listening("one") is not None
    thread = threading.Thread(target=happens, args=[coherence], daemon=True)
    thread.start()
    thread.join(GUARD)
    assert not thread.is_alive(), "it waits for a lock that it holds itself"
    assert len(handler.said) == 1 and not coherence.listening
