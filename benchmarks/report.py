"""Puts the results into docs/performance.md, between its markers, and the pictures beside it."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from . import budgets, picture
from .records import Line, Recorded

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
_BLOCK = re.compile(r"(<!-- measured: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def write(races: Mapping[str, Recorded]) -> list[Path]:
    """Renews every block of the page whose race was run; returns what was written."""

    def renew(block: re.Match[str]) -> str:
        name = block[2]
        if name not in ("budgets", "machine") and name not in races:
            return block[0]
        return block[1] + "\n".join(_section(name, races)) + "\n" + block[3]

    PAGE.write_text(_BLOCK.sub(renew, PAGE.read_text()))
    return [PAGE, *picture.write(DOCS / "img", races)]


def _section(name: str, races: Mapping[str, Recorded]) -> Iterator[str]:
    if name == "budgets":
        yield from _table(("what", "budget", "measured", ""), budgets.rows(races))
    elif name == "machine":
        yield from _machine(races)
    else:
        yield from _race(races[name])


def _race(race: Recorded) -> Iterator[str]:
    waits = any(line.p50 is not None for line in race.lines.values())
    heads = [race.title, "median", *([] if race.unit == "B" else ["per second"]), "ratio"]
    yield from _table((*heads, *(["p50", "p99"] if waits else [])), _rows(race, waits))
    for name, reason in race.missing.items():
        yield f"\nNot measured: {name} ({reason})."


def _rows(race: Recorded, waits: bool) -> Iterator[tuple[str, ...]]:
    for name, line in race.lines.items():
        ratio = race.ratio(name, race.baseline)
        cells = [name, quantity(line.median, race.unit)]
        if race.unit == "s":
            cells.append(f"{1 / line.median:,.0f}")
        cells.append("" if ratio is None else f"{ratio:.2f}x" if ratio < 100 else f"{ratio:,.0f}x")
        yield (*cells, *(_waits(line) if waits else ()))


def _waits(line: Line) -> tuple[str, str]:
    return tuple("" if wait is None else quantity(wait) for wait in (line.p50, line.p99))  # type: ignore[return-value]


def quantity(value: float, unit: str = "s") -> str:
    """A time or a size with three digits."""
    if unit == "B":
        return f"{value:,.0f} B"
    for factor, name in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if value * factor < 1000:
            return f"{value * factor:.3g} {name}"
    return f"{value:.3g} s"


def _table(heads: tuple[str, ...], rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    yield "| " + " | ".join(heads) + " |"
    yield "|---" + "|---:" * (len(heads) - 1) + "|" if len(heads) != 4 or heads[-1] else "|---|---|---:|---|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def _machine(races: Mapping[str, Recorded]) -> Iterator[str]:
    newest = max(races.values(), key=lambda race: race.measured)
    dates = sorted({race.measured for race in races.values()})
    known = newest.versions
    yield f"Measured {' and '.join(dates)} on {known['machine']}, {known['system']}, where a flush to disk takes"
    yield f"{known['flush']}. With"
    rest = [f"{name} {text}" for name, text in known.items() if name not in ("machine", "system", "flush")]
    yield ", ".join(rest) + "."
