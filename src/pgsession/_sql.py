"""Every statement of the library, rendered once for a schema and a prefix.

Two kinds. All ids are text of 32 hex digits, all times int microseconds (of the Unix epoch, by the database's clock).

**Reads** are `str` with `%s` parameters, for the extended protocol (they may be prepared). One statement is one snapshot (C4), and
the answer is always exactly one row:

    read              (id, inactivity)            -> (incarnation | None, now, snapshot | None)
    list_user         (user_id, inactivity)       -> (incarnation | None, now, "[snapshot, ...]")  newest access first
    list_group        (group_id, inactivity)      -> likewise
    resync            (ids, versions)             -> (incarnation | None, now, bytes | None)  16 bytes for each id whose version differs
                                                     or that is gone; ids by `uuid_array`, versions by `integer_array`
    schema_version    ()                          -> (version,)  see pgsession.schema.check
    queue_usage       ()                          -> (float,)    how full the notification queue is, 0 to 1
    proof             (node, payload)             -> (now, incarnation | None)  notifies the node's own proof channel
    notify            (payload)                   -> (now,)      an event built by _events.payloads

A snapshot is JSON text: [id (36 characters), version, user_id, group_id | null, created, updated, accessed, expires, include_inactivity,
[[key, version, expires | null, <raw value>], ...]], live attributes only, in the order of their keys.

**Writes** are methods that return a script: several statements as one `str` without parameters, for the simple protocol
(`cursor.execute(script, prepare=False)` on an autocommit connection: one round trip). Every script is
`BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; [SET LOCAL lock_timeout ...;] SELECT ...; COMMIT` and what `commit` asks for; its answer
is the first result that returns rows (`while cursor.description is None: cursor.nextset()`), in it these columns, first:

    write(node, mark, batch)                      -> (text,)  the group commit, below
    touch(ids, accessed)                          -> (bytes | None,)  16 bytes for each id that somebody else had locked: try again
    delete_user(node, user_id, keep, after)       -> (last | None, deleted, skipped)   last: UUID
    delete_group(node, group_id, after)           -> likewise
    delete_all(node, after)                       -> likewise
    drop_attribute(node, user_id, key, after)     -> (last | None, changed, skipped)
    cleanup(node, what, inactivity, after)        -> (last | None, removed, busy)  what: "expired", "inactive", "attributes", "locks"
    acquire(resource, owner, lease, session_id, inactivity)
                                                  -> (acquired | None, token, expires, now)  None: no such live session
    renew(resource, owner, lease)                 -> (expires, now) or no row: not held, or over. Never shortens the lease
    release(node, resource, owner)                -> (held in time: bool,) or no row: was not held. Announces `l<resource>`
    incarnate()                                   -> (incarnation, started)  started: it was gone or old and was made anew

`after` starts at `NIL` and goes on with the `last` of the step before, until that is None: bounded steps, a transaction each. If any step
skipped rows, walk once more with `waiting=True` (and a `lock_timeout`). "expired", "attributes" and "locks" have no walk: repeat while
`removed` is the `size`.

`commit`, of every script:
    "split"  (default for writes that announce) the commit itself is asynchronous and a second, empty transaction makes it durable, so
             that the flush does not happen under the lock that notifying commits share. The callers' answer is that of the *last* result:
             only when the whole script has succeeded is the write durable. After an error, `current_setting('pgsession.batch', true)`
             equals `mark` if the first commit had happened (not through a transaction pooler).
    "plain"  one commit, as the server is configured
    "off"    asynchronous: may be lost in a crash of the server
`lock_timeout` (ms) bounds every wait for a row; it fails with 55P03.

The batch of `write` is JSON, `value` being the *JSON text in a string* (so that psql sees the spelling that the caller encoded):
    {"inactivity": us, "wait": bool (default false: rows locked by others are skipped and answered "locked"),
     "create": [[i, id, user_id, group_id | null, expires, include_inactivity, [[key, value, expires | null], ...],
                 max_sessions (0: no limit), "evict" | "reject", [[id, us], ...] pending touches of the user's sessions], ...],
     "update": [[i, id, base_version, null | "session" | "attributes", [[key, value, expires | null, base_attribute_version], ...],
                 [[key, base_attribute_version], ...], expires | null, include_inactivity | null, change_group: bool, group_id | null,
                 notify: bool, accessed | null, notify_on_conflict: bool], ...],
     "delete": [[i, id], ...]}
A missing list is an empty one. No id twice in a batch; a user may come twice. Answer:
    {"incarnation": text | null, "now": us,
     "create": [[i, "ok", snapshot] | [i, "too_many"] | [i, "locked"], ...],
     "update": [[i, "ok", version, updated, accessed, expires, snapshot | null] | [i, "gone"] | [i, "locked"]
                | [i, "session", current_version] | [i, "attributes", [key, ...]], ...],
     "delete": [[i, "ok"] | [i, "gone"] | [i, "locked"], ...]}
in any order within a list. The snapshot of an update is there iff the version before was not base_version. "gone" includes expired and
inactive. A create that evicts may be "locked": every session it could evict is being written to. Creates are not announced (nobody can know
their id yet), evictions are. With "wait" the batch should be one item, and have a lock_timeout.
Deadlocks are possible only with plain SQL (40P01): run the script again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from psycopg import sql

from pgsession import _events

NIL = "0" * 32
"""Where every walk in bounded steps begins."""

Commit = Literal["split", "plain", "off"]

_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_DURABLE = (
    "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; SELECT pg_logical_emit_message(true, 'pgsession', ''::text), "
    # A role's or a database's default of "off" must not slip through.
    "set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' "
    "ELSE current_setting('synchronous_commit') END, true); COMMIT"
)
_ASYNCHRONOUS = ", set_config('synchronous_commit', 'off', true)"
_RELATIONS = {
    "sessions": "sessions",
    "attributes": "session_attributes",
    "locks": "session_locks",
    "incarnation": "session_incarnation",
    "fencing": "session_fencing",
    "versions": "session_schema_version",
}
_FUNCTIONS = {
    "acquire": "session_lock_acquire",
    "after_delete": "session_after_delete",
    "after_truncate": "session_after_truncate",
    "announce": "session_announce",
    "announce_many": "session_announce_many",
    "attribute_edited": "session_attribute_edited",
    "cleanup": "session_cleanup",
    "delete_many": "session_delete_many",
    "drop_attribute": "session_drop_attribute",
    "hold": "session_hold",
    "incarnate": "session_incarnate",
    "lock_removed": "session_lock_removed",
    "note": "session_note",
    "page": "session_page",
    "raise_version": "session_raise_version",
    "send_noted": "session_send_noted",
    "snapshot": "session_snapshot",
    "touch": "session_touch",
    "write": "session_write",
}
LONGEST_NAME = max(map(len, [*_RELATIONS.values(), *_FUNCTIONS.values()]))


def uuid_array(keys: Iterable[bytes]) -> str:
    """Ids as one text parameter of type uuid[]: no Python object an id reaches the driver."""
    return "{" + ",".join([key.hex() for key in keys]) + "}"


def integer_array(numbers: Iterable[int]) -> str:
    """Integers as one text parameter of type bigint[]."""
    return "{" + ",".join(map(str, numbers)) + "}"


def names(schema: str, prefix: str) -> dict[str, sql.Composable]:
    """What stands for the placeholders of the migrations and of the statements here."""
    placeholders: dict[str, sql.Composable] = {
        short: sql.Identifier(schema, prefix + name) for short, name in (_RELATIONS | _FUNCTIONS).items()
    }
    placeholders["channel"] = sql.Literal(_events.events_channel(schema, prefix))
    placeholders["plain"] = sql.Literal(_events.PLAIN_SQL)
    placeholders["fencing_literal"] = sql.Literal(placeholders["fencing"].as_string())
    placeholders["moment_us"] = _microseconds("moment")
    placeholders["snapshot_of_session"] = _snapshot("session", "at").format(**placeholders)
    return placeholders


def relation_names(prefix: str) -> list[str]:
    """Every table and sequence that a schema of ours has, the table of versions last."""
    return [prefix + name for name in _RELATIONS.values()]


def _microseconds(timestamp: str) -> sql.SQL:
    return sql.SQL(f"(extract(epoch FROM {timestamp}) * 1000000)::bigint")


def _snapshot(row: str, moment: str) -> sql.SQL:
    times = ", ".join(
        _microseconds(f"{row}.{column}").as_string()
        for column in ("created_at", "updated_at", "last_accessed", "expires_at")
    )
    return sql.SQL(
        f"""json_build_array({row}.id, {row}.version, {row}.user_id, {row}.group_id, {times}, {row}.include_inactivity,
        coalesce((SELECT json_agg(json_build_array(a.key, a.version, {_microseconds("a.expires_at").as_string()}, a.value) ORDER BY a.key)
                  FROM {{attributes}} a WHERE a.session_id = {row}.id AND (a.expires_at > {moment}) IS NOT FALSE), '[]'))::text"""
    )


_INCARNATION = (
    "(SELECT i.incarnation::text FROM {incarnation} i WHERE i.started_at = pg_postmaster_start_time())"
)
_NOW = _microseconds("statement_timestamp()").as_string()
_LIVE = (
    "s.expires_at > statement_timestamp() AND (NOT s.include_inactivity"
    " OR s.last_accessed > statement_timestamp() - %s::bigint * interval '1 microsecond')"
)
_LIST = (
    f"SELECT {_INCARNATION}, {_NOW}, (SELECT '[' || coalesce(string_agg(x.snapshot, ',' ORDER BY x.accessed DESC), '') || ']'"
    " FROM (SELECT {snapshot_now} AS snapshot, s.last_accessed AS accessed FROM {sessions} s WHERE s.%(column)s = %%s AND "
)


class Statements:
    """The statements for one schema and prefix; see the module for what each takes and answers."""

    def __init__(self, schema: str = "public", prefix: str = "") -> None:
        self._names = names(schema, prefix)
        self._names["snapshot_now"] = _snapshot("s", "statement_timestamp()").format(**self._names)
        self.events_channel = _events.events_channel(schema, prefix)
        self.schema = schema
        self.prefix = prefix
        self.read = self._render(
            f"SELECT {_INCARNATION}, {_NOW}, (SELECT {{snapshot_now}} FROM {{sessions}} s WHERE s.id = %s::uuid AND {_LIVE})"
        )
        self.list_user = self._render(_LIST % {"column": "user_id"} + _LIVE + ") x)")
        self.list_group = self._render(_LIST % {"column": "group_id"} + _LIVE + ") x)")
        self.resync = self._render(
            f"SELECT {_INCARNATION}, {_NOW}, (SELECT string_agg(uuid_send(c.id), '') FROM unnest(%s::uuid[], %s::bigint[]) c(id, version)"
            " LEFT JOIN {sessions} s ON s.id = c.id WHERE s.version IS DISTINCT FROM c.version)"
        )
        self.schema_version = self._render("SELECT coalesce(max(v.version), 0) FROM {versions} v")
        self.queue_usage = "SELECT pg_notification_queue_usage()"
        self.notify = self._render(f"SELECT {_NOW} FROM pg_notify({{channel}}, %s)")
        self.proof = self._render(
            f"SELECT {_NOW}, {_INCARNATION} FROM pg_notify({{channel}} || '_' || %s, %s)".replace(
                "statement_timestamp()", "clock_timestamp()"
            )
        )
        self._functions = {name: self._names[name].as_string() for name in _FUNCTIONS}
        self._renew = self._render(
            "UPDATE {locks} l SET expires_at = greatest(l.expires_at, clock_timestamp() + %s * interval '1 microsecond')"
            " WHERE l.resource = %s AND l.owner = %s AND l.expires_at > clock_timestamp()"
            f" RETURNING {_microseconds('l.expires_at').as_string()}, {_microseconds('clock_timestamp()').as_string()}"
        )
        # The setting keeps the trigger quiet that announces plain SQL; the join makes it true before the row goes.
        self._release = self._render(
            "WITH o AS MATERIALIZED (SELECT set_config('pgsession.own', 'on', true) AS own),"
            " g AS (DELETE FROM {locks} l USING o WHERE l.resource = %s AND l.owner = %s AND o.own = 'on'"
            " RETURNING l.expires_at > clock_timestamp() AS held)"
            f" SELECT g.held{_ASYNCHRONOUS} FROM g CROSS JOIN LATERAL pg_notify({{channel}}, %s)"
        )

    def write(
        self, node: str, mark: str, batch: str, *, commit: Commit = "split", lock_timeout: int = 0
    ) -> str:
        """The group commit."""
        return self._call("write", (node, mark, batch), commit, lock_timeout)

    def touch(self, ids: str, accessed: str, *, commit: Commit = "plain") -> str:
        """The flush of noted accesses; `ids` by `uuid_array`, `accessed` by `integer_array`."""
        return self._call("touch", (ids, accessed), commit, 0)

    def delete_user(
        self,
        node: str,
        user_id: str,
        keep: str | None = None,
        after: str = NIL,
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        """One step through a user's sessions."""
        return self._call(
            "delete_many", (node, "user", user_id, keep, after, size, waiting), commit, lock_timeout
        )

    def delete_group(
        self,
        node: str,
        group_id: str,
        after: str = NIL,
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        """One step through a group's sessions."""
        return self._call(
            "delete_many", (node, "group", group_id, None, after, size, waiting), commit, lock_timeout
        )

    def delete_all(
        self,
        node: str,
        after: str = NIL,
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        """One step through all sessions."""
        return self._call(
            "delete_many", (node, "all", None, None, after, size, waiting), commit, lock_timeout
        )

    def drop_attribute(
        self,
        node: str,
        user_id: str,
        key: str,
        after: str = NIL,
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        """One step through a user's sessions, removing one attribute."""
        return self._call("drop_attribute", (node, user_id, key, after, size, waiting), commit, lock_timeout)

    def cleanup(
        self,
        node: str,
        what: Literal["expired", "inactive", "attributes", "locks"],
        inactivity: int,
        after: str = NIL,
        *,
        size: int = 2000,
        commit: Commit = "off",
    ) -> str:
        """One step of the cleanup. What a crash loses of it is done again by the next one."""
        return self._call("cleanup", (node, what, inactivity, after, size), commit, 0)

    def acquire(self, resource: str, owner: str, lease: int, session_id: str | None, inactivity: int) -> str:
        """Take a lock that is free or whose lease is over."""
        return self._call("acquire", (resource, owner, lease, session_id, inactivity), "plain", 0)

    def renew(self, resource: str, owner: str, lease: int) -> str:
        """Let the lease end `lease` from now, or later where it already does."""
        return _script(self._renew % _literals((lease, resource, owner)), "plain")

    def release(self, node: str, resource: str, owner: str) -> str:
        """Give a lock back. Lost in a crash, it would only last until its lease is over."""
        payload = f"{node} {_events.encode(_events.LockReleased(resource))}"
        return _script(self._release % _literals((resource, owner, payload)), "off")

    def incarnate(self) -> str:
        """Read, or make, the incarnation of the server."""
        return self._call("incarnate", (), "plain", 0)

    def _call(
        self, function: str, arguments: tuple[_Argument, ...], commit: Commit, lock_timeout: int
    ) -> str:
        call = f"{self._functions[function]}({', '.join(_literals(arguments))})"
        return _script(
            f"SELECT f.*{'' if commit == 'plain' else _ASYNCHRONOUS} FROM {call} f", commit, lock_timeout
        )

    def _render(self, template: str) -> str:
        # The driver, and our own formatting, take a single % for a parameter.
        rendered = {name: sql.SQL(part.as_string().replace("%", "%%")) for name, part in self._names.items()}
        return sql.SQL(template).format(**rendered).as_string()


_Argument = str | int | bool | None


def _script(statement: str, commit: Commit, lock_timeout: int = 0) -> str:
    bound = f"SET LOCAL lock_timeout = {int(lock_timeout)}; " if lock_timeout else ""
    return f"{_BEGIN}; {bound}{statement}; COMMIT" + (f"; {_DURABLE}" if commit == "split" else "")


def _literals(arguments: tuple[_Argument, ...]) -> tuple[str, ...]:
    return tuple(map(_literal, arguments))


def _literal(argument: _Argument) -> str:
    if isinstance(argument, str) and len(argument) > 100 and "$pgsession$" not in argument:
        # No copy with every quote and backslash of a JSON text doubled.
        return f"$pgsession${argument}$pgsession$"
    return sql.Literal(argument).as_string()
