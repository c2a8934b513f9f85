"""Runs each race once, and reports at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from . import budgets, comparison, records, report
from .race import Outcome, Race
from .records import Recorded
from .stage import Stage

BEFORE: dict[str, Recorded] = records.load()
NOW: dict[str, Recorded] = {}


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="session")
def races(stage: Stage) -> Callable[[Race], Outcome]:
    """Runs a race and records what it gave, or returns what it gave before in this run."""
    done: dict[str, Outcome] = {}

    def outcome(race: Race) -> Outcome:
        if race.name not in done:
            done[race.name] = race.run(stage)
            if done[race.name].results:
                NOW[race.name] = records.save(race, done[race.name])
        return done[race.name]

    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What this run gave, what has changed since the one before, and the budgets."""
    if not NOW:
        return
    all_races = {**BEFORE, **NOW}
    for title, show in (
        ("measured", report.show(NOW)),
        ("before and now", comparison.show(BEFORE, NOW)),
        ("budgets", budgets.show(all_races)),
    ):
        terminalreporter.section(title)
        for line in show:
            terminalreporter.write_line(line)
    for path in report.write(all_races):
        terminalreporter.write_line(f"written: {path.relative_to(terminalreporter.config.rootpath)}")
