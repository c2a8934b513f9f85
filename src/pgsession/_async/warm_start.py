"""A warm start reads the sessions that a former process had in memory, before they are asked for."""

from __future__ import annotations

import hashlib
import logging
import time
from functools import partial
from typing import Final

import psycopg

from pgsession._concurrency import (
    AsyncBackgroundLoop,
    AsyncEvent,
    AsyncSharedFuture,
    async_in_own_thread,
    deadline_in,
    left_until,
)
from pgsession._core.cache import Cache
from pgsession._counted import counted
from pgsession._warm_file import ID_BYTES, read_ids, write_ids
from pgsession.errors import PgSessionError

from .reads import TOGETHER, AsyncReads
from .store import AsyncStore

PAUSE: Final = 0.4  # of the time that a statement took, of which the server works for about two thirds
PATIENCE: Final = 5.0  # seconds for the file to be read, or written, whatever the disk does
NO_ANSWER: Final = "the disk does not answer"
LEAST_PATIENCE: Final = 0.01  # where a close has no time


class AsyncWarmStart:
    """Has the sessions of a file of ids read into memory, and leaves those that are in memory there at the end.

    One statement is under way at a time, and after each there is a pause in proportion to the time that it took: so it
    takes the server less than half of a core, and one that is slow is left in peace for longer. What is read is the
    first to leave memory again, in the order of use of the former process, and nothing leaves for it. The file is read
    and written in a thread of its own, since a disk may hang.

    Args:
        path: The file; None: nothing is read or left.
        store: Says which database this is.
        reads: Reads the sessions.
        cache: What they enter.
        logger: Takes one line about the start, and one about a file that cannot be used.
    """

    def __init__(
        self,
        path: str | None,
        store: AsyncStore,
        reads: AsyncReads,
        cache: Cache,
        logger: logging.Logger,
    ) -> None:
        self._path = path
        self._store = store
        self._reads = reads
        self._cache = cache
        self._logger = logger
        self._identity: bytes | None = None
        self._ids = b""  # of the file
        self._at = 0  # where those begin that were not read yet
        self._stopping = AsyncEvent()
        self._loop = AsyncBackgroundLoop(logger)
        self._leaving: AsyncSharedFuture[None] | None = None
        self.sessions = 0

    async def run(self) -> None:
        """Read the file, and the sessions that it names, until there are no more or there is no room left.

        Nothing is raised: what is not read now is read when it is asked for.
        """
        if self._path is None:
            return
        began = time.monotonic()
        failure: str | None = None
        try:
            await self._read_file(self._path)
            while (some := self._next()) and not self._stopping.is_set():
                asked_at = time.monotonic()
                self.sessions += await self._reads.read_early(some)
                self._at += ID_BYTES * len(some)
                await self._stopping.wait(PAUSE * (time.monotonic() - asked_at))
        except (OSError, RuntimeError, ValueError, psycopg.Error, PgSessionError) as error:
            failure = str(error).strip() or NO_ANSWER
        if self._stopping.is_set():
            failure = None  # it was cut
        self._logger.log(
            logging.INFO if failure is None else logging.WARNING,
            "warm start: %s of %d that %s names in memory after %.1f s%s",
            counted(self.sessions, "session"),
            len(self._ids) // ID_BYTES,
            self._path,
            time.monotonic() - began,
            f"; the others when they are asked for: {failure}" if failure else "",
        )

    async def _read_file(self, path: str) -> None:
        identity = hashlib.sha256((await self._store.identity()).encode()).digest()
        self._identity = identity
        read = async_in_own_thread(partial(read_ids, path, identity, self._cache.capacity), "pgsession ids")
        self._ids = await read.wait(PATIENCE)

    def _next(self) -> list[bytes]:
        """Return the ids of the sessions to read next, as many as there is room for."""
        room = min(TOGETHER, self._cache.capacity - len(self._cache))
        return _split(self._ids[self._at : self._at + ID_BYTES * max(room, 0)])

    def start(self) -> None:
        """Do the same in the background."""
        if self._path is not None:
            self._loop.start(self.run, "pgsession warm start")

    def give_up(self) -> None:
        """Begin nothing more."""
        self._stopping.set()

    def leave(self) -> None:
        """Begin to leave the ids of what is in memory, and of what was still to be read, in the file."""
        if self._path is None or self._identity is None:
            return
        ids = self._cache.keys_by_use()
        if self._at < len(self._ids):
            unread = _split(self._ids[self._at :])
            ids = b"".join(dict.fromkeys([*_split(ids), *unread]))[: ID_BYTES * self._cache.capacity]
        if ids:
            self._leaving = async_in_own_thread(
                partial(write_ids, self._path, self._identity, ids), "pgsession ids"
            )

    async def stop(self, deadline: float) -> None:
        """Read no more, by the deadline."""
        self.give_up()
        await self._loop.stop(left_until(deadline))

    async def wait_until_left(self, deadline: float) -> None:
        """Wait until the ids are in the file, by the deadline."""
        if self._leaving is None:
            return
        end = max(min(deadline, deadline_in(PATIENCE)), deadline_in(LEAST_PATIENCE))
        try:
            await self._leaving.wait(left_until(end))
        except (OSError, RuntimeError) as error:
            self._logger.warning(
                "the ids of the sessions in memory could not be left in %s: %s",
                self._path,
                str(error) or NO_ANSWER,
            )


def _split(ids: bytes) -> list[bytes]:
    return [ids[at : at + ID_BYTES] for at in range(0, len(ids), ID_BYTES)]
