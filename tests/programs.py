"""Programs that pip does not bring: tests that need one which is not there are skipped, and the summary names them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator

import pytest

NAMES = {
    "chromium": ("chromium", "google-chrome", "chromium-browser"),
    "redis-server": ("redis-server",),
}
_REASON = "needs the program "


def needs_program(name: str) -> str:
    """The program's path; skips the test where it is not installed."""
    for each in NAMES[name]:
        if found := shutil.which(each):
            return found
    pytest.skip(_REASON + name)


def skipped(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """A line for each test that was skipped for want of a program, or for each file where that was all of it."""
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, program = reason.partition(_REASON)
        if found:
            yield f"{program}: {report.nodeid}"
