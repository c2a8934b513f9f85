"""A socket waiter waits for a socket, or to be woken."""

from __future__ import annotations

import asyncio
import selectors
import socket
import threading


class AsyncSocketWaiter:
    """Waits until a socket has something to read, `wake` is called or the time is over. One task waits at a time."""

    def __init__(self) -> None:
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once."""
        self._woken.set()

    async def wait(self, fileno: int | None, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where the socket can be read. None: only for `wake`."""
        readable = False

        def on_readable() -> None:
            nonlocal readable
            readable = True
            self._woken.set()

        loop = asyncio.get_running_loop()
        if fileno is not None:
            loop.add_reader(fileno, on_readable)
        try:
            async with asyncio.timeout(timeout):
                await self._woken.wait()
        except TimeoutError:
            pass
        finally:
            if fileno is not None:
                loop.remove_reader(fileno)
        self._woken.clear()
        return readable

    def close(self) -> None:
        """Give back what it uses, which is nothing here."""


class SocketWaiter:
    """Waits until a socket has something to read, `wake` is called or the time is over. One thread waits at a time."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._ear, self._mouth = socket.socketpair()
        self._ear.setblocking(False)
        self._mouth.setblocking(False)
        # The system's best: plain select() fails for descriptors above 1,023.
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._ear, selectors.EVENT_READ)

    def wake(self) -> None:
        """End the present `wait`, or else the next one at once; harmless after `close`."""
        try:
            with self._guard:  # against a descriptor that `close` gave back and somebody else got
                self._mouth.send(b"!")
        except OSError:
            pass  # full: it wakes anyway; or closed

    def wait(self, fileno: int | None, timeout: float | None = None) -> bool:
        """Wait for at most `timeout` seconds; return True where the socket can be read. None: only for `wake`."""
        if fileno is not None:
            self._selector.register(fileno, selectors.EVENT_READ)
        try:
            ready = {key.fd for key, _ in self._selector.select(timeout)}
        finally:
            if fileno is not None:
                self._selector.unregister(fileno)
        if self._ear.fileno() in ready:
            self._hear()
        return fileno in ready

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
