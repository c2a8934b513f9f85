"""A shard is a manager of one schema among several, which shares a server's connections with the others there."""

from __future__ import annotations

import logging
from typing import Any

import psycopg
from psycopg.errors import ReadOnlySqlTransaction

from pgsession._concurrency import AsyncBackgroundTasks, AsyncMutex, fork
from pgsession._database.shard_mark import ShardMark
from pgsession._protocol.operations import Operation
from pgsession._protocol.shards import key_in
from pgsession.config import Config
from pgsession.errors import DatabaseUnavailable, OperationTimeout, PgSessionError
from pgsession.tokens import Signer

from .citus_place import AsyncCitusPlace
from .manager import AsyncSessionManager
from .runtime import AsyncRuntime
from .server import AsyncServer, closed_meanwhile

DOWN = (psycopg.OperationalError, OperationTimeout, DatabaseUnavailable, TimeoutError)
_ATTEMPTS = 5  # to open a shard of Citus that moves meanwhile


class AsyncPlace:
    """Holds one server with its shards; it is opened again and again while the server is down.

    Attributes:
        shards: The shards that are there.
        server: The connections, None while there are none.
        reason: Why they are not all open, None where they are. The error itself would keep what it was raised in.
        background: Runs what calls about several shards do here.
    """

    def __init__(
        self,
        database: Any,
        listener_conninfo: Any,
        config: Config,
        logger: logging.Logger,
        citus: AsyncCitusPlace | None = None,
    ) -> None:
        self._database = database
        self._citus = citus
        self._listener_conninfo = listener_conninfo
        self._config = config
        self._logger = logger
        self.shards: list[AsyncShardManager] = []
        self.server: AsyncServer | None = None
        self.reason: str | None = None
        self.wanted = False  # since somebody has begun to open it
        self._opening = AsyncMutex()
        self._starting: AsyncServer | None = None  # while it is opened
        self._closed = False
        self.background = self._new_background()

    def _new_background(self) -> AsyncBackgroundTasks:
        # A thread for each shard: so many that no more are begun while these are ended.
        return AsyncBackgroundTasks(self._logger, most=max(len(self.shards), 1))

    def add(self, shard: AsyncShardManager) -> None:
        """Have another shard there."""
        self.shards.append(shard)
        self.background = self._new_background()

    @property
    def is_open(self) -> bool:
        """Return True while all of its shards are open."""
        return all(shard.is_open for shard in self.shards)

    async def open(self) -> None:
        """Open what is not open yet.

        Raises:
            Exception: What a manager's `open` raises.
        """
        self.wanted = True
        async with self._opening:
            try:
                if self._citus is None:
                    await self._open()
                else:
                    await self._open_where_it_is(self._citus)
            except Exception as error:
                self.reason = str(error)
                raise
            self.reason = None

    async def _open_where_it_is(self, citus: AsyncCitusPlace) -> None:
        """Open what may move meanwhile: then its pool and its listener are not on one server, and are made anew."""
        await citus.open()
        for left in range(_ATTEMPTS - 1, -1, -1):
            began_at = await citus.conninfo()
            try:
                return await self._open()
            except (psycopg.Error, PgSessionError) as error:
                if not left or self._closed:
                    raise
                if not isinstance(error, ReadOnlySqlTransaction) and not await citus.has_moved(began_at):
                    raise
                server, self.server = self.server, None
                if server is not None:
                    await server.close()

    async def _open(self) -> None:
        if self.server is None:
            server = AsyncServer(
                self._database, self._listener_conninfo, self._config, self._logger, self._citus
            )
            self._starting = server
            try:
                self._refuse_closed()  # `close` sees `_starting`, or is seen here
                await server.open()
                self.server = server
                self._refuse_closed()
            except BaseException:
                self.server = None
                await server.close()
                raise
            finally:
                self._starting = None
        for shard in self.shards:
            await shard.open()

    def _refuse_closed(self) -> None:
        if self._closed:
            raise closed_meanwhile()

    async def give_up_opening(self) -> None:
        """Open nothing any more; an `open` that is under way ends with an error, and leaves no connections."""
        self._closed = True
        server = self._starting
        if server is not None:
            await server.close()

    async def close(self) -> None:
        """Close the connections; the shards are closed."""
        await self.give_up_opening()
        server = self.server
        if server is not None:
            await server.close()

    def cut(self) -> None:
        """Cut the connections of the pool, for calls to end."""
        server = self.server
        if server is not None:
            server.cut()

    def after_fork(self) -> None:
        """Begin anew in the child of a fork."""
        fork.inherited.append(self.server)
        self.server = self._starting = None
        self._opening = AsyncMutex()
        self.background = self._new_background()
        if self._citus is not None:
            self._citus.begin_anew()


class AsyncShardManager(AsyncSessionManager):
    """Is the manager of one shard. What is the whole's, as being watched over, is left to the whole."""

    def __init__(
        self, place: AsyncPlace, mark: ShardMark, config: Config, signer: Signer | None, database: Any
    ) -> None:
        super().__init__(database, config, signer=signer)
        self.place = place
        self.mark = mark
        place.add(self)

    @property
    def is_open(self) -> bool:
        """Return True while it is open."""
        return self._runtime is not None

    @property
    def runtime(self) -> AsyncRuntime | None:
        """Return what it consists of while it is open."""
        return self._runtime

    def note_close(self) -> None:
        """Learn who it is that closes the whole."""
        runtime = self._runtime or self._closing
        if runtime is not None:
            runtime.note_close()

    def _new_runtime(self) -> AsyncRuntime:
        assert self.place.server is not None
        return AsyncRuntime(
            self._database,
            self._config,
            node=self._node,
            cache=self._cache,
            clock=self._clock,
            coherence=self._coherence,
            listener=self.place.server.listener,
            background=self._background,
            logger=self._logger,
            server=self.place.server,
            mark=self.mark if self.place.server.placed is None else None,  # Citus moves no comments
        )

    def _watch_over(self, runtime: AsyncRuntime) -> None:
        """Leave that to the whole."""

    def _new_key(self) -> bytes:
        return key_in(self.mark.number)

    @property
    def _waits_for_server(self) -> bool:
        return self._state == "new" and self.place.wanted

    def _after_fork(self) -> None:
        super()._after_fork()
        if self._waits_for_server:
            self._state = "forked"  # nobody opens it here but the first call

    async def _ready(self) -> AsyncRuntime:
        if self._runtime is None:
            if self._state == "forked":
                await self.place.open()
            elif self._waits_for_server:
                raise DatabaseUnavailable(
                    f"the server of shard {self.mark.number} has not been reached yet: {self.place.reason}"
                )
        return self._open_runtime()

    def _check_open(self) -> None:
        if not self._waits_for_server:
            super()._check_open()

    async def write(self, operation: Operation) -> Any:
        """Do a write of the whole's making."""
        return await self._write(await self._ready(), operation)
