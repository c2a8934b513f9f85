"""Renders every statement of the library once for a schema and a prefix.

All ids are text of 32 hex digits, all times int microseconds (of the Unix epoch, by the database's clock).

**Reads** are `str` with `%s` parameters, for the extended protocol (they may be prepared). One statement is one
snapshot (C4), and the answer is always exactly one row:

    read            (id)                    -> (incarnation | None, now, snapshot | NOT_LIVE | None, xmax)  None: no session is
                                               there, nor will be one that is not announced
    read_many       (ids)                   -> (incarnation | None, now, "[snapshot | id | number, ...]", xmax)  a snapshot of each
                                               that is live, the id of one that is not, nothing where `read` has None; the
                                               number, from 1, of one for which there was no room in `MOST_TEXT`; in any
                                               order; ids by `arrays.uuid_array`
    list_user       (user_id, accessed, accessed, id, limit)
                                            -> (incarnation | None, now, "[snapshot, ...]", xmax)  newest access first; those
                                               behind the access and id that are given, None: from the first one on
    list_group      (group_id, ...)         -> likewise
    count           (user_id, user_id, group_id, group_id)
                                            -> (live sessions, incarnation)  of the user, if one is given, and of the group, likewise
    resync          (ids, versions, generations)
                                            -> (incarnation | None, now, bytes | None, xmax)  16 bytes for each id whose
                                               version or generation differs or that is gone; parameters by
                                               `arrays.uuid_array` and `arrays.integer_array`
    missing         (ids)                   -> (incarnation | None, now, bytes | None, xmax)  16 bytes for each id of which there
                                               is no row, be it of a session that has ended
    look            ()                      -> (incarnation | None, now, queue_usage, xmax)  how full the notification
                                               queue is, 0 to 1
    where           ()                      -> (incarnation | None,)
    notify          (node, items)           -> (empty,)  an event of the texts that `events.batches` makes
    ask_nodes       (node,)                 -> (incarnation, xid, age, '{"node": serves_for, ...}')  who has to acknowledge this
                                               transaction; age: of the incarnation
    silent_nodes    ('["node", ...]', xid)  -> (incarnation | None, '["node", ...]')  who of them has not yet
    listen          (label, begins)         -> (channel,)  begins or ends listening to the channel of `events.EVENTS`,
                                               whose name nobody else is to know

What `xmax` is for is said in `pgsession._protocol.proofs_of_sync`. It is the snapshot's, and comes as text.

A snapshot is JSON text: [id (36 characters), version, user_id, group_id | null, created, updated, accessed, expires,
inactivity | null, [[key, version, expires | null, <raw value>], ...], generation, owner_since, rotation | null], live
attributes only, in the order of their keys. A rotation is [previous_generation | null, previous_until | null, rotated_at].

**Writes** are methods that return a `script.Script`: statements with bound parameters, sent in one round trip on an
autocommit connection, always `BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE`, `SET LOCAL lock_timeout` where there is
one (`write` sets it in the call), a call of one of our functions, `COMMIT`, and then what `commit` asks for. The answer
is the row of the call, in which these columns come first, and last, but for `write`, the incarnation and the xmax:

    write(node, mark, arguments)               -> (text,)  the group commit, below
    write_accesses(ids, accessed)              -> (bytes | None,)  16 bytes for each id that somebody else had
                                                  locked: try those again
    delete_user(node, user_id, keep, after)    -> (last | None, deleted, skipped, ended | None)  last:
                                                  UUID; ended: 16 bytes for each id that was deleted
    delete_group(node, group_id, after)        -> likewise
    delete_all(node, after)                    -> likewise, ended: None
    drop_attribute(node, user_id, key, after)  -> (last | None, changed, skipped, ended | None)
    cleanup(node, what, delay, after)          -> (last | None, removed, busy)
                                                  what: "expired", "inactive", "attributes", "locks", "nodes";
                                                  delay: for how long the inactive have to have been so
    acquire(resource, owner, lease, session_id)
                                               -> (acquired | None, token, expires, now)  None: no such live session
    renew(resource, owner, lease)              -> (expires, now), or no row: not held, or over. Never shortens
    release(node, resource, owner)             -> (in_time,), or no row: not held. Announces `l<resource>`
    incarnate()                                -> (incarnation, started)  started: it was gone and was made anew
    register(node, serves_for)                 -> (nodes, longest)  how many are registered, and the longest `serves_for` of
                                                  theirs; again: it is still there
    acknowledge(node, xid, incarnation)        -> (empty,)  it has applied what was committed before this transaction of
                                                  this incarnation
    unregister(node)                           -> (empty,)
    send_beacon(node, since, insists)          -> (now, began)  sends a beacon, unless one began at or after `since`,
                                                  an xmax; began: one that did is committed

A walk is made of bounded steps, a transaction each: `after` is `NIL` at first, then the `last` of the step before,
until that is None. If any step skipped rows, because others had them locked, walk once more with `waiting=True` and a
`lock_timeout`. The cleanup of all but "inactive" does not walk: repeat while `removed` equals `size`.
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

The batch of `write` is rows, which `write_arguments` turns into the columns that `pgsession._database.columns` declares.
No id twice in a batch; a user may come twice. Rows that others have locked are waited for with `wait` (and a
lock_timeout), otherwise skipped and answered "locked". In the answer the operations of each kind are numbered from 1 in
the order in which they were given:
    {"xmax": xmax, "incarnation": text | null,
     "turned_away": [[i, "too_many"] | [i, "locked"] | [i, "exists"] | [i, "same", "snapshot"], ...] creates; all
                  others were made, "created_at": us,
     "evicted": [id, ...], the sessions that made room for created ones,
     "replaced": [[i, version, "replaced" | "expired", user, group], ...] of creates with a chosen id that there was: the
                  version of the new session, and what of the old one is told; of all others `created_at` is the version,
     "written": [i, ...] updates that were made, "versions": [version, ...] of these, "updated_at": us, theirs (and their access),
     "snapshots": [[i, "snapshot"], ...] of those of these whose version before was not base_version, or which
                  were based on another incarnation (a check refuses those), or that rotate,
     "refused": [[i, "gone"] | [i, "taken"] | [i, "locked"] | [i, "too_many"] | [i, "session", current_version]
                 | [i, "attributes", [key, ...]], ...],
     "displaced": [id, ...], the sessions that made room for those given to another user,
     "delete": [[i, "ok", user, group] | [i, "gone"] | [i, "locked"], ...]}
in any order within a list; what a batch has no operation for is missing. "gone" includes expired and inactive. "taken" is an
update of what was read when the session was another owner's: another user has it since, or it was replaced. A create is
"locked" if another login of its user's bucket is under way (with `wait` it waits for that), or if what it would evict is
all being written to at this moment; and one with a chosen id, if somebody else deletes or replaces that session. Creates
are not announced (nobody can know their id yet), but for those with chosen ids; evictions are.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, TypedDict, Unpack

from psycopg import sql

from pgsession._protocol import rules

from . import script
from .columns import Updates, accesses_of, creates_of, deletes_of, updates_of
from .script import Parameter, Script
from .templates import Placed, names_of, parameter_types, render

NIL = "0" * 32
"""The id after which every walk in bounded steps begins."""

MOST_TEXT = 4 << 20
"""Bytes of sessions in an answer of `read_many`; the one with which it is reached is the last."""

NOT_LIVE = "null"
"""What stands for the snapshot of a session that is there, and is inactive, or ended within the last minute. A write of before
its end, of which nobody is told, may yet prolong that, and is committed by then."""

Commit = Literal["split", "plain", "off"]


class Step(TypedDict, total=False):
    """Holds the options of a step of a walk; the module says what each does."""

    size: int
    waiting: bool
    commit: Commit
    lock_timeout: int


_BEGIN = script.step("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE")
_COMMIT = script.step("COMMIT")
_COMMIT_AND_BEGIN = script.step("COMMIT AND CHAIN")  # with the same isolation
_ASYNCHRONOUS = "pg_catalog.set_config('synchronous_commit', 'off', true)"
# At least as durable as a server is by itself: a role's or a database's default must not slip through, nor one that hides the
# warning of a commit that stopped waiting for its standbys.
_DURABLY = (
    "pg_catalog.set_config('synchronous_commit', CASE WHEN pg_catalog.current_setting('synchronous_commit')"
    " OPERATOR(pg_catalog.=) ANY (ARRAY['off', 'local']::pg_catalog.text[]) THEN 'on'"
    " ELSE pg_catalog.current_setting('synchronous_commit') END, true),"
    " pg_catalog.set_config('client_min_messages', 'warning', true)"
)
_DURABLE = script.step(
    f"SELECT pg_catalog.pg_logical_emit_message(true, 'pgsession', ''::pg_catalog.text), {_DURABLY}"
)


def write_arguments(
    wait: bool,
    create: Sequence[Sequence[Any]] = (),
    update: Sequence[Sequence[Any]] = (),
    delete: Sequence[str] = (),
    *,
    accesses: Sequence[tuple[str, int]] = (),
    max_sessions: int = 0,
    evicts: bool = True,
) -> tuple[Parameter, ...]:
    """Return the arguments of a group commit; see `pgsession._database.columns` for the rows.

    Args:
        wait: True to wait for rows that others have locked.
        create: The rows of the creates.
        update: The rows of the updates.
        delete: The ids of the sessions to delete.
        accesses: The accesses that this node knows of to sessions of the users who get one, with their times.
        max_sessions: The number of sessions that a user may have; 0: any number.
        evicts: True where the least recently used sessions of a user who has too many go; otherwise the new ones are
            turned away.
    """
    return (
        wait,
        *updates_of(update),
        max_sessions,
        evicts,
        *creates_of(create),
        *accesses_of(accesses),
        *deletes_of(delete),
    )


# The arguments with which a group commit of usual updates begins, which set attributes, and those that it has nothing for.
_USUAL = 1 + Updates._fields.index("set_bases")
_NOTHING_ELSE = write_arguments(False)[_USUAL:]

_NOW = "pg_catalog.statement_timestamp()"
_PERHAPS = f"s.expires_at OPERATOR(pg_catalog.>) ({_NOW} OPERATOR(pg_catalog.-) interval '1 minute')"
_READ = (
    f"SELECT {{current_incarnation}}, {{us({_NOW})}},"
    " (SELECT r.snapshot FROM (SELECT * FROM {sessions} s WHERE s.id OPERATOR(pg_catalog.=) %s::pg_catalog.uuid) s"
    f" CROSS JOIN LATERAL (SELECT CASE WHEN {{live(s, {_NOW})}} THEN {{snapshot(s, {_NOW})}} ELSE '{NOT_LIVE}' END"
    f" AS snapshot) r WHERE {_PERHAPS}), {{xmax}}"
)
# The OFFSET keeps each session's text from being made twice, for its length and for itself.
_READ_MANY = (
    f"SELECT {{current_incarnation}}, {{us({_NOW})}}, (SELECT '[' OPERATOR(pg_catalog.||) coalesce(pg_catalog.string_agg("
    f"CASE WHEN t.before OPERATOR(pg_catalog.<) {MOST_TEXT} THEN t.said ELSE t.number::pg_catalog.text END, ','), '')"
    " OPERATOR(pg_catalog.||) ']' FROM (SELECT k.number, r.said, coalesce(pg_catalog.sum(pg_catalog.octet_length(r.said))"
    " OVER (ORDER BY k.number ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING), 0) AS before"
    " FROM pg_catalog.unnest(%s::pg_catalog.uuid[]) WITH ORDINALITY k(id, number)"
    " CROSS JOIN LATERAL (SELECT * FROM {sessions} s WHERE s.id OPERATOR(pg_catalog.=) k.id) s"
    f" CROSS JOIN LATERAL (SELECT CASE WHEN {{live(s, {_NOW})}} THEN {{snapshot(s, {_NOW})}}"
    " ELSE pg_catalog.to_json(k.id)::pg_catalog.text END AS said OFFSET 0) r"
    f" WHERE {_PERHAPS}) t), {{xmax}}"
)
# The page is chosen first: a snapshot is made of each of its sessions, not of all the user's.
_LIST = (
    f"SELECT {{current_incarnation}}, {{us({_NOW})}},"
    " (SELECT '[' OPERATOR(pg_catalog.||)"
    f" coalesce(pg_catalog.string_agg({{snapshot(s, {_NOW})}}, ',' ORDER BY s.last_accessed DESC, s.id DESC), '')"
    " OPERATOR(pg_catalog.||) ']' FROM (SELECT s.* FROM {sessions} s"
    f" WHERE s.@column OPERATOR(pg_catalog.=) %s::pg_catalog.text AND {{live(s, {_NOW})}}"
    " AND (%s::bigint IS NULL OR"
    " ROW({us(s.last_accessed)}, s.id) OPERATOR(pg_catalog.<) ROW(%s::bigint, %s::pg_catalog.uuid))"
    " ORDER BY s.last_accessed DESC, s.id DESC LIMIT %s::bigint) s), {xmax}"
)
_COUNT = (
    "SELECT pg_catalog.count(*), {current_incarnation} FROM {sessions} s"
    " WHERE (%s::pg_catalog.text IS NULL OR s.user_id OPERATOR(pg_catalog.=) %s::pg_catalog.text)"
    " AND (%s::pg_catalog.text IS NULL OR s.group_id OPERATOR(pg_catalog.=) %s::pg_catalog.text)"
    f" AND {{live(s, {_NOW})}}"
)
_RESYNC = (
    f"SELECT {{current_incarnation}}, {{us({_NOW})}}, (SELECT pg_catalog.string_agg(pg_catalog.uuid_send(c.id), ''::pg_catalog.bytea)"
    " FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.uuid[]), pg_catalog.unnest(%s::bigint[]), pg_catalog.unnest(%s::bigint[]))"
    " c(id, version, generation)"
    " LEFT JOIN {sessions} s ON s.id OPERATOR(pg_catalog.=) c.id"
    " WHERE (s.version OPERATOR(pg_catalog.=) c.version AND s.generation OPERATOR(pg_catalog.=) c.generation) IS NOT TRUE), {xmax}"
)
_MISSING = (
    f"SELECT {{current_incarnation}}, {{us({_NOW})}}, (SELECT pg_catalog.string_agg(pg_catalog.uuid_send(k.id), ''::pg_catalog.bytea)"
    " FROM pg_catalog.unnest(%s::pg_catalog.uuid[]) k(id)"
    " WHERE NOT EXISTS (SELECT FROM {sessions} s WHERE s.id OPERATOR(pg_catalog.=) k.id)), {xmax}"
)
_IDENTITY = (
    "SELECT c.system_identifier, d.oid, {sessions_oid}::pg_catalog.oid"
    " FROM pg_catalog.pg_control_system() c, pg_catalog.pg_database d"
    " WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()"
)
_LOOK = f"SELECT {{current_incarnation}}, {{us({_NOW})}}, pg_catalog.pg_notification_queue_usage(), {{xmax}}"


class Statements:
    """Holds the statements for one schema and prefix; the module says what each takes and answers.

    Where the tables are `placed` by Citus, each transaction begins with the fence, so that it waits for a move while it
    has locked nothing yet, and every answer about sessions has passed it.
    """

    def __init__(self, schema: str = "public", prefix: str = "", placed: Placed | None = None) -> None:
        self.schema = rules.schema_name("schema", schema)
        self.prefix = rules.table_prefix("prefix", prefix)
        self.placed = placed
        self._names = names_of(schema, prefix, placed)
        self._fence: tuple[script.Step, ...] = (
            () if placed is None else (script.step(f"SELECT {self._names['fence'].as_string()}()"),)
        )
        self._answered_by = render("{current_incarnation}, {xmax}", self._names).as_string()
        self.read = self._render(_READ)
        self.read_many = self._render(_READ_MANY)
        self.count = self._render(_COUNT)
        self.list_user = self._render(_LIST.replace("@column", "user_id"))
        self.list_group = self._render(_LIST.replace("@column", "group_id"))
        self.resync = self._render(_RESYNC)
        self.missing = self._render(_MISSING)
        self.identity = self._render(_IDENTITY)
        self.look = self._render(_LOOK)
        self.where = self._render("SELECT {current_incarnation}")
        self.notify = self._render("SELECT f.* FROM {send}(%s::pg_catalog.text, %s::pg_catalog.text) f")
        self.ask_nodes = self._render("SELECT f.* FROM {ask_nodes}(%s::pg_catalog.text) f")
        self.silent_nodes = self._render(
            "SELECT f.* FROM {silent_nodes}(%s::pg_catalog.json, %s::pg_catalog.xid8) f"
        )
        self.listen = self._render("SELECT f.* FROM {listen}(%s::pg_catalog.text, %s::boolean) f")
        self._calls: dict[tuple[str, int, bool, str], script.Step] = {}

    def write(
        self,
        node: str,
        mark: str,
        arguments: tuple[Parameter, ...],
        *,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> Script:
        """Return the script of a group commit; its `arguments` come from `write_arguments`.

        Where nothing but usual updates is written, null stands for most arguments in the text itself: each that is bound
        costs the client and the server more.
        """
        if arguments[_USUAL:] == _NOTHING_ELSE:
            arguments = arguments[:_USUAL]
        form = "SELECT {call}, {settings}"
        if lock_timeout:  # in the same statement: one of its own would cost a tenth of a lone write
            limit = f"pg_catalog.set_config('lock_timeout', '{int(lock_timeout)}', true)"
            form = f"SELECT CASE WHEN {limit} IS NOT NULL THEN {{call}} END, {{settings}}"
        return self._call("write", (node, mark, *arguments), commit, form=form)

    def write_accesses(self, ids: str, accessed: str, *, commit: Commit = "plain") -> Script:
        """Return the script that writes accesses; `ids` come from `uuid_array`, `accessed` from `integer_array`."""
        return self._call(
            "write_accesses", (ids, accessed), commit, form="SELECT {call}, {settings}, {answered_by}"
        )

    def delete_user(
        self, node: str, user_id: str, keep: str | None = None, after: str = NIL, **step: Unpack[Step]
    ) -> Script:
        """Return the script of one step that deletes a user's sessions."""
        return self._walk("delete_many", (node, "user", user_id, keep, after), **step)

    def delete_group(self, node: str, group_id: str, after: str = NIL, **step: Unpack[Step]) -> Script:
        """Return the script of one step that deletes a group's sessions."""
        return self._walk("delete_many", (node, "group", group_id, None, after), **step)

    def delete_all(self, node: str, after: str = NIL, **step: Unpack[Step]) -> Script:
        """Return the script of one step that deletes all sessions."""
        return self._walk("delete_many", (node, "all", None, None, after), **step)

    def drop_attribute(
        self, node: str, user_id: str, key: str, after: str = NIL, **step: Unpack[Step]
    ) -> Script:
        """Return the script of one step that removes an attribute from a user's sessions."""
        return self._walk("drop_attribute", (node, user_id, key, after), **step)

    def cleanup(
        self,
        node: str,
        what: Literal["expired", "inactive", "attributes", "locks", "nodes"],
        delay: int,
        after: str = NIL,
        *,
        size: int = 2000,
        commit: Commit = "off",
    ) -> Script:
        """Return the script of one step of the cleanup; what a crash loses of it the next cleanup does again."""
        return self._call("cleanup", (node, what, delay, after, size), commit)

    def acquire(self, resource: str, owner: str, lease: int, session_id: str | None) -> Script:
        """Return the script that takes a lock which is free or whose lease time is over.

        It is durable: a crash must not free the lock for a second holder.
        """
        return self._call("acquire", (resource, owner, lease, session_id), "plain")

    def renew(self, resource: str, owner: str, lease: int, *, lock_timeout: int = 0) -> Script:
        """Return the script that lets a lease time end `lease` from now, or later where it already does."""
        form = "SELECT f.*, {settings}, {answered_by} FROM {call} f WHERE f.until IS NOT NULL"
        return self._call("renew", (resource, owner, lease), "plain", lock_timeout, form)

    def release(self, node: str, resource: str, owner: str) -> Script:
        """Return the script that gives a lock back.

        If a crash loses that, the lock lasts until its lease time is over. A move of Citus would lose it more often: it
        takes along what is written when the fence lets it pass.
        """
        form = "SELECT f.*, {settings}, {answered_by} FROM {call} f WHERE f.in_time IS NOT NULL"
        commit: Commit = "off" if self.placed is None else "plain"
        return self._call("release", (node, resource, owner), commit, form=form)

    def incarnate(self) -> Script:
        """Return the script that reads, or makes, the incarnation of the server."""
        return self._call("incarnate", (), "plain")

    def register(self, node: str, serves_for: int, *, lock_timeout: int = 0) -> Script:
        """Return the script that enters a node which serves sessions for so many microseconds after its last proof."""
        return self._call("register", (node, serves_for), "off", lock_timeout)

    def acknowledge(self, node: str, xid: int, incarnation: str, *, lock_timeout: int = 0) -> Script:
        """Return the script that notes that a node has applied what was committed before this transaction."""
        return self._call("acknowledge", (node, xid, incarnation), "off", lock_timeout)

    def unregister(self, node: str) -> Script:
        """Return the script that removes a node."""
        return self._call("unregister", (node,), "off")

    def send_beacon(self, node: str, since: int, insists: bool) -> Script:
        """Return the script that sends a beacon, unless one is on its way that proves a read of this xmax."""
        return self._call("send_beacon", (node, since, insists), "off")

    def _walk(
        self,
        function: str,
        arguments: tuple[Parameter, ...],
        *,
        size: int = 2000,
        waiting: bool = False,
        commit: Commit = "split",
        lock_timeout: int = 0,
    ) -> Script:
        return self._call(function, (*arguments, size, waiting), commit, lock_timeout)

    def _call(
        self,
        function: str,
        arguments: tuple[Parameter, ...],
        commit: Commit,
        lock_timeout: int = 0,
        form: str = "SELECT f.*, {settings}, {answered_by} FROM {call} f",
    ) -> Script:
        which = function, len(arguments), commit == "plain", form
        call = self._calls.get(which)
        if call is None:
            types = parameter_types(function, self._names)
            typed = ", ".join(
                f"{f'${number}' if number <= len(arguments) else 'NULL'}::{kind}"
                for number, kind in enumerate(types, 1)
            )
            call = script.step(
                form.format(
                    call=f"{self._names[function].as_string()}({typed})",
                    settings=_DURABLY if commit == "plain" else _ASYNCHRONOUS,
                    answered_by=self._answered_by,
                )
            )
            self._calls[which] = call
        bound = self._fence
        if lock_timeout:
            bound += (script.step(f"SET LOCAL lock_timeout = {int(lock_timeout)}"),)
        prepared, *second = script.prepared(call, _DURABLE) if commit == "split" else script.prepared(call)
        durable = (_COMMIT_AND_BEGIN, *second) if second else ()
        return Script((_BEGIN, *bound, prepared.bound(*arguments), *durable, _COMMIT), 1 + len(bound))

    def _render(self, template: str) -> str:
        # The driver takes a single % for a parameter.
        names: dict[str, sql.Composable] = {
            name: sql.SQL(part.as_string().replace("%", "%%")) for name, part in self._names.items()
        }
        return render(template, names).as_string()
