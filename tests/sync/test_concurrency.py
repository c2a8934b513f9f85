# Generated from tests/aio/test_concurrency.py by tools/async_to_sync.py: never edit.

"""What holds for tasks and threads alike."""

from __future__ import annotations

import logging
import socket
import traceback
from collections import deque

import pytest

from pgsession._concurrency import (
    Alarm,
    BackgroundLoop,
    BackgroundTasks,
    Combiner,
    Event,
    Mutex,
    SharedFuture,
    SocketWaiter,
    call,
    pause,
    sleep,
)
from tests.crew import Crew

PATIENCE = 20

# -- events, mutexes, time -----------------------------------------------------------------------------------


def test_event() -> None:
    event = Event()
    assert not event.wait(0)
    assert not event.wait(0.001)
    with Crew() as crew:
        for _ in range(5):
            crew.start(event.wait, PATIENCE)
        event.set()
        assert crew.join() == [True] * 5
    assert event.wait()
    event.clear()
    assert not event.is_set()
    assert not event.wait(0)


def test_mutex() -> None:
    mutex = Mutex()
    inside: list[int] = []
    most = 0

    def enter() -> None:
        nonlocal most
        with mutex:
            inside.append(1)
            most = max(most, len(inside))
            sleep(0)
            inside.pop()

    with Crew() as crew:
        for _ in range(20):
            crew.start(enter)
    assert most == 1
    assert not mutex.locked()


def test_alarm() -> None:
    rang = Event()
    alarm = Alarm(0.001, rang.set)
    with alarm:
        assert rang.wait(PATIENCE)
    assert alarm.rang
    for seconds in (60, None):
        alarm = Alarm(seconds, rang.set)
        with alarm:
            pass
        assert not alarm.rang


def test_call() -> None:
    seen: list[int] = []

    def append(number: int) -> None:
        seen.append(number)

    call(seen.append, 1)
    call(append, 2)
    assert seen == [1, 2]


# -- background loops ----------------------------------------------------------------------------------------


def test_a_worker_runs_until_told_to_end() -> None:
    loop = BackgroundLoop()
    ask, ended = Event(), Event()
    inside: list[bool] = []

    def body() -> None:
        inside.append(loop.is_current())
        ask.wait()
        inside.append(loop.stop())  # from inside: does not wait for itself
        ended.set()

    assert not loop.running
    assert loop.stop()
    loop.start(body, "body")
    assert loop.running
    assert not loop.is_current()
    with pytest.raises(RuntimeError, match="already running"):
        loop.start(body, "body")
    ask.set()
    assert loop.stop(PATIENCE)
    assert ended.is_set()
    assert inside == [True, False]
    assert not loop.running
    loop.start(body, "again")
    assert loop.stop(PATIENCE)


def test_a_worker_does_not_die_silently(caplog: pytest.LogCaptureFixture) -> None:
    loop = BackgroundLoop()

    def body() -> None:
        raise LookupError("unexpected")

    loop.start(body, "the loop's name")
    assert loop.stop(PATIENCE)
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "the loop's name" in caplog.text
    assert "unexpected" in caplog.text


def test_work_can_be_waited_for(caplog: pytest.LogCaptureFixture) -> None:
    work = BackgroundTasks()
    future: SharedFuture[str] = SharedFuture()

    def answer() -> None:
        sleep(0.001)
        future.set_result("done")
        raise LookupError("too late to tell anybody")

    assert work.drain()
    work.run(answer, "answer")
    assert future.wait(PATIENCE) == "done"
    assert work.drain(PATIENCE)
    assert "too late" in caplog.text


# -- futures ------------------------------------------------------------------------------------------------


def test_an_outcome_answers_all_who_wait_and_all_who_come_later() -> None:
    future: SharedFuture[str] = SharedFuture()
    with Crew() as crew:
        for _ in range(50):
            crew.start(future.wait, PATIENCE)
        pause()
        assert future.set_result("done")
        assert crew.join() == ["done"] * 50
    assert future.done
    assert future.wait() == "done"
    assert future.wait(0) == "done"


def test_only_the_first_answer_counts() -> None:
    future: SharedFuture[int] = SharedFuture()
    assert future.set_result(1)
    assert not future.set_result(2)
    assert not future.set_error(LookupError())
    assert future.wait() == 1


def test_waiting_for_an_outcome_is_bounded() -> None:
    future: SharedFuture[int] = SharedFuture()
    for seconds in (0, 0.001, -1):
        with pytest.raises(TimeoutError):
            future.wait(seconds)
    future.set_result(1)
    assert future.wait(0) == 1


def test_an_error_is_raised_for_everybody_and_does_not_grow() -> None:
    future: SharedFuture[int] = SharedFuture()
    try:
        raise LookupError("once")
    except LookupError as error:
        future.set_error(error)
    lengths = []
    for _ in range(3):
        with pytest.raises(LookupError, match="once") as caught:
            future.wait()
        lengths.append(len(traceback.extract_tb(caught.value.__traceback__)))
    assert lengths[0] == lengths[2]


# -- combiners ---------------------------------------------------------------------------------------------------


class Doubler:
    """Doubles numbers in batches, as the group commit writes."""

    def __init__(self, bound: int = 1000) -> None:
        self.bound = bound
        self.combiner = Combiner(self._batch, "doubler")
        self.queue: deque[tuple[int, SharedFuture[int]]] = deque()
        self.sizes: list[int] = []
        self.at_work = 0

    def double(self, number: int) -> int:
        future: SharedFuture[int] = SharedFuture()
        self.queue.append((number, future))
        self.combiner.wake()
        return future.wait()

    def _batch(self) -> bool:
        self.at_work += 1
        assert self.at_work == 1
        batch = [self.queue.popleft() for _ in range(min(len(self.queue), self.bound))]
        self.sizes.append(len(batch))
        sleep(0.001)
        for number, future in batch:
            if number < 0:
                future.set_error(ValueError(number))
            else:
                future.set_result(2 * number)
        self.at_work -= 1
        return bool(self.queue)


def test_alone_a_turn_is_a_batch_of_one() -> None:
    doubler = Doubler()
    for number in range(5):
        assert doubler.double(number) == 2 * number
    assert doubler.sizes == [1] * 5
    assert doubler.combiner.idle(PATIENCE)


def test_together_they_share_batches() -> None:
    doubler = Doubler()

    def double_often(first: int) -> list[int]:
        return [doubler.double(first + number) for number in range(20)]

    with Crew() as crew:
        for first in range(30):
            crew.start(double_often, first)
        results = crew.join()
    assert results == [[2 * (first + number) for number in range(20)] for first in range(30)]
    assert sum(doubler.sizes) == 600
    assert len(doubler.sizes) < 300
    assert doubler.combiner.idle(PATIENCE)
    assert not doubler.queue


def test_a_bounded_batch_leaves_nobody_behind() -> None:
    doubler = Doubler(bound=3)
    with Crew() as crew:
        for number in range(50):
            crew.start(doubler.double, number)
        assert crew.join() == [2 * number for number in range(50)]
    assert max(doubler.sizes) == 3


def test_one_error_is_one_callers() -> None:
    doubler = Doubler()

    def double(number: int) -> int:
        if number % 10:
            return doubler.double(number)
        with pytest.raises(ValueError, match=str(-number - 1)):
            doubler.double(-number - 1)
        return 2 * number

    with Crew() as crew:
        for number in range(50):
            crew.start(double, number)
        assert crew.join() == [2 * number for number in range(50)]


def test_work_that_raises_is_told_and_called_again(caplog: pytest.LogCaptureFixture) -> None:
    works, done = Event(), Event()

    def work() -> bool:
        if not works.is_set():
            raise LookupError("the work itself is broken")
        done.set()
        return False

    combiner = Combiner(work, "the work's name")
    combiner.wake()
    assert combiner.idle(PATIENCE)
    assert "the work's name" in caplog.text
    assert "is broken" in caplog.text
    works.set()
    combiner.wake()
    assert done.wait(PATIENCE)
    assert combiner.idle(PATIENCE)


def test_work_begins_once() -> None:
    future: SharedFuture[int] = SharedFuture()
    assert future.begin()
    assert not future.begin()
    assert not future.done and not future.succeeded
    future.set_result(1)
    assert future.succeeded


def test_a_call_gives_what_its_function_gives() -> None:
    work = BackgroundTasks()

    def answer() -> int:
        sleep(0)
        return 1

    def fail() -> int:
        raise LookupError("none")

    assert work.call(answer) == 1
    with pytest.raises(LookupError, match="none"):
        work.call(fail)
    assert work.drain(PATIENCE)


# -- sockets -------------------------------------------------------------------------------------------------


class Source:
    """A socket of which a byte is read each time."""

    def __init__(self, ours: socket.socket) -> None:
        self._ours = ours
        self.read: list[bytes] = []

    @property
    def fileno(self) -> int:
        return self._ours.fileno()

    def receive(self) -> None:
        self.read.append(self._ours.recv(1))
        if self.read[-1] == b"!":
            raise OSError("gone")


def test_socket_waiter() -> None:
    ours, theirs = socket.socketpair()
    waiter = SocketWaiter()
    with ours, theirs:
        source = Source(ours)
        assert not waiter.wait(source, 0)
        assert not waiter.wait(source, 0.001)
        theirs.send(b"xy")
        assert waiter.wait(source, PATIENCE)
        assert waiter.wait(source, PATIENCE)  # there is still something to read
        assert not waiter.wait(source, 0)
        theirs.send(b"!")
        with pytest.raises(OSError, match="gone"):
            waiter.wait(source, PATIENCE)
        theirs.close()
        assert waiter.wait(source, PATIENCE)  # the end is something to read too
        assert source.read == [b"x", b"y", b"!", b""]
        waiter.leave()
    waiter.close()


def test_socket_waiter_leaves_unread_what_comes_while_nobody_waits() -> None:
    ours, theirs = socket.socketpair()
    waiter = SocketWaiter()
    with ours, theirs:
        source = Source(ours)
        for _ in range(2):
            assert not waiter.wait(source, 0)
            theirs.send(b"x")
            for _ in range(3):
                sleep(0)
            assert source.read == []
            assert waiter.wait(source, PATIENCE)
            source.read.clear()
        waiter.leave()
        theirs.send(b"x")
        assert not waiter.wait(None, 0.001)
    waiter.close()


def test_socket_waiter_goes_from_source_to_source() -> None:
    waiter = SocketWaiter()
    for _ in range(3):  # the descriptors are the same ones each time
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.send(b"x")
            assert waiter.wait(Source(ours), PATIENCE)
            assert not waiter.wait(Source(ours), 0)
            waiter.leave()
    waiter.close()


def test_socket_waiter_is_woken() -> None:
    ours, theirs = socket.socketpair()
    waiter = SocketWaiter()
    with ours, theirs:
        for source in (None, Source(ours)):
            for _ in range(100_000):  # more than a pipe holds
                waiter.wake()
            assert not waiter.wait(source, PATIENCE)
            assert not waiter.wait(source, 0)  # all those were one
            with Crew() as crew:
                crew.start(waiter.wait, source)
                sleep(0.001)
                waiter.wake()
                assert crew.join() == [False]
        waiter.leave()
    waiter.close()
    waiter.wake()


def test_socket_waiter_takes_high_descriptors() -> None:
    resource, fcntl = pytest.importorskip("resource"), pytest.importorskip("fcntl")
    if resource.getrlimit(resource.RLIMIT_NOFILE)[0] < 2100:
        pytest.skip("too few descriptors are allowed")
    ours, theirs = socket.socketpair()
    waiter = SocketWaiter()
    with ours, theirs:
        high = socket.socket(fileno=fcntl.fcntl(ours.fileno(), fcntl.F_DUPFD, 2050))
        with high:
            theirs.send(b"x")
            assert waiter.wait(Source(high), PATIENCE)
            waiter.leave()
    waiter.close()
