"""It is made at its first use: once, and who waits for an attempt that fails does not make one of his own."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from pgsession.contrib._first_use import FirstUse

WAITING = 8


class Attempts:
    """Makes something, each time that it is let."""

    def __init__(self, *outcomes: object) -> None:
        self.outcomes = list(outcomes)
        self.begun = threading.Semaphore(0)
        self.go_on = threading.Semaphore(0)

    def __call__(self) -> object:
        outcome = self.outcomes.pop(0)
        self.begun.release()
        assert self.go_on.acquire(timeout=30)
        if isinstance(outcome, BaseException):
            raise outcome
        return outcome


class Used(FirstUse[object]):
    """Tells when somebody has asked, and waits."""

    def __init__(self, make: Callable[[], object]) -> None:
        super().__init__(make)
        self.asked = threading.Semaphore(0)

    def _lock(self) -> threading.Lock:
        self.asked.release()
        return super()._lock()


def all_at_once(pool: ThreadPoolExecutor, used: Used, attempts: Attempts) -> list[Future[object]]:
    """Some who ask while the first attempt is made."""
    asking = [pool.submit(used.get)]
    assert attempts.begun.acquire(timeout=30)
    asking += [pool.submit(used.get) for _ in range(WAITING)]
    for _ in range(WAITING + 1):
        assert used.asked.acquire(timeout=30)
    return asking


def test_it_is_made_once() -> None:
    made = object()
    attempts = Attempts(made)
    used = Used(attempts)
    with ThreadPoolExecutor(WAITING + 1) as pool:
        asking = all_at_once(pool, used, attempts)
        attempts.go_on.release()
        assert {id(one.result(30)) for one in asking} == {id(made)}
    assert used.get() is used.made is made
    assert used.take() is made and used.made is None


def test_who_waits_for_an_attempt_that_fails_fails_with_it() -> None:
    """The database is down, and an attempt takes seconds: a hundred requests would take a hundred times as long."""
    failure, made = OSError(5, "down"), object()
    attempts = Attempts(failure, made)
    used = Used(attempts)
    with ThreadPoolExecutor(WAITING + 1) as pool:
        asking = all_at_once(pool, used, attempts)
        attempts.go_on.release()
        errors = [one.exception(30) for one in asking]
        assert errors[0] is failure
        for error in errors[1:]:
            assert isinstance(error, OSError) and error.args == failure.args and error is not failure
        attempts.go_on.release()
        assert used.get() is made  # who asks later begins anew


def test_who_is_interrupted_interrupts_nobody_else() -> None:
    made = object()
    attempts = Attempts(KeyboardInterrupt(), made)
    used = Used(attempts)
    with ThreadPoolExecutor(WAITING + 1) as pool:
        asking = all_at_once(pool, used, attempts)
        attempts.go_on.release(2)
        outcomes = [(one.exception(30) and type(one.exception())) or one.result() for one in asking]
    assert outcomes == [KeyboardInterrupt] + [made] * WAITING


def test_it_may_fail_again_and_again() -> None:
    used = FirstUse[object](Attempts(OSError(5, "down"), OSError(5, "down")))
    for _ in range(2):
        used._make.go_on.release()  # type: ignore[attr-defined]
        with pytest.raises(OSError, match="down"):
            used.get()
