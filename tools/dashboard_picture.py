"""Draws docs/img/dashboard.svg: the panels of examples/operate/dashboard.json, from the answers of a real Prometheus.

Run as `python -m tools.dashboard_picture`: two nodes under a little load for half a minute, which Prometheus asks.
"""

from __future__ import annotations

import html
import math
import tempfile
import time
from pathlib import Path
from typing import Any

from pgsession.embedded import EmbeddedServer
from tests.programs import path_of
from tests.telemetry.monitored import DASHBOARD, Prometheus, concrete, monitored

PICTURE = Path(__file__).resolve().parent.parent / "docs" / "img" / "dashboard.svg"
SECONDS = 30
WIDE, HIGH, GAP, ACROSS = 290, 120, 10, 3
COLOURS = ("#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b")


def main() -> None:
    program = path_of("prometheus")
    if program is None:
        raise SystemExit("needs Prometheus: `sudo make system-packages` installs it")
    with tempfile.TemporaryDirectory() as folder, EmbeddedServer() as server:
        with monitored(program, server.conninfo, "watched", Path(folder)) as prometheus:
            began = time.time()
            time.sleep(SECONDS)
            panels = [
                drawn(number, panel, prometheus, began) for number, panel in enumerate(DASHBOARD["panels"])
            ]
    height = math.ceil(len(panels) / ACROSS) * (HIGH + GAP) + GAP
    width = ACROSS * (WIDE + GAP) + GAP
    PICTURE.write_text(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" font-family="sans-serif"'
        ' font-size="10">'
        f'<rect width="100%" height="100%" fill="#fff"/>{"".join(panels)}</svg>\n',
        encoding="utf-8",
    )


def drawn(number: int, panel: dict[str, Any], prometheus: Prometheus, began: float) -> str:
    """One panel: its title, the largest value, and a line for each series."""
    lines = [
        [(float(at), float(value)) for at, value in series["values"] if value != "NaN"]
        for target in panel["targets"]
        for series in prometheus.ask(
            "query_range", query=concrete(target["expr"]), start=began, end=began + SECONDS, step=1
        )["result"]
    ]
    top = max((value for line in lines for _, value in line), default=0)
    left, up = GAP + (number % ACROSS) * (WIDE + GAP), GAP + (number // ACROSS) * (HIGH + GAP)

    def place(at: float, value: float) -> str:
        across, up = (at - began) / SECONDS, value / top if top else 0
        return f"{across * (WIDE - 16) + 8:.0f},{HIGH - 8 - up * (HIGH - 40):.0f}"

    shown = "".join(
        f'<polyline fill="none" stroke="{COLOURS[n % len(COLOURS)]}"'
        f' points="{" ".join(place(*point) for point in line)}"/>'
        for n, line in enumerate(lines)
        if line
    )
    return (
        f'<g transform="translate({left},{up})"><rect width="{WIDE}" height="{HIGH}" fill="none" stroke="#ccc"/>'
        f'<text x="8" y="14">{html.escape(panel["title"])}</text>'
        f'<text x="8" y="27" fill="#777">up to {top:.3g} {panel["fieldConfig"]["defaults"]["unit"]}</text>{shown}</g>'
    )


if __name__ == "__main__":
    main()
