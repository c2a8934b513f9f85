"""Storms of threads on the primitives, and what only threads can do wrong."""

from __future__ import annotations

import random
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress

import pytest

from pgsession._concurrency import BackgroundLoop, BackgroundTasks, Combiner, SharedFuture, call
from tests.crew import Crew

PATIENCE = 20


@pytest.fixture(autouse=True)
def _switch_often() -> Iterator[None]:
    """Threads that change places every few bytecodes find what a quiet machine hides."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


def test_of_many_setters_one_wins() -> None:
    for _ in range(50):
        future: SharedFuture[int] = SharedFuture()
        barrier = threading.Barrier(12)

        def settle(future: SharedFuture[int], barrier: threading.Barrier, number: int) -> bool:
            barrier.wait(PATIENCE)
            return future.set_result(number)

        def wait(future: SharedFuture[int], barrier: threading.Barrier) -> int:
            barrier.wait(PATIENCE)
            return future.wait(PATIENCE)

        setters, waiters = Crew(), Crew()
        with setters, waiters:
            for number in range(6):
                setters.start(settle, future, barrier, number)
                waiters.start(wait, future, barrier)
            won = setters.join()
            assert won.count(True) == 1
            assert waiters.join() == [won.index(True)] * 6


def test_a_thousand_waiters_and_some_who_give_up() -> None:
    future: SharedFuture[str] = SharedFuture()

    def wait(number: int) -> str:
        try:
            return future.wait(0.001 if number % 3 == 0 else PATIENCE)
        except TimeoutError:
            return "gave up"

    with Crew() as crew:
        for number in range(300):
            crew.start(wait, number)
        future.set_result("done")
        results = crew.join()
    assert set(results) <= {"done", "gave up"}
    assert [result for number, result in enumerate(results) if number % 3] == ["done"] * 200


@pytest.mark.parametrize("seed", range(6))
def test_a_storm_on_a_combiner(seed: int) -> None:
    """Broken work, interrupted leaders, answers from outside: everybody hears something, and in the end none leads."""
    print(f"seed {seed}")
    combiner = Combiner()
    queue: deque[tuple[int, SharedFuture[int]]] = deque()
    at_work = threading.Lock()
    choice = random.Random(seed)
    outsiders: deque[SharedFuture[int]] = deque()

    def batch() -> None:
        assert at_work.acquire(blocking=False)
        try:
            fate = choice.random()
            if fate < 0.05:
                raise LookupError("nothing done")
            taken = [queue.popleft() for _ in range(min(len(queue), 5))]
            for number, future in taken:
                future.set_result(2 * number)
            if fate < 0.1:
                raise KeyboardInterrupt  # as it would arrive in the thread that happens to lead
        finally:
            at_work.release()

    def ask_often(first: int) -> None:
        for number in range(first, first + 25):
            future: SharedFuture[int] = SharedFuture()
            outsiders.append(future)
            queue.append((number, future))
            try:
                assert combiner.run(batch, future) in (2 * number, -1)
            except (LookupError, KeyboardInterrupt):
                with suppress(LookupError, KeyboardInterrupt):
                    future.wait(30)  # an outsider may have claimed it, and not have said so yet
                assert future.done

    def meddle() -> None:
        """Settles futures that a combiner waits for, as nobody should."""
        while not over.is_set():
            try:
                outsiders.popleft().set_result(-1)
            except IndexError:
                over.wait(0.0001)

    over = threading.Event()
    with Crew() as meddlers:
        meddlers.start(meddle)
        with Crew() as crew:
            for first in range(24):
                crew.start(ask_often, first)
        over.set()
    assert combiner.idle(PATIENCE)
    assert not combiner._waiting


def test_an_interrupted_leader_hands_over() -> None:
    combiner = Combiner()
    begun, go_on = threading.Event(), threading.Event()
    first: SharedFuture[int] = SharedFuture()
    second: SharedFuture[int] = SharedFuture()

    def interrupted() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)
        raise KeyboardInterrupt

    def lead() -> None:
        with pytest.raises(KeyboardInterrupt):
            combiner.run(interrupted, first)

    def follow() -> int:
        return combiner.run(lambda: second.set_result(2) and None, second)

    with Crew() as crew:
        crew.start(lead)
        assert begun.wait(PATIENCE)
        crew.start(follow)
        while not combiner._waiting:
            pass
        go_on.set()
        assert crew.join() == [None, 2]
    assert combiner.idle(PATIENCE)


def test_an_interrupted_follower_withdraws(monkeypatch: pytest.MonkeyPatch) -> None:
    combiner = Combiner()
    combiner._taken = True  # somebody leads
    future: SharedFuture[int] = SharedFuture()

    def interrupted(self: SharedFuture[int], timeout: float | None = None) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(SharedFuture, "_pass", interrupted)
    with pytest.raises(KeyboardInterrupt):
        combiner.run(lambda: None, future)
    monkeypatch.undo()
    assert future.done
    combiner._hand_over()
    assert combiner.idle(PATIENCE)


def test_a_turn_that_does_not_rest() -> None:
    combiner = Combiner()
    combiner._taken = True
    assert not combiner.idle(0.001)


def test_work_runs_in_the_thread_that_asked() -> None:
    work = BackgroundTasks()
    begun, go_on = threading.Event(), threading.Event()

    def body() -> None:
        begun.set()
        assert go_on.wait(PATIENCE)

    with Crew() as crew:
        crew.start(work.run, body, "body")
        assert begun.wait(PATIENCE)
        assert not work.drain(0.001)
        go_on.set()
        assert work.drain(PATIENCE)


def test_a_thread_cannot_be_cancelled() -> None:
    loop = BackgroundLoop()
    go_on = threading.Event()
    loop.start(lambda: go_on.wait(PATIENCE) and None, "slow")
    assert not loop.stop(0.001)
    assert loop.running
    go_on.set()
    assert loop.stop(PATIENCE)


def test_a_callback_cannot_end_the_thread() -> None:
    with pytest.raises(RuntimeError, match="SystemExit"):
        call(sys.exit)
