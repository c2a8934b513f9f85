"""The fills of one statement are closed together: where its answer came from is one fact."""

from __future__ import annotations

import logging
from typing import Any

import pytest

import pgsession
from pgsession._concurrency import AsyncSharedFuture
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.coherence import Coherence, Fill, Verdict

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KEYS = [bytes([n]) * 16 for n in range(3)]


def record(key: bytes) -> Record:
    return Record(key, 5, "u", None, NOW, NOW, NOW, NOW + 3600 * SECOND, 3600 * SECOND, [])


@pytest.fixture
def coherence() -> Coherence:
    clock = Clock(manual=NOW)
    cache = Cache(10, clock, access_interval=SECOND, lifetime=0, max_attribute_length=100)
    made = Coherence(cache, clock, max_staleness=10 * SECOND, logger=logging.getLogger("pgsession.test"))
    assert made.on_listening("one") is not None
    return made


def opened(coherence: Coherence) -> list[Fill]:
    return [coherence.open_fill(key, new_future=lambda: Any)[0] for key in KEYS]


def test_each_enters_by_its_own_lease(coherence: Coherence) -> None:
    fills = opened(coherence)
    coherence.on_event(f"{'1' * 16} 9 d{KEYS[1].hex()}")
    answers = [(fills[0], record(KEYS[0])), (fills[1], record(KEYS[1])), (fills[2], None)]
    verdicts = coherence.close_fills(answers, "one", NOW, 7)
    assert verdicts == [Verdict.CACHED, Verdict.NOT_CACHED, Verdict.NOT_CACHED]
    assert coherence.fills_under_way == 0


def test_none_of_another_servers_answer_is_taken(coherence: Coherence) -> None:
    """Judged one by one, the first ends the epoch, and the others pass for those of a node that has no listener."""
    fills = opened(coherence)
    verdicts = coherence.close_fills([(fill, record(fill.key)) for fill in fills], "another", NOW, 7)
    assert verdicts == [Verdict.WRONG_SERVER] * 3 and all(verdict.again for verdict in verdicts)
    assert coherence.fills_under_way == 0 and not coherence.listening


def test_none_of_a_server_that_was_replaced_is_taken(coherence: Coherence) -> None:
    fills = opened(coherence)
    coherence.on_lost()
    assert coherence.on_listening("two") is not None
    assert (
        coherence.close_fills([(fill, record(fill.key)) for fill in fills], "one", NOW, 7)
        == [Verdict.SERVER_REPLACED] * 3
    )


class Runtime:
    """A server of that incarnation, and a listener that counts how often it is told to connect again."""

    def __init__(self, incarnation: str) -> None:
        self.incarnation = incarnation
        self.reconnects = 0
        self.store = self.synchronizer = self

    async def read(self, key: bytes, deadline: float) -> tuple[Record, str, int, int, bool]:
        return record(key), self.incarnation, NOW, 7, False

    def reconnect(self) -> None:
        self.reconnects += 1


@pytest.mark.parametrize(("incarnation", "told"), [("one", 0), ("another", 1)])
async def test_the_listener_is_told_of_another_servers_answer(incarnation: str, told: int) -> None:
    """It is connected again at once, not when its next proof is due."""
    manager = pgsession.AsyncSessionManager("")
    coherence = manager._coherence
    assert coherence.on_listening("one") is not None
    fill, _ = coherence.open_fill(KEYS[0], new_future=AsyncSharedFuture)
    runtime: Any = Runtime(incarnation)
    await manager._fill(runtime, fill, 0, 0.0)
    assert fill.future.done
    assert runtime.reconnects == told
