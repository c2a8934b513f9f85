"""Thousands of random histories of the coherence protocol, checked at every step."""

from __future__ import annotations

import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.simulation import histories
from tests.simulation.world import HEADER, STEP, World

HISTORIES = int(os.environ.get("PGSESSION_HISTORIES", "20000"))
FIRST = int(os.environ.get("PGSESSION_FIRST_SEED", "0"))
PARTS = 20
TRIED = (
    "current",
    "previous",
    "superseded",
    "ended",
    "ended, opened within the bound",
    "saved what was held",
    "not another owner's",
)
"""What the oracle says was put to the test of tokens and owners."""


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_breaks_an_invariant(part: int) -> None:
    count = -(-HISTORIES // PARTS)
    for seed, failure in histories.failures(range(FIRST + part * count, FIRST + (part + 1) * count)):
        pytest.fail(histories.report(failure, seed=seed), pytrace=False)


@settings(max_examples=300, deadline=None, suppress_health_check=list(HealthCheck), print_blob=True)
@given(st.binary(min_size=HEADER, max_size=HEADER + 40 * STEP))
def test_no_history_that_hypothesis_draws_breaks_an_invariant(history: bytes) -> None:
    World(history).run()


@pytest.mark.parametrize("seed", range(5))
def test_a_history_runs_the_same_way_every_time(seed: int) -> None:
    first, second = (World(histories.history_of(seed), trace=True) for _ in range(2))
    first.run()
    second.run()
    assert first.trace == second.trace
    assert repr(first.oracle.commits) == repr(second.oracle.commits)


def test_histories_reach_what_they_are_about() -> None:
    """A simulation in which nothing is served from memory, joined or voided would find nothing."""
    totals = dict.fromkeys(
        ("fills", "joined_fills", "discarded_fills", "stale_served", "events", "malformed_events"), 0
    )
    totals |= dict.fromkeys(("invalidations", "proofs", "listener_losses", "resyncs", "hits", "evictions"), 0)
    tried: Counter[str] = Counter()
    for seed in range(1500):
        world = World(histories.history_of(seed))
        world.run()
        tried += world.oracle.tried
        for node in world.nodes:
            stats = node.cache.stats()
            for name in totals:
                totals[name] += stats[name] if name in stats else getattr(node.coherence.counters, name)
    assert min(totals.values()) > 20, totals
    assert min(tried[name] for name in TRIED) > 20, tried
