"""What a warm start reads, in which order, and what it leaves to those who ask for something."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import threading
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

from pgsession._async import warm_start
from pgsession._async.reads import TOGETHER, AsyncReads
from pgsession._async.warm_start import AsyncWarmStart
from pgsession._concurrency import deadline_in
from pgsession._warm_file import read_ids, write_ids

from .test_reads import Node, begun, key, record

LIMIT = 20
IDENTITY = hashlib.sha256(b"one").digest()


def ids(numbers: Any) -> bytes:
    return b"".join(map(key, numbers))


def numbers(keys: bytes) -> list[int]:
    return [int.from_bytes(keys[at : at + 16], "big") for at in range(0, len(keys), 16)]


class WarmNode(Node):
    """A node with room for 1,000 sessions, and the file of a former one."""

    def __init__(self, path: str) -> None:
        super().__init__()
        self.path = path
        store: Any = self.store
        store.identity = self._identify
        self.warm_start = AsyncWarmStart(
            path, store, self.reads, self.cache, logging.getLogger("pgsession.test")
        )
        self.identifying: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self.identifying.set_result("one")

    async def _identify(self) -> str:
        return await self.identifying

    async def close(self) -> None:
        self.warm_start.leave()
        await self.warm_start.stop(deadline_in(LIMIT))
        await self.warm_start.wait_until_left(deadline_in(LIMIT))

    def left(self) -> list[int]:
        return numbers(read_ids(self.path, IDENTITY, 10**6))

    def in_memory(self) -> list[int]:
        return numbers(self.cache.keys_by_use())


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[WarmNode]:
    monkeypatch.setattr(AsyncReads, "note_pace", lambda *_: None)
    monkeypatch.setattr(warm_start, "PAUSE", 0)
    made = WarmNode(str(tmp_path / "ids"))
    yield made
    for statement in made.store.sent:
        statement.fail(psycopg.OperationalError("over"))
    await made.close()
    await made.reads.close(0)
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def test_all_are_read_in_order_by_statements_of_bounded_size(
    node: WarmNode, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "pgsession.test")
    wanted = list(range(1, 2 * TOGETHER + 11))
    write_ids(node.path, IDENTITY, ids(wanted))
    node.warm_start.start()
    for size in (TOGETHER, TOGETHER, 10):
        (statement,) = await node.store.statements(1)
        assert len(statement.keys) == size
        statement.end()
    await node.warm_start.stop(deadline_in(LIMIT))
    assert node.in_memory() == wanted and node.warm_start.sessions == len(wanted)
    assert [line.levelname for line in caplog.records] == ["INFO"]
    assert "522 sessions of 522" in caplog.text


async def test_what_is_asked_for_meanwhile_stays_in_front(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids(range(1, TOGETHER + 100)))
    node.warm_start.start()
    (first,) = await node.store.statements(1)
    joins, other = node.read(7), node.read(5000)
    (lone,) = await node.store.statements(1)
    assert lone.keys == [key(5000)], "the other one is being read"
    lone.end()
    await other
    first.end()
    await joins
    (second,) = await node.store.statements(1)
    second.end()
    await node.warm_start.stop(deadline_in(LIMIT))
    rest = [n for n in range(1, TOGETHER + 100) if n != 7]
    assert node.in_memory() == [7, 5000, *rest]


async def test_nothing_is_read_that_is_there_or_under_way_or_has_no_room(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids(range(1, 1500)))
    for n in range(2000, 2990):
        node.cache.put(record(key(n)))
    node.cache.put(record(key(3)))
    node.read(5)
    (lone,) = await node.store.statements(1)
    node.warm_start.start()
    (early,) = await node.store.statements(1)
    assert early.keys == [key(n) for n in (1, 2, 4, 6, 7, 8, 9)], "as many as there is room for"
    lone.end()
    early.end(missing=[key(4)])
    (last,) = await node.store.statements(1)
    last.end()
    await node.warm_start.stop(deadline_in(LIMIT))
    assert len(node.cache) == 1000 and node.cache.stats()["evictions"] == 0
    assert last.keys == [key(10), key(11)] and not node.store.sent


async def test_what_is_gone_is_not_remembered_as_absent_but_for_who_asks(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids([1, 2, 3]))
    node.warm_start.start()
    (early,) = await node.store.statements(1)
    asks = node.read(2)
    await begun()
    early.end(missing=[key(1), key(2)])
    assert await asks is None
    await node.warm_start.stop(deadline_in(LIMIT))
    node.cache.in_sync_until = 2**62
    assert [node.cache.is_absent(key(n)) for n in (1, 2, 3)] == [False, True, False]
    assert node.in_memory() == [3] and node.warm_start.sessions == 1


async def test_an_event_meanwhile_keeps_what_is_older_out(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids([1, 2, 3]))
    node.warm_start.start()
    (early,) = await node.store.statements(1)
    node.coherence.on_event(f"{'1' * 16} 9 u{key(1).hex()}:6 d{key(2).hex()}")
    early.end()
    await node.warm_start.stop(deadline_in(LIMIT))
    assert node.in_memory() == [3]
    assert node.coherence.fills_under_way == 0


async def test_one_that_cannot_be_read_fails_no_other(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids([1, 2]))
    node.warm_start.start()
    (together,) = await node.store.statements(1)
    together.fail(msgspec.DecodeError("not a session"))
    (alone,) = await node.store.statements(1)
    alone.fail(msgspec.DecodeError("not a session"))
    (alone,) = await node.store.statements(1)
    alone.end()
    await node.warm_start.stop(deadline_in(LIMIT))
    assert node.in_memory() == [2]


def lost_server(node: WarmNode) -> None:
    node.store.sent[0].fail(psycopg.OperationalError("the server is gone"))


def lost_listener(node: WarmNode) -> None:
    node.coherence.on_lost()
    node.store.sent[0].end()


@pytest.mark.parametrize("fail", [lost_server, lost_listener])
async def test_an_outage_ends_it_and_what_was_not_read_is_left_to_the_next(
    node: WarmNode, fail: Callable[[WarmNode], None], caplog: pytest.LogCaptureFixture
) -> None:
    write_ids(node.path, IDENTITY, ids(range(1, TOGETHER + 501)))
    task = asyncio.create_task(node.warm_start.run())
    (first,) = await node.store.statements(1)
    first.end()
    statements = await node.store.statements(1)
    node.store.sent.extend(statements)
    fail(node)
    node.store.sent.clear()
    await asyncio.wait_for(task, LIMIT)
    assert node.in_memory() == list(range(1, TOGETHER + 1))
    assert [line.levelname for line in caplog.records] == ["WARNING"]
    assert f"{TOGETHER} sessions of {TOGETHER + 500}" in caplog.text
    assert "the server is gone" in caplog.text or "the listener is lost" in caplog.text
    node.cache.get(key(9))
    await node.close()
    assert node.left() == [9, *(n for n in range(1, TOGETHER + 501) if n != 9)]


async def test_a_close_in_the_middle_ends_it_and_loses_none(
    node: WarmNode, caplog: pytest.LogCaptureFixture
) -> None:
    write_ids(node.path, IDENTITY, ids(range(1, 1001)))
    node.cache.put(record(key(5000)))
    node.cache.put(record(key(800)))
    node.warm_start.start()
    (first,) = await node.store.statements(1)
    node.warm_start.leave()
    stopping = asyncio.create_task(node.warm_start.stop(deadline_in(LIMIT)))
    first.end()
    await stopping
    await node.warm_start.wait_until_left(deadline_in(LIMIT))
    assert not node.store.sent and not caplog.records
    assert node.left() == [800, 5000, *(n for n in range(1, 1000) if n != 800)], "as many as the cache takes"


async def test_an_empty_cache_leaves_the_former_file(node: WarmNode) -> None:
    write_ids(node.path, IDENTITY, ids([1]))
    task = asyncio.create_task(node.warm_start.run())
    (first,) = await node.store.statements(1)
    first.end(missing=[key(1)])
    await task
    await node.close()
    assert node.left() == [1]


async def test_a_file_that_cannot_be_used_is_one_warning_and_is_replaced(
    node: WarmNode, caplog: pytest.LogCaptureFixture
) -> None:
    write_ids(node.path, b"x" * 32, ids([1]))
    await asyncio.wait_for(node.warm_start.run(), LIMIT)
    assert [line.levelname for line in caplog.records] == ["WARNING"]
    assert "another database" in caplog.text and node.path in caplog.text
    node.cache.put(record(key(2)))
    await node.close()
    assert node.left() == [2] and len(caplog.records) == 1


async def test_a_database_that_does_not_say_what_it_is_gets_no_file(
    node: WarmNode, caplog: pytest.LogCaptureFixture
) -> None:
    write_ids(node.path, IDENTITY, ids([1]))
    node.identifying = asyncio.get_running_loop().create_future()
    node.identifying.set_exception(psycopg.errors.InsufficientPrivilege("pg_control_system"))
    await node.warm_start.run()
    assert "pg_control_system" in caplog.text and len(caplog.records) == 1
    node.cache.put(record(key(2)))
    await node.close()
    assert node.left() == [1]


@pytest.mark.parametrize("ends", [deadline_in(None), 0])
async def test_a_disk_that_hangs_holds_up_nobody_for_long(
    node: WarmNode, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, ends: float
) -> None:
    monkeypatch.setattr(warm_start, "PATIENCE", 0.05)
    hangs = threading.Event()

    def hang(*_: object) -> bytes:
        hangs.wait(LIMIT)
        raise OSError("at last")

    monkeypatch.setattr(warm_start, "read_ids", hang)
    monkeypatch.setattr(warm_start, "write_ids", hang)
    async with asyncio.timeout(LIMIT / 2):
        await node.warm_start.run()
        node.cache.put(record(key(2)))
        node.warm_start.leave()
        await node.warm_start.wait_until_left(ends)
    assert [line.levelname for line in caplog.records] == ["WARNING", "WARNING"]
    assert caplog.text.count("the disk does not answer") == 2
    hangs.set()
