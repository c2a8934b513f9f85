"""Programs that pip does not bring: tests that need one which is not there are skipped, and the summary names them."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator

import pytest

NAMES = {
    "chromium": ("chromium", "google-chrome", "chromium-browser"),
    "curl": ("curl",),
    "pgbouncer": ("pgbouncer", "/usr/sbin/pgbouncer"),
    "prometheus": ("prometheus",),
    "promtool": ("promtool",),
    "redis-server": ("redis-server",),
}
_REASON = "needs the program "


def path_of(name: str) -> str | None:
    """Where the program is, if it is installed."""
    return next((found for each in NAMES[name] if (found := shutil.which(each))), None)


def needs_program(name: str) -> str:
    """Where the program is; skips the test where it is not installed."""
    found = path_of(name)
    if found is None:
        pytest.skip(_REASON + name)
    return found


def skipped(reports: Iterable[pytest.TestReport]) -> Iterator[str]:
    """A line for each test that was skipped for want of a program, or for each file where that was all of it."""
    for report in reports:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else ""
        _, found, program = reason.partition(_REASON)
        if found:
            yield f"{program}: {report.nodeid}"
