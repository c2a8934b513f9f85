"""What the core keeps for all records and sessions is bounded by size, and what is used least leaves.

Keys, shapes and types come from callers, who may make up any number of them. Memory is counted, not time.
"""

from __future__ import annotations

import gc
import tracemalloc
from collections.abc import Callable, Iterable
from typing import Annotated, Any

import msgspec
import pytest

from pgsession._core.record import Record
from pgsession._core.session import Session

MakeSession = Callable[..., Session]
MEBIBYTE = 1 << 20


def record_of(names: Iterable[str]) -> Record:
    return Record(bytes(16), 1, "u", None, 0, 0, 0, 1, None, [(name, 1, None, b"1") for name in names])


def kept(work: Callable[[int], object], times: int) -> int:
    """Return the bytes that are left of some work when nothing of it is referred to any more."""
    work(0)
    gc.collect()
    tracemalloc.start()
    try:
        for number in range(1, times):
            work(number)
        gc.collect()
        return tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()


def key_of(record: Record, place: int = 0) -> str:
    return record.attributes()[place][0]


def test_records_of_many_names_leave_little_behind() -> None:
    """As of 100 dead records of 2,000 names each, which once kept 30 MB and went on growing."""
    assert kept(lambda turn: record_of(f"{turn} {i}" for i in range(2000)), 100) < 12 * MEBIBYTE


def test_records_of_many_shapes_leave_little_behind() -> None:
    names = [f"name {i}" for i in range(300)]
    assert kept(lambda turn: record_of([f"x{turn}", *names[: turn % 300 + 1]]), 900) < 8 * MEBIBYTE


def test_a_name_is_shared_however_many_there_were() -> None:
    for number in range(10_000):
        record_of([f"once {number}"])
    first, second = record_of(["".join(["n", "ew"]), "other"]), record_of(["".join(["ne", "w"]), "another"])
    assert key_of(first) is key_of(second, 1)


def test_a_name_that_comes_again_stays_while_others_leave() -> None:
    first = key_of(record_of(["".join(["of", "ten"])]))
    for number in range(10_000):
        record_of([f"rare {number}"])
        if number % 100 == 0:
            assert key_of(record_of(["".join(["oft", "en"]), f"with {number}"])) is first
    assert key_of(record_of(["".join(["oft", "en"])])) is first


class Item(msgspec.Struct):
    n: int


def mutable_type(number: int) -> Any:
    return dict[str, Annotated[int, msgspec.Meta(ge=-number)]]


def immutable_type(number: int) -> Any:
    return tuple[Annotated[int, msgspec.Meta(ge=-number)], ...]


@pytest.mark.parametrize(("make", "text"), [(mutable_type, b'{"n":1}'), (immutable_type, b"[1]")])
def test_a_session_that_is_read_as_many_types_stays_small(
    make_session: MakeSession, make: Callable[[int], Any], text: bytes
) -> None:
    session = make_session(a=text)
    assert kept(lambda number: session.get("a", type=make(number)), 1500) < 1 * MEBIBYTE
    assert not session.is_modified


def test_what_somebody_holds_or_has_changed_is_not_forgotten(make_session: MakeSession) -> None:
    session = make_session(held=b'{"n":1}', changed=b'{"n":1}', set=b"1")
    held, read = session.get("held", type=Item), session.get("held")
    session["set"] = {"n": 1}
    of_set = session.get("set", type=Item)
    session.get("changed", type=Item).n = 2
    for number in range(200):
        for key in ("held", "changed", "set"):
            session.get(key, type=mutable_type(number))
    assert session.get("held", type=Item) is held and session.get("held") is read
    assert session.get("set", type=Item) is of_set
    held.n, of_set.n = 3, 4
    changes = session._changes()
    assert changes is not None
    assert {key: value for key, value, _, _ in changes.sets} == {
        "held": b'{"n":3}',
        "changed": b'{"n":2}',
        "set": b'{"n":4}',
    }
