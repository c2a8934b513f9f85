"""Runs each race once, and reports at the end."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from . import budgets, records, report
from .race import Outcome, Race
from .stage import Stage


@pytest.fixture(scope="session")
def stage() -> Iterator[Stage]:
    with Stage() as stage:
        yield stage


@pytest.fixture(scope="session")
def races(stage: Stage) -> Callable[[Race], Outcome]:
    """Runs a race, or returns what it gave before in this run."""
    done: dict[str, Outcome] = {}

    def outcome(race: Race) -> Outcome:
        if race.name not in done:
            done[race.name] = race.run(stage)
            records.save(race, done[race.name])
        return done[race.name]

    return outcome


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The budgets, and where the tables are."""
    recorded = records.load()
    if not recorded:
        return
    terminalreporter.section("budgets")
    for line in budgets.lines(recorded):
        terminalreporter.write_line(line)
    for path in report.write(recorded):
        terminalreporter.write_line(f"written: {path.relative_to(terminalreporter.config.rootpath)}")
