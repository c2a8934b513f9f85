"""`pgsession watch` shows what nodes tell each other, as it is heard."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final
from uuid import UUID

import click
import psycopg

from pgsession import ListenerError
from pgsession._database.connections import ADAPTERS
from pgsession._database.conninfo import listener_parameters, server_settings
from pgsession._database.statements import Statements
from pgsession._protocol import events, rules
from pgsession._protocol.events import Item
from pgsession._short_names import short_name, without_ids

from ._output import Output, Row, json_of, shown
from ._parameters import Target, full_ids, on_all, without_password

MOST: Final = 100
"""Lines in a second; what is more is counted, so that no flood reaches a terminal or a log."""

_FOREVER = 10.0**9


@click.command()
@click.option(
    "--seconds", type=click.FloatRange(0, min_open=True), metavar="N", help="End after so many seconds."
)
@click.option(
    "--beacons", is_flag=True, help="Show the notifications too that bring nothing but a proof of sync."
)
@click.option(
    "--listener-conninfo", metavar="CONNINFO", callback=without_password,
    help="Where to listen, else PGSESSION_LISTENER_CONNINFO, else DATABASE.",
)  # fmt: skip
@full_ids
@on_all
def watch(
    target: Target,
    output: Output,
    seconds: float | None,
    beacons: bool,
    listener_conninfo: str | None,
    full_ids: bool,
) -> int:
    """Show what nodes tell each other, as it is heard, until an interrupt.

    With --json it is one object a line, the first of kind "listening". Of more than 100 lines in a second the others
    are counted. Listening needs the rights of a service, and a connection past poolers to the primary.
    """
    if target.shards is not None:
        raise click.UsageError(
            "say which shard with --shard: they have a channel each", click.get_current_context()
        )
    place = listener_conninfo or target.config.listener_conninfo or target.conninfo
    if not isinstance(place, str):
        raise click.UsageError("the conninfo of the listener has to be a text", click.get_current_context())
    limit = math.ceil(rules.seconds("operation_timeout", target.config.operation_timeout))
    said = _Said(output.as_json)
    try:
        with psycopg.connect(
            **listener_parameters(place, connect_timeout=max(limit, 2)), autocommit=True, context=ADAPTERS
        ) as connection:
            with target.bounded(connection):
                _refuse_what_hears_nothing(connection)  # before a pooler gives others what is set
                connection.execute(server_settings(place))
            for row in _heard(connection, target, seconds or _FOREVER, beacons=beacons, full_ids=full_ids):
                said.say(row)
    except KeyboardInterrupt:  # which is how it ends
        pass
    said.tell_skipped()
    return 0


def _refuse_what_hears_nothing(connection: psycopg.Connection[Any]) -> None:
    ((process, standby),) = connection.execute(
        "SELECT pg_catalog.pg_backend_pid(), pg_catalog.pg_is_in_recovery()"
    )
    if process != connection.info.backend_pid:
        raise ListenerError(
            "this leads to a pooler that shares connections, behind which nothing is heard: name the server itself with"
            " --listener-conninfo"
        )
    if standby:
        raise ListenerError("the server is a standby, which cannot LISTEN: name the primary")


def _heard(
    connection: psycopg.Connection[Any], target: Target, seconds: float, *, beacons: bool, full_ids: bool
) -> Iterator[Row]:
    """Listen, and yield what is heard; again where the channel has got another name."""
    end = time.monotonic() + seconds
    listen = Statements(target.config.schema_name, target.config.table_prefix).listen
    moved = True
    while (left := end - time.monotonic()) > 0:
        if moved:
            with target.bounded(connection):
                connection.execute(listen, [events.EVENTS, True])
            moved = False
            yield _row("listening", None)
        notifications = connection.notifies(timeout=left)
        for notification in notifications:
            event = events.parse(notification.payload)
            origin = None if event.origin == events.PLAIN_SQL else event.origin
            if beacons and not event.items:
                yield _row("beacon", origin)
            for item in event.items:
                yield _of(item, origin, full_ids)
                moved = moved or isinstance(item, events.Moved)
            if moved:
                notifications.close()


def _of(item: Item, origin: str | None, full_ids: bool) -> Row:
    match item:
        case events.Changed(key, version):
            return _row("changed", origin, key=key, version=version, full_ids=full_ids)
        case events.Deleted(key):
            return _row("deleted", origin, key=key, full_ids=full_ids)
        case events.UserChanged(user_id):
            return _row("user_changed", origin, user_id=user_id)
        case events.GroupChanged(group_id):
            return _row("group_changed", origin, group_id=group_id)
        case events.Everything():
            return _row("everything_changed", origin)
        case events.LockReleased(resource):
            return _row("lock_released", origin, resource=resource, full_ids=full_ids)
        case events.LockEnded(resource, token):
            return _row("lock_ended", origin, resource=resource, token=token, full_ids=full_ids)
        case events.Moved():
            return _row("secret_rotated", origin)
        case events.Awaited():
            return _row("acknowledgement_asked_for", origin)


def _row(
    kind: str,
    origin: str | None,
    *,
    key: bytes | None = None,
    version: int | None = None,
    user_id: str | None = None,
    group_id: str | None = None,
    resource: str | None = None,
    token: int | None = None,
    skipped: int | None = None,
    full_ids: bool = False,
) -> Row:
    session = None if key is None else UUID(bytes=key)
    return {
        "time": datetime.now(UTC),
        "kind": kind,
        "node": origin,
        "session": None if session is None else str(session) if full_ids else short_name(session),
        "session_id": str(session) if session is not None and full_ids else None,
        "version": version,
        "user_id": user_id,
        "group_id": group_id,
        "resource": resource if resource is None or full_ids else without_ids(resource),
        "token": token,
        "skipped": skipped,
    }


class _Said:
    """Says each row on a line of its own, and so many in a second at most."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json
        self._second = 0
        self._lines = 0
        self._skipped = 0

    def say(self, row: Row) -> None:
        """Say a row, or count it where there were too many."""
        second = int(time.monotonic())
        if second != self._second:
            self.tell_skipped()
            self._second, self._lines = second, 0
        if self._lines < MOST:
            self._lines += 1
            self._say(row)
        else:
            self._skipped += 1

    def tell_skipped(self) -> None:
        """Say how many were counted and not said."""
        if self._skipped:
            self._say(_row("skipped", None, skipped=self._skipped))
        self._skipped = 0

    def _say(self, row: Row) -> None:
        click.echo(json_of(row) if self._as_json else _line(row))  # which flushes


def _line(row: Row) -> str:
    parts = [shown("time", row["time"]), str(row["kind"]).replace("_", " ")]
    for name in ("session", "version", "user_id", "group_id", "resource", "token", "skipped"):
        if row[name] is not None:
            parts.append(f"{name.removesuffix('_id')} {shown(name, row[name])}")
    if row["kind"] not in ("listening", "skipped"):
        parts.append(f"by node {row['node']}" if row["node"] else "by plain SQL")
    return "  ".join(parts)
