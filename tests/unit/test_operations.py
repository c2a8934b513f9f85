"""What a caller gets for the server's answer, and what a saved session is taken to be."""

from __future__ import annotations

import json
from typing import Any
from uuid import RFC_4122, UUID

import pytest

import pgsession
from pgsession._core.record import Record
from pgsession._protocol.batch import Batch
from pgsession._protocol.operations import Create, Flag, Room, Update, new_key

K = bytes(15) + b"k"
ROOM = Room(0, evicts=True, accesses=[])


def record(**fields: Any) -> Record:
    known: dict[str, Any] = {"last_accessed": 50, "expires_at": 900, "group_id": "g", "inactivity": 7}
    known |= fields
    return Record(
        K, 3, "u", known["group_id"], 1, 2, known["last_accessed"], known["expires_at"], known["inactivity"],
        [("a", 1, None, b"1"), ("b", 1, None, b"1")],
    )  # fmt: skip


def update(based_on: Record | None = None, **options: Any) -> Update:
    known: dict[str, Any] = {
        "check": None, "sets": [], "deletes": [], "expires_at": None, "inactivity": None, "group": None,
        "notify": True, "notify_on_conflict": False,
    }  # fmt: skip
    return Update(based_on or record(), **(known | options))


def test_a_saved_session_is_what_it_was_and_what_was_asked_for() -> None:
    saved = update().saved(4, 60)
    assert (saved.version, saved.updated_at, saved.last_accessed) == (4, 60, 60)
    assert (saved.expires_at, saved.group_id, saved.inactivity) == (900, "g", 7)
    saved = update(record(last_accessed=70), expires_at=950, group=("h",), inactivity=(None,)).saved(4, 60)
    assert saved.last_accessed == 70, "it does not move back (C11)"
    assert (saved.expires_at, saved.group_id, saved.inactivity) == (950, "h", 0)
    for had, has in ((7, 7), (0, 5)):
        saved = update(record(inactivity=had), inactivity=(5,), keep_inactivity=True).saved(4, 60)
        assert saved.inactivity == has
    assert update(group=(None,)).saved(4, 60).group_id is None
    saved = update(sets=[("a", b"2", None, 1), ("c", b"3", 80, 0)], deletes=[("b", 1)]).saved(4, 60)
    assert saved.attributes() == [("a", 4, None, b"2"), ("c", 4, 80, b"3")]


@pytest.mark.parametrize(
    ("options", "flags"),
    [
        ({}, Flag.NOTIFY),
        ({"notify": False, "notify_on_conflict": True}, Flag.NOTIFY_ON_CONFLICT),
        ({"check": "session"}, Flag.NOTIFY | Flag.CHECK_SESSION),
        ({"check": "attributes"}, Flag.NOTIFY | Flag.CHECK_ATTRIBUTES),
        ({"inactivity": (5,)}, Flag.NOTIFY | Flag.CHANGE_INACTIVITY),
        ({"inactivity": (None,)}, Flag.NOTIFY | Flag.CHANGE_INACTIVITY),
        (
            {"inactivity": (5,), "keep_inactivity": True},
            Flag.NOTIFY | Flag.CHANGE_INACTIVITY | Flag.KEEP_INACTIVITY,
        ),
        ({"group": (None,)}, Flag.NOTIFY | Flag.CHANGE_GROUP),
    ],
)
def test_an_update_asks_for_what_its_caller_does(options: dict[str, Any], flags: Flag) -> None:
    assert update(**options).row()[3] == flags


def test_a_new_session_shows_no_attribute_that_had_expired() -> None:
    attributes = [("a", b"1", None), ("b", b"1", 60), ("c", b"1", 61)]
    create = Create(K, 1, "u", None, 900, None, attributes, ROOM)
    assert [item[0] for item in create.saved(60, "i").attributes()] == ["a", "c"]


def test_each_refusal_is_told_with_what_was_there() -> None:
    sent = Batch([update()])
    ((_, conflict),) = sent.settle('{"incarnation":"i","xmax":7,"refused":[[1,"session",7]]}').results
    assert isinstance(conflict, pgsession.SessionVersionConflict)
    assert (conflict.expected, conflict.current) == (3, 7)
    ((_, conflict),) = sent.settle('{"incarnation":"i","xmax":7,"refused":[[1,"attributes",["a"]]]}').results
    assert isinstance(conflict, pgsession.AttributeVersionConflict)


def test_whose_copy_was_old_gets_what_the_database_has() -> None:
    """The copy and the changes together would be a session that never was (C4)."""
    row = [
        "00000000-0000-0000-0000-00000000006b",
        5,
        "u",
        None,
        1,
        2,
        3,
        900,
        7,
        [["z", 4, None, 9]],
        1,
        1,
        None,
    ]
    answer = {
        "incarnation": "i",
        "xmax": 7,
        "written": [1],
        "versions": [5],
        "updated_at": 60,
        "snapshots": [[1, json.dumps(row)]],
    }
    ((_, saved),) = Batch([update(sets=[("a", b"2", None, 1)])]).settle(json.dumps(answer)).results
    assert isinstance(saved, Record)
    assert saved.version == 5 and saved.attributes() == [("z", 4, None, b"9")]


def test_a_create_without_an_answer_is_none() -> None:
    with pytest.raises(LookupError):
        Batch([Create(K, 1, "u", None, 900, None, [], ROOM)]).settle('{"incarnation":"i","xmax":7}')


def test_a_new_key_is_a_random_uuid() -> None:
    keys = [new_key() for _ in range(300)]
    assert {(key.version, key.variant) for key in (UUID(bytes=one) for one in keys)} == {(4, RFC_4122)}
    assert len({*keys}) == 300
    # Each of the other 122 bits is one in some and zero in others.
    ones, zeros = 0, 0
    for key in keys:
        ones |= int.from_bytes(key, "big")
        zeros |= ~int.from_bytes(key, "big")
    assert (ones & zeros & (2**128 - 1)).bit_count() == 122
