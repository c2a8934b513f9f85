"""Shows the results: to whoever runs `make bench`, and in docs/performance.md, between its markers, with pictures.

`python -m benchmarks.report` writes the pages anew from what is recorded; `--check` fails where another page quotes
a figure that is not.
"""

from __future__ import annotations

import re
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from . import budgets, picture
from .records import Recorded, load
from .tables import Row, columns, quantity, table

DOCS = Path(__file__).parents[1] / "docs"
PAGE = DOCS / "performance.md"
QUOTING = (PAGE, DOCS / "comparison.md", DOCS / "host-cache.md", DOCS.parent / "README.md")
"""Pages that quote single figures."""
_BLOCK = re.compile(r"(<!-- measured: ([\w -]+) -->\n).*?(<!-- end -->)", re.DOTALL)
_FIGURE = re.compile(r"(<!-- figure: ([\w-]+) / ([^>]+) -->).*?(<!-- end -->)", re.DOTALL)


def write(races: Mapping[str, Recorded]) -> list[Path]:
    """Renews every block of the page whose race is recorded; returns what was written."""

    def renew(block: re.Match[str]) -> str:
        name = block[2]
        if name not in ("budgets", "machine") and name not in races:
            return block[0]
        return block[1] + "\n".join(_section(name, races)) + "\n" + block[3]

    PAGE.write_text(_BLOCK.sub(renew, PAGE.read_text()))
    for page in QUOTING:
        page.write_text(quoting(page.read_text(), races))
    return [*QUOTING, *picture.write(DOCS / "img", races)]


def quoting(text: str, races: Mapping[str, Recorded]) -> str:
    """A page whose figures, each the median of one contender, are those that are recorded."""

    def renew(figure: re.Match[str]) -> str:
        race = races[figure[2]]
        return figure[1] + quantity(race.lines[figure[3]].median, race.unit) + figure[4]

    return _FIGURE.sub(renew, text)


def _section(name: str, races: Mapping[str, Recorded]) -> Iterator[str]:
    if name == "budgets":
        yield from table(budgets.HEADS, budgets.rows(races))
    elif name == "machine":
        yield from _machine(races)
    else:
        yield from table(_heads(races[name]), _rows(races[name]))
        yield from _missing(races[name])


def show(races: Mapping[str, Recorded]) -> Iterator[str]:
    """The same for a terminal, with the time that each race took."""
    for race in races.values():
        yield f"{race.name}: {race.took:.0f} s"
        yield from columns(_heads(race), _rows(race))
        yield from _missing(race)
        yield ""
    yield f"{len(races)} races: {sum(race.took for race in races.values()):.0f} s"


def _heads(race: Recorded) -> Row:
    return (
        race.title,
        *(["median"] if race.unit else []),
        *(["per second"] if race.unit == "s" else []),
        *(["ratio"] if race.unit else []),
        *(["CPU client", "CPU servers"] if _spends(race) else []),
        *(["p50", "p99"] if _waits(race) else []),
        *_facts(race),
    )


def _rows(race: Recorded) -> Iterator[Row]:
    for name, line in race.lines.items():
        yield (
            name,
            *([quantity(line.median, race.unit)] if race.unit else []),
            *([f"{1 / line.median:,.0f}"] if race.unit == "s" else []),
            *([_times(race.ratio(name, race.baseline))] if race.unit else []),
            *([_median(line.client), _median(line.server)] if _spends(race) else []),
            *([_wait(line.p50), _wait(line.p99)] if _waits(race) else []),
            *(line.facts.get(fact, "") for fact in _facts(race)),
        )


def _spends(race: Recorded) -> bool:
    return any(line.client for line in race.lines.values())


def _waits(race: Recorded) -> bool:
    return any(line.p50 is not None for line in race.lines.values())


def _facts(race: Recorded) -> list[str]:
    return list(dict.fromkeys(fact for line in race.lines.values() for fact in line.facts))


def _missing(race: Recorded) -> Iterator[str]:
    for name, reason in race.missing.items():
        yield f"\nNot measured: {name} ({reason})."


def _times(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}x" if ratio < 100 else f"{ratio:,.0f}x"


def _median(seconds: Sequence[float]) -> str:
    return quantity(statistics.median(seconds)) if seconds else ""


def _wait(seconds: float | None) -> str:
    return "" if seconds is None else quantity(seconds)


def _machine(races: Mapping[str, Recorded]) -> Iterator[str]:
    newest = max(races.values(), key=lambda race: race.measured)
    dates = sorted({race.measured for race in races.values()})
    known = newest.versions
    yield f"Measured {' and '.join(dates)} on {known['machine']}, {known['system']}, where a flush to disk takes"
    yield f"{known['flush']}. With"
    rest = [f"{name} {text}" for name, text in known.items() if name not in ("machine", "system", "flush")]
    yield ", ".join(rest) + "."


def main() -> int:
    """Write the pages, or check those that quote."""
    races = load()
    if sys.argv[1:] != ["--check"]:
        write(races)
        return 0
    outdated = [page.name for page in QUOTING if quoting(page.read_text(), races) != page.read_text()]
    for name in outdated:
        print(f"{name} quotes other figures than are recorded: run `python -m benchmarks.report`")
    return bool(outdated)


if __name__ == "__main__":
    sys.exit(main())
