"""Numbers, texts, bytes, times and ids are read as what they are, whatever their subclass says of itself.

What a subclass answers to one question need not agree with its next answer: what was checked is what is used.
"""

from __future__ import annotations

import gc
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Any

import pytest

from pgsession._core.arguments import check_count, check_text
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock, duration_micros, expiry_micros, to_micros
from pgsession._core.key import to_bytes
from pgsession._core.record import Record
from pgsession._core.session import Session

from .conftest import START, saved

MakeSession = Callable[..., Session]


def never(self: Any, *args: Any) -> Any:
    raise AssertionError("a subclass was asked what it is")


def agreed(self: Any, *args: Any) -> bool:
    return True


COMPARED = dict.fromkeys(["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__", "__bool__"], agreed)
ASKED = [
    "__index__",
    "__int__",
    "__float__",
    "__str__",
    "__repr__",
    "__format__",
    "__len__",
    "__hash__",
    "__iter__",
    "__getitem__",
    "__contains__",
    "__add__",
    "__radd__",
    "__sub__",
    "__rsub__",
    "__mul__",
    "__rmul__",
    "__divmod__",
    "__rdivmod__",
    "__neg__",
    "__pos__",
    "__abs__",
    "__getattribute__",
    "encode",
    "isascii",
    "find",
    "utcoffset",
]


def liar(kind: type) -> Any:
    """Return a subclass that agrees to every comparison and answers nothing else."""
    return type("Liar", (kind,), COMPARED | dict.fromkeys(ASKED, never))


Int, Float, Text, Octets, Delta, Moment = map(liar, (int, float, str, bytes, timedelta, datetime))


class Shifting(timedelta):
    """Has other days each time that they are asked for."""

    @property
    def days(self) -> int:  # type: ignore[override]
        return next(DAYS)


DAYS = iter(range(0, 10**18, 10**9))


def test_numbers_are_what_they_are() -> None:
    assert check_count("n", Int(5), 0, 9) == 5
    for value in (10, -1, 10**30, -(10**30)):
        with pytest.raises(ValueError, match=rf"^n: must be from 0 to 9, not {value}$"):
            check_count("n", Int(value), 0, 9)
    with pytest.raises(ValueError, match=r"^capacity: "):
        Cache(Int(0), Clock(manual=0), access_interval=0, lifetime=0, max_attribute_length=0)


def test_durations_are_what_they_are() -> None:
    assert duration_micros("d", Int(5)) == duration_micros("d", Float(5.0)) == 5_000_000
    assert duration_micros("d", Delta(seconds=5)) == duration_micros("d", Shifting(seconds=5)) == 5_000_000
    for kind in (Int, Float):
        for value in (-1, 0, 10**30):
            with pytest.raises(ValueError, match=r"^d: must be from"):
                duration_micros("d", kind(value))
    with pytest.raises(ValueError, match=r"^d: must be from"):
        duration_micros("d", Float("nan"))
    with pytest.raises(ValueError, match=r"^d: must be from"):
        duration_micros("d", Shifting(days=213_503_983))
    assert expiry_micros(Clock(manual=0), None, Shifting(microseconds=3)) == expiry_micros(
        Clock(manual=0), None, 3e-6
    )


class Fickle(tzinfo):
    """Has a distance to UTC only sometimes, and another one each time."""

    def __init__(self, *answers: timedelta | None) -> None:
        self.answers = list(answers)

    def utcoffset(self, when: datetime | None) -> timedelta | None:
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def test_moments_are_what_they_are() -> None:
    assert to_micros(Moment(1970, 1, 2, tzinfo=UTC)) == 86_400_000_000
    with pytest.raises(ValueError, match="naive"):
        to_micros(Moment(1970, 1, 2))
    with pytest.raises((TypeError, ValueError)):
        to_micros(datetime(1970, 1, 2, tzinfo=Fickle(timedelta(0), None)))
    hour = timedelta(hours=1)
    assert to_micros(datetime(1970, 1, 2, tzinfo=Fickle(hour, 2 * hour))) == 22 * 3_600_000_000


def test_texts_and_bytes_are_what_they_are() -> None:
    assert check_text("t", Text("ab")) == "ab"
    with pytest.raises(ValueError, match=r"^t: must be at most 1 bytes, not 2"):
        check_text("t", Text("ab"), 0, 1)
    identity = uuid.UUID(int=5)
    assert to_bytes(Text(identity)) == to_bytes(Octets(identity.bytes)) == identity.bytes
    for odd in (Text("x" * 36), Octets(b"x" * 17), Octets(b"")):
        with pytest.raises(ValueError, match=r"^session_id: "):
            to_bytes(odd)
    with pytest.raises(TypeError):
        Record(bytes(16), 1, "u", None, 0, 0, 0, 1, None, [("k", 1, None, Octets(b"1"))])
    record = Record(bytes(16), Int(3), "u", None, 0, 0, 0, 1, None, [(Text("k"), Int(3), Int(7), b"1")])
    assert record.version == 3 and record.attributes() == [("k", 3, 7, b"1")]


def test_what_is_given_for_an_attribute_is_read_once(make_session: MakeSession) -> None:
    session = make_session()
    session.set(Text("k"), ["v"], expires_in=Shifting(seconds=5))
    for kind in (Int, Float, Text, Octets):
        with pytest.raises(TypeError, match=r"^attribute 'k': a value that JSON can hold is needed"):
            session["k"] = [kind()]
    assert saved(session)._record.attributes() == [("k", 8, START + 5_000_000, b'["v"]')]


class Items(list[Any]):
    """Has another key each time after it was looked through."""

    def __iter__(self) -> Iterator[Any]:
        items = list.__iter__(self)
        self[0] = "a"
        return items


def test_a_record_is_made_of_what_it_was_given_at_first() -> None:
    item: Any = Items(["b", 3, None, b"1"])
    record = Record(bytes(16), 1, "u", None, 0, 0, 0, 1, None, [("a", 1, None, b"0"), item])
    assert record.attributes() == [("a", 1, None, b"0"), ("b", 3, None, b"1")]


@contextmanager
def collected_often() -> Iterator[None]:
    before = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        yield
    finally:
        gc.set_threshold(*before)


def test_the_number_of_a_uuid_is_held_while_it_is_read() -> None:
    """A UUID can be given another number by whatever a collection runs; the number that was read is freed then."""
    identity = uuid.UUID(int=1)

    class Finalized:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            object.__setattr__(identity, "int", Sub(2**100))
            gone = [bytes([number]) * 40 for number in range(50)]
            del gone

    class Sub(int):
        pass

    with collected_often():
        for number in range(500):
            object.__setattr__(identity, "int", Sub(2**90 + number))
            Finalized()
            assert int.from_bytes(to_bytes(identity), "big") in (2**90 + number, 2**100)
