"""The results of races, kept between runs: `make bench ARGS="-k get"` measures some anew, and reports all."""

from __future__ import annotations

import json
import statistics
from dataclasses import asdict, dataclass
from datetime import date
from pathlib import Path

from .machine import versions
from .race import Outcome, Race

FOLDER = Path(__file__).parents[1] / ".benchmarks" / "races"


@dataclass
class Line:
    """What a contender reached: medians in seconds an operation, and the percentiles of its callers' waits."""

    seconds: list[float]
    p50: float | None
    p99: float | None

    @property
    def median(self) -> float:
        return statistics.median(self.seconds)


@dataclass
class Recorded:
    """A race that was run."""

    name: str
    title: str
    unit: str
    baseline: str
    measured: str
    versions: dict[str, str]
    lines: dict[str, Line]
    missing: dict[str, str]

    def ratio(self, one: str, other: str) -> float | None:
        """How many times as much `one` took as `other` did: the median over the rounds, in which they took turns."""
        if one not in self.lines or other not in self.lines:
            return None
        pairs = zip(self.lines[one].seconds, self.lines[other].seconds, strict=True)
        return statistics.median(mine / theirs for mine, theirs in pairs)


def save(race: Race, outcome: Outcome) -> None:
    """Replaces what was recorded of this race."""
    lines = {
        name: Line(result.seconds, result.percentile(50), result.percentile(99))
        for name, result in outcome.results.items()
    }
    recorded = Recorded(
        race.name,
        race.title,
        race.unit,
        race.baseline,
        date.today().isoformat(),
        versions(),
        lines,
        outcome.missing,
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / f"{race.name}.json").write_text(json.dumps(asdict(recorded), indent=1))


def load() -> dict[str, Recorded]:
    """All that is recorded, by name."""
    found = {}
    for path in sorted(FOLDER.glob("*.json")):
        fields = json.loads(path.read_text())
        fields["lines"] = {name: Line(**line) for name, line in fields["lines"].items()}
        found[path.stem] = Recorded(**fields)
    return found
