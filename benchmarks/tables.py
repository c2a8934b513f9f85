"""Tables, as Markdown and for a terminal, and how quantities are written in them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TypeAlias

Row: TypeAlias = tuple[str, ...]

_TEXT = (
    "what",
    "budget",
    "",
    "moved",
)  # columns that begin at the left, as each first one; others hold figures


def quantity(value: float, unit: str = "s") -> str:
    """A time or a size with three digits."""
    if unit == "B":
        return f"{value:,.0f} B"
    for factor, name in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if value * factor < 999.5:  # else it would be written with an exponent
            return f"{value * factor:.3g} {name}"
    return f"{value:.3g} s"


def table(heads: Row, rows: Iterable[Row]) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "|".join("---" if _is_text(heads, place) else "---:" for place in range(len(heads))) + "|"
    for row in rows:
        yield "| " + " | ".join(row) + " |"


def columns(heads: Row, rows: Iterable[Row]) -> Iterator[str]:
    """Lines for a terminal."""
    lines = [heads, *rows]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        cells = (
            cell.ljust(width) if _is_text(heads, place) else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        yield "  ".join(cells).rstrip()


def _is_text(heads: Row, place: int) -> bool:
    return place == 0 or heads[place] in _TEXT
