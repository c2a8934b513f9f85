"""Finds the server that a shard of Citus is on, and finds it again where it has moved."""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, Final, NamedTuple

import psycopg
from psycopg import AsyncConnection, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.errors import ReadOnlySqlTransaction

from pgsession._concurrency import AsyncMutex, async_sleep
from pgsession._database.shard_mark import ShardMark
from pgsession._database.statements import Statements
from pgsession._database.templates import MOVED, RELATIONS, Placed
from pgsession.errors import ConfigError, OperationTimeout, SchemaError
from pgsession.schema import async_adopt, moved_tables

from .conninfo import AsyncConninfo
from .lone_connections import AsyncLoneConnections
from .pool import plain_cursor

LOCAL: Final = "_local"  # after the name of the schema that moves: that of all else, on each server
ANSWERS_WITHIN: Final = 5.0  # seconds for the coordinator to say where a shard is
# Seconds that a server may take to make what is missing there, and to end a move that is under way.
MADE_WITHIN: Final = 12.0
ASKED_AGAIN: Final = 1.0  # seconds for which an answer of the coordinator is taken as it is
# Seconds for which a coordinator that cannot be reached is left alone, so that connections to a shard which is where it
# was come about as ever.
LEFT_ALONE: Final = 30.0
PAUSE: Final = 0.1  # seconds before it is looked for again
OLDEST: Final = 12  # the first version of Citus with sharding by schema

# What Citus does to statements about its tables is not to be done to ours, which name what is on the server itself. The
# fence has to see what was committed while it waited, whatever isolation a role has by default.
_OPTIONS: Final = (
    "-c citus.enable_ddl_propagation=off -c citus.enable_manual_changes_to_shards=on"
    " -c citus.override_table_visibility=off -c default_transaction_isolation=read\\ committed"
)
_VERSION: Final = "SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'citus'"
_SCHEMA: Final = """SELECT pg_catalog.obj_description(n.oid, 'pg_namespace'),
    EXISTS (SELECT FROM pg_catalog.pg_dist_schema d WHERE d.schemaid = n.oid)
    FROM pg_catalog.pg_namespace n WHERE n.nspname = %s"""
_WHERE: Final = """SELECT c.relname, s.shardid, d.nodename, d.nodeport, count(*) OVER (PARTITION BY s.logicalrelid)
    FROM pg_catalog.pg_dist_shard s
    JOIN pg_catalog.pg_class c ON c.oid = s.logicalrelid
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    JOIN pg_catalog.pg_dist_placement p ON p.shardid = s.shardid
    JOIN pg_catalog.pg_dist_node d ON d.groupid = p.groupid AND d.noderole = 'primary'
    WHERE n.nspname = %s"""
# The connection is to another server than the one that has the tables now, which may have been dropped there.
_GONE: Final = ("25006", "42P01", "XX000")


class _Found(NamedTuple):
    """Holds where a shard is: the address by which Citus knows the server, and the numbers of the tables."""

    host: str
    port: int
    placed: Placed


class AsyncCitusPlace:
    """Knows where one shard is, by asking the coordinator; has what is missing made there.

    Nothing is decided by what is known here: each statement asks the server itself whether the shard is there (see
    `fence.sql`). One that says no has the coordinator asked before the next connection is made.

    Args:
        coordinator: The conninfo of the coordinator, as for `CitusShards`.
        schema: The schema that moves.
        prefix: What the names of tables and functions begin with.
        mark: Which shard it is.
        creates: Whether the schema is made where there is none.
        logger: Is told of moves.
    """

    def __init__(
        self,
        coordinator: Any,
        schema: str,
        prefix: str,
        mark: ShardMark,
        *,
        creates: bool,
        logger: logging.Logger,
    ) -> None:
        self._coordinator = AsyncConninfo(coordinator, _nothing, patience=ANSWERS_WITHIN)
        self._schema = schema
        self._prefix = prefix
        self._mark = mark
        self._creates = creates
        self._logger = logger
        self._known: _Found | None = None
        self._asks_at = 0.0
        self._text = ""
        self._placed: Placed | None = None
        self.begin_anew()

    def begin_anew(self) -> None:
        """Have what is waited for, in this process."""
        self._asking = AsyncMutex()

    @property
    def placed(self) -> Placed:
        """Return the numbers of the tables, once it is open; they stay through moves."""
        assert self._placed is not None
        return self._placed

    async def open(self) -> None:
        """Find the shard; make it where there is none and that is wanted.

        Raises:
            ConfigError: There is no Citus, or what is there is another shard or not as it must be.
            SchemaError: There is no such shard; or as for `schema.create`.
            OperationTimeout: The coordinator, or the server, is silent.
            psycopg.Error: It cannot be reached.
        """
        if self._placed is None:
            async with self._connected(MADE_WITHIN) as connection:
                await self._check(connection)
        await self.conninfo()

    async def conninfo(self) -> str:
        """Return what a connection is made with, to where the shard is by now."""
        async with self._asking:
            if self._known is None or time.monotonic() >= self._asks_at:
                await self._look()
            return self._text

    async def _look(self) -> None:
        """Find the shard; again, where it has moved on before what was missing there was made."""
        end = time.monotonic() + MADE_WITHIN
        while True:
            try:
                found = await self._find()
            except (psycopg.OperationalError, OperationTimeout):
                if self._known is None:
                    raise
                self._asks_at = time.monotonic() + LEFT_ALONE
                return
            try:
                if found != self._known:
                    await self._arrive(found)
            except ReadOnlySqlTransaction:
                if time.monotonic() >= end:
                    raise
            else:
                self._asks_at = time.monotonic() + ASKED_AGAIN
                return
            await async_sleep(PAUSE)

    async def has_moved(self, since: str) -> bool:
        """Return True where connections lead elsewhere than `conninfo` has said; the coordinator is asked now."""
        async with self._asking:
            self._asks_at = 0.0
        return await self.conninfo() != since

    def superseded(self, connection: AsyncConnection[Any]) -> bool:
        """Return True unless this connection leads to where the shard is known to be."""
        known = self._known
        return known is None or not _leads_to(connection, known)

    def meant(self, connection: AsyncConnection[Any], error: psycopg.Error) -> psycopg.Error:
        """Return what an error means: that the shard has moved, or what it says."""
        if error.sqlstate not in _GONE:
            return error
        known = self._known
        if known is not None and _leads_to(connection, known):
            self._known = None
        if isinstance(error, ReadOnlySqlTransaction):
            return error
        return ReadOnlySqlTransaction("this shard has moved to another server")

    @asynccontextmanager
    async def _connected(
        self, seconds: float, conninfo: str | None = None
    ) -> AsyncIterator[AsyncConnection[Any]]:
        """Connect for a block, to the coordinator where nothing is given; cut it off once it has taken so long."""
        end = time.monotonic() + seconds
        if conninfo is None:
            conninfo = (await self._coordinator.parameters())["conninfo"]
        async with AsyncLoneConnections(conninfo, self._logger).connection(end) as connection:
            yield connection

    async def _check(self, connection: AsyncConnection[Any]) -> None:
        row = await _row(connection, _VERSION)
        if row is None or int(row[0].partition(".")[0]) < OLDEST:
            raise ConfigError(
                f"the coordinator has {'no Citus' if row is None else f'Citus {row[0]}'}: a version from {OLDEST} on is"
                " needed, which can shard by schema"
            )
        there = await _row(connection, _SCHEMA, self._schema)
        if there is None:
            if not self._creates:
                raise SchemaError(
                    f"there is no schema {self._schema!r}: set create_schema_if_missing, for a role that may make it"
                )
            try:
                await self._create(connection)
            except (psycopg.errors.DuplicateSchema, psycopg.errors.UniqueViolation):
                pass  # another one was first
            there = await _row(connection, _SCHEMA, self._schema)
        said, is_distributed = there or (None, False)
        if not is_distributed:
            raise ConfigError(f"schema {self._schema!r} is there already, and Citus does not distribute it")
        if said != str(self._mark):
            raise ConfigError(
                f"schema {self._schema!r} says that it is {said!r}, not {str(self._mark)!r}: the number of shards is"
                " fixed once it is there"
            )

    async def _create(self, connection: AsyncConnection[Any]) -> None:
        name = sql.Identifier(self._schema)
        async with connection.transaction():
            cursor = plain_cursor(connection)
            await cursor.execute("SET LOCAL search_path = pg_catalog, pg_temp")
            await cursor.execute("SET LOCAL citus.enable_schema_based_sharding = on")
            await cursor.execute(sql.SQL("CREATE SCHEMA {}").format(name))
            await cursor.execute(sql.SQL("COMMENT ON SCHEMA {} IS {}").format(name, str(self._mark)))
            for statement in moved_tables(self._schema, self._prefix):
                await cursor.execute(statement)

    async def _find(self) -> _Found:
        async with self._connected(ANSWERS_WITHIN) as connection:
            rows = await (await plain_cursor(connection).execute(_WHERE, (self._schema,))).fetchall()
        tables = {name: rest for name, *rest in rows}
        found = [tables.get(self._prefix + RELATIONS[short]) for short in MOVED]
        places = {(place[1], place[2]) for place in found if place is not None}
        if None in found or len(places) != 1 or any(place[3] != 1 for place in found if place is not None):
            raise ConfigError(
                f"schema {self._schema!r} does not have each of its tables once, and all on one server"
            )
        ((host, port),) = places
        return _Found(host, port, Placed(self._schema, *(place[0] for place in found if place is not None)))

    async def _arrive(self, found: _Found) -> None:
        """Have what is missing made on the server, and have connections lead there from now on."""
        if self._placed is not None and found.placed != self._placed:
            raise ConfigError(
                f"the tables of schema {self._schema!r} were made anew: start this process anew"
            )
        given = (await self._coordinator.parameters())["conninfo"]
        text = _led_to(given, found)
        statements = Statements(self._schema + LOCAL, self._prefix, found.placed)
        async with self._connected(MADE_WITHIN, text) as connection:
            came = await async_adopt(connection, statements)
        if self._placed is not None:
            self._logger.info(
                "shard %d is on %s:%d%s",
                self._mark.number, found.host, found.port, ", and has just come" if came else "",
                extra={"pgsession_event": "shard_moved", "pgsession_shard": self._mark.number},
            )  # fmt: skip
        self._known, self._text, self._placed = found, text, found.placed


def _nothing(text: str) -> dict[str, Any]:
    return {}


def _led_to(conninfo: str, found: _Found) -> str:
    """Return the conninfo of a server: what the coordinator's says of all but the address."""
    given = conninfo_to_dict(conninfo)
    for name in ("host", "hostaddr", "port", "target_session_attrs", "load_balance_hosts"):
        given.pop(name, None)
    options = f"{given.pop('options', None) or ''} {_OPTIONS}".strip()
    return make_conninfo("", **given, host=found.host, port=found.port, options=options)


def _leads_to(connection: AsyncConnection[Any], found: _Found) -> bool:
    libpq = connection.pgconn
    try:
        return (libpq.host, libpq.port) == (found.host.encode(), str(found.port).encode())
    except psycopg.OperationalError:  # it is closed
        return False


async def _row(connection: AsyncConnection[Any], query: str, *parameters: str) -> Any:
    return await (await plain_cursor(connection).execute(query.encode(), parameters or None)).fetchone()
