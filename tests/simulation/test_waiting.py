"""Histories in which somebody waits for the others."""

from __future__ import annotations

import os

import pytest

from tests.simulation.histories import history_of
from tests.simulation.waiting import WaitingWorld

HISTORIES = int(os.environ.get("PGSESSION_HISTORIES", "20000")) // 20
FIRST = int(os.environ.get("PGSESSION_FIRST_SEED", "0"))
PARTS = 4


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_the_promise(part: int) -> None:
    count = -(-HISTORIES // PARTS)
    for seed in range(FIRST + part * count, FIRST + (part + 1) * count):
        try:
            WaitingWorld(history_of(seed)).run()
        except Exception as error:
            error.add_note(f"seed {seed}")
            raise


def test_histories_reach_what_they_are_about() -> None:
    """Without waits that come to their end nothing would be checked."""
    confirmed = losses = 0
    for seed in range(100):
        world = WaitingWorld(history_of(seed))
        world.run()
        confirmed += len(world.confirmed)
        losses += sum(node.coherence.counters.listener_losses for node in world.nodes)
    assert confirmed > 100 and losses > 100
