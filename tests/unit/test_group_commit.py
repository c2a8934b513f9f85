"""The order of one session's writes, with a store that answers when it is told to."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from pgsession._async.group_commit import AsyncGroupCommit
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._protocol.batch import Batch
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.operations import Delete

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

    def check_available(self) -> None:
        pass

    def deadline(self) -> float:
        return time.monotonic() + 60

    def left(self, deadline: float) -> float:
        return deadline - time.monotonic()

    async def write(
        self, batch: Batch, end: float, *, begin: Callable[[Batch], bool], wait: bool = False
    ) -> str | None:
        if not begin(batch):
            return None
        keys = [operation.key for operation in batch.operations]
        self.sent.append(Sent(keys, wait, asyncio.get_running_loop().create_future()))
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
def group_commit(store: Store) -> AsyncGroupCommit:
    clock = Clock(manual=1)
    cache = Cache(10, clock, inactivity=0, access_interval=0, lifetime=0, max_attribute_length=10)
    coherence = Coherence(cache, clock, max_staleness=10, stale_if_error=0, logger=LOG)
    made: Any = AsyncGroupCommit(store, coherence, lambda: None, LOG, most_stragglers=2)  # type: ignore[arg-type]
    return made


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
