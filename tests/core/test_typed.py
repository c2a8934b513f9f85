"""A session seen as a TypedDict or a Struct of its attributes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NotRequired, Required, TypedDict

import msgspec
import pytest

from pgsession._core.session import Session
from pgsession.errors import AttributeTypeError, SessionInvalidatedError

from .conftest import saved

MakeSession = Callable[..., Session]
WHEN = datetime(2030, 1, 1, tzinfo=UTC)


class Point(msgspec.Struct):
    x: int


class Account(TypedDict, total=False):
    since: Required[datetime]
    cart: NotRequired[list[str]]
    point: Point
    age: Annotated[int, msgspec.Meta(ge=0)]


class Facts(msgspec.Struct, frozen=True, rename={"since": "began"}):
    since: datetime
    tags: tuple[str, ...] = ()
    age: Annotated[int, msgspec.Meta(ge=0)] = 18


class Listed(msgspec.Struct, frozen=True):
    items: list[str]


def test_a_typed_dict_is_the_session_itself(make_session: MakeSession) -> None:
    session = make_session(since=b'"2030-01-01T00:00:00Z"', cart=b'["a"]', point=b'{"x":1}', other=b'"b"')
    account = session.as_type(Account)
    assert account["since"] == WHEN and account["point"] == Point(1) and account.get("age") is None
    assert account.get("cart") is account["cart"] is session.get("cart", type=list[str])
    assert set(account) == {"since", "cart", "point", "other"} and len(account) == 4 and "cart" in account
    assert account["other"] == "b"  # type: ignore[typeddict-item]
    assert not session.is_modified
    account["cart"].append("b")
    account["point"].x = 2
    account["age"] = 30
    assert account.setdefault("age", 5) == 30
    del account["since"]  # type: ignore[misc]
    assert dict(saved(session)) == {"cart": ["a", "b"], "point": {"x": 2}, "age": 30, "other": "b"}
    with pytest.raises(KeyError, match="since"):
        account["since"]
    account["since"] = WHEN
    saved(session)
    assert account["since"] == WHEN and session["since"] == "2030-01-01T00:00:00Z"
    assert dict(account)["since"] == WHEN and account.pop("age") == 30
    assert isinstance(account, Mapping) and repr(session)[1:10] in repr(account)


def test_a_typed_dict_says_what_is_not_of_its_type(make_session: MakeSession) -> None:
    account = make_session(since=b"5", age=b"-1").as_type(Account)
    for key in ("since", "age"):
        with pytest.raises(AttributeTypeError, match=f"'{key}'"):
            account[key]  # type: ignore[literal-required]
    session = make_session()
    session.invalidate()
    with pytest.raises(SessionInvalidatedError):
        session.as_type(Account)["age"] = 1


def test_a_struct_is_made_of_what_the_attributes_are(make_session: MakeSession) -> None:
    session = make_session(began=b'"2030-01-01T00:00:00Z"', tags=b'["a"]', other=b"1")
    assert session.as_type(Facts) == Facts(WHEN, ("a",), 18)
    session["age"] = 20
    assert session.as_type(Facts).age == 20 and session.as_type(Facts) == saved(session).as_type(Facts)
    session["age"] = -1
    with pytest.raises(AttributeTypeError, match="'age'"):
        session.as_type(Facts)
    with pytest.raises(KeyError, match="began"):
        make_session().as_type(Facts)


@pytest.mark.parametrize("kind", [Point, Listed, dict, dict[str, int], int, list[str], "Facts", None, Any])
def test_other_types_are_refused(make_session: MakeSession, kind: Any) -> None:
    with pytest.raises(TypeError, match=r"^type: "):
        make_session(x=b"1").as_type(kind)


def test_a_name_that_hides_the_mapping_is_an_attribute(make_session: MakeSession) -> None:
    session = make_session()
    account: Any = session.as_type(Account)
    account.update(keys=1, items=2)
    assert dict(account) == {"keys": 1, "items": 2} == dict(session)
