"""Bars as SVG, readable on a light and on a dark page, drawn without any library."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import NamedTuple

from .records import Recorded
from .tables import quantity

WIDTH, LABEL, LABEL_BEHIND, ROW, TOP = 800, 360, 120, 26, 44
PICTURES = (
    "get",
    "get-async",
    "get-attribute",
    "token",
    "update-1",
    "update-64",
    "update-256",
    "create-64",
    "read",
    "memory",
    "read-64",
    "million",
)
OF_PROCESSOR = ("update-64", "read-64")


class Bar(NamedTuple):
    """A row: its name, the kinds and lengths of its parts, and what stands behind them."""

    name: str
    parts: Sequence[tuple[str, float]]
    label: str


_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.bar { fill: #afb8c1 } .ours { fill: #0969da } .note { fill: #59636e } .servers { opacity: 0.5 }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #57606a } .ours { fill: #4493f8 } .note { fill: #9198a1 }
}
"""


def write(folder: Path, races: Mapping[str, Recorded]) -> list[Path]:
    """A picture for each race that is worth one."""
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {f"{name}.svg": draw(races[name]) for name in PICTURES if name in races}
    drawn |= {f"{name}-cpu.svg": draw_processor(races[name]) for name in OF_PROCESSOR if name in races}
    for name, picture in drawn.items():
        (folder / name).write_text(picture)
    return [folder / name for name in drawn]


def draw(race: Recorded) -> str:
    """The contenders, best first. Throughput where callers are many (longer is better), else time or size."""
    crowd = race.name.startswith(("update", "create"))
    values = {name: 1 / line.median if crowd else line.median for name, line in race.lines.items()}
    order = sorted(values, key=lambda name: values[name], reverse=crowd)
    bars = [Bar(name, [(_kind(name), values[name])], _label(race, values[name], crowd)) for name in order]
    return _picture(race.title, _direction(race, crowd), bars)


def draw_processor(race: Recorded) -> str:
    """What an operation takes of the processor, least first: the client's, and in a lighter colour the servers'."""
    parts = {
        name: (statistics.median(line.client), statistics.median(line.server))
        for name, line in race.lines.items()
        if line.processor
    }
    bars = [
        Bar(
            name,
            [(_kind(name), client), (f"{_kind(name)} servers", server)],
            f"{quantity(client)} + {quantity(server)}",
        )
        for name, (client, server) in sorted(parts.items(), key=lambda part: sum(part[1]))
    ]
    return _picture(f"{race.title}: CPU", "client + servers, shorter is better", bars)


def _picture(title: str, note: str, bars: Sequence[Bar]) -> str:
    longest = max(sum(length for _, length in bar.parts) for bar in bars)
    height = TOP + ROW * len(bars) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img"><title>{escape(title)}</title><style>{_STYLE}</style>',
        f'<text class="title" x="8" y="20">{escape(title)}</text>',
        f'<text class="note" x="{WIDTH - 8}" y="20" text-anchor="end">{note}</text>',
        *(_bar(bar, longest, TOP + ROW * row) for row, bar in enumerate(bars)),
    ]
    return "\n".join([*parts, "</svg>\n"])


def _bar(bar: Bar, longest: float, y: int) -> str:
    drawn, x = "", float(LABEL)
    for kind, value in bar.parts:
        length = max(1.5, value / longest * (WIDTH - LABEL - LABEL_BEHIND))
        drawn += (
            f'<rect class="{kind}" x="{x:.1f}" y="{y + 2}" width="{length:.1f}" height="{ROW - 9}" rx="2"/>'
        )
        x += length
    return (
        f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(bar.name)}</text>{drawn}'
        f'<text class="note" x="{x + 6:.1f}" y="{y + 14}">{bar.label}</text>'
    )


def _kind(name: str) -> str:
    return "ours" if name.startswith(("pgsession", "await get_session", "get_cached")) else "bar"


def _direction(race: Recorded, crowd: bool) -> str:
    return "per second, longer is better" if crowd else "shorter is better"


def _label(race: Recorded, value: float, crowd: bool) -> str:
    return f"{value:,.0f}" if crowd else quantity(value, race.unit)
