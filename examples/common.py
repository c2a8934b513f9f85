"""Where the examples keep their sessions: in the database that `DATABASE_URL` names, or in an embedded one."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from pgsession import Config, SessionManager
from pgsession.embedded import EmbeddedServer


@contextmanager
def database() -> Iterator[str]:
    """The conninfo of a database."""
    url = os.environ.get("DATABASE_URL")
    if url:
        yield url
    else:
        with EmbeddedServer() as server:
            yield server.conninfo


def config() -> Config:
    """What the environment says, but for the tables: those of the examples."""
    schema = os.environ.get("PGSESSION_SCHEMA_NAME", "examples")
    return Config(create_schema_if_missing=True, schema_name=schema)


@contextmanager
def manager() -> Iterator[SessionManager]:
    """An open manager."""
    with database() as conninfo, SessionManager(conninfo, config()) as sessions:
        yield sessions
