"""The recorded run: what each race gave when it was last measured. `make bench ARGS="-k get"` measures some anew.

It is kept in the repository, a file for each race, so that the next run, on whatever machine, can be compared with it,
and so that the page keeps what was not measured again.
"""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass, field
from datetime import date
from functools import cache
from pathlib import Path
from typing import Any

from .machine import versions
from .race import Outcome, Race

FOLDER = Path(__file__).parent / "recorded"
BEFORE = Path(__file__).parent / "before"
"""Races as the version before gave them, its `recorded`: some budgets are parts of what it took of the processor."""


@dataclass
class Line:
    """What a contender reached: of each round the seconds an operation took, and what of them was the processor's."""

    seconds: list[float]
    client: list[float]
    server: list[float]
    p50: float | None
    p99: float | None
    facts: dict[str, str] = field(default_factory=dict)

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)

    @property
    def processor(self) -> list[float]:
        """Seconds an operation of client and servers together, of each round; empty where they are not known."""
        if len(self.client) != len(self.server):
            return []
        return [client + server for client, server in zip(self.client, self.server, strict=True)]


@dataclass
class Recorded:
    """A race that was run."""

    name: str
    title: str
    unit: str
    baseline: str
    measured: str
    took: float
    versions: dict[str, str]
    lines: dict[str, Line]
    missing: dict[str, str]

    def ratio(self, one: str, other: str, field: str = "seconds") -> float | None:
        """How many times as much `one` took as `other` did: the median over the rounds, in which they took turns."""
        if one not in self.lines or other not in self.lines:
            return None
        mine, theirs = (getattr(self.lines[name], field) for name in (one, other))
        if not mine or not theirs:
            return None
        return statistics.median(m / t for m, t in zip(mine, theirs, strict=True))


def save(race: Race, outcome: Outcome) -> Recorded:
    """Replaces what was recorded of this race."""
    lines = {
        name: Line(
            *(_rounded(figures) for figures in (result.seconds, result.client, result.server)),
            *_rounded([result.percentile(50), result.percentile(99)]),
            result.facts,
        )
        for name, result in outcome.results.items()
    }
    recorded = Recorded(
        race.name,
        race.title,
        race.unit,
        race.baseline,
        date.today().isoformat(),
        round(outcome.took, 1),
        versions(),
        lines,
        outcome.missing,
    )
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / f"{race.name}.json").write_text(laid_out(recorded))
    return recorded


@cache
def before() -> dict[str, Recorded]:
    """What the version before gave, by name."""
    return load(BEFORE)


def load(folder: Path = FOLDER) -> dict[str, Recorded]:
    """All that is recorded, by name."""
    found = {}
    for path in sorted(folder.glob("*.json")):
        fields = json.loads(path.read_text())
        fields["lines"] = {name: Line(**line) for name, line in fields["lines"].items()}
        found[path.stem] = Recorded(**fields)
    return found


def _rounded(figures: list[Any]) -> list[Any]:
    return [None if figure is None else float(f"{figure:.4g}") for figure in figures]


def laid_out(recorded: Recorded) -> str:
    """JSON with a line for each contender, which a reader of a change can compare."""
    fields = asdict(recorded)
    lines = fields.pop("lines")
    rows = ",\n".join(f"  {json.dumps(name)}: {json.dumps(line)}" for name, line in lines.items())
    rest = "".join(f"{json.dumps(name)}: {json.dumps(value)},\n" for name, value in fields.items())
    return f'{{\n{rest}"lines": {{\n{rows}\n}}\n}}\n'
