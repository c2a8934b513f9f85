"""A socket waiter waits until something has come by a socket, or until it is woken."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading
from typing import Protocol


class Source(Protocol):
    """Has a socket, and reads what has come by it."""

    @property
    def fileno(self) -> int:
        """Return the descriptor of the socket; nobody else has it watched."""

    def receive(self) -> None:
        """Read what has come."""


class AsyncSocketWaiter:
    """Waits until a source has read something, `wake` is called or the time is over. One task waits at a time.

    The source's socket is entered into the event loop at the first wait, and stays there. What comes while nobody waits
    is left unread for the next wait, which enters it again.
    """

    def __init__(self) -> None:
        self._entered: tuple[Source, int, asyncio.AbstractEventLoop] | None = None
        self._ended: asyncio.Future[bool] | None = None
        self._woken = False

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once."""
        self._woken = True
        self._end(False)

    async def wait(self, source: Source | None, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where something was read. None: only for `wake`.

        Raises:
            Exception: What the source raised when it was to read.
        """
        loop = asyncio.get_running_loop()
        self._ended = loop.create_future()
        if source is not None and (self._entered is None or self._entered[0] is not source):
            self.leave()
            self._entered = source, source.fileno, loop
            loop.add_reader(source.fileno, self._receive, source)
        timer = None if timeout is None else loop.call_later(timeout, self._end, False)
        try:
            return not self._woken and await self._ended
        finally:
            self._ended = None
            self._woken = False
            if timer is not None:
                timer.cancel()

    def leave(self) -> None:
        """Have the source's socket watched no longer, before its descriptor is closed."""
        if self._entered is not None:
            _, fileno, loop = self._entered
            self._entered = None
            loop.remove_reader(fileno)

    def close(self) -> None:
        """Give back what it uses."""
        self.leave()

    def _receive(self, source: Source) -> None:
        # Here and not in the task that waits: until that runs, the event loop would tell of the same once more.
        if self._ended is None or self._ended.done():
            self.leave()
            return
        try:
            source.receive()
        except BaseException as error:
            self.leave()
            self._ended.set_exception(error)
            if not isinstance(error, Exception):
                raise
        else:
            self._end(True)

    def _end(self, read: bool) -> None:
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(read)


class SocketWaiter:
    """Waits until a source has read something, `wake` is called or the time is over. One thread waits at a time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        # The system's best: plain select() fails for descriptors above 1,023.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)
        self._entered: tuple[Source, int] | None = None

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once; harmless after `close`."""
        try:
            with self._guard:  # against a descriptor that `close` gave back and somebody else got
                self._mouth.send(b"!")
        except OSError:
            pass  # full: it wakes anyway; or closed

    def wait(self, source: Source | None, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where something was read. None: only for `wake`.

        Raises:
            Exception: What the source raised when it was to read.
        """
        if source is None:
            self.leave()
        elif self._entered is None or self._entered[0] is not source:
            self.leave()
            self._entered = source, source.fileno
            self._selector.register(source.fileno, selectors.EVENT_READ)
        ready = {key.fileobj for key, _ in self._selector.select(timeout)}
        if self._ear in ready:
            self._hear()
            ready.discard(self._ear)
        if not ready or source is None:
            return False
        source.receive()
        return True

    def leave(self) -> None:
        """Have the source's socket watched no longer, before its descriptor is closed."""
        if self._entered is not None:
            _, fileno = self._entered
            self._entered = None
            self._selector.unregister(fileno)

    def _hear(self) -> None:
        try:
            while self._ear.recv(4096):
                pass
        except BlockingIOError:
            pass

    def close(self) -> None:
        """Give back its descriptors."""
        with self._guard:
            self._selector.close()
            self._ear.close()
            self._mouth.close()
