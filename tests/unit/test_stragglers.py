"""Writes whose rows somebody holds: how many are tried at once, again and again, and until when."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable

import pytest

from pgsession._async.stragglers import AsyncStragglers
from pgsession._protocol.operations import Create, Delete, Operation, Room

LOG = logging.getLogger("tests.stragglers")


class Rows:
    """Answers a try with what stands next in `answers`, and in the end that it is done."""

    def __init__(self, *answers: bool) -> None:
        self.answers = deque(answers)
        self.tried: list[int] = []
        self.at_once = self.most_at_once = 0

    async def write(self, operation: Operation) -> bool:
        self.tried.append(operation.key[0])
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        await asyncio.sleep(0)
        self.at_once -= 1
        return operation.given_up or not self.answers or self.answers.popleft()


def operation(number: int, seconds: float = 60) -> Delete:
    made = Delete(bytes([number]) * 16)
    made.deadline = time.monotonic() + seconds
    return made


async def ended(stragglers: AsyncStragglers) -> bool:
    return await stragglers._background.drain(20)


@pytest.mark.parametrize("most", [1, 2])
async def test_so_many_are_tried_at_once_and_each_is(most: int) -> None:
    rows = Rows()
    stragglers = AsyncStragglers(rows.write, most, LOG)
    for round_ in range(2):
        for number in range(5):
            stragglers.add(operation(5 * round_ + number))
        assert await ended(stragglers)
    assert sorted(rows.tried) == list(range(10)) and rows.most_at_once == most


async def test_what_cannot_be_done_is_tried_again() -> None:
    rows = Rows(False, False)
    stragglers = AsyncStragglers(rows.write, 1, LOG)
    stragglers.add(operation(1))
    assert await ended(stragglers) and rows.tried == [1, 1, 1]


@pytest.mark.parametrize("closing", [False, True])
async def test_its_deadline_and_a_close_end_the_trying(closing: bool) -> None:
    rows = Rows(*[False] * 1000)
    stragglers = AsyncStragglers(rows.write, 1, LOG)
    straggler = operation(1, 60 if closing else 0.01)
    stragglers.add(straggler)
    if closing:
        assert await stragglers.close(20)
    assert await ended(stragglers) and straggler.given_up


class Pauses:
    """Stands in for the event that ends the pauses: notes how long they are, and lets nobody wait."""

    def __init__(self) -> None:
        self.lengths: list[float] = []

    def is_set(self) -> bool:
        return False

    async def wait(self, timeout: float) -> bool:
        self.lengths.append(timeout)
        return False


def create(number: int) -> Create:
    """A create with a chosen id."""
    made = Create(bytes([number]) * 16, 1, "u", None, 1, None, [], Room(5, True, []), "error")
    made.deadline = time.monotonic() + 60
    return made


@pytest.mark.parametrize(("make", "longest"), [(operation, 1.0), (create, 0.1)])
async def test_who_waits_for_no_bucket_looks_often_whether_it_is_free(
    make: Callable[[int], Operation], longest: float
) -> None:
    """Where others log the same user in without a pause, it is free for moments, and never for who looks seldom."""
    rows = Rows(*12 * [False])
    stragglers = AsyncStragglers(rows.write, 1, LOG)
    pauses = Pauses()
    stragglers._closing = pauses  # type: ignore[assignment]
    stragglers.add(make(1))
    assert await ended(stragglers) and len(rows.tried) == 13
    assert len(pauses.lengths) == 12 and max(pauses.lengths) == longest
