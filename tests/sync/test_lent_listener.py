# Generated from tests/aio/test_lent_listener.py by tools/async_to_sync.py: never edit.

"""Who listens now and then borrows a listener: it is there for the first, and until the last."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._sync.lent_listener import LentListener

DOWN = psycopg.OperationalError("the server is down")


class Listener:
    """Notes what is done to it."""

    def __init__(self, opening: Callable[[], Awaitable[object]] | None = None) -> None:
        self.opened = self.closed = 0
        self.connected = False
        self._opening = opening

    def open(self) -> None:
        self.opened += 1
        if self._opening is not None:
            self._opening()
        self.connected = True

    def close(self, timeout: float | None) -> None:
        self.closed += 1

    def _finish(self) -> None:
        self.closed += 1


class Made:
    """Makes one after the other; the first ones do what is said when they are opened."""

    def __init__(self, *openings: Callable[[], Awaitable[object]]) -> None:
        self.all: list[Any] = []
        self._openings = list(openings)

    def __call__(self) -> Any:
        self.all.append(Listener(self._openings.pop(0) if self._openings else None))
        return self.all[-1]


def fail() -> None:
    raise DOWN


def test_it_is_there_for_the_first_until_the_last() -> None:
    made = Made()
    lent = LentListener(made)
    assert made.all == []
    first, second = lent.borrow(), lent.borrow()
    assert first is second and len(made.all) == 1 and made.all[0].opened == 1
    lent.give_back(first, 0)
    assert not made.all[0].closed
    lent.give_back(second, 0)
    assert made.all[0].closed == 1
    third = lent.borrow()
    assert third is made.all[1] and third is not first
    lent.give_back(first, 0)
    assert not made.all[1].closed


def test_one_that_could_not_be_opened_is_not_lent_again() -> None:
    made = Made(fail)
    lent = LentListener(made)
    with pytest.raises(psycopg.OperationalError):
        lent.borrow()
    borrowed = lent.borrow()
    assert borrowed is made.all[1]
    lent.give_back(borrowed, 0)
    assert made.all[1].closed == 1


def test_whose_opening_fails_late_takes_nothing_from_who_came_next() -> None:
    """Several wait for one to be opened: the first of them who learns that it failed makes room for another."""
    later: list[Any] = []

    def others_come() -> None:
        if made.all[0].opened == 1:
            with pytest.raises(psycopg.OperationalError):
                lent.borrow()
            later.append(lent.borrow())
        raise DOWN

    made = Made(others_come)
    lent = LentListener(made)
    with pytest.raises(psycopg.OperationalError):
        lent.borrow()
    assert later == [made.all[1]] and lent.borrow() is made.all[1]
    lent.give_back(made.all[1], 0)
    assert not made.all[1].closed
    lent.give_back(made.all[1], 0)
    assert made.all[1].closed == 1


def test_a_given_one_stays_its_owners() -> None:
    given: Any = Listener()
    lent = LentListener(Made(), given)
    assert lent.borrow() is given
    lent.give_back(given, 0)
    lent.close()
    lent.finish()
    assert (given.opened, given.closed) == (0, 0)


def test_once_it_is_closed_there_is_none() -> None:
    made = Made()
    lent = LentListener(made)
    borrowed = lent.borrow()
    lent.close()
    assert made.all[0].closed == 1
    with pytest.raises(pgsession.ListenerError):
        lent.borrow()
    lent.give_back(borrowed, 0)
    assert made.all[0].closed == 1 and len(made.all) == 1


def test_without_an_event_loop_its_connection_is_closed() -> None:
    made = Made()
    lent = LentListener(made)
    lent.borrow()
    lent.finish()
    assert made.all[0].closed == 1
    with pytest.raises(pgsession.ListenerError):
        lent.borrow()
