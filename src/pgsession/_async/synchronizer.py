"""The synchronizer keeps a node in step: it hears of changes, and proves again and again that it would."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import cast

import psycopg
from psycopg import Notify
from psycopg import errors as pg

from pgsession._concurrency import (
    AsyncBackgroundLoop,
    AsyncCombiner,
    AsyncEvent,
    AsyncSharedFuture,
    deadline_in,
    left_until,
)
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._protocol.acknowledgements import SIGN_OF_LIFE
from pgsession._protocol.coherence import Coherence, LockChanges
from pgsession._protocol.log_rate import Seldom, States, times
from pgsession._protocol.meter import Meter
from pgsession.errors import ListenerError, PgSessionError

from .listener import AsyncListener
from .listener_connection import Command, Row
from .section import AsyncSection
from .store import AsyncStore
from .subscription import AsyncSubscription, Secret

LISTENING_WITHIN = 10.0  # seconds for a listener to begin to listen
_SECOND = 1_000_000
_SIGN_OF_LIFE = SIGN_OF_LIFE * _SECOND
_QUEUE_WARNING = (
    0.25  # of PostgreSQL's notification queue, which fails every notifying commit once it is full
)
_ELSEWHERE = "the listener and the pool are not connected to the same database"
_WHERE = "SELECT pg_catalog.pg_is_in_recovery(), pg_catalog.pg_backend_pid()"
_PAST_THE_POOLER = (
    ", and the listener must not go through a transaction pooler, which passes no notifications on: set "
    "Config.listener_conninfo to the server itself"
)


class AsyncSynchronizer:
    """Passes what a listener hears on to the cache's coherence.

    The channel has a name that follows from a secret of the database's: the listener learns it with each connection.
    When the secret changes, a last event on the old channel says so, and the listener is connected again.

    One background loop does everything that takes a round trip: after each (re)connection of the listener the resync,
    then a read of the database every `Coherence.read_interval`, with a beacon where one is wanted, and now and then the
    word that the node is still there. Events are applied as they come, also meanwhile.

    Args:
        listener: The listener, open; it stays its owner's.
        store: The database, through the pool.
        coherence: Decides what everything means for the cache.
        statements: The SQL of the tables that this node uses.
        clock_now: Returns node time, in microseconds.
        database_now: Returns database time, in microseconds.
        max_staleness: Seconds after which a question to the listener's server, or a first proof, is given up.
        serves_for: Returns for how many microseconds after its last proof the node may serve from memory, whatever
            happens.
        on_registered: Called with that once the others can know it, with the longest of any node, and their number.
        on_lock_changes: Called with what an event says about locks.
        on_lost: Called when the listener is lost.
        node: The id of the node, for the log.
        meter: Takes how long events were under way; None: nobody wants to know.
        logger: Takes what an operator should know.
    """

    def __init__(
        self,
        listener: AsyncListener,
        store: AsyncStore,
        coherence: Coherence,
        statements: Statements,
        *,
        clock_now: Callable[[], int],
        database_now: Callable[[], int] = lambda: 0,
        max_staleness: float,
        serves_for: Callable[[], int],
        on_registered: Callable[[int, int, int], object] = lambda serves_for, longest, nodes: None,
        on_lock_changes: Callable[[LockChanges], None],
        on_lost: Callable[[], None],
        node: str = "",
        meter: Meter | None = None,
        logger: logging.Logger,
    ) -> None:
        self._listener = listener
        self._store = store
        self._coherence = coherence
        self._section = AsyncSection(coherence)
        self._sql = statements
        self._now = clock_now
        self._database_now = database_now
        self._patience = max_staleness
        self._serves_for = serves_for
        self._on_registered = on_registered
        self._on_lock_changes = on_lock_changes
        self._tell_lost = on_lost
        self._node = node
        self._meter = meter if meter is not None and meter.active else None
        self._logger = logger
        self._states: States | None = None  # once it was in sync
        self._telling = threading.Lock()
        self._queue_warnings = Seldom()
        self._events = AsyncSubscription(
            "",
            self._on_notification,
            self._on_connected,
            self._on_error,
            None,
            Secret(statements.listen, events.EVENTS),
        )
        self._loop = AsyncBackgroundLoop(logger)
        self._stopping = AsyncEvent()
        self._wake = AsyncEvent()
        self._proved = AsyncEvent()
        self._asking: AsyncSharedFuture[list[Row]] = AsyncSharedFuture()
        self._hooked = False
        self._connected = False
        self._registered = False
        self.stays_registered = False
        """True: others serve by the same registration when this one has stopped."""
        self._sign_due = 0  # in node time
        self._mute: str | None = None  # why the last sign of life did not get through
        self._acknowledging = AsyncCombiner(self._acknowledge, "pgsession acknowledgement", logger)
        self._since = 0  # the loss of the listener after which it was connected
        self._synced = -1  # the epoch for which the cache was compared with the database
        self.queue_usage = 0.0
        self.failure: str | None = None  # why the last step failed; None: it did not
        self.nodes = 0
        self.longest = serves_for()
        """The longest that a node serves unheard, of those that this one has known of, in microseconds."""

    async def start(self) -> None:
        """Listen, and return once the node is in sync.

        Raises:
            ListenerError: Notifications that the pool sends do not reach the listener; the message says why that may
                be.
            psycopg.Error: There is no connection to the listener's server.
        """
        self._hooked = True
        self._listener.add_lost_hook(self._on_lost)
        await self._refuse_what_cannot_work()
        try:
            await self._register()
            self._since = self._coherence.on_lost()
            await self._listener._hear(self._events, LISTENING_WITHIN)
        except TimeoutError as error:
            raise ListenerError(
                f"the listener lost its connection, and had no other within {LISTENING_WITHIN} s"
            ) from error
        except (pg.UndefinedFunction, pg.InvalidSchemaName) as error:
            raise ListenerError(_ELSEWHERE) from error
        self._connected = True
        await self._synchronize()
        proved = await self._prove_first(deadline_in(self._patience))
        if self._stopping.is_set():
            raise _closed()
        if not proved:
            raise ListenerError(
                "a notification sent through the pool did not reach the listener: they must be connected to the same "
                "database" + _PAST_THE_POOLER
            )
        self._states = States()
        self._tell()
        self._loop.start(self._keep_in_step, "pgsession synchronizer")

    async def stop(self, deadline: float) -> None:
        """End the loop and stop listening, by the deadline; the listener stays its owner's."""
        self.give_up()
        await self._loop.stop(left_until(deadline))
        if not self._hooked:
            return
        self._hooked = False
        self._listener.remove_lost_hook(self._on_lost)
        self._coherence.on_lost()
        # Not waited for: it may be a callback of the listener's, of somebody else's channel, that closes the manager.
        self._listener._stop_hearing(self._events)
        await self._acknowledging.idle(left_until(deadline))
        await self._unregister(deadline)

    def give_up(self) -> None:
        """Begin nothing more; a `start` that is under way fails."""
        self._stopping.set()
        self._wake.set()
        self._proved.set()
        self._asking.set_error(_closed())

    async def _register(self, *, wait: bool = True) -> None:
        """Say that this node is there, which it must be before it may serve anything (C13)."""
        self._registered = True
        at = self._now()
        serves_for = self._serves_for()
        self.nodes, longest = await self._store.register(self._node, serves_for, wait=wait)
        self.longest = max(self.longest, longest)
        self._on_registered(serves_for, self.longest, self.nodes)
        self._sign_due = at + _SIGN_OF_LIFE
        async with self._section:
            on_time = self._coherence.registered(at)
        if not on_time:
            self.reconnect("this node was silent for too long")

    async def _give_sign_of_life(self) -> None:
        """Say that this node is still there; where that fails, serving ends in good time by itself."""
        try:
            await self._register(wait=False)
            self._mute = None
        except (psycopg.Error, PgSessionError) as error:
            self._sign_due = self._now() + self._serves_for() // 4
            self._mute = _in_words(error)
            self._logger.info("this node could not say that it is there, trying again: %s", error)

    async def _unregister(self, deadline: float) -> None:
        if self._registered and not self.stays_registered:
            try:
                await self._store.unregister(self._node, deadline)
            except (psycopg.Error, PgSessionError) as error:
                self._logger.info("this node stays registered until a cleanup: %s", error)

    def sign_soon(self) -> None:
        """Say again that the node is there, with what `serves_for` returns now."""
        self._sign_due = 0
        self._wake.set()

    def reconnect(self, why: str = _ELSEWHERE) -> None:
        """Connect the listener again: the server that is read is not the one that is listened to, or as it says."""
        self._coherence.on_lost()
        self._connected = False
        self.failure = why
        self._tell()
        self._listener.reconnect()

    @property
    def why_out_of_sync(self) -> str | None:
        """Return a sentence that says why reads are not answered from memory, None where they are."""
        if not self._coherence.listening:
            why = self.failure or "it is being connected"
            return f"Reads go to the database, for the listener does not listen: {why}"
        if not self._coherence.in_sync:
            why = self.failure or "no notification has come in time"
            return f"Reads go to the database, for this node cannot prove to be in sync: {why}"
        return None

    def _tell(self) -> None:
        """Log that reads are not answered from memory any more, and why, or that they are again."""
        if self._states is None or self._stopping.is_set():
            return
        with self._telling:  # so that what is noted last is how it is
            why = self.why_out_of_sync
            change = self._states.note(why is None)
        if change is None:
            return
        extra = {
            "pgsession_event": "in_sync" if change.well else "out_of_sync",
            "pgsession_node": self._node,
            "pgsession_reason": why,
            "pgsession_seconds": round(change.seconds, 3),
        }
        again = f"Reads are answered from memory again, after {change.seconds:.1f} s"
        self._logger.warning("%s%s", again if change.well else why, times(change.unheard), extra=extra)

    # What the listener tells

    async def _on_notification(self, notification: Notify) -> None:
        async with self._section:
            self._on_event(notification)

    def _on_event(self, notification: Notify) -> None:
        heard = self._coherence.on_event(notification.payload)
        if heard.sent and self._meter is not None:
            self._meter.note("event", max(0, self._database_now() - heard.sent) / _SECOND)
        if heard.locks.released or heard.locks.ended:
            self._on_lock_changes(heard.locks)
        if heard.moved:
            self.reconnect("the secret was rotated, and the channels have other names")
        if heard.asks:
            self._acknowledging.wake()
        if self._coherence.proved:
            self._proved.set()
            if self._states is not None and not self._states.quiet:
                self._tell()

    def _on_lost(self) -> None:
        self._connected = False
        self._coherence.on_lost()
        self._tell_lost()
        self._sign_due = 0  # a server that was replaced does not know of this node

    def _on_error(self, channel: str, error: Exception) -> None:
        self.failure = _in_words(error)
        self._tell()

    def _on_connected(self, channel: str) -> None:
        """Begin a resync: LISTEN is active again, and no notification has been delivered yet."""
        self._since = self._coherence.on_lost()
        self._connected = True
        self._wake.set()

    # What takes round trips

    async def _acknowledge(self) -> bool:
        """Tell who waits that all is applied here; he asks again where it does not get through."""
        applied = self._coherence.applied
        if applied is not None:
            try:
                await self._store.acknowledge(self._node, applied)
            except (psycopg.Error, PgSessionError) as error:
                self._logger.info("what others wait for could not be acknowledged: %s", error)
        return False

    async def _keep_in_step(self) -> None:
        delay = 0.05
        pause = self._coherence.read_interval / _SECOND
        while not self._stopping.is_set():
            await self._wake.wait(pause)
            self._wake.clear()
            try:
                await self._step()
                if self._connected:  # else it says why there is no connection
                    self.failure = self._mute
                delay = 0.05
                pause = self._coherence.read_interval / _SECOND
            except (psycopg.Error, PgSessionError) as error:
                if self._stopping.is_set():
                    return
                self.failure = _in_words(error)
                self._logger.info("a step of the synchronizer failed, trying again: %s", error)
                pause, delay = delay, min(delay * 2, 1.0, self._patience)
            except TimeoutError:
                self.reconnect("the listener did not answer")
                pause = delay
            self._tell()

    async def _step(self) -> None:
        if self._stopping.is_set():
            return
        if self._now() >= self._sign_due:  # also while there is no listener: reads are under way
            await self._give_sign_of_life()
        if not self._connected:
            return
        if self._coherence.listener_silent:
            raise TimeoutError
        if self._synced == self._coherence.epoch:
            await self._read()
        else:
            await self._synchronize()

    async def _synchronize(self) -> None:
        """Learn where LISTEN is active, compare what is cached, and ask for the proof that events arrive.

        All goes through the pool, and from here on nothing through the listener: a transaction pooler passes
        notifications on together with the answer to a query.
        """
        since = self._since
        await self._refuse_what_cannot_work()
        incarnation = await self._store.incarnate()
        if await self._incarnation_of_listener() != incarnation:
            self._listener.reconnect()
            raise ListenerError(_ELSEWHERE)
        await self._register()  # before anything enters the cache
        async with self._section:
            epoch = self._coherence.on_listening(incarnation, since=since)
        if epoch is None:
            if self._connected and since == self._since:
                self.reconnect()  # something else ended the epoch, and this connection stands for the one before
            raise ListenerError("the listener was lost while its server was asked which one it is")
        resync = self._coherence.resync_started()
        differing = await self._store.resync(resync)
        if differing is None:
            raise ListenerError("the database server changed during the resync")
        async with self._section:
            resynced = self._coherence.resynced(resync, differing)
        if resynced:
            self._synced = resync.epoch
            self._acknowledging.wake()  # what was asked for meanwhile
            await self._read()

    async def _refuse_what_cannot_work(self) -> None:
        pid = self._listener.pid
        rows = await self._ask_listener(_WHERE)
        in_recovery, server_process = rows[0]
        if in_recovery:
            raise ListenerError(
                "the listener's server is a standby in recovery, where LISTEN cannot work: name the primary in "
                "Config.listener_conninfo, or add target_session_attrs=read-write"
            )
        # A pooler that shares connections gives its clients process ids of its own making.
        if server_process != pid and pid == self._listener.pid:
            raise ListenerError("the listener is connected to a pooler" + _PAST_THE_POOLER)

    async def _read(self) -> None:
        """Read the database, and have a beacon sent where one is wanted."""
        epoch, asked = self._coherence.epoch, self._now()
        wanted = self._coherence.wanted_beacon()
        if wanted is None:
            database_time, self.queue_usage = await self._store.look()
        else:
            database_time = await self._store.send_beacon(wanted)
        if self._coherence.epoch != epoch:
            raise ListenerError(
                "the listener was lost, the tables were made anew, or the database server changed"
            )
        self._coherence.clock_sample(asked, self._now(), database_time)
        self._watch_queue()

    async def _prove_first(self, deadline: float) -> bool:
        """Wait for the first proof, asking for beacons meanwhile; return True where it has come in time."""
        while not (self._coherence.proved or self._stopping.is_set()):
            if await self._proved.wait(self._coherence.read_interval / _SECOND):
                break
            if not left_until(deadline):
                return False
            await self._read()
        return True

    async def _incarnation_of_listener(self) -> str | None:
        try:
            rows = await self._ask_listener(self._sql.where)
        except (pg.UndefinedTable, pg.InvalidSchemaName, pg.ReadOnlySqlTransaction):
            return None  # another database, where there are no tables of ours, or none any more
        return cast("str | None", rows[0][0])

    async def _ask_listener(self, query: Command) -> list[Row]:
        """Run a command on the listener's connection, unless the node is closed first."""
        asking: AsyncSharedFuture[list[Row]] = AsyncSharedFuture()
        self._asking = asking
        if self._stopping.is_set():
            raise _closed()
        return await self._listener._execute_unless(asking, query, self._patience)

    def _watch_queue(self) -> None:
        if self.queue_usage <= _QUEUE_WARNING:
            return
        others = self._queue_warnings.admit()
        if others is not None:
            self._logger.warning(
                "PostgreSQL's notification queue is %d %% full; a session that listens inside a long transaction "
                "holds it, and once it is full every write fails",
                self.queue_usage * 100,
                extra={"pgsession_event": "queue_filling", "pgsession_node": self._node},
            )


def _closed() -> ListenerError:
    return ListenerError("the manager was closed before it was in sync")


def _in_words(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__  # libpq's take several lines
