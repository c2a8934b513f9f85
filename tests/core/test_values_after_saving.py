"""After a save a session reads as others read it, and what its caller goes on changing in his own objects is found."""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import pytest

from pgsession._core.session import Session
from pgsession.errors import AttributeTypeError

from .conftest import saved

MakeSession = Callable[..., Session]


class Color(enum.Enum):
    RED = "red"


class Level(enum.IntEnum):
    HIGH = 3


class Text(str):
    pass


class Point(msgspec.Struct):
    x: Any
    y: list[int] = []


class Pair(msgspec.Struct, frozen=True):
    first: str


@dataclass
class Cart:
    items: list[str] = field(default_factory=list)
    color: Color = Color.RED


class Named(NamedTuple):
    x: int


WHEN = datetime(2030, 1, 2, 3, 4, 5, 6, UTC)
VALUES: list[Any] = [
    WHEN, date(2030, 1, 2), timedelta(seconds=5), UUID(int=5), Decimal("1.50"), (1, 2), {7}, frozenset({7}), b"ab",
    bytearray(b"ab"), Color.RED, Level.HIGH, {Text("a"): 1}, Point(1), Pair("a"), Cart(["a"]), Named(1), [WHEN],
    {"a": (1,)}, {"a": Level.HIGH}, {UUID(int=1): 1}, {1: "a"}, [[{"a": [Color.RED]}]], 5, "a", None, 1.5, True,
    [], {}, [1, {"a": [2]}],
]  # fmt: skip


def types_of(value: Any) -> Any:
    if isinstance(value, list):
        return [list, *map(types_of, value)]
    if isinstance(value, dict):
        return {key: (type(key), types_of(part)) for key, part in value.items()}
    return type(value)


def fresh(make_session: MakeSession, session: Session) -> Session:
    """As another caller has it."""
    return make_session(**{key: text for key, _, _, text in session._record.attributes()})


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {value}"[:40])
def test_a_value_is_read_back_as_others_read_it(make_session: MakeSession, value: Any) -> None:
    session = make_session()
    session["a"] = value
    assert session["a"] is value, "before it is saved it is what was put in"
    saved(session)
    expected = fresh(make_session, session)["a"]
    for _ in range(2):
        assert session["a"] == expected and types_of(session["a"]) == types_of(expected)
        assert session.attribute("a").value == expected and dict(session) == {"a": expected}
        assert not session.is_modified
        saved(session)


@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__} {value}"[:40])
@pytest.mark.parametrize("untyped_first", [False, True])
def test_a_type_gives_the_type_back(make_session: MakeSession, value: Any, untyped_first: bool) -> None:
    session = make_session()
    session["a"] = value
    saved(session)
    if untyped_first:
        assert session["a"] is session["a"] or isinstance(session["a"], int | float)
    expected = fresh(make_session, session).get("a", type=type(value))
    for _ in range(2):
        found = session.get("a", type=type(value))
        assert found == expected and types_of(found) == types_of(expected)
        assert not session.is_modified


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        ([1, {"a": [2]}], Any),
        ({"a": [1]}, Any),
        ({"a": [1]}, dict),
        (Point(1, [2]), Point),
        (Cart(["a"]), Cart),
        ([WHEN], list[datetime]),
        ([Cart()], list[Cart]),
        ({1: [2]}, dict[int, list[int]]),
        (([1],), tuple[list[int]]),
    ],
)
def test_the_callers_own_object_is_given_where_others_read_the_same(
    make_session: MakeSession, value: Any, kind: Any
) -> None:
    session = make_session()
    session["a"] = value
    for _ in range(3):
        saved(session)
        assert session.get("a", type=kind) is value and session.get("a", type=kind) is value
        assert not session.is_modified
        session["b"] = [1]


def add_to_set(value: set[int]) -> None:
    value.add(len(value) + 10)


def add_to_cart(value: Cart) -> None:
    value.items.append("b")


def add_to_point(value: Point) -> None:
    value.y.append(5)


def add_to_tuple(value: tuple[list[int]]) -> None:
    value[0].append(5)


def add_to_list(value: list[datetime]) -> None:
    value.append(WHEN)


def add_bytes(value: bytearray) -> None:
    value.extend(b"z")


CHANGES: list[tuple[Callable[[], Any], Any]] = [
    (lambda: {7}, add_to_set),
    (lambda: Cart(["a"]), add_to_cart),
    (lambda: Point(1, [2]), add_to_point),
    (lambda: Point(WHEN), add_to_point),
    (lambda: ([1],), add_to_tuple),
    (lambda: [WHEN], add_to_list),
    (lambda: bytearray(b"a"), add_bytes),
]


@pytest.mark.parametrize(("make", "change"), CHANGES)
@pytest.mark.parametrize("look", [None, Any, "own"])
def test_a_nested_change_of_what_was_put_in_is_found_after_each_save(
    make_session: MakeSession, make: Callable[[], Any], change: Callable[[Any], None], look: Any
) -> None:
    session, value = make_session(), make()
    session["a"] = value
    for _ in range(3):
        saved(session)
        if look is not None:
            session.get("a", type=type(value) if look == "own" else look)
        change(value)
        assert session.is_modified
        saved(session)
        assert session._record.attributes()[0][3] == msgspec.json.encode(value)
        assert session["a"] == fresh(make_session, session)["a"]


def test_what_was_read_as_a_type_and_changed_is_read_as_others_read_it(make_session: MakeSession) -> None:
    session = make_session(a=b'{"x":1}')
    point = session.get("a", type=Point)
    point.x = WHEN
    point.y.append(3)
    assert session["a"] == {"x": "2030-01-02T03:04:05.000006Z", "y": [3]}
    saved(session)
    again = session.get("a", type=Point)
    assert again == Point("2030-01-02T03:04:05.000006Z", [3]) and again is not point
    point.y.append(4)
    saved(session)
    assert session["a"]["y"] == [3, 4]
    point.x = 1
    saved(session)
    assert session.get("a", type=Point) is point, "now others read the same"
    point.y = ["no number"]  # type: ignore[list-item]
    saved(session)
    with pytest.raises(AttributeTypeError, match="'a'"):
        session.get("a", type=Point)


def test_a_change_after_the_save_is_read_as_it_will_be_saved(make_session: MakeSession) -> None:
    session = make_session()
    cart = session["a"] = [1]
    saved(session)
    cart.append(WHEN)  # type: ignore[arg-type]
    assert session["a"] == [1, "2030-01-02T03:04:05.000006Z"]
    assert saved(session)["a"] == [1, "2030-01-02T03:04:05.000006Z"]


def test_two_objects_changed_in_two_ways_after_a_save_are_an_error(make_session: MakeSession) -> None:
    session, cart = make_session(), Cart(["a"])
    session["a"] = cart
    saved(session)
    read = session["a"]
    cart.items.append("b")
    read["items"].append("c")
    with pytest.raises(ValueError, match="'a' was changed in two ways"):
        session._changes()
    read["items"][-1] = "b"
    assert saved(session)["a"] == {"items": ["a", "b"], "color": "red"}


def test_comparing_with_what_was_saved_may_save_the_session(make_session: MakeSession) -> None:
    session = make_session(z=b"[1]")
    names = iter(f"a{number}" for number in range(100))

    class Odd(msgspec.Struct):
        key: str

        def __getattribute__(self, name: str) -> Any:
            if name == "key":
                session[next(names)] = ["other"]
                saved(session)
            return object.__getattribute__(self, name)

    value = Odd("k")
    session["k"] = value
    saved(session)
    assert session.get("k", type=Odd) == Odd("k")
    assert session["k"] == {"key": "k"} and session["z"] == [1]
    assert all(session[name] == ["other"] for name in session if name.startswith("a"))
