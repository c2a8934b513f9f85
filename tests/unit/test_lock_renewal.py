"""When a held lock is lost, renewed and given back: the store answers as it is told to, and the clock stands."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._async.held_lock import AsyncHeldLock
from pgsession._async.lock_renewal import AsyncLockRenewal
from pgsession._concurrency import AsyncEvent
from pgsession._core.clock import Clock
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.coherence import LockChanges
from pgsession._protocol.database_clock import drift

LOG = logging.getLogger("tests.lock_renewal")
SECOND = 1_000_000
LEASE, HEARTBEAT = 60 * SECOND, 10 * SECOND
LASTS = LEASE - drift(LEASE)


class Store:
    """Notes what it is asked for; `meanwhile` happens while the answer is under way."""

    timeout = 5.0

    def __init__(self) -> None:
        self.renewed: list[str] = []
        self.released: list[str] = []
        self.answer: Any = 1
        self.in_time: bool | None = True
        self.meanwhile: Callable[[], object] = lambda: None

    async def renew(self, resource: str, owner: str, length: int, *, wait: bool = True) -> int | None:
        self.renewed.append(resource)
        self.meanwhile()
        if isinstance(self.answer, Exception):
            raise self.answer
        answer: int | None = self.answer
        return answer

    async def release(self, resource: str, owner: str) -> bool | None:
        self.released.append(resource)
        return self.in_time


@pytest.fixture
def clock() -> Clock:
    return Clock(manual=100 * SECOND)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def renewal(store: Store, clock: Clock) -> AsyncLockRenewal:
    made: Any = AsyncLockRenewal(store, clock, LOG, audit=AuditLog("n", lambda: 0, active=False))  # type: ignore[arg-type]
    return made


@pytest.fixture
def make_lock(store: Store, clock: Clock, renewal: AsyncLockRenewal) -> Callable[..., AsyncHeldLock]:
    def make(resource: str = "r", token: int = 1, since: int = 100 * SECOND) -> AsyncHeldLock:
        return AsyncHeldLock(
            resource, "o", token, since=since, lease=LEASE, heartbeat=HEARTBEAT,
            clock=clock, store=store, background=renewal.background,  # type: ignore[arg-type]
        )  # fmt: skip

    return make


def is_lost_after(lock: AsyncHeldLock, clock: Clock, microseconds: int) -> bool:
    """It is not lost a moment before that, and is then."""
    clock.advance(microseconds - 1)
    before = lock.lost.is_set()
    clock.advance(1)
    return not before and lock.lost.is_set()


async def test_the_lease_counts_from_the_question(
    make_lock: Callable[..., AsyncHeldLock], clock: Clock
) -> None:
    lock = make_lock(since=95 * SECOND)
    assert lock.renew_at == 95 * SECOND + HEARTBEAT
    assert is_lost_after(lock, clock, LASTS - 5 * SECOND)


async def test_a_renewal_counts_from_its_question_too(
    make_lock: Callable[..., AsyncHeldLock], clock: Clock, store: Store
) -> None:
    lock = make_lock()
    clock.advance(20 * SECOND)
    store.meanwhile = lambda: clock.advance(5 * SECOND)
    await lock.renew()
    assert lock.renew_at == 120 * SECOND + HEARTBEAT
    assert is_lost_after(lock, clock, LASTS - 5 * SECOND)


async def test_a_renewal_shortens_nothing(
    make_lock: Callable[..., AsyncHeldLock], clock: Clock, store: Store
) -> None:
    lock = make_lock()
    await lock.renew(2 * LEASE)
    await lock.renew()
    assert is_lost_after(lock, clock, 2 * LEASE - drift(2 * LEASE))


async def test_what_is_lost_stays_lost(
    make_lock: Callable[..., AsyncHeldLock], clock: Clock, store: Store
) -> None:
    lock = make_lock()
    store.meanwhile = lambda: clock.advance(LEASE)
    await lock.renew(2 * LEASE)
    assert lock.lost.is_set(), "somebody else may have had it meanwhile"
    lock = make_lock(since=clock.now())
    store.answer, store.meanwhile = None, lambda: None
    await lock.renew()
    assert lock.lost.is_set(), "the database says that it is not held any more"


async def test_a_holder_hears_that_it_had_ended(
    make_lock: Callable[..., AsyncHeldLock], store: Store, clock: Clock
) -> None:
    for in_time in (False, None):
        store.in_time = in_time
        with pytest.raises(pgsession.LockExpiredError):
            await make_lock().release()
    store.in_time = True
    await make_lock().release()
    lock = make_lock()
    clock.advance(LEASE)
    with pytest.raises(pgsession.LockExpiredError):
        await lock.release()


async def test_a_notice_ends_the_holding_that_it_names(
    make_lock: Callable[..., AsyncHeldLock], renewal: AsyncLockRenewal
) -> None:
    mine, later, other = make_lock(token=1), make_lock(token=2), make_lock("other", token=1)
    renewal._held.update((mine, later, other))
    waiting, others = AsyncEvent(), AsyncEvent()
    renewal.await_release("r", waiting)
    renewal.await_release("other", others)
    renewal.on_lock_changes(LockChanges((), (("r", 1),)))
    assert [lock.lost.is_set() for lock in (mine, later, other)] == [True, False, False]
    assert waiting.is_set() and not others.is_set()
    renewal.on_lock_changes(LockChanges(("other",), ()))
    assert others.is_set() and not other.lost.is_set()


async def test_a_renewal_that_fails_is_tried_again_after_a_moment(
    make_lock: Callable[..., AsyncHeldLock], renewal: AsyncLockRenewal, store: Store, clock: Clock
) -> None:
    lock = make_lock()
    renewal._held.add(lock)
    clock.advance(HEARTBEAT)
    store.answer = psycopg.OperationalError("down")
    await renewal._renew(lock)
    assert clock.now() < lock.renew_at <= clock.now() + HEARTBEAT and len(renewal) == 1
    clock.advance(LEASE)
    await renewal._renew(lock)
    assert len(renewal) == 0, "what is lost is renewed no more"


async def test_closing_gives_back_what_is_held(
    make_lock: Callable[..., AsyncHeldLock], renewal: AsyncLockRenewal, store: Store
) -> None:
    locks = [make_lock("a"), make_lock("b")]
    for lock in locks:
        renewal.hold(lock)
    await asyncio.sleep(0)
    await renewal.close(deadline=float("inf"))
    assert sorted(store.released) == ["a", "b"] and len(renewal) == 0


async def test_the_loop_is_woken_by_a_lock_that_is_due_before_it_looks_again(
    renewal: AsyncLockRenewal, make_lock: Callable[..., AsyncHeldLock], clock: Clock, store: Store
) -> None:
    """And by no other: a lock and its release wake nobody."""
    looked: list[float] = []

    class Wake(AsyncEvent):
        async def wait(self, timeout: float | None = None) -> bool:
            looked.append(-1.0 if timeout is None else timeout)
            return await super().wait(timeout)

    async def settle() -> None:
        for _ in range(5):
            await asyncio.sleep(0)

    renewal._wake = Wake()
    first = make_lock("first")
    renewal.hold(first)
    await settle()
    assert looked == [10.0]
    renewal.let_go(first)
    clock.advance(SECOND)
    renewal.hold(make_lock("second", since=clock.now()))
    await settle()
    assert looked == [10.0], "it looks in time anyway"
    renewal.hold(make_lock("third", since=clock.now() - 5 * SECOND))
    await settle()
    assert looked == [10.0, 5.0]
    clock.advance(5 * SECOND)
    renewal._wake.set()
    await settle()
    assert store.renewed == ["third"] and looked == [10.0, 5.0, 5.0]
    await renewal.close(asyncio.get_running_loop().time() + 10)
