"""What `make bench` says of figures that were recorded, and of those that moved."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

if not (Path(__file__).parents[2] / "benchmarks").is_dir():
    pytest.skip("the benchmarks are not part of what is tested here", allow_module_level=True)

from benchmarks import budgets, comparison, processor, records, report, tables
from benchmarks.records import Line, Recorded


def race(name: str, **lines: Line) -> Recorded:
    return Recorded(name, f"The race {name}", "s", "ours", "2026-01-01", 1.0, {"machine": "one"}, lines, {})


def line(*seconds: float, client: float = 0.0, server: float = 0.0) -> Line:
    return Line(list(seconds), [client] * len(seconds), [server] * len(seconds), None, None)


@pytest.mark.parametrize(
    ("old", "new", "noise", "is_moved"),
    [
        ([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], 0.1, True),
        ([1.3, 1.4, 1.5], [1.0, 1.1, 1.2], 0.1, True),
        ([1.0, 1.1, 1.2], [1.3, 1.4, 1.5], 0.5, False),
        ([1.0, 1.0, 1.5], [1.4, 1.4, 1.4], 0.1, False),
        ([], [1.0], 0.1, False),
        ([0.0], [1.0], 0.1, True),
        ([0.0], [0.0], 0.1, False),
    ],
)
def test_what_moved_is_told_from_noise(
    old: list[float], new: list[float], noise: float, is_moved: bool
) -> None:
    assert comparison.moved(old, new, noise) is is_moved


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(999.6e-6, "1 ms"), (999.4e-6, "999 us"), (0.5, "500 ms"), (12.4, "12.4 s"), (0.0, "0 ns")],
)
def test_quantities_have_three_digits_and_no_exponent(seconds: float, text: str) -> None:
    assert tables.quantity(seconds) == text


def test_a_contender_is_shown_with_what_it_took_before() -> None:
    before = {"update": race("update", ours=line(2e-3, client=40e-6, server=20e-6), gone=line(1e-3))}
    now = {"update": race("update", ours=line(1e-3, client=20e-6, server=20e-6), came=line(1e-3))}
    shown = "\n".join(comparison.show(before, now))
    assert "ours    2 ms  1 ms    -50%       60 us    40 us    -33%  time, CPU\n" in shown, shown
    assert "gone" in shown and "came" in shown


def test_what_took_nothing_has_no_change() -> None:
    before, now = ({"hits": race("hits", ours=line(seconds))} for seconds in (0.0, 1e-3))
    assert "ours    0 ns  1 ms" in "\n".join(comparison.show(before, now))


def test_what_is_recorded_is_read_back(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    recorded = race("update", ours=line(2e-3, 3e-3, client=40e-6))
    (tmp_path / "update.json").write_text(records.laid_out(recorded))
    assert records.load(tmp_path) == {"update": recorded}


def test_a_part_of_the_benchmarks_leaves_the_others_figures(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- measured: update -->\nold\n<!-- end -->\n<!-- measured: read -->\nkept\n<!-- end -->\n"
    )
    monkeypatch.setattr(report, "PAGE", page)
    monkeypatch.setattr(report, "QUOTING", ())
    monkeypatch.setattr(report, "DOCS", tmp_path)
    report.write({"update": race("update", ours=line(1e-3))})
    assert "old" not in page.read_text() and "| ours | 1 ms | 1,000 |" in page.read_text()
    assert "kept" in page.read_text()


def test_a_budget_of_the_version_before_needs_the_same_yardstick(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine that is twice as fast makes nothing of ours cheaper."""
    old = race("lock", ours=line(1.0, client=6e-4, server=2e-4), row=line(1.0, client=2e-4, server=2e-4))
    new = race("lock", ours=line(1.0, client=3e-4, server=1e-4), row=line(1.0, client=1e-4, server=1e-4))
    monkeypatch.setattr(budgets, "before", lambda: {"lock": old})
    assert budgets.part_of_before("lock", "ours", "row")({"lock": new}) == pytest.approx(1.0)


def test_what_a_server_computes_is_counted_with_what_it_began() -> None:
    begins = "import subprocess, sys; input(); subprocess.run(sys.argv[1:]); print(flush=True); input()"
    computes = [sys.executable, "-c", "import time\nwhile time.process_time() < 0.2: pass"]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen([sys.executable, "-c", begins, *computes], bufsize=0, **pipes) as child:
        assert child.stdin is not None and child.stdout is not None
        written, read = child.stdin, child.stdout

        def work() -> None:
            written.write(b"\n")
            read.readline()

        _, spent = processor.accounted(work, {processor.Server("", psutil.Process(child.pid))})
        written.write(b"\n")
    assert spent.server is not None and spent.server >= 0.15 > spent.client


def test_what_is_not_ours_is_not_known() -> None:
    result, spent = processor.accounted(time.process_time, {processor.Server("elsewhere", None)})
    assert result > 0 and spent.server is None
