"""Finds the open managers of this process: the one file of this package that knows what is inside of a manager.

All of it may be called from any thread but that of a node's event loop, which has to go on meanwhile.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, NamedTuple

import psycopg
from psycopg import sql

from pgsession import AsyncSessionManager, SessionManager
from pgsession._concurrency import fork
from pgsession._database.templates import names_of, render
from pgsession._protocol import events
from pgsession._protocol.rules import microseconds

__all__ = ["Node", "Tables", "here", "microseconds", "open_nodes", "some_nodes", "wait_until"]

_PATIENCE: Final = 30.0  # seconds
_PAUSE: Final = 0.002


class Tables(NamedTuple):
    """Says where sessions are stored."""

    conninfo: str
    schema: str
    prefix: str

    def render(self, template: str) -> sql.Composed:
        """Return a statement about these tables, as the library's own templates are."""
        return render(template, names_of(self.schema, self.prefix))

    def are_there(self) -> bool:
        """Return False where the tables were dropped."""
        try:
            with psycopg.connect(self.conninfo) as connection:
                name = self.render("{sessions}").as_string()
                return connection.execute("SELECT to_regclass(%s) IS NOT NULL", (name,)).fetchone() == (True,)
        except psycopg.OperationalError:
            return True


class Node:
    """Stands for one open manager."""

    def __init__(self, manager: SessionManager | AsyncSessionManager) -> None:
        assert manager._runtime is not None, "it is open"
        self.manager = manager
        self.id = manager._node
        self._runtime = manager._runtime
        self.tables = Tables(
            self._runtime._conninfo_at_exit(), manager._config.schema_name, manager._config.table_prefix
        )

    @property
    def in_sync(self) -> bool:
        """Return True while this node may answer from memory."""
        return self.manager._coherence.in_sync

    @property
    def goes_on(self) -> bool:
        """Return True while this node is open, and its event loop runs, if it has one."""
        if self.manager._runtime is not self._runtime:
            return False
        return isinstance(self.manager, SessionManager) or self.manager._runtime.home._loop.is_running()

    @property
    def listener_pid(self) -> int | None:
        """Return the server's process that serves the listener, None while there is none."""
        return self._runtime.listener.pid

    @property
    def runs_here(self) -> bool:
        """Return True where this thread runs the node's event loop, which stands still as long as this thread waits."""
        return isinstance(self.manager, AsyncSessionManager) and self._runtime.home.here()

    def write_accesses(self) -> bool:
        """Write what is noted of accesses; return False where something could not be written."""
        if isinstance(self.manager, SessionManager):
            return self.manager._ready().maintenance.write_accesses()
        runtime = self.manager._runtime
        assert runtime is not None
        loop = runtime.home._loop
        if not loop.is_running():  # nor is any request under way there
            runtime._write_last_accesses(time.monotonic() + _PATIENCE)
            return True
        writing = asyncio.run_coroutine_threadsafe(runtime.maintenance.write_accesses(), loop)
        return writing.result(_PATIENCE)

    def drop_all(self) -> None:
        """Empty the node's memory, and keep reads out of it that are under way."""
        self.manager._coherence.drop(events.Everything())


def open_nodes() -> list[Node]:
    """Return the nodes of this process, but for those that somebody left open whose tables are gone."""
    managers = [each for each in fork._managers if isinstance(each, SessionManager | AsyncSessionManager)]
    nodes = [Node(manager) for manager in managers if manager._runtime is not None]
    there = {tables for tables in {node.tables for node in nodes} if tables.are_there()}
    return [node for node in nodes if node.tables in there]


def some_nodes() -> list[Node]:
    """Return the nodes of this process.

    Raises:
        RuntimeError: There is none.
    """
    nodes = open_nodes()
    if not nodes:
        raise RuntimeError(
            "no manager is open in this process; Django's is opened by the first session that needs one"
        )
    return nodes


def here(nodes: list[Node]) -> bool:
    """Return True where one of them cannot go on while this thread waits."""
    return any(node.runs_here for node in nodes)


def wait_until(condition: Callable[[], bool], what: str) -> None:
    """Return once something is so.

    Raises:
        TimeoutError: It is not so after half a minute; the message says what was waited for.
    """
    end = time.monotonic() + _PATIENCE
    while not condition():
        if time.monotonic() >= end:
            raise TimeoutError(f"waited {_PATIENCE:g} s for {what}")
        time.sleep(_PAUSE)
