from __future__ import annotations

import secrets
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.host.processes import Host


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Where the arena lies."""
    path = tmp_path / "host"
    path.mkdir(mode=0o700)
    return path


@pytest.fixture(scope="session")
def tables_of_hosts(dsn: str) -> Iterator[str]:
    """The schema of all tests with processes: making one takes longer than most of them."""
    name = f"t_{secrets.token_hex(6)}"
    with pgsession.SessionManager(dsn, pgsession.Config(schema_name=name, create_schema_if_missing=True)):
        pass
    yield name
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def host_schema(dsn: str, tables_of_hosts: str) -> str:
    """It, without what the processes of the last test have left."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for table in ("sessions", "session_nodes", "session_locks"):
            connection.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(tables_of_hosts, table)))
    return tables_of_hosts


@pytest.fixture
def host(dsn: str, host_schema: str, folder: Path) -> Iterator[Host]:
    if sys.platform != "linux":
        pytest.skip("Linux only")
    options = {"shared_cache": str(folder), "shared_cache_size": 2**24, "max_staleness": 4.0}
    host = Host(dsn, {"schema_name": host_schema, **options})
    try:
        yield host
    finally:
        host.end()
