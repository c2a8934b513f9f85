"""The mutations of tools/mutations follow the source: each still applies, and names tests that exist."""

from __future__ import annotations

from collections import Counter

import pytest

from tools import mutate
from tools.mutate import Mutation

MUTATIONS = mutate.mutations()


def test_every_mutation_applies_exactly_once() -> None:
    for mutation in MUTATIONS:
        assert mutate.mutated(mutation) != (mutate.ROOT / mutation.file).read_text("utf-8"), mutation.name


def test_every_mutation_says_what_it_does_and_who_notices() -> None:
    assert not [name for name, count in Counter(m.name for m in MUTATIONS).items() if count > 1]
    for mutation in MUTATIONS:
        assert mutation.harm or mutation.same, mutation.name
        assert bool(mutation.tests) != bool(mutation.same), mutation.name
        for test in mutation.tests:
            assert mutate.test_exists(test), f"{mutation.name}: {test}"


def test_one_that_no_longer_applies_is_an_error() -> None:
    with pytest.raises(mutate.NotOnce, match="found 0 times"):
        mutate.mutated(Mutation("none", "src/pgsession/_protocol/batch.py", "no such line", ""))
    assert not mutate.test_exists("tests/unit/test_mutations.py::test_none")


def test_no_compiled_module_stands_in_the_way_of_a_mutated_source() -> None:
    package = mutate.ROOT / "src" / "pgsession"
    ours = {path.relative_to(package) for path in mutate.copied() if path.is_relative_to(package)}
    assert {path.parts[0] for path in ours if path.suffix in (".so", ".pyd")} <= {"_core"}
    assert not [path for path in ours if path.suffix == ".pxd"], "build_ext would compile what it is for"


def test_enough_are_noticed() -> None:
    """Those that no test can tell from the source are few, or the rule that they break is not needed."""
    same = sum(bool(mutation.same) for mutation in MUTATIONS)
    assert same <= 0.05 * len(MUTATIONS)
