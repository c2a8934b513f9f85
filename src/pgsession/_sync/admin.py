# Generated from src/pgsession/_async/admin.py by tools/async_to_sync.py: never edit.

"""An admin is what operators, commands and admin pages call: it looks at all sessions and ends them."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any
from uuid import UUID

import msgspec
import psycopg
from psycopg_pool import ConnectionPool

from pgsession._concurrency import GRACE, BackgroundTasks
from pgsession._core.clock import to_datetime as _at
from pgsession._database.administration import Administration, Choice
from pgsession._database.conninfo import check_readable
from pgsession._database.script import Script
from pgsession._database.statements import Statements
from pgsession._protocol import rules
from pgsession._protocol.breaker import Breaker
from pgsession.config import Config
from pgsession.errors import OperationTimeout, WriteOutcomeUnknown
from pgsession.infos import Finding, LockInfo, NodeInfo, SessionInfo

from .diagnosis import Diagnosis
from .lone_connections import LoneConnections
from .prober import Prober
from .store import Store

SessionId = UUID | str | bytes

_LONGEST_PAGE = 1000
_sessions = msgspec.json.Decoder(
    list[tuple[UUID, str | None, str | None, int, int, int, int, int, int | None, dict[str, Any] | None]]
)
_locks = msgspec.json.Decoder(list[tuple[str, int, UUID | None, int, int]])
_nodes = msgspec.json.Decoder(list[tuple[str, int, int]])


class Admin:
    """Looks at sessions, locks and nodes, and ends them, for operators, commands and admin pages.

    It keeps no session in memory, listens to nothing and has nothing to open or close: each call makes a connection of
    its own, or borrows one from the pool that was given. What it ends the nodes hear of as of any other deletion.

    The role that it connects as needs rights on tables, and only for what is asked for: `USAGE` on the schema, `SELECT`
    on `sessions`, `session_locks` and `session_nodes` to look, on `session_attributes` for `with_values`; `DELETE` on
    `sessions` to `revoke` and on `session_locks` to `break_lock`. `rotate_secret` is for the owner of the tables. Where
    a right is missing, psycopg's `InsufficientPrivilege` names the table.

    No call takes longer than `Config.operation_timeout`; `revoke` takes that long for each step. Each may raise
    `OperationTimeout`, of which nothing was done, or psycopg's own errors, likewise; and one that ends something
    `WriteOutcomeUnknown`.

    Args:
        database: A conninfo ("postgresql://..." or "host=... dbname=..."), or a pool (`ConnectionPool`) that stays
            the caller's.
        config: As that of the managers; None: with the defaults of `Config`. Of use here are `schema_name`,
            `table_prefix`, `operation_timeout` and `logger`; for `diagnose` also `listener_conninfo` and
            `pool_max_size`.

    Raises:
        TypeError: An argument is of a wrong type.
        ConfigError: `database` is a str, and no conninfo.
    """

    def __init__(self, database: str | ConnectionPool[Any], config: Config | None = None) -> None:
        if isinstance(database, str):
            database = rules.conninfo_text("database", database)
            check_readable("database", database)
        else:
            rules.instance("database", database, ConnectionPool, "a conninfo or a pool (ConnectionPool)")
        config = Config() if config is None else rules.instance("config", config, Config, "a Config or None")
        self._database = database
        self._config = config
        self._timeout = rules.seconds("operation_timeout", config.operation_timeout)
        self._logger = config.logger or logging.getLogger("pgsession")
        self._sql = Administration(config.schema_name, config.table_prefix)
        self._statements = Statements(config.schema_name, config.table_prefix)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"

    # Sessions

    def list_sessions(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
        after: SessionId | None = None,
        limit: int = 100,
        with_values: bool = False,
    ) -> list[SessionInfo]:
        """Return a page of the live sessions that fit all that is given, in the order of their ids.

        Args:
            user_id: Those of this user.
            group_id: Those of this group.
            active_within: Those whose last access was written so many seconds (or a timedelta) ago or later.
            older_than: Those that were created so many seconds (or a timedelta) ago or earlier.
            session_id: The one of this id.
            after: The id of the last session of the page before, which may be gone; None: the first page.
            limit: How many at most, from 1 to 1000.
            with_values: True: with their attributes.
        """
        choice = _choice(user_id, group_id, active_within, older_than, session_id)
        key = rules.optional_session_id("after", after)
        limit = rules.count("limit", limit, 1, _LONGEST_PAGE)
        rules.boolean("with_values", with_values)
        behind = None if key is None else key.hex()
        script = self._sql.sessions(choice, behind, limit, values=with_values)
        rows = _sessions.decode(str((self._read(script))[0]))
        return [
            SessionInfo(
                id=id, user_id=user, group_id=group, version=version,
                created_at=_at(created), updated_at=_at(updated), last_accessed=_at(accessed), expires_at=_at(expires),
                include_inactivity=idle is not None,
                inactivity=None if idle is None else timedelta(microseconds=idle), attributes=attributes,
            )
            for id, user, group, version, created, updated, accessed, expires, idle, attributes in rows
        ]  # fmt: skip

    def count(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
    ) -> int:
        """Return the number of live sessions that fit all that is given.

        Args:
            user_id: As for `list_sessions`.
            group_id: As for `list_sessions`.
            active_within: As for `list_sessions`.
            older_than: As for `list_sessions`.
            session_id: As for `list_sessions`.
        """
        choice = _choice(user_id, group_id, active_within, older_than, session_id)
        return int((self._read(self._sql.count(choice)))[0])

    def revoke(
        self,
        *,
        user_id: str | int | UUID | None = None,
        group_id: str | int | UUID | None = None,
        active_within: timedelta | float | None = None,
        older_than: timedelta | float | None = None,
        session_id: SessionId | None = None,
    ) -> int:
        """End the sessions that fit all that is given, on every node, and their locks with them; return how many.

        At least one thing has to be given: all sessions are those with `older_than=0`. It goes in steps, and what is
        done stays done; the same call goes on with the rest.

        Args:
            user_id: As for `list_sessions`.
            group_id: As for `list_sessions`.
            active_within: As for `list_sessions`.
            older_than: As for `list_sessions`.
            session_id: As for `list_sessions`.

        Raises:
            OperationTimeout: A step was not done in time; `done` sessions had ended before.
            ValueError: Nothing is given.
        """
        choice = _some_choice(user_id, group_id, active_within, older_than, session_id)
        with self._store() as store:
            return store._walk(lambda after, options: self._sql.revoke(choice, after))

    # Locks and nodes

    def list_locks(self, *, after: str | int | UUID | None = None, limit: int = 100) -> list[LockInfo]:
        """Return a page of the locks that are held, in the order of their resources.

        Args:
            after: The resource of the last lock of the page before; None: the first page.
            limit: How many at most, from 1 to 1000.
        """
        behind = rules.optional_identifier("after", after)
        limit = rules.count("limit", limit, 1, _LONGEST_PAGE)
        rows = _locks.decode(str((self._read(self._sql.locks(behind, limit)))[0]))
        return [
            LockInfo(
                resource=resource, token=token, session_id=session,
                acquired_at=_at(acquired), expires_at=_at(expires),
            )
            for resource, token, session, acquired, expires in rows
        ]  # fmt: skip

    def break_lock(self, resource: str | int | UUID) -> bool:
        """End the lock on a resource, which its holder is told (`Lock.lost`); return True if somebody held it.

        Another can have it at once, which may be before its holder knows.

        Args:
            resource: The name of what is locked, as given to `lock`.
        """
        name = rules.identifier("resource", resource)
        with self._store() as store:
            return bool((store._run_between_others(self._sql.break_lock(name)))[0])

    def nodes(self) -> list[NodeInfo]:
        """Return the nodes that are registered, the oldest first."""
        rows = _nodes.decode(str((self._read(self._sql.nodes()))[0]))
        return [
            NodeInfo(node=node, registered_at=_at(registered), serves_for=timedelta(microseconds=serves_for))
            for node, registered, serves_for in rows
        ]

    def diagnose(self) -> list[Finding]:
        """Look for each cause that can keep a node from working, or from answering from memory; change nothing.

        Ask with what a node has: its role, for whose rights are looked at, its conninfo, and its `Config`, of which
        `listener_conninfo` and `pool_max_size` count too. It takes at most three times `Config.operation_timeout`, and
        raises nothing for a database that cannot be reached: that is a finding.

        Returns:
            What came of each cause, in the order in which they are best mended.
        """
        return Diagnosis(self._database, self._config, self._logger).findings()

    def rotate_secret(self) -> None:
        """Make another secret, from which the names of the nodes' channels follow, as after a leak.

        Each node reads from the database until its listener is connected again.
        """
        with self._store() as store:
            store._run_between_others(self._sql.rotate_secret())

    # Connections

    def _read(self, script: Script) -> Any:
        with self._store() as store:
            end = store.deadline()
            try:
                return store._run(script, end)
            except WriteOutcomeUnknown as error:  # a read has no outcome
                if store.is_late(end) or not isinstance(error.__cause__, psycopg.Error):
                    raise OperationTimeout("the database did not answer in time") from error
                raise error.__cause__ from None

    @contextmanager
    def _store(self) -> Iterator[Store]:
        """Make what one call needs, and leave nothing of it, so that no fork and no event loop's end does harm."""
        background = BackgroundTasks(self._logger, most=1)
        prober = Prober(
            Breaker(),
            None,
            ask_idle=_no,
            timeout=self._timeout,
            on_down=lambda: None,
            logger=self._logger,
        )
        try:
            yield Store(
                LoneConnections(self._database, self._logger),
                self._statements,
                node=secrets.token_hex(8),
                commit="plain",
                operation_timeout=self._timeout,
                limited=False,
                background=background,
                prober=prober,
            )
        finally:
            background.drain(GRACE)


_ANY = Choice(None, None, None, None, None)


def _choice(
    user_id: object, group_id: object, active_within: object, older_than: object, session_id: object
) -> Choice:
    key = rules.optional_session_id("session_id", session_id)
    return Choice(
        rules.optional_identifier("user_id", user_id),
        rules.optional_identifier("group_id", group_id),
        rules.optional_microseconds("active_within", active_within),
        rules.optional_microseconds("older_than", older_than),
        None if key is None else key.hex(),
    )


def _some_choice(
    user_id: object, group_id: object, active_within: object, older_than: object, session_id: object
) -> Choice:
    choice = _choice(user_id, group_id, active_within, older_than, session_id)
    if choice == _ANY:
        raise ValueError(f"{', '.join(Choice._fields)}: one of them is needed, not none")
    return choice


def _no() -> bool:
    return False
