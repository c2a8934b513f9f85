from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import pgsession
from tests.host.processes import Host


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the arena lies."""
    path = tmp_path / "host"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture
def host(dsn: str, schema: str, folder: Path) -> Iterator[Host]:
    if sys.platform != "linux":
        pytest.skip("Linux only")
    with pgsession.SessionManager(dsn, pgsession.Config(schema_name=schema, create_schema_if_missing=True)):
        pass
    host = Host(
        dsn, {"schema_name": schema, "shared_cache": str(folder), "shared_cache_size": 2**24, "max_staleness": 4.0}
    )
    try:
        yield host
    finally:
        host.end()
