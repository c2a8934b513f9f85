"""Reads docs/code-map.md, and finds the functions that it names."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, NamedTuple, Self

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "code-map.md"
ROW = re.compile(r"^\| `([\w.]+)` \| \[[^]]+\]\(([^)]+)\) \| .+ \|$", re.MULTILINE)


class Step(NamedTuple):
    """One row of a trip: a function, and the file that it is said to be in."""

    function: str
    file: Path

    @property
    def module(self) -> str:
        """The name of the module that the file is, or is compiled to."""
        below = self.file.relative_to(ROOT / ("src" if self.file.suffix == ".py" else "cython"))
        return ".".join(below.with_suffix("").parts)


def trips() -> dict[str, list[Step]]:
    """Return the trips of the page by their headings."""
    _, *sections = re.split(r"^## ", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    return {
        section.partition("\n")[0]: [
            Step(name, (PAGE.parent / target).resolve()) for name, target in ROW.findall(section)
        ]
        for section in sections
    }


def found(step: Step) -> Any:
    """Return the function of a step: a Python function, or a method of a compiled class.

    Raises:
        LookupError: there is no such function in that file.
    """
    owner, _, name = step.function.rpartition(".")
    module = importlib.import_module(step.module)
    try:
        function = vars(getattr(module, owner) if owner else module)[name]
    except (AttributeError, KeyError):
        raise LookupError(f"{step.file.relative_to(ROOT)} has no {step.function}") from None
    if inspect.isfunction(function) and Path(function.__code__.co_filename) != step.file:
        raise LookupError(f"{step.function} is in {function.__code__.co_filename}, not in {step.file}")
    return function


class Trace:
    """Notes, for a block, the first call of each function of a trip, in this thread.

    The profiler tells of Python functions, and of compiled methods that Python calls.
    """

    def __init__(self, steps: list[Step]) -> None:
        self.called: list[str] = []
        self._python: dict[CodeType, str] = {}
        self._compiled: dict[str, tuple[type, str]] = {}
        for step in steps:
            function = found(step)
            if inspect.isfunction(function):
                self._python[function.__code__] = step.function
            else:
                self._compiled[function.__name__] = function.__objclass__, step.function

    def __enter__(self) -> Self:
        sys.setprofile(self._see)
        return self

    def __exit__(self, *_: object) -> None:
        sys.setprofile(None)

    def _see(self, frame: FrameType, event: str, argument: Any) -> None:
        if event == "call":
            self._note(self._python.get(frame.f_code))
        elif event == "c_call" and argument.__name__ in self._compiled:
            owner, name = self._compiled[argument.__name__]
            if isinstance(argument.__self__, owner):
                self._note(name)

    def _note(self, name: str | None) -> None:
        if name is not None and name not in self.called:
            self.called.append(name)


def first_calls(
    root: str, bodies: dict[str, str], beyond: set[str], calls_of: Callable[[str], list[str]]
) -> list[str]:
    """Return the functions that a root reaches, each where it is called first in the text."""
    met: list[str] = []

    def visit(name: str) -> None:
        if name in met or name in beyond:
            return
        met.append(name)
        for callee in calls_of(bodies[name]):
            visit(callee)

    visit(root)
    return met
