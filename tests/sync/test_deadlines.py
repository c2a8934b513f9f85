# Generated from tests/aio/test_deadlines.py by tools/async_to_sync.py: never edit.

"""Time limits: the action comes once, when it is time, and never to somebody who was in time."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator

import pytest

from pgsession._concurrency import Deadlines, Event, SharedFuture, pause

from .helpers import Crew

PATIENCE = 20


@pytest.fixture
def deadlines() -> Iterator[Deadlines]:
    made = Deadlines(logging.getLogger("pgsession"))
    yield made
    made.close()


def watchers() -> int:
    return sum(thread.name == "pgsession deadlines" for thread in threading.enumerate())


def test_who_is_late_is_helped_out_once(deadlines: Deadlines) -> None:
    helped = Event()
    calls: list[int] = []

    def action() -> None:
        calls.append(1)
        helped.set()

    began = time.monotonic()
    with deadlines.within(0.05, action) as limit:
        assert helped.wait(PATIENCE)
    assert limit.passed and calls == [1]
    assert time.monotonic() - began >= 0.05


def test_who_is_in_time_hears_nothing(deadlines: Deadlines) -> None:
    later = Event()
    calls: list[int] = []
    with deadlines.within(0.02, lambda: calls.append(1)) as kept:
        pass
    with deadlines.within(None, lambda: calls.append(1)) as endless:
        with deadlines.within(0.06, later.set):
            assert later.wait(PATIENCE)
    assert not kept.passed and not endless.passed and calls == []


def test_a_shorter_limit_does_not_wait_for_a_longer_one(deadlines: Deadlines) -> None:
    short = Event()
    with deadlines.within(3600, short.set), deadlines.within(3600, short.set) as long:
        with deadlines.within(0.02, short.set) as limit:
            assert short.wait(PATIENCE)
    assert limit.passed and not long.passed


def test_an_action_that_fails_ends_nothing(deadlines: Deadlines, caplog: pytest.LogCaptureFixture) -> None:
    helped = Event()

    def fail() -> None:
        raise OSError("gone")

    with deadlines.within(0.01, fail), deadlines.within(0.03, helped.set):
        assert helped.wait(PATIENCE)
    assert "time limit" in caplog.text


def test_many_at_once_each_by_its_own_time(deadlines: Deadlines) -> None:
    def one(number: int) -> bool:
        over = Event()
        with deadlines.within(0.01 * (number % 5 + 1), over.set) as limit:
            return over.wait(PATIENCE) and limit.passed

    with Crew() as crew:
        for number in range(40):
            crew.start(one, number)
        assert crew.join() == [True] * 40


def test_waits_end_at_their_own_times(deadlines: Deadlines) -> None:
    never: SharedFuture[int] = SharedFuture()

    def wait(seconds: float) -> float:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            never.wait_until(began + seconds, deadlines)
        return time.monotonic() - began

    with Crew() as crew:
        crew.start(wait, 0.03)
        for seconds in (0.02, 0, -1):  # the earliest comes last
            crew.start(wait, seconds)
        for waited, seconds in zip(crew.join(), (0.03, 0.02, 0, 0), strict=True):
            assert seconds <= waited < PATIENCE


def test_whoever_is_answered_hears_of_no_limit(deadlines: Deadlines) -> None:
    future: SharedFuture[str] = SharedFuture()
    over = Event()

    def wait() -> str:
        return future.wait_until(time.monotonic() + PATIENCE, deadlines)

    with Crew() as crew:
        for _ in range(5):
            crew.start(wait)
        with deadlines.within(0.01, over.set):
            assert over.wait(PATIENCE)
        future.set_result("done")
        assert crew.join() == ["done"] * 5
    assert future.wait_until(0, deadlines) == "done"


def test_a_wait_ends_in_time_also_after_close(deadlines: Deadlines) -> None:
    future: SharedFuture[int] = SharedFuture()

    def wait() -> None:
        with pytest.raises(TimeoutError):
            future.wait_until(time.monotonic() + 0.05, deadlines)

    with Crew() as crew:
        crew.start(wait)
        pause()
        deadlines.close()


def test_nothing_is_left_after_close() -> None:
    before = watchers()
    made = Deadlines(logging.getLogger("pgsession"))
    for _ in range(100):
        with made.within(10, lambda: None):
            pass
    assert watchers() - before <= 1
    made.close()
    assert watchers() == before
