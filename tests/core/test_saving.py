"""A save that was written is in place whatever the values do; what was not written stays pending."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta, tzinfo
from typing import Any

import msgspec
import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import to_micros
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._core.session import Session

from .conftest import HOUR, START, saved

MakeSession = Callable[..., Session]


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Size(msgspec.Struct):
    x: int
    y: int = 0


class Zone(tzinfo):
    """Asked while a time is encoded."""

    def __init__(self, act: Callable[[], object]) -> None:
        self.act = act

    def utcoffset(self, when: datetime | None) -> timedelta:
        self.act()
        return timedelta(0)


def changed(record: Record, **sets: bytes) -> Record:
    return record.changed(
        version=record.version + 1, updated_at=0, last_accessed=0, expires_at=START + HOUR,
        inactivity=0, group_id=None, sets=[(key, text, None) for key, text in sets.items()], deletes=[],
    )  # fmt: skip


def pending(session: Session) -> dict[str, tuple[bytes, int]]:
    changes = session._changes()
    return {} if changes is None else {key: (text, base) for key, text, _, base in changes.sets}


def test_a_save_whose_values_change_the_session_each_time_is_in_place(make_session: MakeSession) -> None:
    """Without end: whenever the value is encoded, there is another attribute to be saved."""
    session = make_session(mine=b"1", theirs=b"[1]")
    added: list[str] = []

    def act() -> None:
        added.append(f"new {len(added)}")
        session[added[-1]] = [datetime(2030, 1, 1, tzinfo=Zone(act))] if len(added) % 2 else 5

    theirs = session["theirs"]
    session["mine"] = 2
    changes = session._changes()
    theirs.append(datetime(2030, 1, 1, tzinfo=Zone(act)))
    session._saved(changes, changed(session._record, mine=b"2", theirs=b"[5]"), 0)
    assert session.version == 8 and session["mine"] == 2 and session["theirs"] is theirs
    found = pending(session)
    assert found["theirs"] == (b'[1,"2030-01-01T00:00:00Z"]', 7) and "mine" not in found
    assert added and set(added[:1]) <= set(found)


@pytest.mark.parametrize("times", [1, 1000])
def test_an_interrupt_comes_when_the_save_is_in_place(make_session: MakeSession, times: int) -> None:
    session = make_session(mine=b"1", theirs=b"[1]", others=b"[2]", read=b"[3]")
    interrupts = 0

    def act() -> None:
        nonlocal interrupts
        if interrupts < times:
            interrupts += 1
            raise KeyboardInterrupt

    theirs, others, _ = session["theirs"], session["others"], session["read"]
    session["mine"] = 2
    changes = session._changes()
    theirs.append(datetime(2030, 1, 1, tzinfo=Zone(act)))
    others.append(3)
    record = changed(session._record, mine=b"2", theirs=b"[5]", others=b"[6]", read=b"[7]")
    with pytest.raises(KeyboardInterrupt):
        session._saved(changes, record, 0)
    interrupts = times
    assert session.version == 8 and session["mine"] == 2 and session["read"] == [7]
    assert pending(session) == {
        "theirs": (b'[1,"2030-01-01T00:00:00Z"]', 7),
        "others": (b"[2,3]", 7),
    }


def test_what_cannot_be_encoded_any_more_stays_pending(make_session: MakeSession) -> None:
    session = make_session(mine=b"1", theirs=b"[1]")
    theirs = session["theirs"]
    session["mine"] = 2
    changes = session._changes()
    theirs.append(object())
    session._saved(changes, changed(session._record, mine=b"2", theirs=b"[5]"), 0)
    assert session.version == 8
    with pytest.raises(TypeError, match="theirs"):
        session._changes()
    theirs.pop()
    assert pending(session) == {"theirs": (b"[1]", 7)}


def test_a_save_that_was_slower_does_not_take_the_session_back(make_session: MakeSession) -> None:
    """Two threads save one session; that which saved first is told last."""
    session = make_session(kept=b"0")
    session["first"] = 1
    first = session._changes()
    session["second"] = 2
    second = session._changes()
    record = changed(session._record, first=b"1")
    session._saved(second, changed(record, first=b"1", second=b"2"), 0)
    session["late"] = 3
    session._saved(first, record, 0)
    assert session.version == 9 and dict(session) == {"kept": 0, "first": 1, "second": 2, "late": 3}
    assert pending(session) == {"late": (b"3", 0)}


def test_a_change_that_two_saves_have_written_is_not_deleted(make_session: MakeSession) -> None:
    """Both were collected before one of them was in place."""
    session = make_session(old=b"1", gone=b"1")
    session["new"], session["old"], session["list"] = 1, 2, [1]
    session.set("short", 1, expires_in=60)
    del session["gone"]
    both = session._changes(), session._changes()
    record = session._record
    for changes in both:
        assert changes is not None
        record = record.changed(
            version=record.version + 1, updated_at=0, last_accessed=0, expires_at=START + HOUR,
            inactivity=0, group_id=None, deletes=["gone"],
            sets=[(key, text, at) for key, text, at, _ in changes.sets],
        )  # fmt: skip
        session._saved(changes, record, 0)
        assert dict(session) == {"old": 2, "new": 1, "list": [1], "short": 1} and not session.is_modified


def test_what_is_deleted_while_it_is_saved_is_to_be_deleted(make_session: MakeSession) -> None:
    session = make_session()
    session["new"], session["other"] = 1, 1
    changes = session._changes()
    del session["new"]
    late = session._changes()
    session._saved(changes, changed(session._record, new=b"1", other=b"1"), 0)
    found = session._changes()
    assert found is not None and found.deletes == [("new", 8)] and found.sets == []
    assert late is not None and dict(session) == {"other": 1}


def test_a_server_that_has_lost_commits_takes_the_session_back(make_session: MakeSession) -> None:
    session = make_session(a=b"1")
    before = session._record
    session["b"] = 2
    saved(session)
    session["c"] = 3
    changes = session._changes()
    session._saved(changes, changed(before, c=b"3"), 0)
    assert session.version == 8 and dict(session) == {"a": 1, "c": 3} and not session.is_modified


def test_every_object_that_says_what_was_saved_is_held(make_session: MakeSession) -> None:
    session = make_session(a=b'{"x":1,"y":0}')
    point, size = session.get("a", type=Point), session.get("a", type=Size)
    point.x = size.x = 2
    saved(session)
    assert not session.is_modified
    point.y = 3
    assert pending(session) == {"a": (b'{"x":2,"y":3}', 8)}
    point.y, size.y = 0, 4
    assert pending(session) == {"a": (b'{"x":2,"y":4}', 8)}


def test_what_was_made_of_a_set_value_is_held_though_it_encodes_otherwise(make_session: MakeSession) -> None:
    session = make_session()
    session["a"] = {"x": 1}
    point = session.get("a", type=Point)
    saved(session)
    assert not session.is_modified
    point.y = 3
    assert pending(session) == {"a": (b'{"x":1,"y":3}', 8)}


@pytest.mark.parametrize("typed", [True, False])
def test_a_change_made_during_the_save_is_kept_in_every_object(
    make_session: MakeSession, typed: bool
) -> None:
    session = make_session()
    session["a"] = value = {"x": 1, "y": 0}
    point = session.get("a", type=Point)
    changes = session._changes()
    if typed:
        point.y = 5
    else:
        value["y"] = 5
    session._saved(changes, changed(session._record, a=b'{"x":1,"y":0}'), 0)
    assert pending(session) == {"a": (b'{"x":1,"y":5}', 8)}


def test_a_mutable_object_of_plain_text_is_held(make_session: MakeSession) -> None:
    session = make_session()
    session["a"] = "aGk="
    text: Any = session.get("a", type=bytearray)
    saved(session)
    text[:] = b"ho"
    assert pending(session) == {"a": (b'"aG8="', 8)}


def test_c11_a_save_does_not_move_an_access_back(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> None:
    session = session_of(make_cache(), make_record(), from_cache=False, accessed=START + HOUR)
    session["a"] = 1
    saved(session)
    assert to_micros(session.last_accessed) == START + HOUR
