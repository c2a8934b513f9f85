# Generated from src/pgsession/_async/diagnosis.py by tools/async_to_sync.py: never edit.

"""A diagnosis sees what the database and a connection that listens are like, for `_protocol.diagnosis` to decide."""

from __future__ import annotations

import ipaddress
import logging
import math
import secrets
import time
from functools import partial
from typing import Any, LiteralString

import msgspec
import psycopg
from psycopg import errors as pg
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

from pgsession import schema
from pgsession._concurrency import Deadlines, sleep
from pgsession._database import diagnosis as asked
from pgsession._database.channels import for_each
from pgsession._database.connections import PlainCursor, lost_durability
from pgsession._database.conninfo import listener_parameters, to_listen
from pgsession._database.statements import Statements
from pgsession._protocol import rules
from pgsession._protocol.diagnosis import LONG_TRANSACTION, findings
from pgsession._protocol.diagnosis_facts import Connection, Facts, Heard, Schema, Server
from pgsession.config import Config
from pgsession.errors import ConfigError, OperationTimeout
from pgsession.infos import Finding

from .conninfo import Conninfo
from .listener_connection import ListenerConnection, Row
from .lone_connections import LoneConnections

PATIENCE = 3.0  # seconds for a commit, and for a notification
_LISTENER = 1  # connection of a node beside its pool's
_FULL = ("too many clients", "too many connections", "connection slots are reserved")

Query = LiteralString | psycopg.sql.Composed

_server = msgspec.json.Decoder(Server)


class Diagnosis:
    """Looks once, on a connection as the pool's and on one as the listener's; both are gone afterwards."""

    def __init__(self, database: str | ConnectionPool[Any], config: Config, logger: logging.Logger) -> None:
        self._database = database
        self._config = config
        self._logger = logger
        self._names = (config.schema_name, config.table_prefix)
        self._timeout = rules.seconds("operation_timeout", config.operation_timeout)
        self._patience = min(PATIENCE, self._timeout / 3)
        self._facts = Facts(needed=config.pool_max_size + _LISTENER)

    def findings(self) -> list[Finding]:
        """Return what came of each cause."""
        facts = self._facts
        for way in self._ways():
            try:
                with LoneConnections(way, self._logger).connection(
                    time.monotonic() + self._timeout
                ) as connection:
                    facts.failure = None
                    self._ask(connection)
            except (psycopg.Error, OperationTimeout) as error:
                facts.failure = _in_one_line(error)
                facts.too_many = any(words in facts.failure for words in _FULL)
            if facts.server is not None:
                break
        return findings(facts)

    def _ways(self) -> list[str | ConnectionPool[Any]]:
        """Return how to connect: as the pool does; and, where that finds no primary, to what there is."""
        if isinstance(self._database, str):
            return [self._database, make_conninfo(self._database, target_session_attrs="any")]
        return [self._database]

    def _ask(self, connection: psycopg.Connection[Any]) -> None:
        facts = self._facts
        server = self._look(connection)
        facts.connection = _seen(connection)
        facts.server = server
        if server.standby:
            facts.held = []
            return
        self._look_at_schema(connection)
        if server.synchronous_standbys:
            facts.durable = self._commit(connection)
        self._look_at_listener(connection)
        facts.held = sorted({*server.locks} & {*(self._look(connection)).locks})

    def _look(self, connection: psycopg.Connection[Any]) -> Server:
        with connection.transaction(), PlainCursor(connection) as cursor:
            cursor.execute(asked.TRUST_NO_PATH)
            before = time.time_ns()
            cursor.execute(asked.query(*self._names, LONG_TRANSACTION))
            after = time.time_ns()
            ((text,),) = cursor.fetchall()
        if self._facts.clock is None:
            self._facts.clock = (before + after) // 2000, (after - before) // 2000
        return _server.decode(text)

    # The tables

    def _look_at_schema(self, connection: psycopg.Connection[Any]) -> None:
        facts = self._facts
        try:
            found, version = schema.look(connection, *self._names)
            untrusted = None
            if found.owner is not None and not found.trusted:
                untrusted = str(schema.untrusted(*self._names, found.owner))
            facts.schema = Schema(
                owner=found.owner,
                untrusted=untrusted,
                version=version,
                newest=schema.latest_version(),
                missing=[name for kind in ("table", "function", "trigger") for name in found.missing(kind)],
                silent_triggers=found.silent_triggers(),
                public_functions=found.public_functions(),
                grants=found.grants(),
                init=schema.command(*self._names),
                granting=schema.command(*self._names, found.role),
            )
            if version is not None and not found.missing("table") and untrusted is None:
                facts.incarnation = self._has_incarnation(connection)
        except pg.LockNotAvailable:
            facts.tables_locked = True

    def _has_incarnation(self, connection: psycopg.Connection[Any]) -> bool:
        with connection.transaction(), PlainCursor(connection) as cursor:
            cursor.execute("SET LOCAL lock_timeout = 1000")
            cursor.execute(Statements(*self._names).where)
            ((incarnation,),) = cursor.fetchall()
        return incarnation is not None

    def _commit(self, connection: psycopg.Connection[Any]) -> bool:
        """Return False where a commit was not confirmed by a standby in time; nothing is changed by it."""
        warned: list[bool] = []

        def notice(diagnostic: pg.Diagnostic) -> None:
            warned.append(lost_durability(diagnostic))

        connection.add_notice_handler(notice)
        try:
            self._commit_in_time(connection, [asked.WARN, asked.WAIT, asked.WRITE])
        except pg.QueryCanceled:
            return False
        finally:
            connection.remove_notice_handler(notice)
        return not any(warned)

    def _commit_in_time(self, connection: psycopg.Connection[Any], statements: list[Query]) -> None:
        """Run a transaction, and cancel what it waits for after a while; a statement's limit ends before its commit."""
        deadlines = Deadlines(self._logger)
        try:
            with deadlines.within(self._patience, connection.cancel):
                with connection.transaction(), PlainCursor(connection) as cursor:
                    for statement in statements:
                        cursor.execute(statement)
        finally:
            deadlines.close()

    # The listener

    def _look_at_listener(self, connection: psycopg.Connection[Any]) -> None:
        facts = self._facts
        try:
            listener = self._listener()
        except (psycopg.Error, ConfigError) as error:
            facts.listener_failure = _in_one_line(error)
            return
        try:
            self._ask_listener(connection, listener)
        except (psycopg.Error, TimeoutError) as error:
            facts.listener_failure = _in_one_line(error)
        finally:
            listener.close()

    def _listener(self) -> ListenerConnection:
        end = time.monotonic() + self._timeout
        complete = partial(listener_parameters, connect_timeout=max(math.ceil(self._timeout), 2))
        conninfo: Any = to_listen(self._database, self._config.listener_conninfo)
        ways = Conninfo(conninfo, complete, patience=self._timeout)
        return ListenerConnection.connect(ways.connections(lambda: time.monotonic() > end))

    def _ask_listener(self, connection: psycopg.Connection[Any], listener: ListenerConnection) -> None:
        facts = self._facts
        ((standby, pid, place),) = listener.execute(asked.WHERE, None, self._timeout)
        facts.listener_connection = _seen(listener._connection)
        facts.listener_place = place
        facts.listener_standby = standby
        facts.listener_pooled = pid != listener.pid
        server = facts.server
        assert server is not None
        if not (standby or facts.listener_pooled) and place == server.place and facts.durable is not False:
            facts.heard = self._notify(connection, listener)

    def _notify(self, connection: psycopg.Connection[Any], listener: ListenerConnection) -> Heard | None:
        channel = f"pgsession_{secrets.token_hex(8)}"
        end = time.monotonic() + self._patience
        listener.execute(for_each("LISTEN {}", [channel]), None, self._timeout)
        try:
            self._commit_in_time(connection, [asked.HURRY, asked.notify(channel)])
        except pg.ProgramLimitExceeded:
            return None  # the queue is full, which is found by looking at it
        except pg.QueryCanceled:
            return Heard(False, "its commit did not end", self._patience)
        while True:
            listener.execute("SELECT", None, self._timeout)
            while (notification := listener.take()) is not None:
                if notification.channel == channel:
                    return Heard(True, None, self._patience)
            if time.monotonic() >= end:
                return Heard(False, None, self._patience)
            sleep(0.02)


def _seen(connection: psycopg.Connection[Row]) -> Connection:
    return Connection(
        local=_is_local(connection.info),
        encrypted=bool(connection.pgconn.ssl_in_use),
        sslmode=next(
            (
                option.val.decode()
                for option in connection.pgconn.info
                if option.keyword == b"sslmode" and option.val is not None
            ),
            "",
        ),
    )


def _is_local(info: psycopg.ConnectionInfo) -> bool:
    if not info.host or info.host.startswith(("/", "@")):
        return True
    try:
        return ipaddress.ip_address(info.hostaddr).is_loopback
    except ValueError:
        return False


def _in_one_line(error: BaseException) -> str:
    return "; ".join(line.strip() for line in str(error).splitlines() if line.strip())
