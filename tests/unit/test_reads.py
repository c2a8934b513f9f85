"""Which reads go to the database together, and which do not wait for each other."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import msgspec
import psycopg
import pytest

import pgsession
from pgsession._async import reads as reads_module
from pgsession._async.reads import LEAST_TOGETHER, SLOW, TOGETHER, AsyncReads
from pgsession._concurrency import AsyncDeadlines
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.snapshots import Some

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
LIMIT = 20


def key(n: int) -> bytes:
    return n.to_bytes(16, "big")


def record(of: bytes, version: int = 5) -> Record:
    return Record(of, version, "u", None, NOW, NOW, NOW, NOW + 3600 * SECOND, 3600 * SECOND, [])


class Statement:
    """A statement that is under way until it is answered."""

    def __init__(self, keys: Sequence[bytes], deadline: float) -> None:
        self.keys = list(keys)
        self.deadline = deadline
        self.answer: asyncio.Future[Some | Exception] = asyncio.get_running_loop().create_future()

    def end(self, missing: Sequence[bytes] = (), unread: Sequence[int] = (), version: int = 5) -> None:
        there = [of for number, of in enumerate(self.keys) if of not in missing and number not in unread]
        self.answer.set_result(Some({of: record(of, version) for of in there}, list(unread)))

    def fail(self, error: Exception) -> None:
        self.answer.set_result(error)


class Store:
    """A database that answers when the test says so."""

    def __init__(self) -> None:
        self.sent: deque[Statement] = deque()
        self.incarnation = "one"
        self._news = asyncio.Event()

    def deadline(self) -> float:
        return LIMIT

    def waits_until(self, deadline: float) -> float:
        return time.monotonic() + deadline

    def is_late(self, deadline: float) -> bool:
        return False

    def check_available(self) -> None: ...

    async def statements(self, count: int) -> list[Statement]:
        """Return the next ones, once they have been sent."""
        async with asyncio.timeout(LIMIT):
            while len(self.sent) < count:
                self._news.clear()
                await self._news.wait()
        return [self.sent.popleft() for _ in range(count)]

    async def read_many(self, keys: Sequence[bytes], deadline: float) -> tuple[Some, str, int, int]:
        statement = Statement(keys, deadline)
        self.sent.append(statement)
        self._news.set()
        answer = await statement.answer
        if isinstance(answer, Exception):
            raise answer
        return answer, self.incarnation, NOW, 7

    async def read(self, of: bytes, deadline: float) -> tuple[Record | None, str, int, int, bool]:
        some, *others = await self.read_many([of], deadline)
        return some.found.get(of), *others, of not in some.found


class Node:
    """A node in sync, with the reads of so many statements at once."""

    def __init__(self) -> None:
        clock = Clock(manual=NOW)
        self.cache = Cache(1000, clock, access_interval=SECOND, lifetime=0, max_attribute_length=100)
        self.coherence = Coherence(
            self.cache, clock, max_staleness=10 * SECOND, logger=logging.getLogger("pgsession.test")
        )
        assert self.coherence.on_listening("one") is not None
        self.store = Store()
        self.reconnects = 0
        self.tasks: list[asyncio.Task[Record | None]] = []
        store: Any = self.store
        self.reads = AsyncReads(
            store, self.coherence, self.cache, deadlines=AsyncDeadlines(), most_statements=4,
            on_wrong_server=self._reconnect, on_evicted_accesses=lambda: None,
            logger=logging.getLogger("pgsession.test"),
        )  # fmt: skip

    def _reconnect(self) -> None:
        self.reconnects += 1

    def read(self, n: int, **options: Any) -> asyncio.Task[Record | None]:
        self.tasks.append(asyncio.create_task(self.reads.read(key(n), **options)))
        return self.tasks[-1]


@pytest.fixture
async def node(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> AsyncIterator[Node]:
    """Statements take as long as the test likes; only where it is about the pace do they have one."""
    if request.function is not test_slow_statements_are_of_fewer_sessions:
        monkeypatch.setattr(AsyncReads, "note_pace", lambda *_: None)
    made = Node()
    yield made
    await made.reads.close(0)
    await asyncio.gather(*made.tasks, return_exceptions=True)


async def begun() -> None:
    """Let every task run that can."""
    for _ in range(10):
        await asyncio.sleep(0)


async def two_under_way(node: Node) -> list[Statement]:
    statements = []
    for n in (1001, 1002):
        node.read(n)
        statements += await node.store.statements(1)
    return statements


async def test_two_are_sent_at_once_and_what_comes_then_goes_together(node: Node) -> None:
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(10)]
    await begun()
    assert not node.store.sent
    under_way[0].end()
    (together,) = await node.store.statements(1)
    assert together.keys == [key(n) for n in range(10)]
    together.end(missing=[key(3)])
    found = await asyncio.gather(*rest)
    assert [n for n, of in enumerate(found) if of is None] == [3]
    assert node.coherence.fills_under_way == 1, "the other one, which is still under way"
    assert node.cache.version(key(4)) == 5 and node.cache.version(key(3)) == 0


async def test_no_more_than_so_many_go_together(node: Node) -> None:
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(TOGETHER + 5)]
    await begun()
    for statement in under_way:
        statement.end()
    first, second = await node.store.statements(2)
    assert sorted([len(first.keys), len(second.keys)]) == [5, TOGETHER]
    first.end()
    second.end()
    assert None not in await asyncio.gather(*rest)


async def test_what_is_slow_holds_nobody_up(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a connection whose server is gone: others are sent beside it."""
    hanging = await two_under_way(node)
    now = reads_module.time.monotonic()
    monkeypatch.setattr(reads_module.time, "monotonic", lambda: now + 2 * SLOW)
    third = node.read(1)
    (statement,) = await node.store.statements(1)
    assert statement.keys == [key(1)]
    statement.end()
    assert await third is not None
    for other in hanging:
        other.end()


def test_slow_statements_are_of_fewer_sessions(node: Node) -> None:
    far = 3 * SLOW  # the round trip: where the server is far away, nothing is slow for that
    reads = node.reads
    for count in (1, TOGETHER, LEAST_TOGETHER):
        reads.note_pace(count, far)
    assert reads._most == TOGETHER
    reads.note_pace(TOGETHER, far + 2 * SLOW)
    assert reads._most == TOGETHER // 2
    reads.note_pace(LEAST_TOGETHER, far + 9 * SLOW)
    assert reads._most == TOGETHER // 2, "so few are slow for another reason"
    reads.note_pace(40, far + 2 * SLOW)
    assert reads._most == 20
    reads.note_pace(20, far + 2 * SLOW)
    reads.note_pace(1, far)
    assert reads._most == LEAST_TOGETHER, "a small one says nothing"
    for _ in range(9):
        reads.note_pace(reads._most, far)
    assert reads._most == TOGETHER


async def test_there_is_room_for_all_in_the_end(node: Node) -> None:
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(5)]
    await begun()
    under_way[0].end()
    (first,) = await node.store.statements(1)
    first.end(unread=[1, 4])
    assert (await rest[0], await rest[3]) == (node.cache.get(key(0), False), node.cache.get(key(3), False))
    (second,) = await node.store.statements(1)
    assert second.keys == [key(1), key(4)]
    second.end()
    assert None not in await asyncio.gather(*rest)


@pytest.mark.parametrize(
    "poison",
    [msgspec.DecodeError("half of a surrogate pair"), psycopg.errors.DatetimeFieldOverflow("infinite")],
)
async def test_what_nobody_can_read_fails_alone(
    node: Node, poison: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    if isinstance(poison, psycopg.Error):
        monkeypatch.setattr(type(poison), "sqlstate", "22008")
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(3)]
    await begun()
    under_way[0].end()
    (together,) = await node.store.statements(1)
    together.fail(poison)
    for n in range(3):
        (alone,) = await node.store.statements(1)
        assert alone.keys == [key(n)]
        alone.fail(poison) if n == 1 else alone.end()
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert found[1] is poison and isinstance(found[0], Record) and isinstance(found[2], Record)


@pytest.mark.parametrize("error", [psycopg.OperationalError, psycopg.errors.LockNotAvailable])
async def test_what_is_nobodys_own_fails_them_together(node: Node, error: type[psycopg.Error]) -> None:
    """A lost connection, or a table that somebody has locked: one by one they would wait for it in turn."""
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(3)]
    await begun()
    under_way[0].end()
    (together,) = await node.store.statements(1)
    together.fail(error("not now"))
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert {type(of) for of in found} == {error} and not node.store.sent


async def test_a_statement_has_the_time_of_the_most_patient(node: Node) -> None:
    under_way = await two_under_way(node)
    rest = [node.read(n, deadline=deadline) for n, deadline in enumerate((3.0, 9.0, 5.0))]
    await begun()
    under_way[0].end()
    (together,) = await node.store.statements(1)
    assert together.deadline == 9.0
    together.end()
    await asyncio.gather(*rest)


async def test_one_that_is_read_anew_may_be_there_twice(node: Node) -> None:
    """Each has a fill of its own, for it must have begun after its call; the statement names it once."""
    under_way = await two_under_way(node)
    rest = [node.read(1, refresh=True) for _ in range(3)]
    await begun()
    assert len(node.coherence.fills()) == 5
    under_way[0].end()
    (together,) = await node.store.statements(1)
    assert together.keys == [key(1)]
    together.end()
    assert None not in await asyncio.gather(*rest)


async def test_each_is_absent_up_to_the_version_that_was_asked_for(node: Node) -> None:
    coherence = node.coherence
    assert coherence.resynced(coherence.resync_started(), [])
    coherence.answered(coherence.asked(), "one", 7)
    coherence.on_event(f"{'1' * 16} 9")
    under_way = await two_under_way(node)
    rest = [node.read(1, min_version=9), node.read(2, min_version=2), node.read(3)]
    await begun()
    under_way[0].end()
    (together,) = await node.store.statements(1)
    together.answer.set_result(Some({key(3): None}, []))  # that is there, but not live
    assert await asyncio.gather(*rest) == [None, None, None]
    assert [node.cache.is_absent(key(n), 9) for n in (1, 2, 3)] == [True, False, False]
    assert [node.cache.is_absent(key(n), 2) for n in (1, 2, 3)] == [True, True, False]
    assert not node.cache.is_absent(key(3)), "an access that prolongs it may be on its way"


@pytest.mark.parametrize(("incarnation", "told"), [("one", 0), ("another", 1)])
async def test_the_listener_is_told_of_another_servers_answer(
    node: Node, incarnation: str, told: int
) -> None:
    """It is connected again at once, not when its next proof is due."""
    node.store.incarnation = incarnation
    reading = node.read(1)
    (statement,) = await node.store.statements(1)
    statement.end()
    if told:  # nobody may have that answer: it is read again
        (statement,) = await node.store.statements(1)
        statement.end()
    assert await reading is not None
    assert node.reconnects == told


@pytest.mark.parametrize("leave", [lambda task: task.cancel(), lambda task: None])
async def test_what_waits_is_refused_when_it_is_closed(
    node: Node, leave: Callable[[asyncio.Task[Any]], object]
) -> None:
    tasks = [node.read(n) for n in range(2)]
    await begun()
    tasks += [node.read(n) for n in range(2, 6)]
    await begun()
    leave(tasks[3])
    await node.reads.close(0)
    found = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(of) for of in found} <= {pgsession.ManagerClosedError, asyncio.CancelledError}
    assert node.coherence.fills_under_way == 0
    with pytest.raises(pgsession.ManagerClosedError):
        await node.reads.read(key(9))


async def test_a_database_that_is_down_is_not_asked_for_those_who_were_answered(node: Node) -> None:
    under_way = await two_under_way(node)
    rest = [node.read(n) for n in range(3)]
    await begun()
    for fill in node.coherence.fills():  # as the runtime does
        node.coherence.fail_fill(fill)
        fill.future.set_error(pgsession.DatabaseUnavailable("down"))
    found = await asyncio.gather(*rest, return_exceptions=True)
    assert {type(of) for of in found} == {pgsession.DatabaseUnavailable}
    for statement in under_way:
        statement.fail(psycopg.OperationalError("the connection is lost"))
    await begun()
    assert not node.store.sent
