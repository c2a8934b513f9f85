"""The breaker: only a probe that fails opens it, one probe at a time, with pauses that grow and end."""

from __future__ import annotations

import psycopg
import pytest

from pgsession._database.connections import no_answer
from pgsession._protocol.breaker import FIRST_PAUSE, LONGEST_PAUSE, TRUST, Breaker
from pgsession.errors import OperationTimeout, WriteOutcomeUnknown


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker(clock, lambda low, high: high)


def test_a_suspicion_opens_nothing(breaker: Breaker) -> None:
    assert breaker.suspect()
    assert not breaker.is_open


def test_one_probe_at_a_time(breaker: Breaker) -> None:
    assert breaker.suspect()
    assert not breaker.suspect()
    assert breaker.failed(OSError("cut")) == 0 and not breaker.is_open, "it may have been an accident"
    breaker.failed(OSError("refused"))
    assert not breaker.suspect(), "whoever probes goes on"
    breaker.rest()
    assert breaker.suspect(), "whoever probed has stopped"


def test_a_probe_that_fails_opens_and_one_that_finds_closes(breaker: Breaker, clock: Clock) -> None:
    assert breaker.suspect()
    breaker.failed(OSError("refused"))
    assert not breaker.is_open
    breaker.failed(OSError("refused"))
    clock.now += 2.5
    assert breaker.is_open
    assert "2.5 s" in str(breaker.error()) and "refused" in str(breaker.error())
    assert breaker.error() is not breaker.error(), "each caller raises one of his own"
    breaker.found()
    assert not breaker.is_open


def test_after_a_probe_that_found_the_database_it_is_trusted_for_a_while(
    breaker: Breaker, clock: Clock
) -> None:
    assert breaker.suspect()
    breaker.found()
    assert not breaker.suspect()
    clock.now += TRUST
    assert breaker.suspect()


def test_the_pauses_grow_up_to_a_limit_and_begin_anew(breaker: Breaker) -> None:
    error = OSError("refused")
    breaker.failed(error)
    pauses = [breaker.failed(error) for _ in range(8)]
    assert pauses[0] == FIRST_PAUSE and pauses[-1] == LONGEST_PAUSE
    assert pauses == sorted(pauses)
    breaker.found()
    assert [breaker.failed(error) for _ in range(2)] == [0, FIRST_PAUSE]


def test_the_pauses_are_jittered() -> None:
    breaker = Breaker()
    for _ in range(10):
        breaker.failed(OSError("refused"))
    pauses = {breaker.failed(OSError("refused")) for _ in range(50)}
    assert len(pauses) > 25 and min(pauses) >= LONGEST_PAUSE / 2 and max(pauses) <= LONGEST_PAUSE


def with_cause(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (psycopg.OperationalError("connection refused"), True),
        (psycopg.errors.CannotConnectNow(), True),
        (psycopg.errors.TooManyConnections(), True),
        (psycopg.errors.AdminShutdown(), True),
        (psycopg.errors.ReadOnlySqlTransaction(), True),
        (with_cause(WriteOutcomeUnknown("cut"), psycopg.OperationalError("cut")), True),
        (with_cause(OperationTimeout("late"), psycopg.OperationalError("cut")), True),
        (OperationTimeout("others had to be waited for"), False),
        (with_cause(OperationTimeout("late"), psycopg.errors.QueryCanceled()), False),
        (WriteOutcomeUnknown("committed, but perhaps not where it was to be replicated"), False),
        (psycopg.errors.LockNotAvailable(), False),
        (psycopg.errors.QueryCanceled(), False),
        (psycopg.errors.DeadlockDetected(), False),
        (psycopg.errors.UniqueViolation(), False),
        (psycopg.DataError("NUL"), False),
        (ValueError("no"), False),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else str(value),
)
def test_what_counts_is_that_nobody_answered(error: Exception, expected: bool) -> None:
    assert no_answer(error) is expected
