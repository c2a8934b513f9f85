"""A lent listener is had by those who listen at a time: it is opened for the first, and closed after the last."""

from __future__ import annotations

import threading
from collections.abc import Callable

from pgsession.errors import ListenerError

from .listener import AsyncListener


class AsyncLentListener:
    """Lends one listener to several who listen now and then, and has a connection only while somebody does.

    Args:
        make: Makes a listener, which is not open yet.
        given: Somebody's own listener, which is lent as it is: it is neither opened nor closed here.
    """

    def __init__(self, make: Callable[[], AsyncListener], given: AsyncListener | None = None) -> None:
        self._make = make
        self._given = given
        self._guard = threading.Lock()
        self._listener: AsyncListener | None = None
        self._borrowers = 0  # of that one
        self._closed = False

    async def borrow(self) -> AsyncListener:
        """Return the listener, open; the borrower gives it back.

        Raises:
            ListenerError, psycopg.Error: It cannot be opened, as `AsyncListener.open` says; there is nothing to give
                back then.
        """
        if self._given is not None:
            return self._given
        with self._guard:
            if self._closed:
                raise ListenerError("the manager was closed before it was in sync")
            if self._listener is None:
                self._listener, self._borrowers = self._make(), 0
            self._borrowers += 1
            listener = self._listener
        try:
            if not listener.connected:  # who is cancelled while he opens it closes it for all
                await listener.open()  # once, whoever waits for that
        except BaseException:
            with self._guard:
                if self._listener is listener:
                    self._listener = None  # it is of no use any more: who comes next has another
            raise
        return listener

    async def give_back(self, listener: AsyncListener, patience: float | None) -> None:
        """Have no need of a listener any more; after the last borrower it is closed, within so many seconds."""
        with self._guard:
            if self._listener is not listener:
                return
            self._borrowers -= 1
            if self._borrowers:
                return
            self._listener = None
        await listener.close(patience)

    async def close(self) -> None:
        """Close it, whoever has it, and lend no more."""
        with self._guard:
            self._closed = True
            listener, self._listener = self._listener, None
        if listener is not None:
            await listener.close(0)

    def finish(self) -> None:
        """Close its connection without the event loop."""
        self._closed = True
        listener = self._listener
        if listener is not None:
            listener._finish()
