"""A handler of the log is the application's: it may ask the manager something, or close it, while it is told."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
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


def wrong_server(coherence: Coherence) -> None:
    coherence.answered(coherence.asked(), "another", 7)


def wrong_server_of_a_read(coherence: Coherence) -> None:
    fill, _ = coherence.open_fill(KEY, new_future=object)
    coherence.close_fill(fill, None, "another", NOW, 7)


def wrong_server_of_many_reads(coherence: Coherence) -> None:
    fill, _ = coherence.open_fill(KEY, new_future=object)
    coherence.close_fills([Answered(fill, None)], "another", NOW, 7)


def wrong_server_of_a_write(coherence: Coherence) -> None:
    record = Record(KEY, 5, "u", None, NOW, NOW, NOW, NOW + 3600 * SECOND, 3600 * SECOND, [])
    coherence.write_saved(coherence.open_write(KEY), record, "another")


def clock_stepped(coherence: Coherence) -> None:
    coherence.clock_sample(NOW, NOW, NOW)
    coherence.clock_sample(NOW, NOW, NOW + 60 * SECOND)


@pytest.mark.parametrize(
    "happens",
    [
        unreadable,
        restarted,
        wrong_server,
        wrong_server_of_a_read,
        wrong_server_of_many_reads,
        wrong_server_of_a_write,
        clock_stepped,
    ],
)
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
