"""Runs that bring sessions from a store in memory."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from pgsession import Config, SessionManager
from tests.web.moving.notes import Moving


@pytest.fixture(scope="module")
def moving(dsn: str, config: Config, manager: SessionManager) -> Iterator[Moving]:
    """The manager has made the tables."""
    with Moving(dsn, config) as runs:
        yield runs
