"""The decisions that are compiled do the same as their sources, of which they are made and which mutations change."""

from __future__ import annotations

import importlib
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

import pytest

import pgsession
from tests import plain

PACKAGE = Path(pgsession.__file__).parent
COMPILED = sorted(
    {
        path.with_name(path.name.removesuffix(suffix)).relative_to(PACKAGE).as_posix()
        for suffix in EXTENSION_SUFFIXES
        for path in PACKAGE.glob(f"**/*{suffix}")
        if path.with_name(path.name.removesuffix(suffix) + ".py").exists()
    }
)
PLAIN = plain.OPTION[1] in sys.argv
UNIT = (
    "absences", "acknowledgements", "batch", "claims", "close_fills", "coherence_logging", "columns", "events",
    "group_commit", "operations", "synchronizer",
)  # fmt: skip


def test_what_has_types_is_compiled() -> None:
    types = {path.relative_to(PACKAGE).with_suffix("").as_posix() for path in PACKAGE.glob("**/*.pxd")}
    assert COMPILED and types in ({*COMPILED}, set()), "set(): they are in no wheel"


@pytest.mark.parametrize("name", COMPILED)
def test_one_form_runs(name: str) -> None:
    module = importlib.import_module(f"pgsession.{name.replace('/', '.')}")
    assert str(module.__file__).endswith(".py") == PLAIN


@pytest.mark.skipif(PLAIN, reason="it is this")
def test_the_sources_pass_the_same_tests() -> None:
    units = [f"tests/unit/test_{name}.py" for name in UNIT]
    histories = "tests/simulation/test_simulation.py::test_no_history_breaks_an_invariant[0]"
    plain.passes("tests/unit/test_compiled.py", *units, "tests/fuzz/test_events.py", histories)
