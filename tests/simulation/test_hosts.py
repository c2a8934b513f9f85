"""Histories of processes that share a cache: elections, deaths, arenas that are given up, at any step."""

from __future__ import annotations

import os
from collections import Counter

import pytest

from tests.simulation import histories

if not hasattr(os, "memfd_create"):
    pytest.skip("Linux only", allow_module_level=True)

from tests.simulation.hosts import HostWorld

HISTORIES = int(os.environ.get("PGSESSION_HISTORIES", "20000")) // 20
FIRST = int(os.environ.get("PGSESSION_FIRST_SEED", "0"))
PARTS = 10


@pytest.mark.parametrize("part", range(PARTS))
def test_no_history_of_a_host_breaks_an_invariant(part: int) -> None:
    count = -(-HISTORIES // PARTS)
    seeds = range(FIRST + part * count, FIRST + (part + 1) * count)
    for seed, failure in histories.failures(seeds, world=HostWorld):
        pytest.fail(histories.report(failure, seed=seed, world=HostWorld), pytrace=False)


@pytest.mark.parametrize("seed", range(5))
def test_a_history_runs_the_same_way_every_time(seed: int) -> None:
    first, second = (HostWorld(histories.history_of(seed), trace=True) for _ in range(2))
    first.run()
    second.run()
    assert first.trace == second.trace
    assert repr(first.oracle.commits) == repr(second.oracle.commits)


def test_histories_reach_what_they_are_about() -> None:
    happened: Counter[str] = Counter()
    for seed in range(150):
        world = HostWorld(histories.history_of(seed))
        world.run()
        happened.update(world.happened)
        happened["held to what another process returned"] += world.oracle.checked
        for node in world.nodes:
            stats = node.cache.stats()
            happened["copied from the arena"] += stats["shared_hits"]
    assert min(happened.values()) > 10 and len(happened) == 13, happened
