"""This run beside the recorded one: what has moved by more than such runs move by themselves."""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence

from .records import Line, Recorded
from .tables import Row, columns, quantity

HEADS = ("what", "before", "now", "change", "CPU before", "CPU now", "change", "moved")

_NOTHING = Line([], [], [], None, None)

# By so much a median differs between two runs of the same code, where nothing else is at work on the machine.
COMPUTING, WAITING, PROCESSOR = 0.1, 0.5, 0.15


def show(before: Mapping[str, Recorded], now: Mapping[str, Recorded]) -> Iterator[str]:
    """A line for each contender, for a terminal."""
    for name, race in now.items():
        if name not in before:
            yield f"{race.title}: nothing is recorded"
            continue
        yield f"{race.title}: recorded {before[name].measured}{_elsewhere(before[name], race)}"
        yield from columns(HEADS, list(_rows(before[name], race)))
        yield ""


def _elsewhere(before: Recorded, now: Recorded) -> str:
    machines = before.versions["machine"], now.versions["machine"]
    return "" if machines[0] == machines[1] else f" on another machine, {machines[0]}"


def _rows(before: Recorded, now: Recorded) -> Iterator[Row]:
    for name in {**before.lines, **now.lines}:
        old, new = before.lines.get(name, _NOTHING), now.lines.get(name, _NOTHING)
        yield (
            name,
            *_change(old.seconds, new.seconds, now.unit),
            *_change(old.processor, new.processor),
            ", ".join(_moved(old, new)),
        )


def _change(old: Sequence[float], new: Sequence[float], unit: str = "s") -> Row:
    before, after = (
        "" if not figures else quantity(statistics.median(figures), unit) for figures in (old, new)
    )
    change = ""
    if old and new and (base := statistics.median(old)):
        change = f"{statistics.median(new) / base - 1:+.0%}"
    return before, after, change


def _moved(old: Line, new: Line) -> Iterator[str]:
    waits = bool(new.client or new.p50)
    if moved(old.seconds, new.seconds, WAITING if waits else COMPUTING):
        yield "time"
    if moved(old.processor, new.processor, PROCESSOR):
        yield "CPU"


def moved(old: Sequence[float], new: Sequence[float], noise: float) -> bool:
    """True where no round of one run is within the other's, and the medians differ by more than the noise."""
    if not old or not new:
        return False
    apart = max(old) < min(new) or max(new) < min(old)
    less, more = sorted((statistics.median(old), statistics.median(new)))
    return apart and more > less * (1 + noise)
