"""What can change while the synchronizer asks, with a listener and a store that answer as they are told to."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from typing import Any

import psycopg
import pytest
import pytest_asyncio

import pgsession
from pgsession._async.synchronizer import AsyncSynchronizer
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._protocol.coherence import Applied, Coherence, LockChanges, Resync, Wanted

LOG = logging.getLogger("tests.synchronizer")


class Server:
    """The listener and the store in one: both lead to the same server."""

    pid = 1

    def __init__(self) -> None:
        self.incarnation = "a"
        self.listener_incarnation = "a"
        self.resynced_by = "a"
        self.where = (False, self.pid)
        self.queue = 0.0
        self.registered = 0
        self.register_fails: Exception | None = None
        self.acknowledged: list[Applied] = []
        self.while_asked: Callable[[], None] = lambda: None
        self.lost: list[Callable[[], None]] = []
        self.reconnects = 0
        self.lock_changes: list[LockChanges] = []

    # As the listener

    def add_lost_hook(self, hook: Callable[[], None]) -> None:
        self.lost.append(hook)

    def reconnect(self) -> None:
        self.reconnects += 1

    async def _hear(self, subscription: Any, timeout: float) -> None:
        pass

    async def _execute_unless(self, given_up: Any, statement: str, timeout: float) -> list[tuple[Any, ...]]:
        if "recovery" in statement:
            return [self.where]
        return [(self.listener_incarnation,)]

    # As the store

    async def incarnate(self) -> str:
        self.while_asked()
        return self.incarnation

    async def register(self, node: str, serves_for: int, *, wait: bool = True) -> tuple[int, int]:
        if self.register_fails is not None:
            raise self.register_fails
        self.registered += 1
        return 1, 30

    async def acknowledge(self, node: str, applied: Applied) -> None:
        self.acknowledged.append(applied)

    async def resync(self, cached: Resync) -> list[bytes] | None:
        self.coherence.answered(self.coherence.asked(), self.incarnation, 7)
        return [] if self.resynced_by == self.incarnation else None

    async def look(self) -> tuple[int, float]:
        self.coherence.answered(self.coherence.asked(), self.incarnation, 7)
        return 0, self.queue

    async def send_beacon(self, wanted: Wanted) -> int:
        self.synchronizer._on_event(_Notification(events.payload("0" * 16, wanted.since)))  # type: ignore[arg-type]
        return 0

    coherence: Coherence
    synchronizer: AsyncSynchronizer


class _Coherence(Coherence):
    """One whose methods can be replaced, as those of a compiled class cannot."""


class _Notification:
    def __init__(self, payload: str) -> None:
        self.payload = payload


@pytest.fixture
def coherence() -> Coherence:
    clock = Clock(manual=1)
    cache = Cache(10, clock, access_interval=0, lifetime=0, max_attribute_length=10)
    return _Coherence(cache, clock, max_staleness=10_000_000, stale_if_error=0, logger=LOG)


@pytest.fixture
def server(coherence: Coherence) -> Server:
    server: Any = Server()
    server.coherence = coherence
    server.synchronizer = AsyncSynchronizer(
        server, server, coherence, Statements(), clock_now=lambda: 1, max_staleness=0.01, serves_for=lambda: 1,
        on_lock_changes=server.lock_changes.append, on_lost=lambda: None, logger=LOG,
    )  # fmt: skip
    made: Server = server
    return made


@pytest_asyncio.fixture
async def started(server: Server) -> AsyncIterator[AsyncSynchronizer]:
    """In sync, with its loop running."""
    await server.synchronizer.start()
    yield server.synchronizer
    server.synchronizer.give_up()
    await server.synchronizer._loop.stop(20)


async def until_in_sync(coherence: Coherence) -> None:
    for _ in range(1000):
        if coherence.in_sync:
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it is never in sync again")


async def test_it_is_in_sync_when_everybody_agrees(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    assert coherence.in_sync and server.registered and started.nodes == 1


async def test_after_each_connection_it_compares_anew(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    """What was proved on the former connection does not count on the next one (C6)."""
    for hook in server.lost:
        hook()
    started._on_connected("events")
    assert not coherence.in_sync
    await until_in_sync(coherence)
    assert coherence.counters.resyncs == 2
    started._on_connected("events")
    assert not coherence.in_sync, "also where nobody has noticed the loss"
    await until_in_sync(coherence)


async def test_an_error_is_not_the_end(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    failures = [psycopg.OperationalError("down"), pgsession.OperationTimeout("late")]

    def fail() -> None:
        if failures:
            raise failures.pop()

    server.while_asked = fail
    started._on_connected("events")
    await until_in_sync(coherence)
    assert not failures


async def test_the_queue_is_watched(
    started: AsyncSynchronizer, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    server.queue = 0.5
    await started._step()
    assert started.queue_usage == 0.5 and "queue is 50 % full" in caplog.text


async def test_a_silent_listener_is_connected_again(
    started: AsyncSynchronizer, coherence: Coherence, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(coherence), "listener_silent", property(lambda _: True))
    with pytest.raises(TimeoutError):
        await started._step()


async def test_what_an_event_says_of_locks_and_channels_is_passed_on(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    started._on_event(_Notification(f"{'0' * 16} 8 l72"))  # type: ignore[arg-type]
    assert server.lock_changes == [LockChanges(("r",), ())]
    started._on_event(_Notification(f"{'0' * 16} 9 A"))  # type: ignore[arg-type]
    assert len(server.lock_changes) == 1 and server.reconnects == 0 and coherence.in_sync
    started._on_event(_Notification(f"{'0' * 16} 10 M"))  # type: ignore[arg-type]
    assert server.reconnects == 1 and not coherence.in_sync


@pytest.mark.parametrize(
    ("where", "why"), [((True, 1), "standby in recovery"), ((False, 2), "connected to a pooler")]
)
async def test_where_listening_cannot_work_it_is_not_tried(
    server: Server, where: tuple[bool, int], why: str
) -> None:
    server.where = where
    with pytest.raises(pgsession.ListenerError, match=why):
        await server.synchronizer.start()


async def test_a_listener_of_another_server_does_not_count(server: Server, coherence: Coherence) -> None:
    server.listener_incarnation = "b"
    with pytest.raises(pgsession.ListenerError, match="the same database"):
        await server.synchronizer.start()
    assert not coherence.in_sync and server.reconnects == 1


async def test_a_read_of_another_server_does_not_count(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    server.incarnation = server.listener_incarnation = "b"
    with pytest.raises(pgsession.ListenerError, match="made anew"):
        await started._read()
    assert not coherence.in_sync


async def test_a_listener_that_is_lost_while_its_server_is_asked_is_none(
    server: Server, coherence: Coherence
) -> None:
    def lose() -> None:
        for hook in server.lost:
            hook()

    server.while_asked = lose
    with pytest.raises(pgsession.ListenerError, match="was lost while"):
        await server.synchronizer.start()
    assert not coherence.listening and not coherence.in_sync


async def test_the_comparison_of_another_server_does_not_count(server: Server, coherence: Coherence) -> None:
    server.resynced_by = "b"
    with pytest.raises(pgsession.ListenerError, match="during the resync"):
        await server.synchronizer.start()
    assert not coherence.in_sync


async def test_an_epoch_that_nobody_told_of_has_the_listener_connected_again(
    server: Server, started: AsyncSynchronizer, coherence: Coherence
) -> None:
    """A write found itself on another server while the listener's connection stands; nothing else would end that."""
    started.give_up()
    await started._loop.stop(20)
    started._stopping.clear()
    coherence.on_lost()
    before = server.reconnects
    with pytest.raises(pgsession.ListenerError):
        await started._step()
    assert server.reconnects == before + 1


async def test_what_is_asked_for_is_acknowledged(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    started._on_event(_Notification(f"{'0' * 16} 18 W"))  # type: ignore[arg-type]
    assert await started._acknowledging.idle(20)
    assert server.acknowledged == [(18, "a")]
    started._on_connected("events")
    started._on_event(_Notification(f"{'0' * 16} 19 W"))  # type: ignore[arg-type]
    await until_in_sync(coherence)
    assert await started._acknowledging.idle(20)
    assert server.acknowledged == [(18, "a")], "what came with no epoch to belong to"


async def test_what_is_asked_for_during_a_resync_is_acknowledged_after_it(
    started: AsyncSynchronizer, server: Server, coherence: Coherence
) -> None:
    resync = coherence.resync_started

    def ask() -> Resync:
        started._on_event(_Notification(f"{'0' * 16} 18 W"))  # type: ignore[arg-type]
        return resync()

    coherence.resync_started = ask  # type: ignore[method-assign]
    started._on_connected("events")
    await until_in_sync(coherence)
    assert await started._acknowledging.idle(20)
    assert server.acknowledged == [(18, "a")]


async def test_a_sign_of_life_that_fails_is_given_again_and_is_no_loss_of_sync(
    started: AsyncSynchronizer, server: Server, coherence: Coherence, caplog: pytest.LogCaptureFixture
) -> None:
    server.register_fails = psycopg.errors.LockNotAvailable("locked")
    started._sign_due = 0
    caplog.set_level("INFO")
    await started._step()
    assert coherence.in_sync and started._mute == "locked" and "that it is there" in caplog.text
    server.register_fails = None
    started._sign_due = 0
    before = server.registered
    await started._step()
    assert started._mute is None and server.registered == before + 1 and started.longest == 30


async def test_without_a_listener_it_still_says_that_it_is_there(
    started: AsyncSynchronizer, server: Server
) -> None:
    """It reads, and what it reads may be shared."""
    started.give_up()
    await started._loop.stop(20)
    started._stopping.clear()
    for hook in server.lost:
        hook()
    before = server.registered
    await started._step()
    assert server.registered == before + 1
