"""A record, its descendants and what readers share of them say what plain Python objects say, whatever is in them."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.hit import session_of
from pgsession._core.record import Record

from .conftest import START

MOST = 2**63 - 1
NEAR = 2**32 - 1  # the greatest age of an attribute that needs no wide record


class Key(str):
    """Is no key of a literal's kind, and says another thing of itself."""

    def __str__(self) -> str:
        return "another"

    __hash__ = str.__hash__

    def __eq__(self, other: object) -> bool:
        raise AssertionError("asked whether it is equal")


edges = st.sampled_from([-MOST - 1, -1, 0, 1, 2**31, NEAR, NEAR + 1, 2**62, MOST])
numbers = edges | st.integers(-MOST - 1, MOST)
ages = st.sampled_from([0, 1, NEAR - 1, NEAR, NEAR + 1, 2**40]) | st.integers(0, 2**33)
plain = st.text(st.characters(exclude_categories=["Cs"]), max_size=5)
keys = st.sampled_from(["a", "b", "é", "\U0001f600", "e\u0301", "k" * 512]) | plain.filter(bool)
owners = st.none() | plain | st.sampled_from(["x" * 0xFFFF, "é" * 0x7FFF])
values = (
    st.integers(-9, 9)
    | plain
    | st.lists(st.integers(0, 9), max_size=3)
    | st.none()
    | st.dictionaries(plain, plain)
)
texts = values.map(lambda value: json.dumps(value).encode())
expiries = st.none() | st.sampled_from([1, START, START + 1, MOST])
attributes = st.dictionaries(keys, st.tuples(ages, expiries, texts), max_size=12)
TYPES = (None, int, str, object, list[int], dict)


class Model:
    """What a record is to say."""

    def __init__(
        self, record: Record, fields: dict[str, Any], items: dict[str, tuple[int, int | None, bytes]]
    ) -> None:
        self.record, self.fields, self.items = record, fields, items

    def check(self) -> None:
        assert self.record.attributes() == [(key, *self.items[key]) for key in sorted(self.items)]
        assert {name: getattr(self.record, name) for name in self.fields} == self.fields

    def read(self, cache: Cache, data: st.DataObject) -> None:
        session = session_of(cache, self.record, from_cache=True)
        assert session.id.bytes == self.record.key
        for key in data.draw(st.lists(st.sampled_from(sorted(self.items)), max_size=4)) if self.items else ():
            _, expires_at, text = self.items[key]
            type_ = data.draw(st.sampled_from(TYPES))
            try:
                value = session[key] if type_ is None else session.get(key, type=type_)
            except KeyError:
                assert expires_at is not None and expires_at <= START
            except TypeError:
                assert type_ not in (None, object)
            else:
                over = expires_at is not None and expires_at <= START
                assert value == (None if over else json.loads(text))


def changed(before: Model, data: st.DataObject) -> Model | None:
    """A descendant; None where its version would be none."""
    version = before.fields["version"] + max(data.draw(ages), 1)
    if version > MOST:
        return None
    known = st.sampled_from(sorted(before.items)) if before.items else keys
    sets = data.draw(st.lists(st.tuples(known | keys, texts, st.none() | st.none() | expiries), max_size=3))
    deletes = data.draw(st.just([]) | st.lists(known | keys, max_size=2))
    names = ("updated_at", "last_accessed", "expires_at", "inactivity")
    new = dict(zip(names, data.draw(st.tuples(*[numbers] * len(names))), strict=True))
    new["group_id"] = data.draw(st.just(before.fields["group_id"]) | owners)
    items = {key: item for key, item in before.items.items() if key not in deletes}
    items |= {key: (version, expires_at, text) for key, text, expires_at in sets}
    given = [(Key(key) if data.draw(st.booleans()) else key, *rest) for key, *rest in sets]
    record = before.record.changed(version=version, sets=given, deletes=deletes, **new)
    return Model(record, {**before.fields, **new, "version": version}, items)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow], deadline=None)
@given(attributes, numbers, st.tuples(owners, owners), st.tuples(*[numbers] * 10), st.data())
def test_a_record_and_its_descendants_are_as_plain_objects(
    make_cache: Callable[..., Cache],
    aged: dict[str, tuple[int, int | None, bytes]],
    version: int,
    owned: tuple[str | None, str | None],
    times: tuple[int, ...],
    data: st.DataObject,
) -> None:
    items = {key: (max(version - age, -MOST - 1), *rest) for key, (age, *rest) in aged.items()}
    names = (
        "created_at", "updated_at", "last_accessed", "expires_at", "inactivity", "generation", "owner_since",
        "previous_generation", "previous_until", "rotated_at",
    )  # fmt: skip
    fields = {
        "version": version,
        "user_id": owned[0],
        "group_id": owned[1],
        **dict(zip(names, times, strict=True)),
    }
    listed = data.draw(st.permutations([(key, *rest) for key, rest in items.items()]))
    models = [Model(Record(bytes(16), **fields, attributes=listed), fields, items)]
    cache = make_cache()
    for _ in range(data.draw(st.integers(0, 4))):
        models[-1].read(cache, data)
        descendant = changed(models[-1], data)
        models += [descendant] if descendant is not None else []
    for model in models:
        model.read(cache, data)
        model.check()


@pytest.mark.parametrize("count", [0, 1, 8, 9, 0xFFFF, 0x10000, 0x10001])
def test_any_number_of_attributes_is_read_and_changed(make_cache: Callable[..., Cache], count: int) -> None:
    """The place of a value that is decoded alone has sixteen bits."""
    cache = make_cache()
    listed = [(f"{number:06}", 1, None, b'"%d"' % number) for number in range(count)]
    record = Record(bytes(16), 1, "u", None, 1, 2, 3, START + 1, 5, listed)
    last = listed[-1:]
    for version in range(2, 5):
        session = session_of(cache, record, from_cache=True)
        assert [session[key] for key, *_ in last] == [json.loads(text) for *_, text in last]
        record = record.changed(
            version=version, updated_at=2, last_accessed=3, expires_at=START + 1, inactivity=5, group_id=None,
            sets=[(key, b'"new"', None) for key, *_ in last], deletes=[],
        )  # fmt: skip
        last = [(key, version, None, b'"new"') for key, *_ in last]
        assert record.attributes() == [*listed[:-1], *last]
