"""Round trips to the server are made on a connection's socket, by generators of psycopg's kind."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from typing import Any, Final, TypeVar, cast

import psycopg
from psycopg.waiting import READY_R, READY_W, WAIT_R, WAIT_W

from .types import Steps

T = TypeVar("T")

_CANCEL: Final = 5.0  # seconds to tell the server that nobody waits for its answer any more


class AsyncRoundTrips:
    """Makes the round trips of one connection, one after the other.

    psycopg enters the socket into the event loop for each wait, sets a timer and takes both away again, which costs a
    lone statement more than all else of the driver. Here the socket is entered once, by a descriptor that nobody else
    enters or closes. What comes when nobody waits for it, such as the end of the connection, is left unread for whoever
    looks at the connection next, and the socket is not watched any more until the next round trip.
    """

    def __init__(self, connection: psycopg.AsyncConnection[Any], handle: socket.socket) -> None:
        self._connection = connection
        self._fileno = handle.fileno()
        self._loop = asyncio.get_running_loop()
        self._reads = False  # while the socket is watched for something to read, or for room to write
        self._writes = False
        self._steps: Steps[Any] | None = None
        self._answer: asyncio.Future[Any]

    async def run(self, steps: Steps[T]) -> T:
        """Return what the generator returns, or raise what it raises.

        Whoever is cancelled has the server told that nobody waits, and the generator closed.
        """
        try:
            waits_for = next(steps)
        except StopIteration as end:
            return cast(T, end.value)
        self._steps = steps
        self._answer = self._loop.create_future()
        try:
            self._watch(waits_for)
            return cast(T, await self._answer)
        except asyncio.CancelledError:
            self._steps = None
            with contextlib.suppress(Exception):
                await self._connection.cancel_safe(timeout=_CANCEL)
            raise
        finally:
            self._steps = None
            del self._answer  # an error would keep, by its traceback, all that its callers had
            steps.close()

    def close(self) -> None:
        """Watch the socket no longer, before its descriptor is closed."""
        if not self._loop.is_closed():
            self._watch(0)

    def _watch(self, events: int) -> None:
        reads, writes = bool(events & WAIT_R), bool(events & WAIT_W)
        if reads != self._reads:
            self._reads = reads
            if reads:
                self._loop.add_reader(self._fileno, self._go_on, READY_R)
            else:
                self._loop.remove_reader(self._fileno)
        if writes != self._writes:
            self._writes = writes
            if writes:
                self._loop.add_writer(self._fileno, self._go_on, READY_W)
            else:
                self._loop.remove_writer(self._fileno)

    def _go_on(self, ready: int) -> None:
        """Take the next step, here and not in the task that waits: it is woken once, by the whole answer."""
        if self._steps is None or self._answer.done():
            self._watch(0)
            return
        try:
            waits_for = self._steps.send(ready)
        except StopIteration as end:
            self._answer.set_result(end.value)
        except BaseException as error:
            self._answer.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._watch(waits_for)


class RoundTrips:
    """Makes the round trips of one connection, one after the other."""

    def __init__(self, connection: psycopg.Connection[Any], handle: socket.socket) -> None:
        self._connection = connection

    def run(self, steps: Steps[T]) -> T:
        """Return what the generator returns, or raise what it raises."""
        return self._connection.wait(steps)

    def close(self) -> None:
        """Give back what it uses, which is nothing here."""
