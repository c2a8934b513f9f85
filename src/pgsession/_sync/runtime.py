# Generated from src/pgsession/_async/runtime.py by tools/async_to_sync.py: never edit.

"""A runtime is what an open manager consists of, put together and taken apart in the right order."""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any, TypedDict

import psycopg
from psycopg_pool import ConnectionPool

from pgsession._concurrency import (
    GRACE,
    AuditThread,
    BackgroundTasks,
    ConninfoFunction,
    Deadlines,
    Home,
    SharedFuture,
    deadline_in,
    left_until,
    sleep,
)
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._database import conninfo as conninfos
from pgsession._database.shard_mark import ShardMark
from pgsession._database.statements import Commit, Statements
from pgsession._database.timelines import Timelines
from pgsession._host.place import Place
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.breaker import Breaker
from pgsession._protocol.coherence import Coherence
from pgsession._protocol.meter import Meter
from pgsession.config import Config, microseconds_of
from pgsession.errors import ConfigError, DatabaseUnavailable, OperationTimeout, SchemaError
from pgsession.schema import check, check_mark, create
from pgsession.stats import Health

from .auditor import Auditor
from .conninfo import Conninfo
from .group_commit import GroupCommit
from .host import Host
from .last_accesses import write_last_accesses
from .lent_listener import LentListener
from .listener import Listener
from .lock_renewal import LockRenewal
from .maintenance import Maintenance
from .pool import Pool, plain_cursor
from .prober import CAN_WRITE, Prober
from .reads import Reads
from .server import (
    CONNECT_TIMEOUT,
    Server,
    closed_meanwhile,
    completed,
    make_pool,
    new_listener,
    open_pool,
    seconds_of,
)
from .store import CALLERS_PART, Store
from .synchronizer import LISTENING_WITHIN, Synchronizer
from .warm_start import WarmStart

OPENING = 6  # operation timeouts for creating the schema
PATIENCE_WHEN_DROPPED = 2  # seconds to close what was dropped
REPORTING = 5.0  # seconds, at most, for the audit events that wait when a manager is closed
PAUSE = 0.01  # seconds between two looks whether they are reported


class HostCounters(TypedDict):
    """Holds what `Stats` takes from one that shares the cache of its host, by the same names."""

    shared_sessions: int
    leader: bool
    failovers: int
    arena_resets: int
    shared_fallback_reason: str | None


NOTHING_SHARED = HostCounters(
    shared_sessions=0, leader=False, failovers=0, arena_resets=0, shared_fallback_reason=None
)


class RuntimeCounters(HostCounters):
    """Holds what `Stats` takes from an open manager, by the same names."""

    writes: int
    batches: int
    conflicts: int
    failed_writes: int
    written_accesses: int
    failed_access_batches: int
    cleanups: int
    deleted_sessions: int
    held_locks: int
    audit_events: int
    lost_audit_events: int
    warmed_sessions: int
    notification_queue_usage: float
    oldest_write: float
    nodes: int
    audited_sessions: int
    failed_audits: int
    in_sync: bool
    proof_age: float | None
    clock_error: float | None
    queued_writes: int
    pool_size: int
    pool_waiting: int


NOTHING_COUNTED = RuntimeCounters(
    writes=0, batches=0, conflicts=0, failed_writes=0, written_accesses=0, failed_access_batches=0,
    cleanups=0, deleted_sessions=0, held_locks=0, audit_events=0, lost_audit_events=0, warmed_sessions=0,
    notification_queue_usage=0.0, oldest_write=0.0, nodes=0, audited_sessions=0, failed_audits=0, in_sync=False,
    proof_age=None, clock_error=None, queued_writes=0, pool_size=0, pool_waiting=0,
    shared_sessions=0, leader=False, failovers=0, arena_resets=0, shared_fallback_reason=None,
)  # fmt: skip


class Runtime:
    """Puts the parts of one open manager together, opens them and closes them.

    A listener that is given is shared: it is used, not opened or closed. So are the connections of a `server`, which is
    open and has several runtimes. `mark` is what the tables have to say of themselves; None: nobody asks.
    """

    def __init__(
        self,
        database: str | ConninfoFunction | ConnectionPool[Any],
        config: Config,
        *,
        node: str,
        cache: Cache,
        clock: Clock,
        coherence: Coherence,
        listener: Listener | None,
        background: BackgroundTasks,
        logger: logging.Logger,
        server: Server | None = None,
        mark: ShardMark | None = None,
    ) -> None:
        self.home = Home()
        self._server = server
        self._mark = mark
        self._config = config
        self._database = database
        self._cache = cache
        self._background = background
        self._coherence = coherence
        self._logger = logger
        self._deadlines = Deadlines(logger)
        self._owns_pool = server is None and not isinstance(database, ConnectionPool)
        self._owns_listener = server is None and listener is None
        self._was_cut = False
        self._first_attempt: SharedFuture[None] = SharedFuture()  # of the pool's to connect
        placed = None if server is None else server.placed
        self.statements = Statements(config.schema_name, config.table_prefix, placed)
        self._timelines = Timelines() if listener is None else listener._loop.timelines
        self.listener = listener or self._new_listener()  # with a shared cache it stays closed
        self._lent = LentListener(self._new_listener, listener) if server is None else server.lent
        self._borrowed: Listener | None = None  # where the cache was to be shared, and is not
        if server is not None:
            self._conninfo: Conninfo | None = server.conninfo
            self.pool: ConnectionPool[Any] = server.pool
        elif isinstance(database, ConnectionPool):
            self._conninfo = None
            self.pool = database
        else:
            self._conninfo = completed(database, self._timelines)
            self.pool = make_pool(config, self._conninfo, lambda: self._was_cut, self._first_attempt)
        given = isinstance(database, ConnectionPool)
        most_connections = self.pool.max_size if given else config.pool_max_size
        self._breaker = Breaker()
        self._prober = Prober(
            self._breaker,
            _probes_conninfo(database, config),
            ask_idle=self._ask_idle,
            timeout=seconds_of(config.operation_timeout) / 4,
            on_down=self._on_down,
            node=node,
            logger=logger,
        )
        self._suspect = self._prober.suspect
        if server is not None:
            self.connections = server.connections
            server.on_unfit.append(self._suspect)
        else:
            self.connections = Pool(
                self.pool,
                keeps=self._owns_pool,
                deadlines=self._deadlines,
                logger=logger,
                on_unfit=self._suspect,
                superseded=self._timelines.superseded,
            )
        self.store = Store(
            self.connections,
            self.statements,
            node=node,
            commit=_commit(config),
            operation_timeout=seconds_of(config.operation_timeout),
            limited=not given,
            background=background,
            prober=self._prober,
            coherence=coherence,
            on_wrong_server=self._on_wrong_server,
        )
        self.meter = Meter(config.instrument, logger)
        self.audit = AuditLog(node, clock.database_now, active=config.on_audit_event is not None)
        self._audit_thread = AuditThread(self.audit, config.on_audit_event, logger)
        self.lock_renewal = LockRenewal(self.store, clock, logger, audit=self.audit, meter=self.meter)
        self._clock = clock
        self._serves_for = microseconds_of(config.max_staleness) + microseconds_of(config.stale_if_error)
        self._node = node
        self._own_synchronizer = self._synchronizer(self.listener, node)
        self._host: Host | None = None  # where the cache is shared, or was to be
        self._shares = False
        self.group_commit = GroupCommit(
            self.store,
            coherence,
            self._on_wrong_server,
            logger,
            deadlines=self._deadlines,
            most_stragglers=most_connections // 2,
            audit=self.audit,
            meter=self.meter,
        )
        self.reads = Reads(
            self.store,
            coherence,
            cache,
            deadlines=self._deadlines,
            most_statements=most_connections,
            on_wrong_server=self._on_wrong_server,
            on_evicted_accesses=lambda: self.maintenance.write_accesses_soon(),
            meter=self.meter,
            logger=logger,
        )
        self.warm_start = WarmStart(
            None if config.warm is None else os.fspath(config.warm), self.store, self.reads, cache, logger
        )
        self.maintenance = Maintenance(
            self.store,
            cache,
            access_interval=seconds_of(config.last_access_update_interval),
            access_batch=config.last_access_update_batch_size,
            cleanup_interval=seconds_of(config.cleanup_interval),
            audit=self.audit,
            meter=self.meter,
            logger=logger,
        )
        self.auditor = Auditor(
            self.store,
            coherence,
            cache,
            sample=config.audit_sample,
            check_schema=self._audit_schema,
            audit=self.audit,
            logger=logger,
        )

    def open(self, *, warm_up_first: bool) -> None:
        """Connect everything. After an error, or a `cut` meanwhile, what was begun is there to be closed.

        With `warm_up_first` it waits for the warm start; otherwise that goes on afterwards.
        """
        # The listener first: where nobody answers, it says so and within its time; a pool would try on.
        alone = self._config.shared_cache is None
        if alone and self._owns_listener:
            self.listener.open()
        if self._owns_pool:
            self._background.call(self._open_own_pool)
        self.store.look_for_pooler()
        self._check_schema()
        if alone:
            self._own_synchronizer.start()
        else:
            self._join_host()
        self._audit_thread.start()
        self.maintenance.start()
        self.auditor.start()
        if warm_up_first:
            self.warm_start.run()
        else:
            self.warm_start.start()

    def _join_host(self) -> None:
        config, mark = self._config, self._mark
        assert config.shared_cache is not None
        # Also for how long a proof holds: it does for all.
        longest = str(microseconds_of(config.max_staleness))
        common = (config.schema_name, config.table_prefix, self.store.identity(), longest)
        self._host = Host(
            Place(
                config.shared_cache, config.shared_cache_size, common, None if mark is None else mark.number
            ),
            self.store,
            self._coherence,
            self._cache,
            self._clock,
            serves_for=self._serves_for,
            lent=self._lent,
            make_synchronizer=self._synchronizer,
            on_lock_changes=self.lock_renewal.on_lock_changes,
            on_locks_missed=self.lock_renewal.on_locks_missed,
            alone=self._be_alone,
            logger=self._logger,
        )
        self._shares = True
        if self._was_cut:
            self._host.give_up()
        self._host.join(deadline_in(LISTENING_WITHIN) if self._server is None else self._server.in_sync_by)

    def _be_alone(self) -> None:
        """Listen for this process only, which has a cache of its own."""
        self._shares = False
        self.listener = self._borrowed = self._lent.borrow()
        self._own_synchronizer = self._synchronizer(self.listener, self._node)
        if self._was_cut:
            self._own_synchronizer.give_up()
        try:
            self._own_synchronizer.start()
        except Exception:
            self._end_alone(deadline_in(1.0))
            raise

    def _end_alone(self, deadline: float) -> None:
        self._own_synchronizer.stop(deadline)
        listener, self._borrowed = self._borrowed, None
        if listener is not None:
            self._lent.give_back(listener, left_until(deadline))

    def _new_listener(self) -> Listener:
        if self._server is not None:
            return self._server.new_listener()
        where = conninfos.to_listen(self._database, self._config.listener_conninfo)
        return new_listener(where, self._timelines, self._logger)

    def _synchronizer(
        self,
        listener: Listener,
        node: str,
        serves_for: Callable[[], int] | None = None,
        on_registered: Callable[[int, int, int], object] = lambda serves_for, longest, nodes: None,
    ) -> Synchronizer:
        return Synchronizer(
            listener,
            self.store,
            self._coherence,
            self.statements,
            clock_now=self._clock.now,
            database_now=self._clock.database_now,
            max_staleness=seconds_of(self._config.max_staleness),
            serves_for=serves_for or (lambda: self._serves_for),
            on_registered=on_registered,
            on_lock_changes=self.lock_renewal.on_lock_changes,
            on_lost=self._prober.suspect,
            node=node,
            meter=self.meter,
            logger=self._logger,
        )

    @property
    def synchronizer(self) -> Synchronizer:
        """Return that of this process; where another one leads its host it has nothing to do."""
        led = self._host.synchronizer if self._shares and self._host is not None else None
        return led or self._own_synchronizer

    @property
    def longest(self) -> int:
        """Return the longest that a node serves unheard, of those that are known of, in microseconds."""
        told = self._host.longest if self._shares and self._host is not None else 0
        return max(self.synchronizer.longest, told)

    def _on_wrong_server(self) -> None:
        if self._shares and self._host is not None:
            self._host.on_wrong_server()
        else:
            self._own_synchronizer.reconnect()

    def _open_own_pool(self) -> None:
        open_pool(self._config, self.pool, self.connections, lambda: self._was_cut, self._first_attempt)

    def close(self, deadline: float) -> None:
        """Finish what was accepted by the deadline, and cut what has not ended by then; nothing is left."""
        self.warm_start.leave()
        cutter = BackgroundTasks(self._logger, most=1)
        with self._deadlines.within(left_until(deadline), lambda: cutter.run(self.cut, "pgsession cut")):
            self._end(deadline + GRACE)
        self.cut()
        cutter.drain()
        self._deadlines.close()
        self.warm_start.wait_until_left(deadline)
        self._report_rest(deadline)

    def _report_rest(self, deadline: float) -> None:
        """Wait for the user's function to hear of all that has happened, for a bounded time."""
        end = max(min(deadline, deadline_in(REPORTING)), deadline_in(PAUSE))
        self._audit_thread.end()
        while not self._audit_thread.ended and time.monotonic() < end:
            if self._audit_thread.closes:
                return  # it goes on with what waits once this has returned
            sleep(PAUSE)
        self._audit_thread.give_up()

    def note_close(self) -> None:
        """Learn who it is that closes, before anything is done for him."""
        self.home.check()
        self._audit_thread.note_close()

    def cut(self) -> None:
        """Close all connections, and make no others: whoever waits for the database gets an error at once."""
        self._was_cut = True
        self._first_attempt.set_error(closed_meanwhile())
        self._prober.give_up()
        self.warm_start.give_up()
        self._own_synchronizer.give_up()
        if self._host is not None:
            self._host.give_up()
        if self._owns_listener:
            self._lent.close()
        if self._server is None:
            self.connections.cut()
            self.connections.close()
        elif self._suspect in self._server.on_unfit:
            self._server.on_unfit.remove(self._suspect)
        if self._owns_listener:
            self.listener.close(0)
        if self._owns_pool:
            self.pool.close(GRACE)

    def abandon(self, ended: Callable[[], None]) -> bool:
        """Begin to close what a manager was made of that was dropped; call `ended` once that is done."""
        return self.home.end(lambda: self.close(deadline_in(PATIENCE_WHEN_DROPPED)), self.finish, ended)

    def at_exit(self, deadline: float) -> None:
        """Write noted accesses before the interpreter exits, and end what would hold it up."""
        self._write_last_accesses(deadline)
        self.home.at_exit(self.cut)
        if self._host is not None:
            self._host.at_exit()
        self._audit_thread.end()
        self._audit_thread.wait(left_until(deadline))
        self._audit_thread.give_up()

    def finish(self) -> None:
        """Do what is possible without the event loop: write noted accesses, and close the connections."""
        self._write_last_accesses(deadline_in(PATIENCE_WHEN_DROPPED))
        self._was_cut = True
        if self._owns_pool:
            self.connections.finish()
        if self._owns_listener:
            self.listener._finish()
            self._lent.finish()
        if self._host is not None:
            self._host.at_exit()
        self._audit_thread.end()

    def _write_last_accesses(self, deadline: float) -> None:
        write_last_accesses(
            self._conninfo_at_exit,
            self.statements,
            self._cache,
            self._config.last_access_update_batch_size,
            self._logger,
            deadline,
        )

    def _conninfo_at_exit(self) -> str:
        if self._conninfo is not None:
            return self._conninfo.text_at_exit()
        return completed(
            conninfos.to_listen(self._database, self._config.listener_conninfo), self._timelines
        ).text_at_exit()

    def _end(self, deadline: float) -> None:
        """End all that runs: the writes first, while there is still a database. Cancel what is late."""
        self.group_commit.close(deadline)
        self.warm_start.stop(deadline)
        self.reads.close(deadline)
        self._prober.close(left_until(deadline))
        self.lock_renewal.close(deadline)
        self.auditor.stop(deadline)
        self.maintenance.stop(deadline)
        if self._host is not None:
            self._host.leave(deadline)
        self._end_alone(deadline)
        if self._owns_listener:
            self.listener.close(left_until(deadline))
        self._background.drain(left_until(deadline))

    def _ask_idle(self) -> bool:
        end = time.monotonic() + seconds_of(self._config.operation_timeout) / 4
        with self.connections.connection(end, patience=0) as connection:
            row = (plain_cursor(connection).execute(CAN_WRITE)).fetchone()
        return bool(row is not None and row[0])

    def _on_down(self) -> None:
        """Answer all who wait for a database that is down: it is known now what they would find out."""
        self.group_commit.refuse_waiting(self._breaker.error)
        for fill in self._coherence.fills():
            self._coherence.fail_fill(fill)  # so that nobody joins it once the database is back
            fill.future.set_error(self._breaker.error())

    @property
    def is_known_down(self) -> bool:
        """Return True while the database is known to be down."""
        return self._breaker.is_open

    def check_health(self, patience: float) -> Health:
        """Ask the database, for at most `patience` seconds, and tell whether this node can do its work."""
        age = self._coherence.proof_age
        started = time.perf_counter()
        failure: str | None = None
        try:
            self.store.ping(min(patience, (1 - CALLERS_PART) * self.store.timeout))
        except (psycopg.Error, OperationTimeout, DatabaseUnavailable) as error:
            failure = str(error).strip() or type(error).__name__
        took = time.perf_counter() - started
        pool = self.pool.get_stats()
        reason = self._why_not_healthy(failure)
        return Health(
            ready=failure is None or self._coherence.may_serve_stale,
            healthy=reason is None,
            reason=reason,
            in_sync=self._coherence.in_sync,
            proof_age=None if age is None else age / 1_000_000,
            listening=self._coherence.listening,
            database=failure,
            round_trip=took if failure is None else None,
            pool_size=pool.get("pool_size", 0),
            pool_waiting=pool.get("requests_waiting", 0),
            queued_writes=len(self.group_commit),
            oldest_write=self.group_commit.oldest_waiting,
        )

    def _why_not_healthy(self, failure: str | None) -> str | None:
        if failure is not None:
            return f"The database does not answer: {failure}"
        host = self._host
        if self._shares and host is not None and not host.leads:
            return host.why_out_of_sync
        return self.synchronizer.why_out_of_sync

    def _host_counters(self) -> HostCounters:
        host = self._host
        if host is None:
            return NOTHING_SHARED
        return {
            "shared_sessions": host.sessions if self._shares else 0,
            "leader": self._shares and host.leads,
            "failovers": host.failovers,
            "arena_resets": host.resets,
            "shared_fallback_reason": host.refused,
        }

    def counters(self) -> RuntimeCounters:
        """Return what `Stats` takes from here, by the same names."""
        age, error, pool = self._coherence.proof_age, self._coherence.clock_error, self.pool.get_stats()
        return {
            "writes": self.group_commit.writes,
            "batches": self.group_commit.batches,
            "conflicts": self.group_commit.conflicts,
            "failed_writes": self.group_commit.failures,
            "written_accesses": self.maintenance.written_accesses,
            "failed_access_batches": self.maintenance.failed_access_batches,
            "cleanups": self.maintenance.cleanups,
            "deleted_sessions": self.maintenance.deleted_sessions,
            "held_locks": len(self.lock_renewal),
            "audit_events": self._audit_thread.reported,
            "lost_audit_events": self.audit.lost,
            "warmed_sessions": self.warm_start.sessions,
            "notification_queue_usage": self.synchronizer.queue_usage,
            "oldest_write": self.group_commit.oldest_waiting or 0.0,
            "nodes": self.synchronizer.nodes
            or (self._host.nodes if self._shares and self._host is not None else 0),
            "audited_sessions": self.auditor.audited_sessions,
            "failed_audits": self.auditor.failed_audits,
            "in_sync": self._coherence.in_sync,
            "proof_age": None if age is None else age / 1_000_000,
            "clock_error": None if error is None else error / 1_000_000,
            "queued_writes": len(self.group_commit),
            "pool_size": pool.get("pool_size", 0),
            "pool_waiting": pool.get("requests_waiting", 0),
            **self._host_counters(),
        }

    def _check_schema(self) -> None:
        self._background.call(self._check_schema_apart)

    def _check_schema_apart(self) -> None:
        config = self._config
        end = time.monotonic() + OPENING * seconds_of(config.operation_timeout)
        with self.connections.connection(end) as connection:
            try:
                check(connection, self.statements)
            except SchemaError:
                if not config.create_schema_if_missing or self.statements.placed is not None:
                    raise
                create(connection, config.schema_name, config.table_prefix)
                check(connection, self.statements)
            if self._mark is not None:
                check_mark(connection, self.statements, self._mark)

    def _audit_schema(self) -> None:
        self._background.call(self._audit_schema_apart)

    def _audit_schema_apart(self) -> None:
        with self.connections.connection(self.store.deadline()) as connection:
            check(connection, self.statements)


def _probes_conninfo(database: Any, config: Config) -> Conninfo | None:
    """Return what a probe connects with, as the listener does where a pool computes its conninfo; None: not known.

    It has little time, and is not asked whether it is a former primary: whoever connects after it is.
    """
    try:
        given = conninfos.of_database(database)
    except ConfigError:
        if config.listener_conninfo is None:
            return None  # the listener is shared
        given = config.listener_conninfo
    complete = partial(conninfos.listener_parameters, connect_timeout=CONNECT_TIMEOUT)
    patience = seconds_of(config.operation_timeout) / 4
    return Conninfo(given, complete, patience=patience)


def _commit(config: Config) -> Commit:
    if not config.synchronous_commit:
        return "off"
    return "split" if config.notify_before_flush else "plain"
