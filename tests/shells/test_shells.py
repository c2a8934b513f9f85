"""Random histories of a manager whose server fails as it likes: every caller is answered, with what is true."""

from __future__ import annotations

import os
import sys

import pytest

from tests.shells import run

HISTORIES = int(os.environ.get("PGSESSION_SHELL_HISTORIES", "100"))
FIRST = int(os.environ.get("PGSESSION_FIRST_SEED", "0"))
PARTS = 4


@pytest.mark.skipif(sys.platform == "win32", reason="has no Unix sockets")
@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_a_promise(part: int) -> None:
    count = -(-HISTORIES // PARTS)
    first = FIRST + part * count
    for seed, error, world in run.failures(range(first, first + count)):
        raise AssertionError(f"seed {seed}, with {sorted(world.troubles)}") from error


@pytest.mark.skipif(sys.platform == "win32", reason="has no Unix sockets")
def test_histories_reach_what_they_are_about() -> None:
    """Callers who are never refused, or told that nobody knows, would show nothing."""
    worlds = run.all_of(range(30))
    outcomes = [write.outcome for world in worlds for write in world.writes]
    assert min(outcomes.count(outcome) for outcome in ("done", "unknown", "not done")) > 2
    for counter in (
        "hits",
        "fills",
        "joined_fills",
        "listener_losses",
        "resyncs",
        "batches",
        "failed_writes",
    ):
        assert sum(getattr(world.stats, counter) for world in worlds) > 5, counter
