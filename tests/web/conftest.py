"""Two nodes with one signer, on tables that the tests of a module share: each test begins with empty ones."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.tables import Tables

KEY = b"k" * 32


@pytest.fixture(scope="module")
def config(dsn: str) -> Iterator[pgsession.Config]:
    name = f"t_{secrets.token_hex(6)}"
    yield pgsession.Config(schema_name=name, create_schema_if_missing=True)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def manager(dsn: str, config: pgsession.Config) -> Iterator[pgsession.SessionManager]:
    with pgsession.SessionManager(dsn, config, signer=pgsession.Signer(KEY)) as opened:
        yield opened


@pytest.fixture(scope="module")
def elsewhere(
    dsn: str, config: pgsession.Config, manager: pgsession.SessionManager
) -> Iterator[pgsession.SessionManager]:
    """Another node."""
    with pgsession.SessionManager(dsn, config, signer=pgsession.Signer(KEY)) as opened:
        yield opened


@pytest.fixture
def tables(dsn: str, config: pgsession.Config, manager: pgsession.SessionManager) -> Tables:
    found = Tables(dsn, config.schema_name)
    found.run("DELETE FROM {sessions}")
    return found
