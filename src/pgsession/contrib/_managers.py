"""Event loops come and go, and a manager stays: which one serves which loop, and when each is opened and closed."""

from __future__ import annotations

import asyncio
import atexit
from asyncio import _get_running_loop as _running_loop  # None where there is none, without an exception
from collections.abc import Callable
from functools import partial
from typing import TypeVar

import anyio
import anyio.to_thread
from anyio.lowlevel import RunVar

from pgsession import AsyncSessionManager, Config, Session, SessionManager, Signer
from pgsession.contrib import _databases
from pgsession.contrib._databases import Database
from pgsession.contrib._first_use import FirstUse
from pgsession.web import Steps, run, run_async

__all__ = ["Managers"]

_T = TypeVar("_T")
_THREADS = 40  # for each event loop, and as many that wait for a session's turn: those must not keep its holder waiting
_limits: RunVar[dict[bool, anyio.CapacityLimiter]] = RunVar("pgsession")


class Managers:
    """Makes the steps of a rule by a manager that serves the running event loop.

    An `AsyncSessionManager` serves the one that it was opened in; a `SessionManager` serves all, and trio: what is in
    memory in place, the rest in a thread.

    Args:
        make: Returns the arguments of the managers that are opened here.
        given: The one that serves all; it is opened and closed elsewhere.
    """

    def __init__(
        self,
        make: tuple[Database, Config | None, Signer | None] | None,
        given: SessionManager | AsyncSessionManager | None,
    ) -> None:
        self._make = make
        self._given = given
        self._signing = given  # any of them, also once it is closed: they have one signer
        # By the loop that has opened it; None: the one for threads, of an application under trio.
        self._opened: dict[asyncio.AbstractEventLoop | None, SessionManager | AsyncSessionManager] = {}
        self._at_first_use = FirstUse(self._open_at_first_use)

    def token(self, session: Session) -> str | None:
        """Return a session's token, as the manager's method of this name does."""
        assert self._signing is not None, "one of them has given the session"
        return self._signing.token(session)

    def here(self) -> SessionManager | AsyncSessionManager | None:
        """Return the manager that serves the running loop; None where there is none yet."""
        if self._given is not None:
            return self._given
        return self._opened.get(_running_loop()) or self._opened.get(None) or self._at_first_use.made

    async def run(self, steps: Steps[_T], *, waits: bool = False) -> _T:
        """Make the steps: in place, or in a thread by a manager for threads.

        Where there is no manager yet, one is opened, which is closed when the process exits.

        Args:
            steps: The steps.
            waits: True: they may wait for other requests.
        """
        try:
            first = next(steps)
        except StopIteration as end:
            value: _T = end.value
            return value
        manager = self.here()
        if manager is None:
            manager = await _in_thread(self._at_first_use.get)
        if isinstance(manager, AsyncSessionManager):
            return await run_async(manager, steps, first)
        return await _in_thread(partial(run, manager, steps, first), waits=waits)

    async def open(self) -> None:
        """Open a manager for the running loop; one that was given is open."""
        loop = _running_loop()
        if self._make is None or loop in self._opened:
            return
        if loop is None:
            self._opened[None] = await _in_thread(self._open_for_threads)
            return
        manager = _databases.async_manager(*self._make)
        await manager.open()
        self._opened[loop] = self._signing = manager

    async def close(self) -> None:
        """Close the manager that `open` has opened in this loop, also for a caller who is cancelled."""
        manager = self._opened.pop(_running_loop(), None)
        with anyio.CancelScope(shield=True):
            if isinstance(manager, AsyncSessionManager):
                await manager.close()
            elif manager is not None:
                await _in_thread(manager.close)

    def _open_at_first_use(self) -> SessionManager:
        manager = self._open_for_threads()
        atexit.register(manager.close, 5)
        return manager

    def _open_for_threads(self) -> SessionManager:
        assert self._make is not None
        manager = _databases.manager(*self._make)
        manager.open()
        self._signing = manager
        return manager


async def _in_thread(function: Callable[[], _T], *, waits: bool = False) -> _T:
    """Call a function in a thread, and return what it returns also where the caller is cancelled meanwhile.

    anyio and trio have the cancellation wait for the thread. That of asyncio itself does not: a turn that was taken
    would be nobody's, and a save would go on after its request has ended its turn. So it waits here, too.
    """
    if _running_loop() is None:
        return await _call_in_thread(function, waits)
    cancelled = False
    with anyio.CancelScope(shield=True):
        call = asyncio.ensure_future(_call_in_thread(function, waits))
        while not call.done():
            try:
                await asyncio.wait([call])
            except asyncio.CancelledError:
                cancelled = True
    task = asyncio.current_task()
    if cancelled and task is not None:  # it is told where it waits next
        task.uncancel()
        task.cancel()
    return call.result()


async def _call_in_thread(function: Callable[[], _T], waits: bool) -> _T:
    try:
        limits = _limits.get()
    except LookupError:
        limits = {wait: anyio.CapacityLimiter(_THREADS) for wait in (False, True)}
        _limits.set(limits)
    return await anyio.to_thread.run_sync(function, limiter=limits[waits])
