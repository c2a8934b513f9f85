"""Every statement of the library, rendered once for a schema and a prefix.

All ids are text of 32 hex digits, all times int microseconds (of the Unix epoch, by the database's clock).

**Reads** are `str` with `%s` parameters, for the extended protocol (they may be prepared). One statement is one
snapshot (C4), and the answer is always exactly one row:

    read            (id, inactivity)        -> (incarnation | None, now, snapshot | None)
    list_user       (user_id, inactivity)   -> (incarnation | None, now, "[snapshot, ...]")  newest access first
    list_group      (group_id, inactivity)  -> likewise
    resync          (ids, versions)         -> (incarnation | None, now, bytes | None)  16 bytes for each id whose
                                               version differs or that is gone; parameters by `uuid_array` and
                                               `integer_array`
    schema_version  ()                      -> (version,)  see pgsession.schema.check
    queue_usage     ()                      -> (float,)  how full the notification queue is, 0 to 1
    proof           (node, payload)         -> (now, incarnation | None)  notifies the node's own proof channel
    notify          (payload)               -> (now,)  an event built by events.payloads

A snapshot is JSON text: [id (36 characters), version, user_id, group_id | null, created, updated, accessed, expires,
include_inactivity, [[key, version, expires | null, <raw value>], ...]], live attributes only, in the order of their
keys.

**Writes** are methods that return a script: several statements as one `str` without parameters, for the simple
protocol (`cursor.execute(script, prepare=False)` on an autocommit connection: one round trip), always
`BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE; [SET LOCAL lock_timeout ...;] SELECT ...; COMMIT` and then what
`commit` asks for. The answer is the first result that returns rows (`while cursor.description is None:
cursor.nextset()`); in its row these columns come first:

    write(node, mark, arguments)               -> (text,)  the group commit, below
    write_accesses(ids, accessed)              -> (bytes | None,)  16 bytes for each id that somebody else had
                                                  locked: try those again
    delete_user(node, user_id, keep, after)    -> (last | None, deleted, skipped)  last: UUID
    delete_group(node, group_id, after)        -> likewise
    delete_all(node, after)                    -> likewise
    drop_attribute(node, user_id, key, after)  -> (last | None, changed, skipped)
    cleanup(node, what, inactivity, after)     -> (last | None, removed, busy)
                                                  what: "expired", "inactive", "attributes", "locks"
    acquire(resource, owner, lease, session_id, inactivity)
                                               -> (acquired | None, token, expires, now)  None: no such live session
    renew(resource, owner, lease)              -> (expires, now), or no row: not held, or over. Never shortens
    release(node, resource, owner)             -> (in_time,), or no row: not held. Announces `l<resource>`
    incarnate()                                -> (incarnation, started)  started: it was gone and was made anew

A walk is made of bounded steps, a transaction each: `after` is `NIL` at first, then the `last` of the step before,
until that is None. If any step skipped rows, because others had them locked, walk once more with `waiting=True` and a
`lock_timeout`. The cleanup of "expired", "attributes" and "locks" does not walk: repeat while `removed` equals `size`.
`busy`: another node is cleaning up at this moment.

`commit`, of every script:
    "split"  the commit itself is asynchronous, and a second, empty transaction makes it durable, so that the flush does
             not happen under the lock that all notifying commits share. Only when the whole script has succeeded is
             the write durable. After an error `current_setting('pgsession.batch', true)` equals `mark` if the first
             commit had happened (on the same server connection: not through a transaction pooler).
    "plain"  one durable commit
    "off"    asynchronous: a crash of the server may lose it
`lock_timeout` (ms) bounds every wait for a row; it fails with 55P03. Plain SQL may cause deadlocks (40P01): run the
script again.

The batch of `write` is rows, which `write_arguments` turns into columns, each `value` being JSON text:
    create  (id, user_id, group_id | None, expires, include_inactivity, [(key, value, expires | None), ...],
             [(id, us), ...] accesses of the user's sessions)
    update  (id, base_version, flags (`operations.Flag`), expires | None, group_id | None,
             [(key, value, expires | None, base_attribute_version), ...], [(key, base_attribute_version), ...])
    delete  id
No id twice in a batch; a user may come twice. Rows that others have locked are waited for with `wait` (and a
lock_timeout), otherwise skipped and answered "locked". In the answer the operations of each kind are numbered from 1 in
the order in which they were given:
    {"incarnation": text | null,
     "turned_away": [[i, "too_many"] | [i, "locked"], ...] creates; all others were made, "created_at": us,
     "written": [i, ...] updates that were made, "versions": [version, ...] of these, "updated_at": us, theirs (and their access),
     "snapshots": [[i, "snapshot"], ...] of those of these whose version before was not base_version,
     "refused": [[i, "gone"] | [i, "locked"] | [i, "session", current_version] | [i, "attributes", [key, ...]], ...]
     "delete": [[i, "ok"] | [i, "gone"] | [i, "locked"], ...],
     "evicted": [id, ...]}  the sessions that made room for created ones
in any order within a list. "gone" includes expired and inactive. A create is "locked" if what it would evict is all
being written to at this moment. Creates are not announced (nobody can know their id yet); evictions are.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from typing import Any, Literal, TypedDict, Unpack

import psycopg
from psycopg import sql

from pgsession._protocol import events, rules
from pgsession._protocol.operations import Flag

NIL = "0" * 32
"""Where every walk in bounded steps begins."""

Commit = Literal["split", "plain", "off"]


class Step(TypedDict, total=False):
    """How a step of a walk is made."""

    size: int
    waiting: bool
    commit: Commit
    lock_timeout: int


_Argument = str | int | bool | None
_CHECK_ATTRIBUTES = int(Flag.CHECK_ATTRIBUTES)


_BEGIN = "BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE"
_ASYNCHRONOUS = ", set_config('synchronous_commit', 'off', true)"
# As the server has it; but a role's or a database's default of "off" must not slip through.
_DURABLY = (
    ", set_config('synchronous_commit', CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on'"
    " ELSE current_setting('synchronous_commit') END, true)"
)
_DURABLE = f"{_BEGIN}; SELECT pg_logical_emit_message(true, 'pgsession', ''::text){_DURABLY}; COMMIT"
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
    "write_accesses": "session_write_accesses",
    "write": "session_write",
}


def uuid_array(keys: Iterable[bytes]) -> str:
    """Ids as one text parameter of type uuid[]: no Python object an id reaches the driver."""
    return _array([key.hex() for key in keys])


def integer_array(numbers: Iterable[int]) -> str:
    """Integers as one text parameter of type bigint[]."""
    return _array(map(str, numbers))


def _array(elements: Iterable[str]) -> str:
    return "{" + ",".join(elements) + "}"


def _sparse(values: Sequence[int | None]) -> str | None:
    """Integers of which some are null; None where all are."""
    if not any(value is not None for value in values):
        return None
    return _array(["NULL" if value is None else str(value) for value in values])


def _text_array(texts: Iterable[str | None]) -> str:
    return _array(map(_element, texts))


def _element(text: str | None) -> str:
    return "NULL" if text is None else '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def write_arguments(
    inactivity: int,
    wait: bool,
    create: Sequence[Sequence[Any]] = (),
    update: Sequence[Sequence[Any]] = (),
    delete: Sequence[str] = (),
    *,
    max_sessions: int = 0,
    evicts: bool = True,
) -> tuple[_Argument, ...]:
    """What the group commit is called with; see the module for the rows.

    `inactivity` in microseconds. `max_sessions` a user may have, 0: any number; `evicts`: else its least recently used
    ones go, and otherwise the new ones are turned away.
    """
    return (
        inactivity,
        wait,
        *(_update_columns(update) if update else [None] * 13),
        max_sessions,
        evicts,
        *(_create_columns(create) if create else [None] * 11),
        _array(delete) if delete else None,
    )


def _create_columns(rows: Sequence[Sequence[Any]]) -> list[str | None]:
    ids, users, groups, expiries, inactivities, attributes, accesses = zip(*rows, strict=True)
    keys, values, ends_at = _transposed([one for some in attributes for one in some], 3)
    accessed = [one for some in accesses for one in some]
    return [
        _array(ids),
        _text_array(users),
        _text_array(groups) if any(group is not None for group in groups) else None,
        integer_array(expiries),
        _array(["t" if one else "f" for one in inactivities]),
        integer_array(_ends(attributes)),
        _text_array(keys),
        _text_array(values),
        _sparse(ends_at),
        _array([key for key, _ in accessed]) if accessed else None,
        integer_array([at for _, at in accessed]) if accessed else None,
    ]


def _ends(lists: Iterable[Sequence[Any]]) -> list[int]:
    """Where each ends, when they follow each other."""
    return list(itertools.accumulate(map(len, lists)))


def _update_columns(rows: Sequence[Sequence[Any]]) -> list[str | None]:
    ids, bases, flags, expiries, groups, sets, drops = zip(*rows, strict=True)
    checked = any(flag & _CHECK_ATTRIBUTES for flag in flags)
    keys, values, ends_at, set_bases = _transposed([one for some in sets for one in some], 4)
    drop_of = [number for number, some in enumerate(drops, 1) for _ in some]
    drop_keys, drop_bases = _transposed([one for some in drops for one in some], 2)
    return [
        _array(ids),
        integer_array(bases),
        integer_array(flags),
        _sparse(expiries),
        _text_array(groups) if any(group is not None for group in groups) else None,
        integer_array(_ends(sets)),
        _text_array(keys),
        _text_array(values),
        _sparse(ends_at),
        integer_array(set_bases) if checked else None,
        integer_array(drop_of) if drop_of else None,
        _text_array(drop_keys) if drop_of else None,
        integer_array(drop_bases) if drop_of else None,
    ]


def _transposed(rows: list[Sequence[Any]], width: int) -> Sequence[Sequence[Any]]:
    return list(zip(*rows, strict=True)) if rows else [()] * width


def placeholders_of(schema: str, prefix: str) -> dict[str, sql.Composable]:
    """What stands for the placeholders of the migrations and of the statements here."""
    placeholders: dict[str, sql.Composable] = {
        short: sql.Identifier(schema, prefix + name) for short, name in (_RELATIONS | _FUNCTIONS).items()
    }
    placeholders["channel"] = sql.Literal(events.events_channel(schema, prefix))
    placeholders["plain"] = sql.Literal(events.PLAIN_SQL)
    placeholders["fencing_literal"] = sql.Literal(placeholders["fencing"].as_string())
    placeholders |= {flag.name.lower(): sql.Literal(int(flag)) for flag in Flag if flag.name}
    placeholders["moment_us"] = sql.SQL(_microseconds("moment"))
    placeholders["snapshot_at_moment"] = _snapshot("s", "moment").format(**placeholders)
    return placeholders


def relation_names(prefix: str) -> list[str]:
    """Every table and sequence that a schema of ours has, the table of versions last."""
    return [prefix + name for name in _RELATIONS.values()]


def _microseconds(timestamp: str) -> str:
    return f"(extract(epoch FROM {timestamp}) * 1000000)::bigint"


def _snapshot(row: str, moment: str) -> sql.SQL:
    times = ", ".join(
        _microseconds(f"{row}.{column}")
        for column in ("created_at", "updated_at", "last_accessed", "expires_at")
    )
    return sql.SQL(
        f"json_build_array({row}.id, {row}.version, {row}.user_id, {row}.group_id, {times},"
        f" {row}.include_inactivity, coalesce((SELECT json_agg(json_build_array("
        f"a.key, a.version, {_microseconds('a.expires_at')}, a.value) ORDER BY a.key)"
        f" FROM {{attributes}} a WHERE a.session_id = {row}.id AND (a.expires_at > {moment}) IS NOT FALSE),"
        " '[]'))::text"
    )


_INCARNATION = (
    "(SELECT i.incarnation::text FROM {incarnation} i WHERE i.started_at = pg_postmaster_start_time())"
)
_NOW = _microseconds("statement_timestamp()")
_LIVE = (
    "s.expires_at > statement_timestamp() AND (NOT s.include_inactivity"
    " OR s.last_accessed > statement_timestamp() - %s::bigint * interval '1 microsecond')"
)
_READ = (
    f"SELECT {_INCARNATION}, {_NOW},"
    f" (SELECT {{snapshot_now}} FROM {{sessions}} s WHERE s.id = %s::uuid AND {_LIVE})"
)
_LIST = (
    f"SELECT {_INCARNATION}, {_NOW},"
    " (SELECT '[' || coalesce(string_agg(x.text, ',' ORDER BY x.accessed DESC), '') || ']'"
    " FROM (SELECT {snapshot_now} AS text, s.last_accessed AS accessed FROM {sessions} s"
    f" WHERE s.{{column}} = %s AND {_LIVE}) x)"
)
_RESYNC = (
    f"SELECT {_INCARNATION}, {_NOW}, (SELECT string_agg(uuid_send(c.id), '')"
    " FROM unnest(%s::uuid[], %s::bigint[]) c(id, version) LEFT JOIN {sessions} s ON s.id = c.id"
    " WHERE s.version IS DISTINCT FROM c.version)"
)
_PROOF = f"SELECT {_microseconds('clock_timestamp()')}, {_INCARNATION} FROM pg_notify({{channel}} || '_' || %s, %s)"
_RENEW = (
    "UPDATE {locks} l"
    " SET expires_at = greatest(l.expires_at, clock_timestamp() + %s * interval '1 microsecond')"
    " WHERE l.resource = %s AND l.owner = %s AND l.expires_at > clock_timestamp()"
    f" RETURNING {_microseconds('l.expires_at')}, {_microseconds('clock_timestamp()')}{_DURABLY}"
)
# The setting keeps the trigger quiet that announces plain SQL; the join makes it true before the row goes.
_RELEASE = (
    "WITH o AS MATERIALIZED (SELECT set_config('pgsession.own', 'on', true) AS own),"
    " g AS (DELETE FROM {locks} l USING o WHERE l.resource = %s AND l.owner = %s AND o.own = 'on'"
    " RETURNING l.expires_at > clock_timestamp() AS in_time)"
    f" SELECT g.in_time{_ASYNCHRONOUS} FROM g CROSS JOIN LATERAL pg_notify({{channel}}, %s)"
)


class Statements:
    """The statements for one schema and prefix; see the module for what each takes and answers."""

    def __init__(self, schema: str = "public", prefix: str = "") -> None:
        self.schema = rules.schema_name("schema", schema)
        self.prefix = rules.table_prefix("prefix", prefix)
        self.events_channel = events.events_channel(schema, prefix)
        self._names = placeholders_of(schema, prefix)
        self.read = self._render(_READ)
        self.list_user = self._render(_LIST, column=sql.Identifier("user_id"))
        self.list_group = self._render(_LIST, column=sql.Identifier("group_id"))
        self.resync = self._render(_RESYNC)
        self.schema_version = self._render("SELECT coalesce(max(v.version), 0) FROM {versions} v")
        self.queue_usage = "SELECT pg_notification_queue_usage()"
        self.proof = self._render(_PROOF)
        self.notify = self._render(f"SELECT {_NOW} FROM pg_notify({{channel}}, %s)")
        self._renew = self._render(_RENEW)
        self._release = self._render(_RELEASE)
        self._functions = {name: self._names[name].as_string() for name in _FUNCTIONS}

    def write(
        self,
        node: str,
        mark: str,
        arguments: tuple[_Argument, ...],
        *,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        """The group commit; `arguments` by `write_arguments`."""
        return self._scalar("write", (node, mark, *arguments), commit, lock_timeout)

    def write_accesses(self, ids: str, accessed: str, *, commit: Commit = "plain") -> str:
        """The flush of noted accesses; `ids` by `uuid_array`, `accessed` by `integer_array`."""
        return self._scalar("write_accesses", (ids, accessed), commit)

    def delete_user(
        self, node: str, user_id: str, keep: str | None = None, after: str = NIL, **step: Unpack[Step]
    ) -> str:
        """One step through a user's sessions."""
        return self._walk("delete_many", (node, "user", user_id, keep, after), **step)

    def delete_group(self, node: str, group_id: str, after: str = NIL, **step: Unpack[Step]) -> str:
        """One step through a group's sessions."""
        return self._walk("delete_many", (node, "group", group_id, None, after), **step)

    def delete_all(self, node: str, after: str = NIL, **step: Unpack[Step]) -> str:
        """One step through all sessions."""
        return self._walk("delete_many", (node, "all", None, None, after), **step)

    def drop_attribute(
        self, node: str, user_id: str, key: str, after: str = NIL, **step: Unpack[Step]
    ) -> str:
        """One step through a user's sessions, removing one attribute."""
        return self._walk("drop_attribute", (node, user_id, key, after), **step)

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
        """One step of the cleanup. What a crash loses of it the next cleanup does again."""
        return self._record("cleanup", (node, what, inactivity, after, size), commit)

    def acquire(self, resource: str, owner: str, lease: int, session_id: str | None, inactivity: int) -> str:
        """Take a lock that is free or whose lease is over. Durable: a crash must not free it for a second holder."""
        return self._record("acquire", (resource, owner, lease, session_id, inactivity), "plain")

    def renew(self, resource: str, owner: str, lease: int) -> str:
        """Let the lease end `lease` from now, or later where it already does."""
        return _script(self._renew % _literals((lease, resource, owner)), "plain")

    def release(self, node: str, resource: str, owner: str) -> str:
        """Give a lock back. If a crash loses that, the lock lasts until its lease is over."""
        payload = f"{node} {events.encode(events.LockReleased(resource))}"
        return _script(self._release % _literals((resource, owner, payload)), "off")

    def incarnate(self) -> str:
        """Read, or make, the incarnation of the server."""
        return self._record("incarnate", (), "plain")

    def _walk(
        self,
        function: str,
        arguments: tuple[_Argument, ...],
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> str:
        return self._record(function, (*arguments, size, waiting), commit, lock_timeout)

    def _scalar(
        self, function: str, arguments: tuple[_Argument, ...], commit: Commit, lock_timeout: int = 0
    ) -> str:
        call = f"{self._functions[function]}({', '.join(_literals(arguments))})"
        return _script(
            f"SELECT {call}{_DURABLY if commit == 'plain' else _ASYNCHRONOUS}", commit, lock_timeout
        )

    def _record(
        self, function: str, arguments: tuple[_Argument, ...], commit: Commit, lock_timeout: int = 0
    ) -> str:
        call = f"{self._functions[function]}({', '.join(_literals(arguments))})"
        columns = f"f.*{_DURABLY if commit == 'plain' else _ASYNCHRONOUS}"
        return _script(f"SELECT {columns} FROM {call} f", commit, lock_timeout)

    def _render(self, template: str, **more: sql.Composable) -> str:
        # The driver, and our own formatting, take a single % for a parameter.
        parts: dict[str, sql.Composable] = {
            name: sql.SQL(part.as_string().replace("%", "%%")) for name, part in self._names.items()
        }
        parts["snapshot_now"] = _snapshot("s", "statement_timestamp()").format(**parts)
        return sql.SQL(template).format(**parts, **more).as_string()


def _script(statement: str, commit: Commit, lock_timeout: int = 0) -> str:
    bound = f"SET LOCAL lock_timeout = {int(lock_timeout)}; " if lock_timeout else ""
    return f"{_BEGIN}; {bound}{statement}; COMMIT" + (f"; {_DURABLE}" if commit == "split" else "")


def _literals(arguments: tuple[_Argument, ...]) -> tuple[str, ...]:
    return tuple(map(_literal, arguments))


def _literal(argument: _Argument) -> str:
    if isinstance(argument, str):
        return _text_literal(argument)
    if isinstance(argument, bool):
        return "true" if argument else "false"
    return "NULL" if argument is None else str(argument)


def _text_literal(text: str) -> str:
    if "\0" in text:
        raise psycopg.DataError("PostgreSQL's text has no NUL (0x00) characters")
    if "'" not in text and "\\" not in text:
        return f"'{text}'"
    if "$pgsession$" not in text + "$":
        return (
            f"$pgsession${text}$pgsession$"  # no copy of a long text with every quote and backslash doubled
        )
    return sql.Literal(text).as_string()
