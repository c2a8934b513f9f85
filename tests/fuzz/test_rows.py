"""What the database answers: a whole record comes of it, or an error that says so; never a part of one.

Attribute values are JSON as plain SQL may have stored it: spaced, escaped, repeated, huge, or nested without end.
"""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any
from uuid import UUID

import msgspec
from hypothesis import example, given, reject
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._core.session import Session
from pgsession._protocol.batch import Batch
from pgsession._protocol.operations import Create, Delete, Operation, Room, Update
from pgsession._protocol.snapshots import record_of, records_of
from pgsession.errors import (
    AttributeTypeError,
    AttributeVersionConflict,
    SessionNotFoundError,
    SessionVersionConflict,
    TooManySessionsError,
    WriteOutcomeUnknown,
)

from . import fuzz, mutated

CACHE = Cache(1, Clock(manual=0), access_interval=0, lifetime=0, max_attribute_length=100)
ALPHABET = '0123456789abcdef[]{}",:-\\ untrlE.+'
FAR = 1 << 60


class Frozen(msgspec.Struct, frozen=True):
    a: int = 0


class Open(msgspec.Struct):
    a: list[Any] = []
    b: Any = None


TYPES = [int, str, float, bool, None, list, dict, list[int], dict[str, Any], tuple[int, ...], set[str], int | str,
         datetime, UUID, bytes, Frozen, Open, list[Frozen]]  # fmt: skip

spaces = st.text(" \t\n\r", max_size=3)
escapes = st.sampled_from('"\\/bfnrt').map("\\{}".format) | st.integers(0, 0xFFFF).map("\\u{:04x}".format)
surrogates = st.sampled_from(["\\ud800", "\\udfff", "\\ud83d\\ude00", "\\u0000", "\\ud800\\u0041"])
plain = st.characters(min_codepoint=32, exclude_characters='"\\', exclude_categories=["Cs"])
strings = st.lists(plain | escapes | surrogates, max_size=6).map(lambda parts: f'"{"".join(parts)}"')
numbers = st.one_of(
    st.integers().map(str),
    st.integers(0, 5000).map(lambda digits: "1" + "7" * digits),
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.from_regex(r"-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,4})?", fullmatch=True),
)
scalars = st.sampled_from(["null", "true", "false", "-0", "-0.0", "0e5", "1e999", '""']) | numbers | strings
ENDLESS = st.builds(
    lambda opening, closing, depth, inner: opening * depth + inner + closing * depth,
    st.just("["), st.just("]"), st.sampled_from([1, 50, 500, 1500, 10_000]), scalars,
) | st.builds(lambda depth: '{"a":' * depth + "1" + "}" * depth, st.sampled_from([50, 10_000]))  # fmt: skip


def spaced(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return st.builds("{}{}{}".format, spaces, inner, spaces)


def containers(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    members = st.builds("{}:{}".format, spaced(strings), inner)
    return spaced(
        st.lists(inner, max_size=4).map(lambda parts: f"[{','.join(parts)}]")
        | st.lists(members, max_size=4).map(lambda parts: f"{{{','.join(parts)}}}")
    )


values = spaced(st.recursive(scalars, containers, max_leaves=8) | ENDLESS)
whole = st.integers(-(2**63), 2**63 - 1) | st.sampled_from([0, 1, 2**63 - 1, -(2**63)])
owners = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
attributes = st.builds(
    lambda key, version, ends, value: f"[{json.dumps(key)}, {version}, {json.dumps(ends)}, {value}]",
    owners, whole, st.none() | whole, values,
)  # fmt: skip
snapshots = st.builds(
    lambda *parts: "[" + ", ".join(map(json.dumps, parts[:-1])) + f", [{', '.join(parts[-1])}], 7, 1, null]",
    st.uuids().map(str), whole, owners | st.just("u" * 70_000), st.none() | owners,
    whole, whole, whole, whole, st.none() | whole, st.lists(attributes, max_size=4),
)  # fmt: skip
ROW = '["' + str(UUID(int=1)) + '", 1, "u", null, 1, 1, 1, 99, 50, %s, 7, 1, null]'


def outcome(work: Any) -> Any:
    """The value, told apart by its types too; None for one of the errors that decoding has."""
    try:
        return repr(work())
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None


def standard(text: str) -> Any:
    """What the standard library reads, where it goes as deep and takes as many digits."""
    try:
        return json.loads(text, parse_int=lambda digits: int(digits) if len(digits) <= 4300 else digits)
    except RecursionError:
        reject()


def session_on(value: str) -> Session:
    record = Record(
        bytes(16), 1, "u", None, 0, 0, 0, FAR, False, [("key", 1, None, value.strip(" \t\n\r").encode())]
    )
    return session_of(CACHE, record, from_cache=False)


@fuzz
@given(values)
@example('"\\ud800"')
@example("[" * 10_000 + "]" * 10_000)
@example("-0")
def test_a_value_is_what_its_json_says_or_an_error_of_its_own(value: str) -> None:
    session = session_on(value)
    expected = outcome(lambda: msgspec.json.decode(value.encode()))
    for _ in range(2):
        try:
            assert repr(session["key"]) == expected
        except AttributeTypeError:
            assert expected is None
    if expected is not None:
        assert expected == repr(standard(value))
    session._changes()


@fuzz
@given(values, st.sampled_from(TYPES))
@example('{"a":' * 10_000 + "1" + "}" * 10_000, Open)
@example('"\\ud800"', str)
def test_a_typed_value_is_what_msgspec_makes_of_it(value: str, type_: Any) -> None:
    session = session_on(value)
    expected = outcome(lambda: msgspec.json.decode(value.encode(), type=type_))
    for _ in range(2):
        try:
            assert repr(session.get("key", type=type_)) == expected
        except AttributeTypeError:
            assert expected is None


@fuzz
@given(mutated(snapshots, ALPHABET))
@example(ROW % '[["k", 1, null, "\\ud800"]]')
@example(ROW % '[["k", 1, null, 1], ["k", 2, null, 2]]')
@example(ROW % f'[["k", 1, null, {"[" * 10_000 + "]" * 10_000}]]')
@example(ROW % f'[["k", {2**63}, null, 1]]')
def test_a_snapshot_is_a_whole_record_or_an_error(text: str) -> None:
    try:
        record = record_of(text)
    except msgspec.DecodeError:
        return
    except UnicodeEncodeError:
        assert "\ud800" in text or "\udfff" in text
        return
    assert_whole(record, standard(text))


def assert_whole(record: Record, row: list[Any]) -> None:
    assert record.key == UUID(row[0]).bytes
    stamps = (record.created_at, record.updated_at, record.last_accessed, record.expires_at)
    assert [record.version, record.user_id, record.group_id, *stamps] == row[1:8]
    assert record.inactivity == (row[8] or 0)
    kept = [[key, version, ends] for key, version, ends, _ in record.attributes()]
    assert kept == sorted([key, version, ends or None] for key, version, ends, _ in row[9])
    session = session_of(CACHE, record, from_cache=False)
    for key in [key for key, *_ in kept]:
        try:
            session.get(key)
        except AttributeTypeError:
            pass


@fuzz
@given(st.lists(mutated(snapshots, ALPHABET), max_size=3))
def test_a_list_of_snapshots_is_a_list_of_whole_records_or_an_error(texts: list[str]) -> None:
    text = f"[{','.join(texts)}]"
    try:
        records = records_of(text)
    except (msgspec.DecodeError, UnicodeEncodeError):
        return
    rows = standard(text)
    assert len(records) == len(rows)
    for record, row in zip(records, rows, strict=True):
        assert_whole(record, row)


# ---- the answer to a batch ----

RECORD = Record(bytes(16), 5, "u", None, 1, 1, 1, FAR, None, [("k", 1, None, b"1")])
SAVED = (ROW % '[["k", 1, null, 1]]', "null", ROW % '[["k", 1, null, 1], ["k", 1, null, 1]]')


def operations() -> list[Operation]:
    update = Update(
        RECORD, check=None, sets=[("a", b"1", None, 0)], deletes=[], expires_at=None, inactivity=None,
        group=None, notify=True, notify_on_conflict=True,
    )  # fmt: skip
    create = Create(bytes(16), 5, "u", None, FAR, None, [], Room(0, True, []))
    return [create, update, Delete(bytes(16))]


statuses = st.sampled_from(
    ["ok", "gone", "taken", "locked", "too_many", "session", "attributes", "OK", "later"]
)
details = st.one_of(whole, st.lists(owners, max_size=2), st.sampled_from([None, "x", 6]))
answers = st.builds(
    lambda number, status, rest, snapshot: f"[{number}, {json.dumps(status)}{rest}{snapshot}]",
    st.integers(-3, 4), statuses,
    st.just("") | st.tuples(details, whole, whole, whole).map(lambda parts: f", {json.dumps(parts)[1:-1]}"),
    st.just("") | st.sampled_from(SAVED).map(", {}".format),
)  # fmt: skip
updated = st.sampled_from(
    [
        {"written": ["1"], "versions": ["6"]},
        {"written": ["1"], "versions": ["6"], "snapshots": [f"[1, {json.dumps(SAVED[0])}]"]},
        {"written": ["1"], "versions": ["6"], "snapshots": [f"[1, {json.dumps(SAVED[2])}]"]},
        {"written": ["1", "1"], "versions": ["6", "7"]},
        {"written": ["1"], "versions": []},
        {"refused": ['[1, "gone"]']},
        {"refused": ['[1, "session", 9]']},
        {"refused": ['[1, "attributes", ["a"]]']},
        {"refused": ['[1, "locked"]']},
    ]
)
fitting = st.builds(
    lambda create, update, delete: {"turned_away": create, **update, "delete": [delete]},
    st.sampled_from([[], ['[1, "too_many"]'], ['[1, "locked"]'], ['[2, "locked"]']]),
    updated,
    st.sampled_from(['[1, "ok"]', '[1, "gone"]', '[1, "locked"]']),
)
lists = st.dictionaries(st.sampled_from(["turned_away", "refused", "delete"]), st.lists(answers, max_size=3))
evicted = st.lists(st.uuids().map(lambda one: one.hex) | st.text(max_size=4), max_size=2)
replies = st.builds(
    lambda incarnation, at, given, more, gone: (
        f'{{"incarnation": {json.dumps(incarnation)}, "xmax": 7, "updated_at": {at}, "created_at": {at}'
        f', "evicted": {json.dumps(gone)}'
        + "".join(f', "{kind}": [{",".join([*found, *more.get(kind, [])])}]' for kind, found in given.items())
        + "}"
    ),
    st.none() | owners, whole, fitting, st.just({}) | lists, st.just([]) | evicted,
)  # fmt: skip

REFUSALS = (TooManySessionsError, SessionVersionConflict, AttributeVersionConflict, SessionNotFoundError)


@fuzz
@given(mutated(replies, ALPHABET))
@example('{"incarnation": null, "xmax": 7, "delete": [[1, "ok"], [1, "ok"], [1, "ok"]]}')
@example('{"incarnation": null, "xmax": 7, "refused": [[1, "gone"], [2, "gone"], [3, "gone"]]}')
@example('{"incarnation": null, "xmax": 7, "delete": [[-1, "ok"], [-2, "ok"], [-3, "ok"]]}')
def test_every_operation_gets_one_answer_of_its_own_kind_or_all_an_error(text: str) -> None:
    batch = Batch(operations())
    try:
        settled = batch.settle(text)
    except (msgspec.DecodeError, LookupError, ValueError, RecursionError):
        return
    answered = [operation for operation, _ in settled.results] + settled.locked
    assert sorted(answered, key=batch.operations.index) == batch.operations
    said = standard(text)
    done = {
        Create: [] if said.get("turned_away") else [1],
        Update: said.get("written", []),
        Delete: [one[0] for one in said.get("delete", []) if one[1] == "ok"],
    }
    for operation, result in settled.results:
        kind = type(operation)
        if done[kind]:
            assert done[kind] == [1]
            assert (result is None) if kind is Delete else isinstance(result, Record | WriteOutcomeUnknown)
        else:
            assert isinstance(result, REFUSALS)
