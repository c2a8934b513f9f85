"""The fills of one statement are closed together: where its answer came from is one fact."""

from __future__ import annotations

import logging
from typing import Any

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.coherence import Answered, Coherence, Fill, Verdict

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
    answers = [
        Answered(fills[0], record(KEYS[0])), Answered(fills[1], record(KEYS[1])), Answered(fills[2], None),
    ]  # fmt: skip
    verdicts = coherence.close_fills(answers, "one", NOW, 7)
    assert verdicts == [Verdict.CACHED, Verdict.NOT_CACHED, Verdict.NOT_CACHED]
    assert coherence.fills_under_way == 0


def test_none_of_another_servers_answer_is_taken(coherence: Coherence) -> None:
    """Judged one by one, the first ends the epoch, and the others pass for those of a node that has no listener."""
    fills = opened(coherence)
    verdicts = coherence.close_fills([Answered(fill, record(fill.key)) for fill in fills], "another", NOW, 7)
    assert verdicts == [Verdict.WRONG_SERVER] * 3 and all(verdict.again for verdict in verdicts)
    assert coherence.fills_under_way == 0 and not coherence.listening


def test_none_of_a_server_that_was_replaced_is_taken(coherence: Coherence) -> None:
    fills = opened(coherence)
    coherence.on_lost()
    assert coherence.on_listening("two") is not None
    assert (
        coherence.close_fills([Answered(fill, record(fill.key)) for fill in fills], "one", NOW, 7)
        == [Verdict.SERVER_REPLACED] * 3
    )
