"""What becomes of noted accesses, and when a cleanup ends, with a store that answers as it is told to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from typing import Any

import psycopg
import pytest

from pgsession._async.maintenance import AsyncMaintenance
from pgsession._async.store import LONGEST_REST, STEP, rest_after
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.audit_log import AuditLog
from pgsession.errors import OperationTimeout

LOG = logging.getLogger("tests.maintenance")
START = 1_700_000_000_000_000
HOUR = 3_600_000_000
A, B = bytes(15) + b"a", bytes(15) + b"b"


class Store:
    """Notes what it is asked for."""

    def __init__(self) -> None:
        self.written: list[list[tuple[bytes, int]]] = []
        self.skips: set[bytes] = set()
        self.error: BaseException | None = None
        self.steps: list[tuple[str, str]] = []
        self.removed: dict[str, list[int]] = {}
        self.busy = False

    async def write_accesses(self, accesses: Sequence[tuple[bytes, int]]) -> set[bytes]:
        if self.error is not None:
            raise self.error
        self.written.append(list(accesses))
        return self.skips & {key for key, _ in accesses}

    async def cleanup(self, what: str, delay: int, after: str) -> tuple[str | None, int, bool]:
        self.steps.append((what, after))
        removed = self.removed.get(what, [])
        return None, removed.pop(0) if removed else 0, self.busy


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cache() -> Cache:
    """Two sessions, both accessed a moment ago."""
    clock = Clock(manual=START)
    cache = Cache(10, clock, access_interval=1, lifetime=0, max_attribute_length=10)
    for key in (A, B):
        cache.put(Record(key, 1, "u", None, START, START, START, START + HOUR, HOUR, []))
    clock.advance(5)
    for key in (A, B):
        cache.get(key)
    return cache


@pytest.fixture
def maintenance(store: Store, cache: Cache) -> AsyncMaintenance:
    made: Any = AsyncMaintenance(
        store,
        cache,
        access_interval=3600,
        access_batch=10,
        cleanup_interval=3600,
        audit=AuditLog("n", lambda: 0, active=False),
        logger=LOG,  # type: ignore[arg-type]
    )
    return made


async def test_accesses_are_written_once(maintenance: AsyncMaintenance, store: Store, cache: Cache) -> None:
    assert await maintenance.write_accesses() and await maintenance.write_accesses()
    assert store.written == [[(A, START + 5), (B, START + 5)]]
    assert cache.accesses_of_user("u") == [] and maintenance.written_accesses == 2


@pytest.mark.parametrize("error", [psycopg.OperationalError("down"), asyncio.CancelledError()])
async def test_accesses_that_could_not_be_written_are_kept(
    maintenance: AsyncMaintenance, store: Store, cache: Cache, error: BaseException
) -> None:
    store.error = error
    if isinstance(error, Exception):
        assert not await maintenance.write_accesses()
        assert maintenance.failed_access_batches == 1
    else:
        with pytest.raises(asyncio.CancelledError):
            await maintenance.write_accesses()
    assert sorted(cache.take_accesses(10)) == [(A, START + 5), (B, START + 5)]


async def test_accesses_of_held_rows_are_written_later(
    maintenance: AsyncMaintenance, store: Store, cache: Cache
) -> None:
    store.skips = {B}
    assert not await maintenance.write_accesses()
    assert len(store.written) == 1 and maintenance.written_accesses == 1
    assert cache.accesses_of_user("u") == [(B, START + 5)]
    assert cache.take_accesses(10) == [(B, START + 5)]


async def test_stopping_writes_what_was_noted(maintenance: AsyncMaintenance, store: Store) -> None:
    maintenance.start()
    await asyncio.sleep(0)
    await maintenance.stop(time.monotonic() + 20)
    assert store.written == [[(A, START + 5), (B, START + 5)]]


async def test_a_cleanup_goes_on_while_there_is_a_full_step(
    maintenance: AsyncMaintenance, store: Store
) -> None:
    store.removed = {"expired": [STEP, STEP, 1]}
    assert await maintenance.clean_up()
    assert [what for what, _ in store.steps].count("expired") == 3
    assert maintenance.deleted_sessions == 2 * STEP + 1 and maintenance.cleanups == 1


async def test_a_cleanup_rests_between_its_steps_and_not_after_them(
    maintenance: AsyncMaintenance, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    rests: list[float | None] = []

    async def wait(seconds: float | None = None) -> bool:
        rests.append(seconds)
        return False

    monkeypatch.setattr(maintenance._stopping, "wait", wait)
    store.removed = {"expired": [STEP, STEP, 1], "locks": [STEP, 1]}
    assert await maintenance.clean_up()
    assert len(rests) == 3
    store.removed = {"expired": [STEP, 1]}
    assert await maintenance.delete_expired() == STEP + 1
    assert len(rests) == 4 and all(0 <= (seconds or 0) <= LONGEST_REST for seconds in rests)
    assert rest_after(LONGEST_REST) < LONGEST_REST == rest_after(3600)


async def test_a_cleanup_leaves_it_to_another_node(maintenance: AsyncMaintenance, store: Store) -> None:
    store.busy = True
    assert not await maintenance.clean_up()
    assert len(store.steps) == 1 and maintenance.cleanups == 0


async def test_a_cleanup_that_fails_is_not_the_last(
    maintenance: AsyncMaintenance, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors: list[Exception] = [psycopg.OperationalError("down"), OperationTimeout("late")]
    done = asyncio.Event()

    async def clean_up() -> bool:
        if errors:
            raise errors.pop()
        done.set()
        return True

    monkeypatch.setattr(maintenance, "clean_up", clean_up)
    monkeypatch.setattr(maintenance, "_cleanup_interval", 0.001)
    maintenance.start()
    try:
        await asyncio.wait_for(done.wait(), 10)
    finally:
        await maintenance.stop(time.monotonic() + 20)
