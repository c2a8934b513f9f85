"""A server is what managers connect to: a pool, and a listener; the shards of one server share one."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from psycopg import AsyncConnection, OperationalError
from psycopg_pool import AsyncConnectionPool

from pgsession._concurrency import (
    GRACE,
    AsyncConninfoFunction,
    AsyncDeadlines,
    AsyncSharedFuture,
    deadline_in,
)
from pgsession._database import conninfo as conninfos
from pgsession._database import pool_log
from pgsession._database.script import limit_of
from pgsession._database.timelines import Timelines
from pgsession.config import Config
from pgsession.errors import OperationTimeout

from .citus_place import AsyncCitusPlace
from .conninfo import AsyncConninfo
from .lent_listener import AsyncLentListener
from .listener import AsyncListener
from .pool import AsyncPool, plain_cursor
from .store import servers_limit
from .synchronizer import LISTENING_WITHIN

CONNECT_TIMEOUT = 10  # seconds, where the conninfo says nothing
RECONNECT_DELAY = 0.5  # seconds between attempts of the pool; its own pauses double, and outlast the outage


class AsyncServer:
    """Holds the pool and the listener that the shards of one server share.

    It is opened once and closed once; after an `open` that has failed it is closed as well. `on_unfit` has what is
    called for each connection that is dead or leads to a standby. With `citus` the server changes: `database` is the
    function that says where it is. Where processes of the host share caches `listener` is None: those that lead borrow
    what is `lent`, and the others listen to nothing.
    """

    def __init__(
        self,
        database: str | AsyncConninfoFunction,
        listener_conninfo: str | AsyncConninfoFunction | None,
        config: Config,
        logger: logging.Logger,
        citus: AsyncCitusPlace | None = None,
    ) -> None:
        self._config = config
        self.placed = None if citus is None else citus.placed
        self._was_cut = False
        self._first_attempt: AsyncSharedFuture[None] = AsyncSharedFuture()
        self.in_sync_by = 0.0
        """Until when its shards, which are opened one after the other, wait for leaders that have no proof."""
        self._deadlines = AsyncDeadlines(logger)
        self.on_unfit: list[Callable[[], None]] = []
        self._logger = logger
        self._listens_at = database if listener_conninfo is None else listener_conninfo
        self._timelines = timelines = Timelines()
        self.lent = AsyncLentListener(self.new_listener)
        self.listener: AsyncListener | None = None
        self.conninfo = completed(database, timelines)
        self.pool = make_pool(config, self.conninfo, lambda: self._was_cut, self._first_attempt)
        self.connections = AsyncPool(
            self.pool,
            keeps=True,
            deadlines=self._deadlines,
            logger=logger,
            on_unfit=self._tell_unfit,
            **(
                {"superseded": timelines.superseded}
                if citus is None
                else {
                    "superseded": lambda connection: (
                        timelines.superseded(connection) or citus.superseded(connection)
                    ),
                    "meant": citus.meant,
                }
            ),
        )

    def _tell_unfit(self) -> None:
        for suspect in list(self.on_unfit):
            suspect()

    def new_listener(self) -> AsyncListener:
        """Return a listener of this server, which is not open yet."""
        return new_listener(self._listens_at, self._timelines, self._logger)

    async def open(self) -> None:
        """Connect the listener, where every process needs one, then the pool."""
        if self._config.shared_cache is None:
            self.listener = await self.lent.borrow()
        await open_pool(self._config, self.pool, self.connections, lambda: self._was_cut, self._first_attempt)
        self.in_sync_by = deadline_in(LISTENING_WITHIN)

    def cut(self) -> None:
        """Cut what is in use of the pool: whoever waits for an answer gets an error."""
        self._was_cut = True
        self._first_attempt.set_error(closed_meanwhile())
        self.connections.cut()

    async def close(self) -> None:
        """Close all connections."""
        self.cut()
        await self.connections.close()
        await self.lent.close()
        await self.pool.close(GRACE)
        await self._deadlines.close()

    def finish(self) -> None:
        """Close the connections without the event loop."""
        self._was_cut = True
        self.connections.finish()
        self.lent.finish()


def new_listener(
    given: str | AsyncConninfoFunction, timelines: Timelines, logger: logging.Logger
) -> AsyncListener:
    """Return a listener that its maker closes, which knows the same timelines as the pool."""
    listener = AsyncListener(
        given,
        health_check_interval=None,  # the beacons are better ones
        logger=logger,
    )._entrust()
    listener._loop.timelines.share(timelines)
    return listener


def completed(given: str | Callable[[], object], timelines: Timelines) -> AsyncConninfo:
    """Return what the connections of a pool are opened with."""
    complete = partial(conninfos.pool_parameters, connect_timeout=CONNECT_TIMEOUT)
    return AsyncConninfo(given, complete, patience=CONNECT_TIMEOUT, timelines=timelines)


def make_pool(
    config: Config,
    conninfo: AsyncConninfo,
    was_cut: Callable[[], bool],
    first_attempt: AsyncSharedFuture[None],
) -> AsyncConnectionPool[Any]:
    """Return a pool that nobody else uses, not open yet."""
    pool_log.quiet()
    return AsyncConnectionPool(
        connection_class=conninfo.connections(was_cut, first_attempt),
        kwargs={"autocommit": True},
        min_size=1,  # until it is known that one can be had
        max_size=1,  # who waits while it is opened makes it grow no further
        timeout=2 * CONNECT_TIMEOUT,
        name=pool_log.NAME,
        reconnect_timeout=RECONNECT_DELAY,
        reconnect_failed=_reconnect,
        configure=partial(_limit_statements, servers_limit(seconds_of(config.operation_timeout))),
        open=False,
    )


async def open_pool(
    config: Config,
    pool: AsyncConnectionPool[Any],
    connections: AsyncPool,
    was_cut: Callable[[], bool],
    first_attempt: AsyncSharedFuture[None],
) -> None:
    """Open a pool that `make_pool` has made; return once it has a connection."""
    end = time.monotonic() + 2 * CONNECT_TIMEOUT
    await pool.open()
    if was_cut():
        raise closed_meanwhile()
    # By itself the psycopg pool would try on, and nobody would hear what is wrong.
    try:
        await first_attempt.wait(end - time.monotonic())
    except TimeoutError:
        raise OperationTimeout("no connection was to be had in time; nothing was sent") from None
    async with connections.connection(end):
        pass  # `wait` of the pool would not see that it is closed meanwhile
    await pool.resize(config.pool_min_size, config.pool_max_size)


def closed_meanwhile() -> OperationalError:
    """Return the error of who was opening what has been closed."""
    return OperationalError("closed while it was opened")


async def _limit_statements(seconds: float, connection: AsyncConnection[Any]) -> None:
    """Have the server end what takes too long, so that no server process waits on for a caller who has gone.

    Not behind a pooler, where the next client would have the limit; and a shorter one of the role's stays.
    """
    milliseconds = limit_of(seconds)
    try:
        await plain_cursor(connection).execute(
            "SELECT pg_catalog.set_config('statement_timeout', %s, false) FROM pg_catalog.pg_settings s"
            " WHERE s.name OPERATOR(pg_catalog.=) 'statement_timeout'"
            " AND NOT (s.setting::integer BETWEEN 1 AND %s)"
            " AND pg_catalog.pg_backend_pid() OPERATOR(pg_catalog.=) %s",
            (str(milliseconds), milliseconds, connection.info.backend_pid),
            prepare=False,
        )
    except BaseException:
        connection.pgconn.finish()  # the psycopg pool would leave it open
        raise


async def _reconnect(pool: AsyncConnectionPool[Any]) -> None:
    """Have a pool that has given up begin anew, for those who wait already."""
    # Where some are available nobody waits; and `check` waits for those, without a bound.
    if not pool.get_stats()["pool_available"]:
        await pool.check()


def seconds_of(duration: timedelta | float) -> float:
    """Return a duration of `Config` in seconds."""
    return duration.total_seconds() if isinstance(duration, timedelta) else duration
