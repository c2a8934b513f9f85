"""The audit thread calls the user's function with the events that wait, one after the other."""

from __future__ import annotations

import contextvars
import inspect
import logging
import threading
import time
from collections.abc import Callable
from typing import Final

from pgsession._counted import counted
from pgsession._protocol.audit_log import AuditLog
from pgsession.audit import AuditEvent

from .sync import Event, call

LOGGED_EVERY: Final = 60.0  # seconds, at most, for a function that raises

# Who runs inside a call of the function, be it a coroutine that the function hands to an event loop and waits for.
_INSIDE: Final[contextvars.ContextVar[object]] = contextvars.ContextVar("_INSIDE", default=None)


class AuditThread:
    """Is one thread for each open manager, for asyncio too: a function that takes its time takes nobody else's.

    Args:
        log: The events.
        function: The user's; None: there is no thread.
        logger: Hears of a function that raises, at a bounded rate.
    """

    def __init__(
        self, log: AuditLog, function: Callable[[AuditEvent], object] | None, logger: logging.Logger
    ) -> None:
        self.reported = 0
        self._log = log
        self._function = function
        self._logger = logger
        self._wake = Event()
        self._started = False
        self._ending = False
        self._ended = Event()
        self._call: object = None  # that is under way
        self._closing_call: object = None
        self._logged_at = -LOGGED_EVERY
        self._unlogged = 0

    def start(self) -> None:
        """Report from now on."""
        if self._function is not None:
            self._started = True
            self._log.on_put = self._wake.set
            threading.Thread(target=self._run, name="pgsession audit", daemon=True).start()

    def end(self) -> None:
        """Report what waits, and end."""
        self._ending = True
        self._wake.set()

    def note_close(self) -> None:
        """Learn whether it is the function itself that closes the manager: then nobody may wait for it."""
        call = _INSIDE.get()
        if call is not None and call is self._call:
            self._closing_call = call

    @property
    def closes(self) -> bool:
        """Return True while the function closes the manager."""
        return self._call is not None and self._call is self._closing_call

    @property
    def ended(self) -> bool:
        """Return True once nothing is being reported any more."""
        return not self._started or self._ended.is_set()

    def wait(self, seconds: float | None) -> None:
        """Wait until nothing is being reported any more, for so many seconds at most."""
        if self._started:
            self._ended.wait(seconds)

    def give_up(self) -> None:
        """Report nothing more; what waits is lost, and it is said how many were, for nobody can ask any more."""
        self.end()
        self._log.give_up()
        if self._log.lost:
            self._logger.warning(
                "on_audit_event was never called with %s: too many waited, or it took too long at the end",
                counted(self._log.lost, "event"),
            )

    def _run(self) -> None:
        assert self._function is not None
        try:
            while True:
                self._wake.clear()
                while (event := self._log.take()) is not None:
                    self._report(self._function, event)
                if self._ending:
                    return
                self._wake.wait()
        finally:
            self._ended.set()

    def _report(self, function: Callable[[AuditEvent], object], event: AuditEvent) -> None:
        self.reported += 1
        self._call = object()
        _INSIDE.set(self._call)
        try:
            result = call(function, event)
            if inspect.iscoroutine(result):
                result.close()
                raise TypeError("it must be a plain function, and has returned a coroutine")
        except Exception as error:
            self._note(error)
        finally:
            self._call = None

    def _note(self, error: Exception) -> None:
        now = time.monotonic()
        if now - self._logged_at < LOGGED_EVERY:
            self._unlogged += 1
            return
        self._logger.error(
            "on_audit_event raised an error%s",
            f", and {counted(self._unlogged, 'other')} since the last such line" if self._unlogged else "",
            exc_info=error,
        )
        self._logged_at, self._unlogged = now, 0
