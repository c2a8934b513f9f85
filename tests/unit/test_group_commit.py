"""The order of one session's writes, with a store that answers when it is told to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import psycopg
import pytest
from psycopg import errors as pg

import pgsession
from pgsession._async import group_commit as group_commit_module
from pgsession._async.group_commit import CROWD, AsyncGroupCommit
from pgsession._concurrency import AsyncDeadlines
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.batch import Batch
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.operations import Create, Delete, Room, Update

LOG = logging.getLogger("tests.group_commit")
K, OTHER = bytes(15) + b"k", bytes(15) + b"o"


class Sent(NamedTuple):
    """A batch that is under way."""

    keys: list[bytes]
    waits: bool
    answer: asyncio.Future[str]

    def answers(self, status: str) -> None:
        """The same for every delete in it."""
        words = ",".join(f'[{number},"{status}"]' for number, _ in enumerate(self.keys, 1))
        self.answer.set_result('{"incarnation":"a","xmax":7,"delete":[' + words + "]}")


class Store:
    """What group commit sees of the database."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self.patience = 60.0
        self.down = False
        self.again = asyncio.Event()  # set with the third batch
        self.connected = asyncio.Event()  # there is a connection to send on
        self.connected.set()

    def check_available(self) -> None:
        if self.down:
            raise pgsession.DatabaseUnavailable("down")

    def deadline(self) -> float:
        return time.monotonic() + self.patience

    def waits_until(self, deadline: float) -> float:
        return deadline

    async def write(
        self, batch: Batch, end: float, *, begin: Callable[[Batch], bool], wait: bool = False
    ) -> str | None:
        await self.connected.wait()
        if not begin(batch):
            return None
        keys = [operation.key for operation in batch.operations]
        self.sent.append(Sent(keys, wait, asyncio.get_running_loop().create_future()))
        if len(self.sent) == 3:
            self.again.set()
        return await self.sent[-1].answer

    async def until(self, count: int) -> Sent:
        """The batch of that number, once it was sent; no other was."""
        await quiet()
        assert len(self.sent) == count, self.sent
        return self.sent[-1]


async def quiet() -> None:
    """Until whatever can run without an answer has run."""
    for _ in range(50):
        await asyncio.sleep(0)


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def cache() -> Cache:
    """It has a session, as every node that serves it does."""
    cache = Cache(10, Clock(manual=1), access_interval=0, lifetime=0, max_attribute_length=10)
    cache.put(Record(K, 1, "u", None, 1, 1, 1, 100, None, []))
    return cache


@pytest.fixture
def coherence(cache: Cache) -> Coherence:
    """It listens to the server whose incarnation is "a"."""
    coherence = Coherence(cache, cache.clock, max_staleness=10, stale_if_error=0, logger=LOG)
    coherence.on_listening("a")
    return coherence


@pytest.fixture
def wrong_servers() -> list[str]:
    """Has an entry for each time that the listener is to be connected again."""
    return []


@pytest.fixture
def group_commit(store: Store, coherence: Coherence, wrong_servers: list[str]) -> AsyncGroupCommit:
    on_wrong = partial(wrong_servers.append, "again")
    return AsyncGroupCommit(
        store,  # type: ignore[arg-type]
        coherence,
        on_wrong,
        LOG,
        deadlines=AsyncDeadlines(),
        most_stragglers=2,
        audit=AuditLog("n", lambda: 0, active=False),
    )


async def test_a_third_write_waits_for_a_second_that_waits_for_its_row(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    first, second = (asyncio.create_task(group_commit.write(Delete(K))) for _ in range(2))
    (await store.until(1)).answers("ok")
    await first
    for sent in (2, 3):
        (await store.until(sent)).answers("locked")
    apart = await store.until(4)
    assert apart.waits
    third = asyncio.create_task(group_commit.write(Delete(K)))
    other = asyncio.create_task(group_commit.write(Delete(OTHER)))
    free = await store.until(5)
    assert free.keys == [OTHER], "another session's write passes, the same one's does not"
    free.answers("ok")
    await other
    assert not second.done()
    apart.answers("ok")
    await second
    (await store.until(6)).answers("ok")
    await third


async def test_a_third_write_does_not_wait_for_a_second_that_was_given_up(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    first, second, third = (asyncio.create_task(group_commit.write(Delete(K))) for _ in range(3))
    under_way = await store.until(1)
    second.cancel()
    await quiet()
    under_way.answers("ok")
    await first
    (await store.until(2)).answers("ok")
    await third
    assert second.cancelled()
    await group_commit.close(time.monotonic() + 1)
    assert group_commit.writes == 2 and len(group_commit) == 0


async def test_who_waits_no_longer_hears_whether_it_may_be_done(
    store: Store, group_commit: AsyncGroupCommit, cache: Cache
) -> None:
    store.patience = 0.01
    first, second = (asyncio.create_task(group_commit.write(Delete(K))) for _ in range(2))
    under_way = await store.until(1)
    assert cache.version(K) == 1
    with pytest.raises(pgsession.WriteOutcomeUnknown):
        await first
    assert cache.version(K) == 0, "what may be outdated is served no more (C3)"
    with pytest.raises(pgsession.OperationTimeout):
        await second
    under_way.answers("ok")
    await quiet()
    assert len(store.sent) == 1, "what its caller has given up is not sent any more"


@pytest.mark.parametrize("error", [pg.DeadlockDetected, pg.ReadOnlySqlTransaction])
async def test_an_error_says_that_nothing_was_done(
    store: Store, group_commit: AsyncGroupCommit, error: type[pg.DeadlockDetected | pg.ReadOnlySqlTransaction]
) -> None:
    """Also where the caller has given up while it was sent, and before the error came."""
    store.patience = 0.05
    write = asyncio.create_task(group_commit.write(Delete(K)))
    for number in range(1, 4):
        (await store.until(number)).answer.set_exception(error("e"))
    with pytest.raises(error):
        await write
    await quiet()
    assert len(store.sent) == 3 and group_commit.failures == 1


async def test_what_is_unknown_is_not_tried_again(store: Store, group_commit: AsyncGroupCommit) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    (await store.until(1)).answer.set_exception(pgsession.WriteOutcomeUnknown("u"))
    with pytest.raises(pgsession.WriteOutcomeUnknown):
        await write
    await quiet()
    assert len(store.sent) == 1


@pytest.mark.parametrize(
    ("error", "sent"),
    [
        (pg.CheckViolation("one member's"), 3),
        (pg.DiskFull("the server's own"), 1),
        (psycopg.OperationalError("no connection"), 1),
        (pg.AdminShutdown("it goes away"), 1),
    ],
)
async def test_an_error_of_one_member_fails_no_other(
    store: Store, group_commit: AsyncGroupCommit, error: psycopg.Error, sent: int
) -> None:
    writes = [asyncio.create_task(group_commit.write(Delete(key))) for key in (K, OTHER)]
    (await store.until(1)).answer.set_exception(error)
    if sent == 3:
        (await store.until(2)).answer.set_exception(error)
        (await store.until(3)).answers("ok")
    results = await asyncio.gather(*writes, return_exceptions=True)
    assert [type(result) for result in results] == [type(error), type(None) if sent == 3 else type(error)]
    assert results[0] is not results[1], "each caller raises one of its own"
    assert len(store.sent) == sent


async def test_an_answer_that_cannot_be_read_leaves_it_unknown(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    (await store.until(1)).answer.set_result("{}")
    with pytest.raises(pgsession.WriteOutcomeUnknown, match="committed"):
        await write


async def test_what_is_not_begun_when_closing_is_over_is_refused(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    first, second = (asyncio.create_task(group_commit.write(Delete(K))) for _ in range(2))
    await store.until(1)
    await group_commit.close(time.monotonic())
    with pytest.raises(pgsession.WriteOutcomeUnknown):
        await first
    with pytest.raises(pgsession.ManagerClosedError):
        await second
    with pytest.raises(pgsession.ManagerClosedError):
        await group_commit.write(Delete(OTHER))
    assert len(store.sent) == 1


async def test_a_row_that_is_held_is_waited_for_apart(store: Store, group_commit: AsyncGroupCommit) -> None:
    """As is an attribute's, of which the server says so with an error."""
    write = asyncio.create_task(group_commit.write(Delete(K)))
    (await store.until(1)).answer.set_exception(pg.LockNotAvailable("l"))
    apart = await store.until(2)
    assert apart.waits
    apart.answers("locked")
    await quiet()
    assert not write.done() and len(store.sent) == 2, "it is not tried again at once"
    async with asyncio.timeout(20):
        await store.again.wait()
    store.sent[-1].answers("ok")
    await write


@pytest.mark.parametrize(
    ("status", "error"),
    [("ok", None), ("gone", pgsession.SessionNotFoundError), (None, pgsession.WriteOutcomeUnknown)],
)
async def test_nothing_older_is_served_after_a_write(
    store: Store,
    group_commit: AsyncGroupCommit,
    cache: Cache,
    status: str | None,
    error: type[Exception] | None,
) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    sent = await store.until(1)
    if status is None:
        sent.answer.set_exception(pgsession.WriteOutcomeUnknown("lost"))
    else:
        sent.answers(status)
    result = (await asyncio.gather(write, return_exceptions=True))[0]
    assert isinstance(result, error) if error else result is None
    assert cache.version(K) == 0


@pytest.mark.parametrize("error", [pg.DiskFull, pgsession.OperationTimeout, pgsession.DatabaseUnavailable])
async def test_a_write_that_was_not_done_leaves_the_cache_alone(
    store: Store, group_commit: AsyncGroupCommit, cache: Cache, error: type[Exception]
) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    (await store.until(1)).answer.set_exception(error("nothing was done"))
    with pytest.raises(error):
        await write
    assert cache.version(K) == 1


async def test_nobody_waits_for_a_database_that_is_known_to_be_down(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    first = asyncio.create_task(group_commit.write(Delete(K)))
    sent = await store.until(1)
    store.down = True
    with pytest.raises(pgsession.DatabaseUnavailable):
        await group_commit.write(Delete(OTHER))
    sent.answers("ok")
    await first


async def test_what_waits_for_its_next_try_was_not_done(store: Store, group_commit: AsyncGroupCommit) -> None:
    store.patience = 0.05
    write = asyncio.create_task(group_commit.write(Delete(K)))
    sent = await store.until(1)
    store.connected.clear()
    sent.answer.set_exception(pg.DeadlockDetected("d"))
    with pytest.raises(pgsession.OperationTimeout):
        await write
    store.connected.set()
    await quiet()
    assert len(store.sent) == 1


async def test_whom_a_login_evicts_is_served_no_more(
    store: Store, group_commit: AsyncGroupCommit, cache: Cache
) -> None:
    create = Create(OTHER, 1, "u", None, 100, None, [], Room(1, evicts=True, accesses=[]))
    write = asyncio.create_task(group_commit.write(create))
    answer = '{"incarnation":"a","xmax":7,"created_at":5,"evicted":["' + K.hex() + '"]}'
    (await store.until(1)).answer.set_result(answer)
    assert (await write).key == OTHER
    assert cache.versions()[0] == [OTHER]


@pytest.mark.parametrize("incarnation", ["a", "b"])
async def test_a_write_on_another_server_has_the_listener_connected_again(
    store: Store,
    group_commit: AsyncGroupCommit,
    coherence: Coherence,
    wrong_servers: list[str],
    incarnation: str,
) -> None:
    create = Create(OTHER, 1, "u", None, 100, None, [], Room(0, evicts=True, accesses=[]))
    write = asyncio.create_task(group_commit.write(create))
    (await store.until(1)).answer.set_result('{"incarnation":"' + incarnation + '","xmax":7,"created_at":5}')
    await write
    assert wrong_servers == ["again"] * (incarnation == "b") and coherence.listening == (incarnation == "a")


async def test_what_conflicted_is_read_again(
    store: Store, group_commit: AsyncGroupCommit, cache: Cache
) -> None:
    """Somebody may have written with notify=False: no event says that what is in memory is outdated."""
    record = cache.get(K)
    assert record is not None
    update = Update(
        record, check="session", sets=[], deletes=[], expires_at=50, inactivity=None, group=None,
        notify=True, notify_on_conflict=False,
    )  # fmt: skip
    write = asyncio.create_task(group_commit.write(update))
    (await store.until(1)).answer.set_result('{"incarnation":"a","xmax":7,"refused":[[1,"session",7]]}')
    with pytest.raises(pgsession.SessionVersionConflict) as raised:
        await write
    assert raised.value.current == 7 and cache.version(K) == 0


async def test_who_comes_while_it_is_closed_is_refused_at_once(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    sent = await store.until(1)
    closing = asyncio.create_task(group_commit.close(time.monotonic() + 20))
    await quiet()
    with pytest.raises(pgsession.ManagerClosedError):
        async with asyncio.timeout(10):
            await group_commit.write(Delete(OTHER))
    sent.answers("ok")
    await write
    await closing
    assert len(store.sent) == 1


async def test_closing_waits_for_those_who_wait_for_their_rows(
    store: Store, group_commit: AsyncGroupCommit
) -> None:
    write = asyncio.create_task(group_commit.write(Delete(K)))
    (await store.until(1)).answer.set_exception(pg.LockNotAvailable("l"))
    apart = await store.until(2)
    closing = asyncio.create_task(group_commit.close(time.monotonic() + 20))
    await quiet()
    assert not closing.done()
    apart.answers("ok")
    await closing
    assert await write is None


async def test_a_crowd_gets_a_second_lane(store: Store, group_commit: AsyncGroupCommit) -> None:
    first = asyncio.create_task(group_commit.write(Delete(K)))
    await store.until(1)
    crowd = [
        asyncio.create_task(group_commit.write(Delete(number.to_bytes(16, "big"))))
        for number in range(1, 101)
    ]
    second = await store.until(2)
    assert CROWD <= len(second.keys) < len(crowd), "a part of it is for the first lane"
    store.sent[0].answers("ok")
    second.answers("ok")
    (await store.until(3)).answers("ok")
    await asyncio.gather(first, *crowd)


async def test_those_who_wait_are_bounded(
    store: Store, group_commit: AsyncGroupCommit, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(group_commit_module, "MOST_WAITING", 1)
    write = asyncio.create_task(group_commit.write(Delete(K)))
    sent = await store.until(1)
    with pytest.raises(pgsession.DatabaseUnavailable):
        await group_commit.write(Delete(OTHER))
    sent.answers("ok")
    await write


async def test_a_create_ends_what_is_known_of_an_absence(
    store: Store, group_commit: AsyncGroupCommit, cache: Cache
) -> None:
    cache.in_sync_until = 100
    cache.put_absence(OTHER, 0, 100)
    assert cache.is_absent(OTHER)
    writing = asyncio.create_task(
        group_commit.write(Create(OTHER, 5, "u", None, 100, None, [], Room(0, True, [])))
    )
    sent = await store.until(1)
    assert not cache.is_absent(OTHER)
    sent.answer.set_exception(psycopg.OperationalError("refused"))
    with pytest.raises(psycopg.OperationalError):
        await writing
