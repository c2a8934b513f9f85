"""What can change while the synchronizer asks, with a listener and a store that answer as they are told to."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any

import pytest

import pgsession
from pgsession._async.synchronizer import AsyncSynchronizer
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._protocol.coherence import Coherence, Wanted

LOG = logging.getLogger("tests.synchronizer")


class Server:
    """The listener and the store in one: both lead to the same server."""

    pid = 1

    def __init__(self) -> None:
        self.incarnation = "a"
        self.resynced_by = "a"
        self.while_asked: Callable[[], None] = lambda: None
        self.lost: list[Callable[[], None]] = []
        self.reconnects = 0

    # As the listener

    def add_lost_hook(self, hook: Callable[[], None]) -> None:
        self.lost.append(hook)

    def reconnect(self) -> None:
        self.reconnects += 1

    async def _hear(self, subscription: Any, timeout: float) -> None:
        pass

    async def execute(self, statement: str, parameters: Any, *, timeout: float) -> list[tuple[Any, ...]]:
        if "recovery" in statement:
            return [(False, self.pid)]
        return [(self.incarnation,)]

    # As the store

    async def incarnate(self) -> str:
        self.while_asked()
        return self.incarnation

    async def register(self, serves_for: int) -> int:
        return 1

    async def resync(self, keys: Sequence[bytes], versions: Sequence[int]) -> list[bytes] | None:
        self.coherence.answered(self.coherence.asked(), self.incarnation, 7)
        return [] if self.resynced_by == self.incarnation else None

    async def send_beacon(self, wanted: Wanted) -> int:
        self.synchronizer._on_event(_Notification(events.payload("0" * 16, wanted.since)))  # type: ignore[arg-type]
        return 0

    coherence: Coherence
    synchronizer: AsyncSynchronizer


class _Notification:
    def __init__(self, payload: str) -> None:
        self.payload = payload


@pytest.fixture
def coherence() -> Coherence:
    clock = Clock(manual=1)
    cache = Cache(10, clock, inactivity=0, access_interval=0, lifetime=0, max_attribute_length=10)
    return Coherence(cache, clock, max_staleness=10_000_000, stale_if_error=0, logger=LOG)


@pytest.fixture
def server(coherence: Coherence) -> Server:
    server: Any = Server()
    server.coherence = coherence
    server.synchronizer = AsyncSynchronizer(
        server, server, coherence, Statements(), clock_now=lambda: 1, max_staleness=0.01, serves_for=1,
        on_lock_changes=lambda changes: None, on_lost=lambda: None, logger=LOG,
    )  # fmt: skip
    made: Server = server
    return made


async def test_it_is_in_sync_when_everybody_agrees(server: Server, coherence: Coherence) -> None:
    await server.synchronizer.start()
    assert coherence.in_sync
    server.synchronizer.give_up()
    await server.synchronizer._loop.stop(1)


async def test_a_listener_that_is_lost_while_its_server_is_asked_is_none(
    server: Server, coherence: Coherence
) -> None:
    server.while_asked = lambda: [hook() for hook in server.lost] and None
    with pytest.raises(pgsession.ListenerError, match="was lost while"):
        await server.synchronizer.start()
    assert not coherence.listening and not coherence.in_sync


async def test_the_comparison_of_another_server_does_not_count(server: Server, coherence: Coherence) -> None:
    server.resynced_by = "b"
    with pytest.raises(pgsession.ListenerError, match="during the resync"):
        await server.synchronizer.start()
    assert not coherence.in_sync
