# Generated from src/pgsession/_async/prober.py by tools/async_to_sync.py: never edit.

"""The prober looks whether the database is there, on a connection made for nothing else if it is let in."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable

import psycopg

from pgsession._concurrency import BackgroundTasks, Event, Thunk
from pgsession._protocol.breaker import Breaker
from pgsession._protocol.log_rate import States, times
from pgsession.errors import OperationTimeout

from .conninfo import Conninfo
from .listener_connection import ListenerConnection

CAN_WRITE = "SELECT NOT pg_catalog.pg_is_in_recovery()"


class Prober:
    """Probes whenever there is a suspicion, and then until the database is found; tells the breaker what it finds.

    Args:
        breaker: What decides.
        conninfo: What a probe connects with; None: nothing is known of that, and no suspicion is looked into.
        ask_idle: Returns what `CAN_WRITE` gives on an idle connection of the pool; raises at once where there is none.
        timeout: Seconds for a probe to connect to one host (libpq takes at least 2), and then to have an answer.
        on_down: Called once the database is known to be down.
        node: The id of the node, for the log.
        logger: The logger.
    """

    def __init__(
        self,
        breaker: Breaker,
        conninfo: Conninfo | None,
        *,
        ask_idle: Thunk[bool],
        timeout: float,
        on_down: Callable[[], None],
        node: str = "",
        logger: logging.Logger,
    ) -> None:
        self.breaker = breaker
        self._ask_idle = ask_idle
        self._timeout = timeout
        self._on_down = on_down
        self._node = node
        self._logger = logger
        self._states = States()
        self._background = BackgroundTasks(logger, most=1)
        self._stopping = Event()
        self._connections = None if conninfo is None else conninfo.connections(self._stopping.is_set)
        self._probing: ListenerConnection | None = None

    def suspect(self) -> None:
        """Have somebody look, if nobody does; callable from any thread of the library's own."""
        if self._connections is None or self._stopping.is_set() or not self.breaker.suspect():
            return
        self._background.run(self._probe_until_found, "pgsession probe")

    def give_up(self) -> None:
        """Probe no more; a probe that is under way fails."""
        self._stopping.set()
        probing = self._probing
        if probing is not None:
            probing.abort()

    def close(self, timeout: float | None) -> None:
        """Probe no more, and wait for a probe that is under way."""
        self.give_up()
        self._background.drain(timeout)

    def _probe_until_found(self) -> None:
        try:
            while not self._stopping.is_set():
                try:
                    self._probe()
                except (psycopg.Error, TimeoutError) as error:
                    pause = self._note(error)
                else:
                    self._found()
                    return
                self._stopping.wait(pause)
        finally:
            self.breaker.rest()

    def _probe(self) -> None:
        if not self._can_write():
            raise psycopg.OperationalError("the server is a standby in recovery")

    def _can_write(self) -> bool:
        assert self._connections is not None
        try:
            connection = ListenerConnection.connect(
                self._connections, connect_timeout=math.ceil(self._timeout)
            )
        except psycopg.errors.ConnectionTimeout:
            raise
        except psycopg.OperationalError as error:
            # Nobody may be let in any more (too many connections, a new password) while what is connected works.
            try:
                return self._ask_idle()
            except (psycopg.Error, OperationTimeout):
                raise error from None
        self._probing = connection
        try:
            rows = connection.execute(CAN_WRITE, None, self._timeout)
        finally:
            self._probing = None
            connection.close()
        return bool(rows[0][0])

    def _note(self, error: Exception) -> float:
        was_open = self.breaker.is_open
        pause = self.breaker.failed(error)
        if self.breaker.is_open:
            self._tell(" ".join(str(error).split()) or type(error).__name__)
            if not was_open:
                self._on_down()
        return pause

    def _found(self) -> None:
        self.breaker.found()
        self._tell(None)

    def _tell(self, why: str | None) -> None:
        """Log that the database is down, and why, or that it is back."""
        change = self._states.note(why is None)
        if change is None:
            return
        if why is None:
            text = f"The database is back, after {change.seconds:.1f} s"
        else:
            text = f"The database is down, and calls are refused until it is back: {why}"
        extra = {
            "pgsession_event": "database_down" if why else "database_back",
            "pgsession_node": self._node,
            "pgsession_reason": why,
            "pgsession_seconds": round(change.seconds, 3),
        }
        self._logger.warning("%s%s", text, times(change.unheard), extra=extra)
