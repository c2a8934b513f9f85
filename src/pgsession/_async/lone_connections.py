"""A lone connection is made for one call, or borrowed for it from a caller's pool: nothing is left between calls."""

from __future__ import annotations

import logging
import math
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, TypeVar

import psycopg
from psycopg import AsyncConnection
from psycopg_pool import AsyncConnectionPool

from pgsession._concurrency import AsyncDeadlines, Steps, async_connections_until
from pgsession._database import conninfo as conninfos
from pgsession._database.connections import shut
from pgsession.errors import OperationTimeout

from .pool import AsyncPool

T = TypeVar("T")


class AsyncLoneConnections:
    """Lends connections as `AsyncPool` does, each for one block: made for it, or taken from the caller's pool."""

    def __init__(self, database: str | AsyncConnectionPool[Any], logger: logging.Logger) -> None:
        self._database = database
        self._logger = logger

    @asynccontextmanager
    async def connection(self, end: float) -> AsyncIterator[AsyncConnection[Any]]:
        """Lend a connection for the block, and cut it if the block is not over by the moment `end`.

        Raises:
            OperationTimeout: There was none to be had in time, or it was cut.
            psycopg.Error: The database cannot be reached, or refuses.
        """
        deadlines = AsyncDeadlines(self._logger)
        try:
            if isinstance(self._database, str):
                async with self._made(self._database, end, deadlines) as connection:
                    yield connection
            else:
                pool = AsyncPool(
                    self._database, keeps=False, deadlines=deadlines, logger=self._logger, on_unfit=_nothing
                )
                async with pool.connection(end) as connection:
                    yield connection
        finally:
            await deadlines.close()

    async def run(self, connection: AsyncConnection[Any], steps: Steps[T]) -> T:
        """Return what one of psycopg's generators returns that uses a connection which is lent."""
        return await connection.wait(steps)

    @asynccontextmanager
    async def _made(
        self, conninfo: str, end: float, deadlines: AsyncDeadlines
    ) -> AsyncIterator[AsyncConnection[Any]]:
        connection = await _connect(conninfo, end)
        handle = socket.fromfd(connection.pgconn.socket, socket.AF_INET, socket.SOCK_STREAM)
        limit = deadlines.within(end - time.monotonic(), partial(shut, handle))
        try:
            with limit:
                yield connection
        except psycopg.Error as error:
            if limit.passed and error.sqlstate is None:
                raise OperationTimeout("the database did not answer in time") from error
            raise
        finally:
            handle.close()
            connection.pgconn.finish()


async def _connect(conninfo: str, end: float) -> AsyncConnection[Any]:
    late = partial(_passed, end)
    parameters = conninfos.pool_parameters(
        conninfo, connect_timeout=max(math.ceil(end - time.monotonic()), 2)
    )
    try:
        return await async_connections_until(late).connect(conninfo, autocommit=True, **parameters)
    except psycopg.Error as error:
        if late():
            raise OperationTimeout("no connection was to be had in time; nothing was sent") from error
        raise


def _passed(end: float) -> bool:
    return time.monotonic() >= end


def _nothing() -> None:
    pass
