"""Confirmation waits, after something was ended, until no node can serve it any more."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

import psycopg

from pgsession._concurrency import async_sleep
from pgsession._protocol.acknowledgements import Acknowledgements
from pgsession.errors import PgSessionError, RevocationNotConfirmed

from .store import AsyncStore

_FIRST_PAUSE: Final = 0.001  # seconds
_LONGEST_PAUSE: Final = 0.1
_PART_WAITED: Final = 0.25  # a pause, of what was waited before it
_ASKED_AGAIN: Final = 0.25  # seconds; then after twice as long each time
_LEAST: Final = 0.1  # of `operation_timeout`, for a statement that begins in time
_SECOND: Final = 1_000_000


class AsyncConfirmation:
    """Waits until every node knows what was committed before, as `acknowledgements` says.

    Args:
        store: The database.
        clock_now: Returns node time, in microseconds.
        longest: The longest that a node is known to serve unheard, in microseconds.
        is_open: Returns False once the manager is closed.
    """

    def __init__(
        self, store: AsyncStore, clock_now: Callable[[], int], longest: int, is_open: Callable[[], bool]
    ) -> None:
        self._store = store
        self._now = clock_now
        self._is_open = is_open
        self._acknowledgements = Acknowledgements(clock_now(), longest)
        self._began = self._ask_at = time.monotonic()
        self._failure: Exception | None = None

    async def wait(self, seconds: float, done: int) -> None:
        """Return once no node can serve any more what `done` sessions were before.

        A statement that begins in time may take a tenth of `operation_timeout` beyond `seconds`, no more.

        Raises:
            RevocationNotConfirmed: That is not certain after so many seconds.
        """
        end = self._began + seconds
        while True:
            await self._step(end)
            if self._acknowledgements.confirmed(self._now()):
                return
            left = end - time.monotonic()
            if left <= 0 or not self._is_open():
                raise self._not_confirmed(done) from self._failure
            await async_sleep(min(self._pause(), left))

    async def _step(self, end: float) -> None:
        """Ask the nodes, now and then, and else look who has answered; what fails is tried again."""
        now = time.monotonic()
        deadline = min(self._store.deadline(), max(end, now + _LEAST * self._store.timeout))
        waited_for = self._acknowledgements.waited_for
        try:
            if waited_for is None or now >= self._ask_at:
                # Again, for whoever began to listen after the last time.
                self._ask_at = now + max(_ASKED_AGAIN, 2 * (now - self._began))
                answer = await self._store.ask_nodes(deadline)
                self._acknowledgements.asked(self._now(), answer)
            elif waited_for[0]:
                self._acknowledgements.looked(*await self._store.silent_nodes(*waited_for, deadline))
            self._failure = None
        except (psycopg.Error, PgSessionError) as error:
            self._failure = error

    def _pause(self) -> float:
        waited = time.monotonic() - self._began
        return min(max(waited * _PART_WAITED, _FIRST_PAUSE), _LONGEST_PAUSE)

    def _not_confirmed(self, done: int) -> RevocationNotConfirmed:
        waited_for = self._acknowledgements.waited_for
        return RevocationNotConfirmed(
            silent=None if waited_for is None else len(waited_for[0]),
            certain_in=max(self._acknowledgements.certain_at - self._now(), 0) / _SECOND,
            done=done,
        )
