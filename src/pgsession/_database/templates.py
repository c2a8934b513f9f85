"""Puts the names, rules and spellings that many statements and functions share where their SQL texts ask for them.

`{sessions}` stands for the name of a table or a function; `{live(s, moment)}` for what `MACROS` has of that name.
Whatever a caller's `search_path` holds, the result is the same: names that a statement outside of our functions calls are
written out with their schema, for an exact match of the argument types in another schema on the path would win.
"""

from __future__ import annotations

import re
from importlib import resources
from typing import Final

from psycopg import sql

from pgsession._protocol import events
from pgsession._protocol.acknowledgements import SILENCE
from pgsession._protocol.operations import Flag

from .arrays import NONE
from .columns import KINDS, arguments, parameters

RELATIONS: Final = {
    "sessions": "sessions",
    "attributes": "session_attributes",
    "locks": "session_locks",
    "incarnation": "session_incarnation",
    "fencing": "session_fencing",
    "nodes": "session_nodes",
    "beacon": "session_beacon",
    "buckets": "session_user_buckets",
    "versions": "session_schema_version",
}
DOMAINS: Final = {
    "short_text": "session_text",
    "finite_time": "session_time",
    "idle_timeout": "session_idle_timeout",
}
"""The types of columns that may not hold all that their base types can; no statement names them."""
FUNCTIONS: Final = {
    "acknowledge": "session_acknowledge_1",
    "acquire": "session_lock_acquire_1",
    "announce": "session_announce_1",
    "announce_many": "session_announce_many_1",
    "ask_nodes": "session_ask_nodes_1",
    "attribute_edited": "session_attribute_edited_1",
    "claim_ids": "session_claim_ids_1",
    "cleanup": "session_cleanup_1",
    "delete_many": "session_delete_many_1",
    "drop_attribute": "session_drop_attribute_1",
    "end_belongings": "session_end_belongings_1",
    "end_many": "session_end_many_1",
    "end_sessions": "session_end_sessions_1",
    "evict": "session_evict_1",
    "explain_missing": "session_explain_missing_1",
    "find_conflicts": "session_find_conflicts_1",
    "find_existing": "session_find_existing_1",
    "hold": "session_hold_1",
    "incarnate": "session_incarnate_1",
    "listen": "session_listen_1",
    "lock_buckets": "session_lock_buckets_1",
    "lock_removed": "session_lock_removed_1",
    "lock_sessions": "session_lock_rows_1",
    "make_room": "session_make_room_1",
    "make_way": "session_make_way_1",
    "name_channel": "session_name_channel_1",
    "note": "session_note_1",
    "page": "session_page_1",
    "prepare_creates": "session_prepare_creates_1",
    "prepare_updates": "session_prepare_updates_1",
    "raise_version": "session_raise_version_1",
    "read_snapshots": "session_read_snapshots_1",
    "register": "session_register_1",
    "release": "session_lock_release_1",
    "remove_attributes": "session_remove_attrs_1",
    "remove_expired": "session_remove_expired_1",
    "renew": "session_lock_renew_1",
    "rotate": "session_rotate_1",
    "rotate_secret": "session_rotate_secret",
    "row_loaded": "session_row_loaded_1",
    "send": "session_send_1",
    "send_beacon": "session_send_beacon_1",
    "send_noted": "session_send_noted_1",
    "session_removed": "session_removed_1",
    "silent_nodes": "session_silent_nodes_1",
    "truncated": "session_truncated_1",
    "unregister": "session_unregister_1",
    "write": "session_write_1",
    "write_accesses": "session_write_accesses_1",
    "write_creates": "session_write_creates_1",
    "write_deletes": "session_write_deletes_1",
    "write_update": "session_write_update_1",
    "write_updates": "session_write_updates_1",
}
"""The functions by their short names. A function's text never changes once it was released: the next one has the next
number, so that old and new nodes run side by side."""

_SESSIONS_A_PAYLOAD: Final = 140
"""Items about sessions that fit into a payload: each is at most 53 bytes long, with its space."""
_LOCKS_A_PAYLOAD: Final = 7
"""Items about locks that fit into a payload: each is at most 1,046 bytes long, for a resource of 512."""

_US = "(extract(epoch FROM {0}) OPERATOR(pg_catalog.*) 1000000::numeric)::bigint"
_LIVE = (
    "({0}.expires_at OPERATOR(pg_catalog.>) {1}"
    " AND ({0}.last_accessed OPERATOR(pg_catalog.>) ({1} OPERATOR(pg_catalog.-) {0}.inactivity)) IS NOT FALSE)"
)
_SNAPSHOT = (
    "pg_catalog.json_build_array({0}.id, {0}.version, {0}.user_id, {0}.group_id, {{us({0}.created_at)}},"
    " {{us({0}.updated_at)}}, {{us({0}.last_accessed)}}, {{us({0}.expires_at)}}, {{us({0}.inactivity)}},"
    " coalesce((SELECT pg_catalog.json_agg(pg_catalog.json_build_array(a.key, a.version, {{us(a.expires_at)}}, a.value)"
    " ORDER BY a.key) FROM {{attributes}} a WHERE a.session_id OPERATOR(pg_catalog.=) {0}.id"
    " AND (a.expires_at OPERATOR(pg_catalog.>) {1}) IS NOT FALSE), '[]'::pg_catalog.json), {0}.generation, {0}.owner_since,"
    " CASE WHEN {0}.rotated_at IS NOT NULL THEN pg_catalog.json_build_array({0}.previous_generation,"
    " {{us({0}.previous_until)}}, {{us({0}.rotated_at)}}) END)::pg_catalog.text"
)
# Of the row: it was made in this life of the server, for this table of this database, and is no copy of another.
_VALID = (
    "({0}.started_at OPERATOR(pg_catalog.=) pg_catalog.pg_postmaster_start_time()"
    " AND {0}.place OPERATOR(pg_catalog.=) {{incarnation_place}})"
)
# SHA-256 over 32 random bytes and what follows: without the bytes it tells nothing apart from noise, and half of it, which
# is what becomes known, is no state to go on from. So there is nothing that an HMAC would add.
_CHANNEL_NAME = "('p_' || substr(encode(sha256({0} || {1}), 'hex'), 1, 32))"
# Of an update, by its columns: what is in its way, what it makes of the session, and whether nodes are told.
_VERDICT = (
    "CASE WHEN NOT {{live({0}, {1})}} THEN '\"gone\"' WHEN {2} <> {0}.owner_since THEN '\"taken\"'"
    " WHEN {3} & {{check_session}} <> 0 AND (NOT {5} OR {4} <> {0}.version) THEN concat('\"session\",', {0}.version) END"
)
_CHANGED_NOW = "version = {0}.version + 1, updated_at = {1}, last_accessed = greatest({0}.last_accessed, {1})"
_CHANGES = (
    f"{_CHANGED_NOW},"
    " expires_at = coalesce({{timestamp_if_any({3})}}, {0}.expires_at),"
    " inactivity = CASE WHEN {2} & {{change_inactivity}} = 0 OR ({2} & {{keep_inactivity}} <> 0"
    " AND {0}.inactivity IS NOT NULL) THEN {0}.inactivity ELSE {{interval_if_any({4})}} END,"
    " group_id = CASE {2} & {{change_group}} WHEN 0 THEN {0}.group_id ELSE {5} END"
)
_ANNOUNCES = "({1} & {{notify}} <> 0 OR ({1} & {{change_group}} <> 0 AND {2} IS DISTINCT FROM {0}.group_id))"
_REFUSE_TABLE = "RAISE EXCEPTION 'this trigger function belongs to another table' USING ERRCODE = 'insufficient_privilege'"
MACROS: Final = {
    # Times: microseconds to timestamptz, to interval, and back.
    "us": _US,
    "timestamp": "timestamptz 'epoch' + {0} * interval '1 microsecond'",
    "timestamp_if_any": f"timestamptz 'epoch' + nullif({{0}}, {NONE + 1} - 1) * interval '1 microsecond'",
    "interval_if_any": f"nullif({{0}}, {NONE + 1} - 1) * interval '1 microsecond'",
    # What `arrays.optional_text_array` made of a text.
    "present": "substr(nullif({0}, ''), 2)",
    # Rules.
    "live": _LIVE,
    "snapshot": _SNAPSHOT,
    "valid": _VALID,
    "channel_name": _CHANNEL_NAME,
    "verdict": _VERDICT,
    "changed_now": _CHANGED_NOW,
    "changes": _CHANGES,
    "announces": _ANNOUNCES,
    "bucket": "(hashtextextended({0}, 0) & 1023)::integer",
    # Of the base of an update, by its number.
    "incarnation_of": "incarnations[CASE cardinality(incarnations) WHEN 1 THEN 1 ELSE {0} END]",
    # What each event begins with: its origin, the transaction that sends it, and when.
    "sender": "concat({0}, ' ', pg_current_xact_id(), '@', {{us(clock_timestamp())}})",
    # Items of an event.
    "hex": "encode(uuid_send({0}), 'hex')",
    "hex_text": "encode(convert_to({0}, 'UTF8'), 'hex')",
    "changed": "concat('u', encode(uuid_send({0}), 'hex'), ':', {1})",
    "deleted": "'d' || encode(uuid_send({0}), 'hex')",
    "lock_ended": "concat('L', encode(convert_to({0}, 'UTF8'), 'hex'), ':', {1})",
}
_INCARNATION = "(SELECT i.incarnation::pg_catalog.text FROM {incarnation} i WHERE {valid(i)})"
_XMAX = "pg_catalog.pg_snapshot_xmax(pg_catalog.pg_current_snapshot())"
_CHANNEL = "coalesce((SELECT {channel_name(i.secret, 'events'::bytea)} FROM {incarnation} i WHERE {valid(i)}), {name_channel}('events'::text))"
_OR_REPLACE = (
    "ON CONFLICT (session_id, key) DO UPDATE"
    " SET version = excluded.version, expires_at = excluded.expires_at, value = excluded.value"
)
_ITEMS = "^( (u[0-9a-f]+:[0-9]+|d[0-9a-f]+))+$"
_MACRO = re.compile(r"(?<!\{)\{(\w+)\(((?:[^(){}]|\([^(){}]*\))*)\)\}")
_DECLARATION = re.compile(r"^CREATE FUNCTION [^(]*\(([^)]*)\)", re.MULTILINE)
_KEYWORDS = ("bigint", "boolean", "integer")


def names_of(schema: str, prefix: str) -> dict[str, sql.Composable]:
    """Return what stands for every plain placeholder."""
    names: dict[str, sql.Composable] = {
        short: sql.Identifier(schema, prefix + name)
        for short, name in (RELATIONS | DOMAINS | FUNCTIONS).items()
    }
    for short in RELATIONS:
        quoted = sql.Literal(names[short].as_string())
        names[f"{short}_oid"] = sql.SQL("{}::pg_catalog.regclass").format(quoted)
    names["incarnation_place"] = sql.SQL("pg_catalog.pg_relation_filepath({incarnation_oid})").format(**names)
    names["random_secret"] = sql.SQL("(uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()))")
    names["refuse_table"] = sql.SQL(_REFUSE_TABLE)
    names["or_replace"] = sql.SQL(_OR_REPLACE)
    names["awaited"] = sql.Literal(f" {events.encode(events.Awaited())}")
    names["none"] = sql.SQL(f"({NONE + 1} - 1)")
    names["items"] = sql.Literal(_ITEMS)
    names["moved"] = sql.Literal(f" {events.encode(events.Moved())}")
    names["channel"] = render(_CHANNEL, names)
    names["current_incarnation"] = render(_INCARNATION, names)
    names["xmax"] = sql.SQL(_XMAX)
    names["silence"] = sql.SQL(f"interval '{SILENCE} seconds'")
    names["plain"] = sql.Literal(events.PLAIN_SQL)
    names["plain_sender"] = sql.SQL(f"concat('{events.PLAIN_SQL}', ' ', pg_current_xact_id())")
    names["sessions_a_payload"] = sql.Literal(_SESSIONS_A_PAYLOAD)
    names["locks_a_payload"] = sql.Literal(_LOCKS_A_PAYLOAD)
    names["plain_sql"] = sql.SQL("current_setting('pgsession.own', true) IS DISTINCT FROM 'on'")
    names["random_bigint"] = sql.SQL("uuid_hash_extended(gen_random_uuid(), 0)")
    names |= {flag.name.lower(): sql.Literal(int(flag)) for flag in Flag if flag.name}
    for kind in KINDS:
        names[f"{kind}_parameters"] = sql.SQL(parameters(kind))
        names[f"{kind}_arguments"] = sql.SQL(arguments(kind))
    return names


def render(template: str, names: dict[str, sql.Composable]) -> sql.Composed:
    """Put in what the placeholders of a template stand for."""
    return sql.SQL(_expanded(template)).format(**names)


def _expanded(template: str) -> str:
    """Replace the macros, also those that macros use."""
    while True:
        expanded = _MACRO.sub(_expand, template)
        if expanded == template:
            return expanded
        template = expanded


def _expand(match: re.Match[str]) -> str:
    return MACROS[match[1]].format(*match[2].split(", "))


def parameter_types(function: str, names: dict[str, sql.Composable]) -> list[str]:
    """Return the types of a function's parameters, as its file declares them, by its short name.

    A call says them all: an argument of unknown type would let a stranger's function of the same name fit better.
    """
    declared = _DECLARATION.search(render(file("functions", f"{function}.sql"), names).as_string())
    assert declared is not None, f"{function}.sql declares no function"
    words = (parameter.split() for parameter in declared[1].split(","))
    return [_qualified(kind) for name, kind, *_ in filter(None, words) if name != "OUT"]


def _qualified(kind: str) -> str:
    """Return a type by its full name; those that are words of the grammar have no other."""
    return kind if kind.removesuffix("[]") in _KEYWORDS else f"pg_catalog.{kind}"


def file(*path: str) -> str:
    """Return the text of an SQL file of this package."""
    return resources.files(__package__).joinpath(*path).read_text(encoding="utf-8")


def files(folder: str) -> dict[str, str]:
    """Return the texts of the SQL files of a folder by their names without the ending, in the order of the names."""
    found = sorted(
        entry.name
        for entry in resources.files(__package__).joinpath(folder).iterdir()
        if entry.name.endswith(".sql")
    )
    return {name.removesuffix(".sql"): file(folder, name) for name in found}
