"""Places are the servers of all shards, opened and closed together; what is left of a manager that was dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TypeVar

import psycopg

from pgsession._concurrency import (
    GRACE,
    AsyncAction,
    AsyncBackgroundLoop,
    AsyncBackgroundTasks,
    AsyncDeadlines,
    AsyncEvent,
    AsyncHome,
    deadline_in,
    left_until,
)
from pgsession._protocol.log_rate import Seldom
from pgsession.errors import PgSessionError

from .of_each import of_each
from .shard import DOWN, AsyncPlace, AsyncShardManager

T = TypeVar("T")
R = TypeVar("R")

TRIED_AGAIN = 1.0  # seconds between attempts to open what was down


class AsyncPlaces:
    """Opens and closes the servers and their shards. A server that is down is tried again in the background."""

    def __init__(self, places: list[AsyncPlace], logger: logging.Logger) -> None:
        self.all = places
        self._logger = logger
        self._home: AsyncHome | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have what runs, in this process."""
        # A thread for each shard: so many that no more are begun while these are ended.
        self._background = AsyncBackgroundTasks(self._logger, most=max(len(self.shards), 1))
        self._loop = AsyncBackgroundLoop(self._logger)
        self._stopping = AsyncEvent()
        self._failures = Seldom()

    @property
    def shards(self) -> list[AsyncShardManager]:
        """Return all shards."""
        return [shard for place in self.all for shard in place.shards]

    async def of_each(
        self, items: Iterable[T], do: AsyncAction[T, R]
    ) -> list[tuple[T, R | None, Exception | None]]:
        """Do something for several at the same time; return what it gave or failed with for each."""
        return await of_each(self._background, items, do)

    async def open(self) -> None:
        """Open all; those whose server is down are opened once it is back.

        Raises:
            Exception: What is not for want of a server; or no server is there.
        """
        self._home = AsyncHome()
        results = await self.of_each(self.all, AsyncPlace.open)
        failures = [error for _, _, error in results if error is not None]
        for error in failures:
            if not isinstance(error, DOWN) or len(failures) == len(self.all):
                raise error
        if failures:
            for place in self.all:
                if place.error is not None:
                    self._tell(place)
            self._loop.start(self._open_the_rest, "pgsession shards")

    def _tell(self, place: AsyncPlace) -> None:
        numbers = ", ".join(str(shard.mark.number) for shard in place.shards)
        self._logger.warning(
            "the server of the shards %s is down, and will be tried again: %s", numbers, place.error,
            extra={"pgsession_event": "shards_down", "pgsession_reason": str(place.error)},
        )  # fmt: skip

    async def _open_the_rest(self) -> None:
        while not self._stopping.is_set():
            await self._stopping.wait(TRIED_AGAIN)
            waiting = [place for place in self.all if not place.is_open]
            if not waiting:
                return
            for place in waiting:
                if self._stopping.is_set():
                    return
                try:
                    await place.open()
                except (psycopg.Error, PgSessionError, TimeoutError):
                    if self._failures.admit() is not None:
                        self._tell(place)

    def check(self) -> None:
        """Refuse a call from another event loop than the one that they were opened in.

        Raises:
            EventLoopError: It is one.
        """
        if self._home is not None:
            self._home.check()

    def note_close(self) -> None:
        """Learn who it is that closes, who may be a function of the user's that is not to be waited for."""
        self.check()
        for shard in self.shards:
            shard.note_close()

    async def close(self, timeout: float | None) -> None:
        """Close the shards, then the servers; what has not ended by then is cut."""
        deadline = deadline_in(timeout)
        self._stopping.set()
        await self._loop.stop(left_until(deadline))
        limits = AsyncDeadlines(self._logger)
        with limits.within(left_until(deadline), self._cut):
            await self.of_each(self.shards, lambda shard: shard.close(left_until(deadline)))
        await limits.close()
        await self.of_each(self.all, AsyncPlace.close)
        await self._background.drain(GRACE)

    def _cut(self) -> None:
        for place in self.all:
            place.cut()

    def abandon(self, patience: float, ended: Callable[[], None]) -> bool:
        """Begin to close what a manager was made of that was dropped; call `ended` once that is done."""
        assert self._home is not None
        return self._home.end(lambda: self.close(patience), self._finish, ended)

    def _finish(self) -> None:
        for shard in self.shards:
            if shard.runtime is not None:
                shard.runtime.finish()
        for place in self.all:
            if place.server is not None:
                place.server.finish()

    def at_exit(self, deadline: float) -> None:
        """Write noted accesses before the interpreter exits, and end what would hold it up."""
        self._stopping.set()
        for shard in self.shards:
            if shard.runtime is not None:
                shard.runtime.at_exit(deadline)
        self._cut()

    def after_fork(self) -> None:
        """Begin anew in the child of a fork."""
        self._home = None
        for place in self.all:
            place.after_fork()
        self.begin_anew()
