"""Runs that bring sessions from a store in memory."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from pgsession import Config, SessionManager
from tests.web.moving.notes import Moving


@pytest.fixture(scope="module")
def moving(dsn: str, config: Config, manager: SessionManager) -> Iterator[Moving]:
    """The manager has made the tables."""
    with Moving(dsn, config) as runs:
        yield runs


@pytest.fixture(scope="module")
def django_dsn(dsn: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"moving_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_conninfo(dsn, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))
