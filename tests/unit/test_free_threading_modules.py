"""What is declared to run without the GIL is what the documentation and `make free-threading` say."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
if not (ROOT / "tools").is_dir():
    pytest.skip("the sources are not part of what is tested here", allow_module_level=True)

CORE = ROOT / "cython" / "pgsession" / "_core"
DECLARATION = "# cython: freethreading_compatible=True"


@pytest.fixture
def declared() -> set[str]:
    return {
        path.stem
        for path in CORE.glob("*.pyx")
        if path.read_text(encoding="utf-8").splitlines()[0] == DECLARATION
    }


def test_the_documentation_names_them(declared: set[str]) -> None:
    text = (ROOT / "docs" / "free-threading.md").read_text(encoding="utf-8")
    sentence = text[text.index("## What is declared") : text.index("the modules of the compiled cache")]
    assert set(re.findall(r"`(\w+)`", sentence)) == declared


def test_they_are_what_is_built_without_the_gil(declared: set[str]) -> None:
    text = (ROOT / "tools" / "free_threading.py").read_text(encoding="utf-8")
    listed = text[text.index("MODULES = (") : text.index("TESTS = ")]
    assert set(re.findall(r'"(\w+)"', listed)) == declared


def test_they_need_no_others(declared: set[str]) -> None:
    """One that is not declared, or not built there, would be missing, or turn the GIL on for all."""
    needed = {
        name
        for module in declared
        for path in (CORE / f"{module}.pyx", CORE / f"{module}.pxd")
        if path.exists()
        for name in re.findall(r"from pgsession\._core\.(\w+) c?import", path.read_text(encoding="utf-8"))
        if (CORE / f"{name}.pyx").exists()  # else it is a .pxd alone, which is part of who names it
    }
    assert needed <= declared
