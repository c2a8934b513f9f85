from __future__ import annotations

import copy
import enum
import gc
import math
import pickle
import sys
import weakref
from collections.abc import Callable, MutableMapping
from datetime import UTC, datetime, timedelta
from types import FrameType
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock, to_datetime
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._core.session import Session
from pgsession.attribute import Attribute
from pgsession.errors import AttributeTooLargeError, AttributeTypeError, SessionInvalidatedError

from .conftest import HOUR, START, saved

MakeSession = Callable[..., Session]
MakeCache = Callable[..., Cache]
MakeRecord = Callable[..., Record]


class Point(msgspec.Struct):
    x: int
    y: int = 0


class Pair(msgspec.Struct, frozen=True):
    first: str
    second: tuple[int, ...] = ()


class Listed(msgspec.Struct, frozen=True):
    items: list[int]


class Stamped(msgspec.Struct):
    x: int
    mark: UUID = msgspec.field(default_factory=uuid4)


class Node(msgspec.Struct, frozen=True):
    name: str
    child: Node | None = None


# ---- a mapping ----


class MappingMachine(RuleBasedStateMachine):
    """A session is a dict to its caller, before and after each save; a save writes what a new reader then reads."""

    keys = st.sampled_from([f"k{i}" for i in range(12)])
    values = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(2**70), 2**70)
        | st.text('aü"\\\n€😀', max_size=4)
        | st.floats(-9, 9),
        lambda inner: (
            st.lists(inner, max_size=3) | st.dictionaries(st.text("ab", max_size=2), inner, max_size=3)
        ),
        max_leaves=5,
    )

    @initialize(start=st.dictionaries(keys, values, max_size=6))
    def begin(self, start: dict[str, Any]) -> None:
        clock = Clock(manual=0)
        self.cache = Cache(5, clock, access_interval=0, lifetime=0, max_attribute_length=10_000)
        stored = [(key, 1, None, msgspec.json.encode(value)) for key, value in start.items()]
        record = Record(bytes(16), 1, "u", None, 0, 0, 0, 2**60, None, stored)
        self.session = session_of(self.cache, record, from_cache=False)
        self.model: dict[str, Any] = copy.deepcopy(start)

    @rule(key=keys, value=values)
    def put(self, key: str, value: Any) -> None:
        self.session[key] = value
        self.model[key] = copy.deepcopy(value)

    @rule(key=keys)
    def delete(self, key: str) -> None:
        if key in self.model:
            del self.session[key], self.model[key]
        else:
            with pytest.raises(KeyError):
                del self.session[key]

    @rule(key=keys)
    def read(self, key: str) -> None:
        assert self.session.get(key, "none") == self.model.get(key, "none")
        assert (key in self.session) == (key in self.model)

    @rule(key=keys, value=values)
    def mutate(self, key: str, value: Any) -> None:
        for side in (self.session, self.model):
            if isinstance(held := side.get(key), list):
                held.append(copy.deepcopy(value))
            elif isinstance(held, dict):
                held["new"] = copy.deepcopy(value)

    @rule(key=keys, value=values)
    def setdefault(self, key: str, value: Any) -> None:
        assert self.session.setdefault(key, value) == self.model.setdefault(key, copy.deepcopy(value))

    @rule(key=keys)
    def pop(self, key: str) -> None:
        assert self.session.pop(key, 7) == self.model.pop(key, 7)

    @rule(some=st.dictionaries(keys, values, max_size=3))
    def update(self, some: dict[str, Any]) -> None:
        self.session.update(some)
        self.model.update(copy.deepcopy(some))

    @rule()
    def popitem(self) -> None:
        if self.model:
            key, value = self.session.popitem()
            assert self.model.pop(key) == value

    @rule()
    def clear(self) -> None:
        self.session.clear()
        self.model.clear()

    @rule()
    def save(self) -> None:
        saved(self.session)
        assert self.session._changes() is None and not self.session.is_modified
        other = session_of(self.cache, self.session._record, from_cache=True)
        assert dict(other) == self.model

    @invariant()
    def same(self) -> None:
        if hasattr(self, "session"):
            assert set(self.session) == set(self.session.keys()) == set(self.model)
            assert len(self.session) == len(self.model) and bool(self.session)

    @rule()
    def compare(self) -> None:
        assert dict(self.session.items()) == self.model


MappingMachine.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestMapping = MappingMachine.TestCase


def test_a_session_is_a_mapping_always_true_and_itself_alone(make_session: MakeSession) -> None:
    session, other = make_session(), make_session()
    assert isinstance(session, MutableMapping) and session and len(session) == 0
    assert session == session and session != other and hash(session) != hash(other)
    with pytest.raises(TypeError, match="manager"):
        Session()  # type: ignore[call-arg]


def test_a_session_is_not_pickled_or_copied(make_session: MakeSession) -> None:
    for act in (pickle.dumps, copy.copy, copy.deepcopy):
        with pytest.raises(TypeError, match="keep its id"):
            act(make_session())


def test_facts(make_cache: MakeCache, make_record: MakeRecord) -> None:
    record = make_record(uuid4().bytes, version=3, user="42", group="g", inactivity=None)
    session = session_of(make_cache(), record, from_cache=True, accessed=START + 5)
    assert session.id.bytes == record.key and session.version == 3
    assert (session.user_id, session.group_id, session.include_inactivity) == ("42", "g", False)
    assert session.created_at == session.updated_at == to_datetime(START)
    assert session.last_accessed == to_datetime(START + 5) and session.expires_at == to_datetime(
        START + 24 * HOUR
    )
    assert session.from_cache is True and session.is_modified is False
    assert str(session.id) not in repr(session)


def test_an_invalidated_session_can_be_read_and_not_changed(make_session: MakeSession) -> None:
    session = make_session(a=b"1")
    session.invalidate()
    assert session["a"] == 1 and session.is_invalidated
    actions: list[Callable[[], object]] = [
        lambda: session.__setitem__("a", 2),
        lambda: session.__delitem__("a"),
        lambda: session.pop("a"),
        lambda: session.popitem(),
        lambda: session.update(b=1),
        lambda: session.clear(),
        lambda: session.setdefault("b", 1),
        session._check_usable,
    ]
    for action in actions:
        with pytest.raises(SessionInvalidatedError):
            action()


# ---- what may be stored ----


@pytest.mark.parametrize("key", ["", "a\0b", "\ud800", "é" * 257])
def test_keys_that_cannot_be_stored(make_session: MakeSession, key: str) -> None:
    with pytest.raises(ValueError, match=r"^key: must "):
        make_session()[key] = 1


def test_a_key_is_the_text_it_is_whatever_its_class_prints(make_session: MakeSession) -> None:
    class Role(str, enum.Enum):  # noqa: UP042 - a StrEnum prints its text
        admin = "role"

    session = make_session()
    session[Role.admin] = 1
    assert list(session) == ["role"] and type(next(iter(session))) is str


def test_an_expiry_long_ago_is_no_attribute_for_ever(make_session: MakeSession) -> None:
    session = make_session()
    with pytest.raises(ValueError, match="expires_at"):
        session.set("code", 1, expires_at=datetime(1970, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="expires_at"):
        session["code"] = Attribute(1, expires_at=datetime(1970, 1, 1, tzinfo=UTC))
    with pytest.raises(ValueError, match="expires_in"):
        session.set("code", 1, expires_in=timedelta(days=213_503_983))
    assert not session.is_modified


def test_a_key_must_be_text(make_session: MakeSession) -> None:
    session = make_session()
    with pytest.raises(TypeError, match="key"):
        session[5] = 1  # type: ignore[index]
    with pytest.raises(KeyError):
        session[5]  # type: ignore[index]
    with pytest.raises(TypeError):
        session[[]]  # type: ignore[index]
    session["é" * 256] = 1


class WithFloat(msgspec.Struct):
    value: float


class Size(enum.Enum):
    LARGE = 9


class Table(msgspec.Struct):
    rows: dict[str | int, int]


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (object(), TypeError),
        (lambda: 1, TypeError),
        (msgspec.Raw(b'1],["x"'), TypeError),
        ([msgspec.Raw(b"nonsense")], TypeError),
        ({1j: 1}, TypeError),
        ("a\0b", ValueError),
        (["a\\\0"], ValueError),
        ({"k\0": 1}, ValueError),
        ("\ud800", ValueError),
        (math.nan, ValueError),
        ([1, {"a": (math.inf,)}], ValueError),
        (WithFloat(-math.inf), ValueError),
        ({1: "a", "1": "b"}, ValueError),
        ([{"a": {Size.LARGE: 1, 9: 2}}], ValueError),
        (Table({"1": 1, 1: 2}), ValueError),
        (msgspec.Raw(b'{"a":1,"a":2}'), ValueError),
        (msgspec.Raw(b"1e400"), ValueError),
        ("x" * 999, AttributeTooLargeError),
    ],
)
def test_values_that_cannot_be_stored(
    make_session: MakeSession, value: object, error: type[Exception]
) -> None:
    session = make_session(a=b"1")
    for act in (lambda: session.__setitem__("a", value), lambda: session.set("a", value)):
        with pytest.raises(error, match="'a'"):
            act()
    assert session["a"] == 1 and not session.is_modified


@pytest.mark.parametrize(
    "value",
    [
        "x" * 998,
        "\\u0000",
        "a\\\\u0000",
        None,
        [None, 1.5],
        {"a": None},
        -0.0,
        10**40,
        -(10**900),
        2**63,
        -(2**64),
        {"a": {"a": 1e300}, "b": {"a": 5e-324}},
        {"é\n": 10**30},
        "{",
    ],
)
def test_values_that_can(make_session: MakeSession, value: object) -> None:
    session = saved_with(make_session(), value)
    assert session["a"] == value


@pytest.mark.parametrize(
    ("change", "error"),
    [
        (lambda value: value.update({1: 0}), ValueError),
        (lambda value: value.update(a=math.nan), ValueError),
        (lambda value: value.update(a="\0"), ValueError),
        (lambda value: value.update(a=object()), TypeError),
        (lambda value: value.update(a="x" * 999), AttributeTooLargeError),
    ],
)
@pytest.mark.parametrize("how", ["read", "set", "saved"])
def test_a_nested_change_that_cannot_be_stored_is_refused_at_the_save(
    make_session: MakeSession, change: Callable[[dict[Any, Any]], None], error: type[Exception], how: str
) -> None:
    session = make_session(v=b'{"1":1}', other=b"1")
    if how != "read":
        session["v"] = {"1": 1}
    if how == "saved":
        saved(session)
    change(session["v"])
    session["other"] = 2
    before = session._record
    for _ in range(2):
        with pytest.raises(error, match="attribute 'v'"):
            session._changes()
    assert session._record is before and session["other"] == 2, "nothing is forgotten"
    session["v"].clear()
    session["v"]["mended"] = True
    assert dict(saved(session)) == {"v": {"mended": True}, "other": 2}


def saved_with(session: Session, value: object) -> Session:
    session["a"] = value
    return saved(session)


def test_a_number_that_cannot_be_read_again_is_not_stored(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    session = session_of(make_cache(max_attribute_length=10_000), make_record(), from_cache=False)
    for number in (10**4300, -(10**4299), -(10**4300)):
        for value in (number, [number], {"a": [number]}):
            with pytest.raises(ValueError, match="attribute 'a': must "):
                session["a"] = value
    assert "a" not in session
    for number in (10**4299, -(10**4298), 2**64, -(2**64)):
        session["a"], session["b"] = number, [number]
        assert dict(saved(session)) == {"a": number, "b": [number]}


def test_nothing_endless_is_stored(make_session: MakeSession) -> None:
    endless: list[Any] = []
    endless.append(endless)
    with pytest.raises(TypeError, match="'a'"):
        make_session()["a"] = endless


def test_a_value_that_is_too_large_says_how_much(make_session: MakeSession) -> None:
    with pytest.raises(AttributeTooLargeError) as caught:
        make_session()["k"] = "x" * 999
    assert (caught.value.key, caught.value.length, caught.value.limit) == ("k", 1001, 1000)


# ---- reading, and who owns what was read ----


def test_plain_values_are_shared_and_mutable_ones_are_not(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache()
    record = make_record(attributes={"s": b'"some text"', "l": b"[1]", "n": b"123456", "d": b'{"a":1}'})
    one, two = (session_of(cache, record, from_cache=True) for _ in range(2))
    assert one["s"] is two["s"] and one["n"] is two["n"]
    assert one["l"] is one["l"] is one.get("l") and one["l"] is not two["l"]
    one["l"].append(2)
    one["d"]["a"] = 5
    assert two["l"] == [1] and two["d"] == {"a": 1} and not two.is_modified


def test_typed_values_are_shared_where_immutable_all_the_way_down(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache = make_cache()
    record = make_record(
        attributes={
            "pair": b'{"first":"a","second":[1]}',
            "listed": b'{"items":[1]}',
            "point": b'{"x":1}',
            "node": b'{"name":"a","child":{"name":"b"}}',
        }
    )
    one, two = (session_of(cache, record, from_cache=True) for _ in range(2))
    for key, kind, shared in [
        ("pair", Pair, True),
        ("listed", Listed, False),
        ("point", Point, False),
        ("node", Node, True),
    ]:
        assert (one.get(key, type=kind) is two.get(key, type=kind)) == shared
        assert one.get(key, type=kind) is one.get(key, type=kind)
        assert isinstance(one.get(key, type=kind), kind)
    assert one.get("pair", type=Pair) == Pair("a", (1,))
    assert not one.is_modified and not two.is_modified


def test_a_value_shared_as_a_type_is_not_what_is_read_without_one(
    make_cache: MakeCache, make_record: MakeRecord
) -> None:
    cache, record = make_cache(), make_record(attributes={"a": b'{"first":"a"}'})
    one, two = (session_of(cache, record, from_cache=True) for _ in range(2))
    assert one.get("a", type=Pair) == Pair("a")
    one["a"]["first"] = "b"
    assert two["a"] == two.get("a") == {"first": "a"}
    assert two.get("a", type=Pair) == Pair("a")
    assert saved(one)["a"] == {"first": "b"}


def test_raw_json_stays_as_it_was_read_whatever_is_decoded_later(make_session: MakeSession) -> None:
    session = make_session(a=b'[1,"first"]', b=b'["other"]', c=b'{"d":2}')
    raw = session.get("a", type=msgspec.Raw)
    parts = session.get("c", type=dict[str, msgspec.Raw])
    assert session["b"] == ["other"] and session.get("c") == {"d": 2}
    assert bytes(raw) == b'[1,"first"]' and bytes(parts["d"]) == b"2"


def test_decoding_may_read_another_attribute(make_session: MakeSession) -> None:
    session = make_session(a=b'["unknown","red"]', b=b'["other","values"]')
    meanwhile = []

    class Color(enum.Enum):
        RED = "red"

        @classmethod
        def _missing_(cls, value: object) -> Color:
            meanwhile.append(session["b"])
            return cls.RED

    assert session.get("a", type=tuple[Color, ...]) == (Color.RED, Color.RED)
    assert meanwhile == [["other", "values"]]


def test_a_single_mutable_value_is_known_like_several(make_session: MakeSession) -> None:
    session = make_session(a=b"[1]", b=b"[2]", c=b'"text"')
    first = session["a"]
    assert session["c"] == "text" and session["a"] is first
    first.append(2)
    session["b"].append(3)
    changes = session._changes()
    assert changes is not None and [item[:2] for item in changes.sets] == [("a", b"[1,2]"), ("b", b"[2,3]")]


@pytest.mark.parametrize(
    "change",
    [
        lambda session: session["a"].append(2),
        lambda session: session.set("a", [1, 2]),
        lambda session: (session["a"], session.set("a", [1, 2])),
    ],
)
def test_a_session_that_has_read_one_mutable_value_is_saved(
    make_session: MakeSession, change: Callable[[Session], object]
) -> None:
    session = make_session(a=b"[1]")
    change(session)
    assert saved(session)["a"] == [1, 2]
    del session["a"]
    assert "a" not in session


def test_a_single_mutable_value_that_refers_to_its_session_is_collected(make_session: MakeSession) -> None:
    class Marked:
        pass

    session, mark = make_session(a=b"[]"), Marked()
    session["a"].extend((session, mark))
    gone = weakref.ref(mark)
    del session, mark
    gc.collect()
    assert gone() is None


def test_a_value_of_another_type_is_an_error_by_its_key(make_session: MakeSession) -> None:
    session = make_session(a=b'"text"', big=b"1e400")
    with pytest.raises(AttributeTypeError, match="'a'"):
        session.get("a", type=int)
    with pytest.raises(AttributeTypeError) as caught:
        session.get("a", type=Point)
    assert caught.value.key == "a"
    session["b"] = [1]
    with pytest.raises(AttributeTypeError, match="'b'"):
        session.get("b", type=str)
    assert session.get("a", type=str) == "text" and session.get("none", 5, type=int) == 5
    with pytest.raises(AttributeTypeError, match="'big'"):
        session["big"]


@pytest.mark.parametrize("stored", [b'"\\ud800"', b"[" * 10_000 + b"]" * 10_000])
def test_what_only_plain_sql_can_store_is_an_error_by_its_key(
    make_session: MakeSession, stored: bytes
) -> None:
    session = make_session(odd=stored, a=b"1")
    with pytest.raises(AttributeTypeError, match="'odd'"):
        session["odd"]
    with pytest.raises(AttributeTypeError, match="'odd'"):
        session.get("odd", type=list)
    assert session["a"] == 1


@pytest.mark.parametrize(
    "stored",
    [
        *(
            b'"text"',
            b'""',
            b'"a\\nb"',
            '"é€"'.encode(),
            b'"\\u00e9"',
            b"0",
            b"-0",
            b"-5",
            b"123456789012345678",
        ),
        *(
            b"1234567890123456789",
            b"123456789012345678901234567890",
            b"1.0",
            b"-1e5",
            b"true",
            b"false",
            b"null",
        ),
        *(b' "spaced" ', b" 5", b"[ 1 , 2 ]", b'{"a" : null}', b"5 ", b"true ", b'"a" '),
    ],
)
def test_values_are_read_as_msgspec_reads_them(make_session: MakeSession, stored: bytes) -> None:
    expected = msgspec.json.decode(stored)
    session = make_session(a=stored)
    for _ in range(2):
        assert session["a"] == expected and type(session["a"]) is type(expected)
    assert not session.is_modified


def test_reading_never_counts_as_a_change(make_session: MakeSession) -> None:
    spaced = b'{ "x" : 1, "unknown" : [ 1 ] }'
    session = make_session(
        a=spaced, b=spaced, c=spaced, d=b'["z","a","k"]', e=b'"' + b"x" * 5000 + b'"', f=b'["\\u0000"]'
    )
    session["a"], session["e"], session["f"]
    session.get("b", type=Point)
    session.get("c", type=Stamped)
    session.get("d", type=set[str])
    assert not session.is_modified
    session.get("c", type=Stamped).x = 2
    changes = session._changes()
    assert changes is not None and [item[0] for item in changes.sets] == ["c"]


def test_a_value_read_as_two_types_is_saved_by_the_one_that_changed(make_session: MakeSession) -> None:
    session = make_session(a=b'{"x":1,"y":2}')
    plain, point = session["a"], session.get("a", type=Point)
    point.x = 9
    assert saved(session)["a"] == {"x": 9, "y": 2}
    session = make_session(a=b'{"x":1,"y":2}')
    plain = session["a"]
    plain["x"] = 5
    assert session.get("a", type=Point) == Point(5, 2)
    session.get("a", type=Point).y = 6
    assert saved(session)["a"] == {"x": 5, "y": 6}
    session = make_session(a=b'{"x":1,"y":2}')
    plain, point = session["a"], session.get("a", type=Point)
    plain["x"], point.x = 3, 4
    with pytest.raises(ValueError, match="two ways"):
        session._changes()


def test_a_value_that_was_set_may_be_read_as_a_type(make_session: MakeSession) -> None:
    session = make_session()
    value = {"x": 1}
    session["a"] = value
    assert session["a"] is value and session.get("a", type=dict) is value
    point = session.get("a", type=Point)
    assert point == Point(1) and session.get("a", type=Point) is point
    point.y = 5
    assert saved(session).get("a", type=Point) == Point(1, 5)
    session["a"] = value
    session.get("a", type=Point)
    value["x"] = 7
    assert session.get("a", type=Point) == Point(7)
    assert saved(session)["a"] == {"x": 7}


# ---- changes and saves ----


def test_a_value_is_saved_as_it_is_at_the_save(make_session: MakeSession) -> None:
    session, cart = make_session(), ["book"]
    session["cart"] = cart
    cart.append("pen")
    saved(session)
    assert session._record.attributes() == [("cart", 8, None, b'["book","pen"]')]
    cart.append("ink")
    assert session["cart"] is cart and session.is_modified
    saved(session)
    assert session._record.attributes() == [("cart", 9, None, b'["book","pen","ink"]')]
    cart.append(object())
    with pytest.raises(TypeError, match="'cart'"):
        session._changes()


def test_base_versions_tell_what_a_change_was_based_on(make_session: MakeSession, clock: Clock) -> None:
    session = make_session(a=("a", 3, None, b"1"), b=("b", 5, None, b"[1]"), old=("old", 6, START + 1, b"1"))
    clock.advance(1)
    session["a"] = 2
    session["b"].append(2)
    session["new"] = 1
    session["old"] = 2
    changes = session._changes()
    assert changes is not None
    assert sorted(changes.sets) == [
        ("a", b"2", None, 3),
        ("b", b"[1,2]", None, 5),
        ("new", b"1", None, 0),
        ("old", b"2", None, 0),
    ]
    del session["a"], session["new"]
    changes = session._changes()
    assert changes is not None and changes.deletes == [("a", 3)]
    assert [item[0] for item in sorted(changes.sets)] == ["b", "old"]


def test_defect_3_delete_then_set_and_set_then_delete(make_session: MakeSession) -> None:
    session = make_session(a=b"1")
    del session["a"]
    session["a"] = 2
    session["b"] = 1
    del session["b"]
    changes = session._changes()
    assert changes is not None and changes.sets == [("a", b"2", None, 7)] and changes.deletes == []
    assert dict(saved(session)) == {"a": 2}


def test_only_what_was_saved_stops_being_pending(make_session: MakeSession) -> None:
    session = make_session(a=b"1", l=b"[1]", kept=b"[0]")
    kept = session["kept"]
    session["a"], session["new"], session["gone"] = 2, 1, 1
    session["l"].append(2)
    changes = session._changes()
    assert changes is not None
    session["a"] = 3
    session["l"].append(3)
    session["late"] = True
    del session["gone"]
    record = session._record.changed(
        version=8, updated_at=0, last_accessed=0, expires_at=START + HOUR, inactivity=0, group_id=None,
        sets=[(key, value, at) for key, value, at, _ in changes.sets], deletes=[],
    )  # fmt: skip
    session._saved(changes, record, 0)
    assert session.version == 8 and session["kept"] is kept
    pending = session._changes()
    assert pending is not None
    assert sorted(pending.sets) == [
        ("a", b"3", None, 8),
        ("l", b"[1,2,3]", None, 8),
        ("late", b"true", None, 0),
    ]
    assert pending.deletes == [("gone", 8)]


def test_what_others_have_changed_replaces_what_was_only_read(make_session: MakeSession) -> None:
    session = make_session(mine=b"1", read=b"[1]", changed=b"[1]")
    session["mine"] = 2
    session["read"]
    changes = session._changes()
    session["changed"].append(2)
    record = session._record.changed(
        version=9, updated_at=0, last_accessed=0, expires_at=START + HOUR, inactivity=0, group_id=None,
        sets=[("mine", b"2", None), ("read", b"[5]", None), ("changed", b"[6]", None)], deletes=[],
    )  # fmt: skip
    session._saved(changes, record, 0)
    assert session["read"] == [5] and session["changed"] == [1, 2]
    pending = session._changes()
    assert pending is not None and pending.sets == [("changed", b"[1,2]", None, 7)]


# ---- expiry of attributes ----


def test_an_attribute_expires_on_its_own(make_session: MakeSession, clock: Clock) -> None:
    session = make_session(a=("a", 1, START + 10, b"1"), b=b"2", l=("l", 1, START + 10, b"[1]"))
    session["l"].append(2)
    assert session.attribute("a") == Attribute(1, 1, to_datetime(START + 10))
    assert session.attribute("b") == Attribute(2, 7, None)
    clock.advance(9)
    assert dict(session) == {"a": 1, "b": 2, "l": [1, 2]}
    clock.advance(1)
    assert dict(session) == {"b": 2} and "a" not in session and session.get("a") is None
    assert session._changes() is None
    for act in (
        lambda: session["a"],
        lambda: session.attribute("a"),
        lambda: session.pop("a"),
        lambda: session.__delitem__("a"),
    ):
        with pytest.raises(KeyError):
            act()


def test_what_is_set_with_an_expiry_expires_too(make_session: MakeSession, clock: Clock) -> None:
    session = make_session(l=("l", 1, START + HOUR, b"[1]"))
    session.set("in", 1, expires_in=timedelta(seconds=1))
    session.set("at", 2, expires_at=datetime(2100, 1, 1, tzinfo=UTC))
    session.set("seconds", 3, expires_in=2)
    session["given"] = Attribute([4], expires_at=to_datetime(START + 5_000_000))
    session["l"].append(2)
    changes = session._changes()
    assert changes is not None
    assert {key: at for key, _, at, _ in changes.sets} == {
        "in": START + 1_000_000,
        "at": 4_102_444_800_000_000,
        "seconds": START + 2_000_000,
        "given": START + 5_000_000,
        "l": START + HOUR,
    }
    clock.advance(3_000_000)
    assert set(session) == {"at", "given", "l"}
    assert session.attribute("given") == Attribute([4], 0, to_datetime(START + 5_000_000))
    with pytest.raises(ValueError, match="expires_at"):
        session.set("a", 1, expires_at=datetime(2100, 1, 1))
    with pytest.raises(ValueError, match="only one of them"):
        session.set("a", 1, expires_at=datetime(2100, 1, 1, tzinfo=UTC), expires_in=1)


def expiring(make_session: MakeSession, clock: Clock) -> Session:
    """Stored and set attributes, of which half end with the next step of the clock."""
    session = make_session(
        a=b"1", b=("b", 7, START + 10, b"2"), c=b"[3]", d=("d", 7, START + 10, b"[4]"), e=b"5"
    )
    session["b"] = Attribute(2, expires_at=to_datetime(START + 10))
    assert session["d"] == [4]
    session.set("f", 6, expires_at=to_datetime(START + 10))
    session["g"] = 7
    return session


LEFT = {"a": 1, "c": [3], "e": 5, "g": 7}


@pytest.mark.parametrize("goes_on_after", range(8))
def test_what_an_iteration_has_named_is_there_for_an_instant(
    make_session: MakeSession, clock: Clock, goes_on_after: int
) -> None:
    session = expiring(make_session, clock)
    named = {}
    for number, key in enumerate(session.keys()):
        if number == goes_on_after:
            clock.advance(10)
        assert key in session and session.get(key) == session.attribute(key).value
        named[key] = session[key]
    assert named.items() >= LEFT.items()
    assert set(named) - set(LEFT) <= {"b", "d", "f"}
    clock.advance(10)
    assert dict(session) == LEFT, "another iteration, another moment"
    assert "b" not in session and "f" not in session


@pytest.mark.parametrize("goes_on_after", range(8))
@pytest.mark.parametrize("spelling", [dict, lambda session: {**session}], ids=["dict", "unpacking"])
def test_time_goes_on_between_a_key_and_its_value(
    make_session: MakeSession, clock: Clock, goes_on_after: int, spelling: Callable[[Session], dict[str, Any]]
) -> None:
    """The clock moves as soon as a key was named, before anybody can ask for the value."""
    session = expiring(make_session, clock)
    steps = 0

    def step(frame: FrameType, event: str, argument: object) -> None:
        nonlocal steps
        if event == "return" and frame.f_code.co_name == "__iter__":
            if steps == goes_on_after:
                clock.advance(10)
            steps += 1

    sys.setprofile(step)
    try:
        found = spelling(session)
    finally:
        sys.setprofile(None)
    assert found.items() >= {"a": 1}.items() and steps > 4


def test_a_slow_loop_passes_by_what_has_expired(make_session: MakeSession, clock: Clock) -> None:
    for spelling in (Session.items, Session.values):
        session = expiring(make_session, clock)
        steps = iter(spelling(session))
        first = next(steps)
        clock.advance(1_000_000)
        assert [first, *steps] == list(LEFT.items() if spelling is Session.items else LEFT.values())
        assert "b" not in session and "f" not in session and len(session) == len(LEFT)
        clock.offset -= 1_000_000
    assert 2 in session.values() and ("b", 2) in session.items() and 7 in session.values()
    clock.advance(10)
    assert 2 not in session.values() and ("b", 2) not in session.items() and 7 in session.values()


def test_what_was_named_is_forgotten_with_the_session(
    make_cache: MakeCache, make_record: MakeRecord, clock: Clock
) -> None:
    """Memory of a session that was released is used again."""
    cache, record = make_cache(), make_record(attributes={"b": ("b", 7, START + 10, b"2")})
    assert dict(session_of(cache, record, from_cache=False)) == {"b": 2}
    clock.advance(10)
    assert "b" not in session_of(cache, record, from_cache=False)


# ---- memory ----


def test_many_attributes_read_set_and_deleted(make_session: MakeSession) -> None:
    session = make_session(**{f"l{i}": b"[%d]" % i for i in range(100)})
    for number in range(100):
        session[f"l{number}"].append(0)
        session[f"n{number}"] = number
    for number in range(0, 100, 2):
        del session[f"l{number}"], session[f"n{number}"]
    changes = session._changes()
    assert changes is not None and len(changes.sets) == 100 and len(changes.deletes) == 50
    assert len(saved(session)) == 100


def test_a_cycle_through_a_callers_value_is_collected(make_session: MakeSession) -> None:
    class Marker:
        pass

    session, marker = make_session(), Marker()
    held: list[Any] = []
    session["l"] = held
    held += [session, marker]
    gone = weakref.ref(marker)
    del session, held, marker
    gc.collect()
    assert gone() is None


def test_sessions_are_used_again_without_anything_of_the_last_one(make_session: MakeSession) -> None:
    for turn in range(300):
        session = make_session(a=b"[1]")
        assert not session.is_modified and not session.is_invalidated and dict(session) == {"a": [1]}
        session["a"].append(turn)
        session["b"] = turn
        if turn % 3 == 0:
            session.invalidate()
