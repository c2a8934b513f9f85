"""Storms of threads on the primitives, and what only threads can do wrong."""

from __future__ import annotations

import logging
import random
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any
from unittest.mock import Mock

import pytest

from pgsession._concurrency import BackgroundLoop, BackgroundTasks, Combiner, SharedFuture, background, call
from pgsession._sync.keyed_mutex import KeyedMutex
from pgsession._sync.stragglers import Stragglers
from tests.crew import Crew
from tests.fault.interrupts import Interrupt, know_when_threads_start, raise_in

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


def test_whoever_is_just_setting_a_result_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else nobody would have it: the setter believes that his result was taken."""
    future: SharedFuture[int] = SharedFuture()
    future._unclaimed.pop()  # so far the setter has come

    def go_on(seconds: float) -> None:
        future._result, future._done = 1, True

    monkeypatch.setattr(time, "sleep", go_on)
    assert not future.set_error(TimeoutError())
    assert future.succeeded


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


@pytest.fixture(autouse=True)
def _know_when_threads_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", threading.Thread.start)  # taken back afterwards
    know_when_threads_start()


class Storm:
    """Callers who ask again and again, and somebody who interrupts them; `ask(number)` answers twice the number."""

    def __init__(self, seed: int, ask: Callable[[int], int]) -> None:
        print(f"seed {seed}")
        self._choice = random.Random(seed)
        self._ask = ask
        self._victims: dict[int, bool] = {}
        self.interrupted = 0

    def _ask_often(self, first: int) -> None:
        me = threading.get_ident()
        for number in range(first, first + 30):
            try:
                self._victims[me] = True
                assert self._ask(number) == 2 * number
            except Interrupt:
                self.interrupted += 1
            finally:
                self._victims[me] = False
        with suppress(Interrupt):
            while not self._over.is_set():
                self._over.wait(0.001)  # an interrupt may still be on its way

    def _interrupt(self) -> None:
        while not self._calm.is_set():
            for thread, asks in list(self._victims.items()):
                if asks and self._choice.random() < 0.3:
                    raise_in(thread, Interrupt)
            self._calm.wait(0.0005)

    def run(self) -> None:
        """Returns once everybody has got all answers, or was interrupted while he waited for one."""
        self._calm, self._over = threading.Event(), threading.Event()
        with Crew() as crew:
            for first in range(12):
                crew.start(self._shielded, first)
            with Crew() as others:
                others.start(self._interrupt)
                for _ in range(2000):
                    if self.interrupted >= 40:
                        break
                    time.sleep(0.001)
                self._calm.set()
            # Only now may they end: a new thread could be given the identity of one that has ended.
            self._over.set()

    def _shielded(self, first: int) -> None:
        for _ in range(50):
            try:
                self._ask_often(first)
                return
            except Interrupt:
                self.interrupted += 1


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_interrupts_on_a_combiner(seed: int) -> None:
    """Only the interrupted hear of it; all others are answered, nothing is done twice, and nothing hangs."""
    queue: deque[tuple[int, SharedFuture[int]]] = deque()
    at_work = threading.Lock()

    def batch() -> bool:
        assert at_work.acquire(blocking=False)
        for _ in range(min(len(queue), 5)):
            number, future = queue.popleft()
            assert future.set_result(2 * number)
        at_work.release()
        return bool(queue)

    combiner = Combiner(batch, "storm")

    def ask(number: int) -> int:
        future: SharedFuture[int] = SharedFuture()
        queue.append((number, future))
        combiner.wake()
        return future.wait(PATIENCE)

    Storm(seed, ask).run()
    combiner.wake()  # for who was interrupted before he could
    assert combiner.idle(PATIENCE)
    assert not queue


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_interrupts_on_background_tasks(seed: int) -> None:
    work = BackgroundTasks(most=3)
    Storm(seed, lambda number: work.call(lambda: 2 * number)).run()
    assert work.call(lambda: "works") == "works"
    assert work.drain(PATIENCE)
    for thread in background_threads():  # one that was only just begun ends by itself
        thread.join(PATIENCE)
    assert not work._threads and not work._unfinished


@pytest.mark.parametrize("seed", range(4))
def test_a_storm_of_interrupts_on_a_mutex(seed: int) -> None:
    """What is raised into a thread that waits comes up the moment it has the mutex, which must not stay its own."""
    mutexes = KeyedMutex()

    def ask(number: int) -> int:
        with mutexes.hold(b"key"):
            time.sleep(0.001)  # so that the others wait
            return 2 * number

    Storm(seed, ask).run()
    assert not len(mutexes)


def test_work_runs_in_a_thread_of_its_own_that_ends() -> None:
    work = BackgroundTasks(most=2)
    go_on = threading.Event()
    ran_in: list[threading.Thread] = []

    def body() -> None:
        ran_in.append(threading.current_thread())
        assert go_on.wait(PATIENCE)

    for _ in range(5):
        work.run(body, "body")
    assert not work.drain(0.001)
    go_on.set()
    assert work.drain(PATIENCE)
    assert len(ran_in) == 5 and threading.current_thread() not in ran_in
    assert len(set(ran_in)) <= 3, "two at a time, and perhaps one more that was on its way"
    for thread in ran_in:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread without work ends by itself"


def background_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "pgsession background"]


def test_none_is_begun_for_others_to_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would be there when `drain` has returned, and rest for a second."""
    work = BackgroundTasks(most=3)
    may_rest = threading.Event()
    finish = work._finish

    def finish_and_be_slow(piece: background._Piece) -> None:
        finish(piece)
        assert may_rest.wait(PATIENCE)

    monkeypatch.setattr(work, "_finish", finish_and_be_slow)
    assert work.call(lambda: 1) == 1
    begin = Mock(wraps=work._start_thread)
    monkeypatch.setattr(work, "_start_thread", begin)
    assert work.drain(0.001)
    may_rest.set()
    assert work.drain(PATIENCE)
    assert not begin.called and not work._threads


def test_a_thread_that_did_not_live_to_say_that_it_ends_is_not_waited_for() -> None:
    """As in the child of a fork, where none of the parent's is."""
    work = BackgroundTasks()
    assert work.call(lambda: 1) == 1
    gone = threading.Thread(target=int)
    gone.start()
    gone.join(PATIENCE)
    work._threads.add(gone)
    drained = threading.Event()
    threading.Thread(target=lambda: work.drain() and drained.set(), daemon=True).start()
    assert drained.wait(PATIENCE)


def test_one_that_begins_once_all_is_drained_does_not_rest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LINGER", 10 * PATIENCE)
    others = set(background_threads())
    work = BackgroundTasks()
    assert work.drain(PATIENCE)
    work._start_thread()  # as for an asker who is interrupted before he brings his work
    for thread in set(background_threads()) - others:
        thread.join(PATIENCE)
        assert not thread.is_alive()
    assert not work._threads
    assert work.call(lambda: 1) == 1
    assert work.drain(PATIENCE)


def test_a_thread_of_the_librarys_does_its_calls_itself() -> None:
    """Else work that waits for other work of the same owner might wait for a thread that it occupies."""
    work = BackgroundTasks(most=1)
    assert work.call(lambda: work.call(threading.get_ident) == threading.get_ident())
    assert work.drain(PATIENCE)


def test_a_thread_without_work_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(background, "LINGER", 0.01)
    work = BackgroundTasks()
    work.run(lambda: None, "nothing")
    deadline = time.monotonic() + PATIENCE
    while work._threads or work._unfinished:
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert work.call(lambda: 1) == 1
    assert work.drain(PATIENCE)


def test_one_thread_does_what_one_caller_wants() -> None:
    """The others sleep on, and end: woken for each piece of work, they would only stand in its way."""
    work = BackgroundTasks(most=3)
    meet = threading.Barrier(3)

    def idle(count: int) -> None:
        deadline = time.monotonic() + PATIENCE
        while len(work._idle) != count:
            assert time.monotonic() < deadline
            time.sleep(0.001)

    for _ in range(3):
        work.run(lambda: meet.wait(PATIENCE) and None, "meeting")
    idle(3)
    did = set()
    for _ in range(5):
        did.add(work.call(threading.get_ident))
        idle(3)
    assert len(did) == 1
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


def test_a_straggler_that_comes_when_the_last_one_ends_is_written() -> None:
    written: list[Any] = []
    both = threading.Event()

    def write_alone(operation: Any) -> bool:
        written.append(operation)
        if len(written) == 2:
            both.set()
        return True

    stragglers = Stragglers(write_alone, 1, logging.getLogger("pgsession"))
    late = threading.Thread(target=stragglers.add, args=["late"])

    class Waiting(deque[Any]):
        def __len__(self) -> int:
            count = super().__len__()
            if not count and written and late.ident is None:
                late.start()  # somebody adds one after this look at what waits
                late.join(0.2)  # or not before the one who looks lets it
            return count

    stragglers._waiting = Waiting()
    stragglers.add("first")  # type: ignore[arg-type]
    assert both.wait(PATIENCE), written
    late.join(PATIENCE)
    assert stragglers.close(PATIENCE) and written == ["first", "late"]


class NoThreads:
    """Lets no thread be started while it is `full`, as a system with too many of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.full = True
        start = threading.Thread.start

        def refuse(thread: threading.Thread) -> None:
            if self.full:
                raise RuntimeError("can't start new thread")
            start(thread)

        monkeypatch.setattr(threading.Thread, "start", refuse)


def test_where_no_thread_can_be_started_a_caller_does_it_himself(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """And once: a thread that comes later finds nothing to do."""
    system = NoThreads(monkeypatch)
    work, did = BackgroundTasks(), []
    for until in (None, time.monotonic() + PATIENCE):
        assert work.call(lambda: did.append(1) or threading.get_ident(), until) == threading.get_ident()
    assert work.complete(threading.get_ident, "it", PATIENCE) == threading.get_ident()
    with pytest.raises(ZeroDivisionError):
        work.call(lambda: 1 // 0)
    assert [record.levelname for record in caplog.records] == ["WARNING"] and "can't start" in caplog.text
    assert work.drain(PATIENCE)
    system.full = False
    assert work.call(threading.get_ident) != threading.get_ident()
    assert len(did) == 2 and work.drain(PATIENCE)


def test_what_nobody_waits_for_is_done_once_there_is_a_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    system = NoThreads(monkeypatch)
    work, did = BackgroundTasks(), []
    work.run(lambda: did.append(threading.get_ident()), "body")
    assert not work.drain(0.001) and not did
    system.full = False
    work.run(lambda: None, "another")
    assert work.drain(PATIENCE) and len(did) == 1 and threading.get_ident() not in did


def test_threads_that_are_there_do_what_no_thread_can_be_started_for(monkeypatch: pytest.MonkeyPatch) -> None:
    work, go_on, begun = BackgroundTasks(), threading.Event(), threading.Event()
    work.run(lambda: begun.set() or (go_on.wait(PATIENCE) and None), "body")
    assert begun.wait(PATIENCE)
    system = NoThreads(monkeypatch)
    did: list[int] = []
    work.run(lambda: did.append(threading.get_ident()), "another")
    go_on.set()
    assert work.drain(PATIENCE) and did != [threading.get_ident()] and len(did) == 1
    system.full = False


def test_a_thread_that_was_about_to_end_stays_for_what_none_can_be_started_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It is still counted when that comes, and is the only one."""
    system = NoThreads(monkeypatch)
    system.full = False
    work, ending, go_on = BackgroundTasks(), threading.Event(), threading.Event()
    following, did = work._next, []

    def leave() -> background._Piece | None:
        monkeypatch.setattr(work, "_next", following)
        ending.set()
        assert go_on.wait(PATIENCE)
        return None

    monkeypatch.setattr(work, "_next", leave)
    work.run(lambda: did.append("first"), "first")
    assert ending.wait(PATIENCE)
    system.full = True
    work.run(lambda: did.append("second"), "second")
    go_on.set()
    assert work.drain(PATIENCE) and did == ["first", "second"]
