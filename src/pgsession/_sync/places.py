# Generated from src/pgsession/_async/places.py by tools/async_to_sync.py: never edit.

"""Places are the servers of all shards, opened and closed together; what is left of a manager that was dropped."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from functools import partial
from typing import TypeVar

from pgsession._concurrency import (
    GRACE,
    Action,
    BackgroundLoop,
    BackgroundTasks,
    Deadlines,
    Event,
    Home,
    deadline_in,
    left_until,
)
from pgsession._protocol.log_rate import Seldom

from .of_each import of_each
from .shard import DOWN, Place, ShardManager

R = TypeVar("R")

TRIED_AGAIN = 1.0  # seconds between attempts to open what was down


class Places:
    """Opens and closes the servers and their shards. A server that is down is tried again in the background."""

    def __init__(self, places: list[Place], logger: logging.Logger) -> None:
        self.all = places
        self._logger = logger
        self._home: Home | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have what runs, in this process."""
        self._later: list[BackgroundLoop] = []  # for each server that was down
        self._stopping = Event()
        self._failures = Seldom()

    @property
    def shards(self) -> list[ShardManager]:
        """Return all shards."""
        return [shard for place in self.all for shard in place.shards]

    def of_each(
        self, shards: Iterable[ShardManager], do: Action[ShardManager, R], until: float
    ) -> list[tuple[ShardManager, R | None, Exception | None]]:
        """Do something for several at the same time; return what it gave or failed with for each."""
        return of_each(lambda shard: shard.place.background, shards, do, until)

    def of_each_now(
        self, shards: Iterable[ShardManager], do: Action[ShardManager, R]
    ) -> list[tuple[ShardManager, R | None, Exception | None]]:
        """Do what `of_each` does, also where others wait already."""
        now = BackgroundTasks(self._logger, most=max(len(self.shards), 1))
        try:
            return of_each(lambda shard: now, shards, do)
        finally:
            now.drain(GRACE)

    def open(self) -> None:
        """Open all; those whose server is down are opened once it is back.

        Raises:
            Exception: What is not for want of a server; or no server is there.
        """
        self._home = Home()
        results = of_each(lambda place: place.background, self.all, Place.open)
        failures = [error for _, _, error in results if error is not None]
        for error in failures:
            if not isinstance(error, DOWN) or len(failures) == len(self.all) or self._stopping.is_set():
                raise error
        if failures:
            for place in self.all:
                if place.reason is not None:
                    self._tell(place)
                    self._later.append(BackgroundLoop(self._logger))
                    self._later[-1].start(partial(self._open_later, place), "pgsession shards")

    def _tell(self, place: Place) -> None:
        numbers = ", ".join(str(shard.mark.number) for shard in place.shards)
        self._logger.warning(
            "the server of the shards %s is down, and will be tried again: %s", numbers, place.reason,
            extra={"pgsession_event": "shards_down", "pgsession_reason": place.reason},
        )  # fmt: skip

    def _open_later(self, place: Place) -> None:
        """Open a server once it is back: one that is silent is in nobody else's way."""
        while not place.is_open:
            self._stopping.wait(TRIED_AGAIN)
            if self._stopping.is_set():
                return
            try:
                place.open()
            except Exception:  # whatever it is, it may be another thing the next time
                if not self._stopping.is_set() and self._failures.admit() is not None:
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

    def close(self, timeout: float | None) -> None:
        """Close the shards, then the servers; what has not ended by then is cut."""
        deadline = deadline_in(timeout)
        self._stopping.set()
        for place in self.all:
            place.give_up_opening()
        limits = Deadlines(self._logger)
        with limits.within(left_until(deadline), self._cut):
            self.of_each_now(self.shards, lambda shard: shard.close(left_until(deadline)))
        limits.close()
        of_each(lambda place: place.background, self.all, Place.close)
        for loop in self._later:
            loop.stop(GRACE)
        for place in self.all:
            place.background.drain(GRACE)

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
