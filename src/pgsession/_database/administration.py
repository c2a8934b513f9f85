"""Renders the statements of an `Admin`: plain SQL on the tables, of which the triggers tell the nodes.

So an operator's role needs rights on tables and none on functions. The answer to each is one row; the names say what is
asked for, the parameters are in the order of the arguments.

    sessions   JSON text: [[id, user, group | null, version, created, updated, accessed, expires, inactivity | null,
               {key: value} | null], ...] in the order of the ids, times in microseconds
    locks      JSON text: [[resource, token, session | null, acquired, expires], ...] in the order of the resources
    nodes      JSON text: [[node, registered, serves_for], ...]
"""

from __future__ import annotations

from typing import Final, NamedTuple

from . import script
from .script import Parameter, Script
from .statements import _BEGIN, _COMMIT, _DURABLY
from .templates import names_of, render

LOCK_TIMEOUT: Final = 100  # ms; who waits longer leaves the others alone and tries again
STEP: Final = 500  # sessions for each transaction of a revocation; triggers run for each of them

_NOW = "pg_catalog.statement_timestamp()"
_SINCE = f"({_NOW} OPERATOR(pg_catalog.-) (%s::bigint OPERATOR(pg_catalog.*) interval '1 microsecond'))"
_CHOSEN = (
    "($1::pg_catalog.text IS NULL OR s.user_id OPERATOR(pg_catalog.=) $1::pg_catalog.text)"
    " AND ($2::pg_catalog.text IS NULL OR s.group_id OPERATOR(pg_catalog.=) $2::pg_catalog.text)"
    f" AND ($3::bigint IS NULL OR s.last_accessed OPERATOR(pg_catalog.>) {_SINCE % '$3'})"
    f" AND ($4::bigint IS NULL OR s.created_at OPERATOR(pg_catalog.<=) {_SINCE % '$4'})"
    " AND ($5::pg_catalog.uuid IS NULL OR s.id OPERATOR(pg_catalog.=) $5::pg_catalog.uuid)"
)
_LIVE = f"{{live(s, {_NOW})}}"
_VALUES = (
    "(SELECT coalesce(pg_catalog.json_object_agg(a.key, a.value), '{{}}'::pg_catalog.json) FROM {attributes} a"
    " WHERE a.session_id OPERATOR(pg_catalog.=) s.id"
    f" AND (a.expires_at OPERATOR(pg_catalog.>) {_NOW}) IS NOT FALSE)"
)
_SESSIONS = (
    "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(s.id, s.user_id, s.group_id, s.version,"
    " {us(s.created_at)}, {us(s.updated_at)}, {us(s.last_accessed)}, {us(s.expires_at)}, {us(s.inactivity)}, @values)"
    " ORDER BY s.id), '[]'::pg_catalog.json)::pg_catalog.text FROM (SELECT s.* FROM {sessions} s"
    f" WHERE {_CHOSEN} AND {_LIVE}"
    " AND ($6::pg_catalog.uuid IS NULL OR s.id OPERATOR(pg_catalog.>) $6::pg_catalog.uuid)"
    " ORDER BY s.id LIMIT $7::bigint) s"
)
_COUNT = f"SELECT pg_catalog.count(*) FROM {{sessions}} s WHERE {_CHOSEN} AND {_LIVE}"
# The filters stand there twice: a row that somebody has changed meanwhile is looked at again once it is free.
_REVOKE = (
    f"WITH page AS MATERIALIZED (SELECT s.id FROM {{sessions}} s WHERE {_CHOSEN}"
    " AND s.id OPERATOR(pg_catalog.>) $6::pg_catalog.uuid ORDER BY s.id LIMIT $7::bigint), gone AS ("
    f"DELETE FROM {{sessions}} s USING page p WHERE s.id OPERATOR(pg_catalog.=) p.id AND {_CHOSEN} RETURNING 1)"
    " SELECT (SELECT p.id FROM page p ORDER BY p.id DESC LIMIT 1), (SELECT pg_catalog.count(*) FROM gone), 0, NULL,"
    " @settings"
)
_LOCKS = (
    "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(l.resource, l.token, l.session_id,"
    " {us(l.acquired_at)}, {us(l.expires_at)}) ORDER BY l.resource), '[]'::pg_catalog.json)::pg_catalog.text"
    f" FROM (SELECT l.* FROM {{locks}} l WHERE l.expires_at OPERATOR(pg_catalog.>) {_NOW}"
    " AND ($1::pg_catalog.text IS NULL OR l.resource OPERATOR(pg_catalog.>) $1::pg_catalog.text)"
    " ORDER BY l.resource LIMIT $2::bigint) l"
)
_BREAK = (
    "WITH gone AS (DELETE FROM {locks} l WHERE l.resource OPERATOR(pg_catalog.=) $1::pg_catalog.text"
    f" RETURNING l.expires_at) SELECT EXISTS (SELECT FROM gone g WHERE g.expires_at OPERATOR(pg_catalog.>) {_NOW}),"
    " @settings"
)
_NODES = (
    "SELECT coalesce(pg_catalog.json_agg(pg_catalog.json_build_array(n.node, {us(n.registered_at)}, {us(n.serves_for)})"
    " ORDER BY n.registered_at, n.node), '[]'::pg_catalog.json)::pg_catalog.text FROM {nodes} n"
)
_ROTATE = "SELECT true, @settings FROM {rotate_secret}()"


class Choice(NamedTuple):
    """Says which sessions are meant: all that fit every field which is not None; lengths of time in microseconds."""

    user_id: str | None
    group_id: str | None
    active_within: int | None
    older_than: int | None
    session_id: str | None


class Administration:
    """Makes scripts for one schema and prefix; the module says what each answers."""

    def __init__(self, schema: str, prefix: str) -> None:
        self._names = names_of(schema, prefix)

    def sessions(self, choice: Choice, after: str | None, limit: int, *, values: bool) -> Script:
        """Return the script that reads a page of the live sessions behind an id, with their attributes or without."""
        statement = _SESSIONS.replace("@values", _VALUES if values else "NULL::pg_catalog.json")
        return self._reading(statement, *choice, after, limit)

    def count(self, choice: Choice) -> Script:
        """Return the script that counts live sessions."""
        return self._reading(_COUNT, *choice)

    def revoke(self, choice: Choice, after: str) -> Script:
        """Return the script of one step that deletes sessions, as `delete_user` of `Statements` does."""
        return self._writing(_REVOKE, *choice, after, STEP)

    def locks(self, after: str | None, limit: int) -> Script:
        """Return the script that reads a page of the held locks behind a resource."""
        return self._reading(_LOCKS, after, limit)

    def break_lock(self, resource: str) -> Script:
        """Return the script that removes a lock; it answers whether somebody held it."""
        return self._writing(_BREAK, resource)

    def nodes(self) -> Script:
        """Return the script that reads the registered nodes."""
        return self._reading(_NODES)

    def rotate_secret(self) -> Script:
        """Return the script that makes another secret."""
        return self._writing(_ROTATE)

    def _reading(self, statement: str, *parameters: Parameter) -> Script:
        return Script((_BEGIN, self._step(statement, parameters), _COMMIT), 1)

    def _writing(self, statement: str, *parameters: Parameter) -> Script:
        patience = script.step(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT}")
        return Script((_BEGIN, patience, self._step(statement, parameters), _COMMIT), 2)

    def _step(self, statement: str, parameters: tuple[Parameter, ...]) -> script.Step:
        rendered = render(statement, self._names).as_string()
        return script.step(rendered.replace("@settings", _DURABLY), *parameters)
