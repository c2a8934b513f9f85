"""The synchronizer keeps a node in step: it hears of changes, and proves again and again that it would."""

from __future__ import annotations

import logging
from collections.abc import Callable

import psycopg
from psycopg import Notify
from psycopg import errors as pg

from pgsession._concurrency import AsyncBackgroundLoop, AsyncEvent, left_until
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._protocol.coherence import Coherence, LockChanges
from pgsession.errors import ListenerError, PgSessionError

from .listener import AsyncListener
from .store import AsyncStore
from .subscription import AsyncSubscription, Secret

LISTENING_WITHIN = 10.0  # seconds for a listener to begin to listen
_SECOND = 1_000_000
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

    The channels have names that follow from a secret of the database's: the listener learns them with each connection.
    When the secret changes, a last event on the old channel says so, and the listener is connected again.

    One background loop does everything that takes a round trip: after each (re)connection of the listener the resync,
    then a proof every `Coherence.proof_interval`. Events are applied as they come, also meanwhile.

    Args:
        listener: The listener, open; it stays its owner's.
        store: The database, through the pool.
        coherence: Decides what everything means for the cache.
        statements: The SQL of the tables that this node uses.
        node: The id of the node.
        clock_now: Returns node time, in microseconds.
        max_staleness: Seconds after which a question to the listener's server, or a first proof, is given up.
        on_lock_changes: Called with what an event says about locks.
        logger: Takes what an operator should know.
    """

    def __init__(
        self,
        listener: AsyncListener,
        store: AsyncStore,
        coherence: Coherence,
        statements: Statements,
        *,
        node: str,
        clock_now: Callable[[], int],
        max_staleness: float,
        on_lock_changes: Callable[[LockChanges], None],
        on_lost: Callable[[], None],
        logger: logging.Logger,
    ) -> None:
        self._listener = listener
        self._store = store
        self._coherence = coherence
        self._sql = statements
        self._node = node
        self._now = clock_now
        self._patience = max_staleness
        self._on_lock_changes = on_lock_changes
        self._tell_lost = on_lost
        self._logger = logger
        self._proofs = self._subscription(events.proofs(node), self._on_proof)
        self._events = self._subscription(events.EVENTS, self._on_event, self._on_connected, self._on_error)
        self._loop = AsyncBackgroundLoop(logger)
        self._stopping = AsyncEvent()
        self._wake = AsyncEvent()
        self._proved = AsyncEvent()
        self._hooked = False
        self._connected = False
        self._incarnation = ""
        self._since = 0  # the loss of the listener after which it was connected
        self._synced = -1  # the epoch for which the cache was compared with the database
        self.queue_usage = 0.0
        self.failure: str | None = None  # why the last step failed; None: it did not

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
            await self._listener._hear(self._proofs, LISTENING_WITHIN)
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
        proved = await self._prove_once(self._patience)
        if self._stopping.is_set():
            raise ListenerError("the manager was closed before it was in sync")
        if not proved:
            raise ListenerError(
                "a notification sent through the pool did not reach the listener: they must be connected to the same "
                "database" + _PAST_THE_POOLER
            )
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
        await self._unlisten(self._events, deadline)
        await self._unlisten(self._proofs, deadline)

    def give_up(self) -> None:
        """Begin nothing more; a `start` that is under way fails."""
        self._stopping.set()
        self._wake.set()
        self._proved.set()

    async def _unlisten(self, subscription: AsyncSubscription, deadline: float) -> None:
        try:
            await self._listener._stop_hearing(subscription, left_until(deadline))
        except (TimeoutError, psycopg.Error, PgSessionError):
            pass  # it has no connection, so it does not listen; or it stops once the server has answered

    def _subscription(
        self,
        label: str,
        on_notification: Callable[[Notify], object],
        on_out_of_sync: Callable[[str], object] | None = None,
        on_error: Callable[[str, Exception], object] | None = None,
    ) -> AsyncSubscription:
        secret = Secret(self._sql.listen, label)
        return AsyncSubscription("", on_notification, on_out_of_sync, on_error, None, secret)

    def reconnect(self) -> None:
        """Connect the listener again: the server that is read is not the one that is listened to."""
        self._coherence.on_lost()
        self._connected = False
        self._listener.reconnect()

    # What the listener tells

    def _on_event(self, notification: Notify) -> None:
        heard = self._coherence.on_event(notification.payload)
        if heard.locks.released or heard.locks.ended:
            self._on_lock_changes(heard.locks)
        if heard.moved:
            self.reconnect()

    def _on_proof(self, notification: Notify) -> None:
        if self._coherence.proof_returned(notification.payload):
            self._proved.set()

    def _on_lost(self) -> None:
        self._connected = False
        self._coherence.on_lost()
        self._tell_lost()

    def _on_error(self, channel: str, error: Exception) -> None:
        self.failure = _in_words(error)

    def _on_connected(self, channel: str) -> None:
        """Begin a resync: LISTEN is active again, and no notification has been delivered yet."""
        self._since = self._coherence.on_lost()
        self._connected = True
        self._wake.set()

    # What takes round trips

    async def _keep_in_step(self) -> None:
        delay = 0.05
        while not self._stopping.is_set():
            self._wake.clear()
            try:
                await self._step()
                self.failure = None
                delay = 0.05
                pause = self._coherence.proof_interval / _SECOND
            except (psycopg.Error, PgSessionError) as error:
                if self._stopping.is_set():
                    return
                self.failure = _in_words(error)
                self._logger.warning("not in sync with the database, trying again: %s", error)
                pause, delay = delay, min(delay * 2, 1.0, self._patience)
            except TimeoutError:
                self.failure = "the listener did not answer"
                self._logger.warning("the listener did not answer, connecting it again")
                self.reconnect()
                pause = delay
            await self._wake.wait(pause)

    async def _step(self) -> None:
        if not self._connected:
            return
        if self._coherence.listener_silent:
            raise TimeoutError
        if self._synced == self._coherence.epoch:
            await self._prove()
            await self._watch_queue()
        else:
            await self._synchronize()

    async def _synchronize(self) -> None:
        """Learn where LISTEN is active, compare what is cached, and prove that events arrive.

        The proof goes through the pool, and nothing else through the listener meanwhile: a transaction pooler passes
        notifications on together with the answer to a query.
        """
        since = self._since
        await self._refuse_what_cannot_work()
        self._incarnation = incarnation = await self._store.incarnate()
        if await self._incarnation_of_listener() != incarnation:
            self._listener.reconnect()
            raise ListenerError(_ELSEWHERE)
        if self._coherence.on_listening(incarnation, since=since) is None:
            raise ListenerError("the listener was lost while its server was asked which one it is")
        resync = self._coherence.resync_started()
        differing, answered_by = await self._store.resync(resync)
        if answered_by != incarnation:
            raise ListenerError("the database server changed during the resync")
        if self._coherence.resynced(resync, differing):
            self._synced = resync.epoch
            await self._prove()

    async def _refuse_what_cannot_work(self) -> None:
        pid = self._listener.pid
        rows = await self._listener.execute(_WHERE, (), timeout=self._patience)
        in_recovery, server_process = rows[0]
        if in_recovery:
            raise ListenerError(
                "the listener's server is a standby in recovery, where LISTEN cannot work: name the primary in "
                "Config.listener_conninfo, or add target_session_attrs=read-write"
            )
        # A pooler that shares connections gives its clients process ids of its own making.
        if server_process != pid and pid == self._listener.pid:
            raise ListenerError("the listener is connected to a pooler" + _PAST_THE_POOLER)

    async def _prove(self) -> None:
        proof = self._coherence.next_proof()
        try:
            asked = self._now()
            if proof.through_pool:
                database_time, incarnation = await self._store.prove(proof.payload)
            else:
                database_time, incarnation = await self._ask_listener(proof.payload)
            if incarnation != self._incarnation:
                self.reconnect()
                raise ListenerError("the tables were made anew, or the database server changed")
            self._coherence.clock_sample(asked, self._now(), database_time)
        except BaseException:
            self._coherence.proof_failed(proof)
            raise

    async def _prove_once(self, timeout: float) -> bool:
        """Wait for a proof; return True where one has come back in time."""
        return await self._proved.wait(timeout)

    async def _ask_listener(self, payload: str = "") -> tuple[int, str | None]:
        rows = await self._listener.execute(self._sql.proof, (self._node, payload), timeout=self._patience)
        return rows[0][0], rows[0][1]

    async def _incarnation_of_listener(self) -> str | None:
        try:
            return (await self._ask_listener())[1]
        except (pg.UndefinedFunction, pg.InvalidSchemaName):
            return None  # another database, where there are no tables of ours

    async def _watch_queue(self) -> None:
        rows = await self._listener.execute(self._sql.queue_usage, (), timeout=self._patience)
        self.queue_usage = float(rows[0][0])
        if self.queue_usage > _QUEUE_WARNING:
            self._logger.warning(
                "PostgreSQL's notification queue is %d %% full; a session that listens inside a long transaction "
                "holds it, and once it is full every write fails",
                self.queue_usage * 100,
            )


def _in_words(error: Exception) -> str:
    return str(error).strip() or type(error).__name__
