"""Bars as SVG, readable on a light and on a dark page, drawn without any library."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from pathlib import Path

from .records import Recorded
from .tables import quantity

WIDTH, LABEL, ROW, TOP = 760, 300, 26, 44
PICTURES = (
    "get",
    "get-async",
    "token",
    "update-1",
    "update-64",
    "update-256",
    "create-64",
    "read",
    "memory",
    "million",
)

_STYLE = """
text { font: 13px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 15px }
.bar { fill: #afb8c1 } .ours { fill: #0969da } .note { fill: #59636e }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .bar { fill: #57606a } .ours { fill: #4493f8 } .note { fill: #9198a1 }
}
"""


def write(folder: Path, races: Mapping[str, Recorded]) -> list[Path]:
    """A picture for each race that is worth one."""
    folder.mkdir(parents=True, exist_ok=True)
    written = []
    for name in PICTURES:
        if name in races:
            path = folder / f"{name}.svg"
            path.write_text(draw(races[name]))
            written.append(path)
    return written


def draw(race: Recorded) -> str:
    """The contenders, best first. Throughput where callers are many (longer is better), else time or size."""
    crowd = race.name.startswith(("update", "create"))
    values = {name: 1 / line.median if crowd else line.median for name, line in race.lines.items()}
    order = sorted(values, key=lambda name: values[name], reverse=crowd)
    longest = max(values.values())
    height = TOP + ROW * len(order) + 12
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}"'
        f' role="img"><title>{escape(race.title)}</title><style>{_STYLE}</style>',
        f'<text class="title" x="8" y="20">{escape(race.title)}</text>',
        f'<text class="note" x="{WIDTH - 8}" y="20" text-anchor="end">{_direction(race, crowd)}</text>',
    ]
    for row, name in enumerate(order):
        parts.append(_bar(name, values[name], longest, TOP + ROW * row, _label(race, values[name], crowd)))
    return "\n".join([*parts, "</svg>\n"])


def _bar(name: str, value: float, longest: float, y: int, label: str) -> str:
    length = max(1.5, value / longest * (WIDTH - LABEL - 110))
    kind = "ours" if name.startswith(("pgsession", "await get_session", "get_cached")) else "bar"
    return (
        f'<text x="{LABEL - 8}" y="{y + 14}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{LABEL}" y="{y + 2}" width="{length:.1f}" height="{ROW - 9}" rx="2"/>'
        f'<text class="note" x="{LABEL + length + 6:.1f}" y="{y + 14}">{label}</text>'
    )


def _direction(race: Recorded, crowd: bool) -> str:
    return "per second, longer is better" if crowd else "shorter is better"


def _label(race: Recorded, value: float, crowd: bool) -> str:
    return f"{value:,.0f}" if crowd else quantity(value, race.unit)
