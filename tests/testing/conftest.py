"""Where there is nothing to start, these tests are skipped as all others are; users are told to install something."""

from __future__ import annotations

import os

import pytest

from tests.conftest import needs_postgres


@pytest.fixture(scope="session", autouse=True)
def _some_postgres() -> None:
    if not os.environ.get("PGSESSION_TEST_DSN"):
        needs_postgres()
