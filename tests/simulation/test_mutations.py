"""Each rule of the protocol is taken away once, and the simulation must notice. See tools/mutate_protocol.py."""

from __future__ import annotations

import pytest

from tests.simulation import histories
from tools import mutate_protocol
from tools.mutate_protocol import MUTATIONS, Mutation


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_the_simulation_notices(mutation: Mutation) -> None:
    module = mutate_protocol.mutated(mutation)
    assert next(histories.failures(range(20_000), module), None) is not None, mutation.what


def test_a_failure_can_be_understood_and_repeated() -> None:
    mutation = MUTATIONS[0]
    module = mutate_protocol.mutated(mutation)
    seed, failure = next(histories.failures(range(1000), module))
    text = histories.report(failure, module, seed=seed)
    assert f"seed {seed}: " in text
    replayed = bytes.fromhex(text.rpartition("--replay ")[2])
    assert len(replayed) <= len(failure.history)
    assert histories.run(replayed, module) is not None
    assert histories.run(replayed) is None


def test_a_mutation_that_no_longer_applies_is_an_error() -> None:
    with pytest.raises(mutate_protocol.NotOnce):
        mutate_protocol.mutated(Mutation("none", "", "in_flight_leases", "no such line", ""))


def test_every_mutation_is_documented() -> None:
    page = (mutate_protocol.ROOT / "docs" / "coherence-testing.md").read_text(encoding="utf-8")
    assert [line.split("`")[1] for line in page.splitlines() if line.startswith("| `")] == [
        mutation.name for mutation in MUTATIONS
    ]
