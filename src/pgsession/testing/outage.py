"""An outage takes away what a service depends on, for a block of a test: its listeners, or the database."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from types import TracebackType
from typing import Self

import psycopg

from pgsession import AsyncSessionManager, SessionManager
from pgsession.embedded import EmbeddedServer
from pgsession.testing import _nodes
from pgsession.testing._nodes import Node

__all__ = ["Outage"]

# A node that has lost its listener has to write to its row here before it may serve from memory again.
_HOLD = "SELECT 1 FROM {nodes} n WHERE n.node = %s FOR UPDATE"


class Block:
    """Is an outage: it begins and ends with the block of a `with`, or of an `async with` where event loops go on."""

    def __init__(self, outage: Callable[[], Iterator[None]], ends: ExitStack) -> None:
        self._outage = contextmanager(outage)
        self._ends = ends
        self._mine = ExitStack()

    def __enter__(self) -> None:
        if _nodes.here(_nodes.open_nodes()):
            raise RuntimeError("an event loop cannot wait for itself: use `async with`")
        self._begin()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._mine.close()

    async def __aenter__(self) -> None:
        await asyncio.to_thread(self._begin)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await asyncio.to_thread(self._mine.close)

    def _begin(self) -> None:
        self._ends.callback(self._mine.close)  # where the block is never left
        self._mine.enter_context(self._outage())


class Outage:
    """Takes away listeners or the database, for the managers that are open in this process, whoever opened them.

    It is the fixture `pgsession_outage`. Each outage is the block of a `with`; in a test that runs in an event loop, of
    an `async with`. It ends with the block, whatever happens there, and then every node is in sync again.

    Within another's block an outage only adds to that one, which goes on: of what is away already it takes nothing. But
    listeners that were taken before the database was are back with that.
    """

    def __init__(self, server: Callable[[], EmbeddedServer | None]) -> None:
        self._server = server
        self._ends = ExitStack()
        self._deaf: set[str] = set()  # the nodes without a listener
        self._is_down = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ends.close()

    def listener(self, *managers: SessionManager | AsyncSessionManager) -> Block:
        """End the connection that a node listens on, and keep it from being in sync again until the block ends.

        Meanwhile the node works, and answers every read from the database: it is ready, not healthy (see `Health`).

        Args:
            *managers: The nodes; without any all that are open in this process.
        """
        return Block(lambda: self._without_listeners(managers), self._ends)

    def database(self) -> Block:
        """Stop the server, and start it again when the block ends.

        Where the database is not that of a server which the run has started, the test is skipped.
        """
        server = self._server()
        if server is None:
            import pytest

            pytest.skip("stops the database, which has to be that of a server that the run has started")
        return Block(lambda: self._without_database(server), self._ends)

    def _without_listeners(
        self, managers: tuple[SessionManager | AsyncSessionManager, ...]
    ) -> Iterator[None]:
        nodes = [
            node
            for node in ([] if self._is_down else _nodes.some_nodes())
            if (not managers or node.manager in managers) and node.id not in self._deaf
        ]
        ids = {node.id for node in nodes}
        with ExitStack() as held:
            for node in nodes:
                held.enter_context(_without_listener(node))
            self._deaf |= ids
            try:
                yield
            finally:
                self._deaf -= ids
        _recovered(nodes)

    def _without_database(self, server: EmbeddedServer) -> Iterator[None]:
        if self._is_down:
            yield
            return
        nodes = _nodes.open_nodes()
        try:
            server.run("pg_ctl", "-D", server.folder, "-m", "fast", "-w", "stop")
            self._is_down = True
            _nodes.wait_until(
                lambda: not any(node.in_sync and node.goes_on for node in nodes),
                "the nodes to miss the database",
            )
            yield
        finally:
            server.restart()
            self._is_down = False
        _recovered(nodes)


@contextmanager
def _without_listener(node: Node) -> Iterator[None]:
    with psycopg.connect(node.tables.conninfo) as holding:
        holding.execute("SET LOCAL lock_timeout = '10 s'")
        holding.execute(node.tables.render(_HOLD), (node.id,))
        pid = node.listener_pid
        with psycopg.connect(node.tables.conninfo) as other:
            other.execute("SELECT pg_terminate_backend(%s)", (pid,))
        _nodes.wait_until(
            lambda: node.listener_pid != pid and not node.in_sync, "a node to miss its listener"
        )
        yield
        with suppress(psycopg.OperationalError):  # the database was away meanwhile
            holding.rollback()


def _recovered(nodes: list[Node]) -> None:
    _nodes.wait_until(
        lambda: all(node.in_sync or not node.goes_on for node in nodes), "the nodes to be in sync again"
    )
