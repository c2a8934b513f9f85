from __future__ import annotations

import gc
import pickle
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsession._core.record import Record

names = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
items = st.dictionaries(
    names,
    st.tuples(st.integers(0, 2**62), st.none() | st.integers(1, 2**62), st.binary(min_size=1, max_size=50)),
    max_size=20,
)
owners = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)


def record_of(attributes: dict, user: str = "u", group: str | None = None, version: int = 1) -> Record:
    listed = [(key, *rest) for key, rest in attributes.items()]
    return Record(bytes(range(16)), version, user, group, 1, 2, 3, 4, True, listed)


@given(items, owners, st.none() | owners)
def test_a_record_gives_back_what_it_was_made_of(attributes: dict, user: str, group: str | None) -> None:
    record = record_of(attributes, user, group)
    assert record.attributes() == [(key, *attributes[key]) for key in sorted(attributes)]
    assert (record.user_id, record.group_id, record.key) == (user, group, bytes(range(16)))
    assert (record.created_at, record.updated_at, record.last_accessed, record.expires_at) == (1, 2, 3, 4)


@given(items, items, st.lists(names))
def test_changed_is_the_old_with_the_deletes_and_then_the_sets(
    old: dict, sets: dict, deletes: list[str]
) -> None:
    record = record_of(old).changed(
        version=9,
        updated_at=20,
        last_accessed=30,
        expires_at=40,
        inactivity=0,
        group_id="new",
        sets=[(key, value, expires_at) for key, (_, expires_at, value) in sets.items()],
        deletes=deletes,
    )
    expected = {key: rest for key, rest in old.items() if key not in deletes}
    expected |= {key: (9, expires_at, value) for key, (_, expires_at, value) in sets.items()}
    assert {key: tuple(rest) for key, *rest in record.attributes()} == expected
    assert (record.version, record.group_id, record.created_at, record.updated_at) == (9, "new", 1, 20)
    assert (record.last_accessed, record.expires_at, record.inactivity) == (30, 40, 0)


def test_keys_are_one_object_for_all_records_and_records_are_not_tracked() -> None:
    first, second = (record_of({"".join(["col", "or"]): (1, None, b"1")}) for _ in range(2))
    assert first.attributes()[0][0] is second.attributes()[0][0]
    assert not gc.is_tracked(first)


def test_many_different_shapes_are_all_right() -> None:
    records = [record_of({f"key{i}": (1, None, b"%d" % i)}) for i in range(6000)]
    assert all(record.attributes() == [(f"key{i}", 1, None, b"%d" % i)] for i, record in enumerate(records))


def test_what_cannot_be_a_record_is_refused() -> None:
    with pytest.raises(ValueError, match="twice"):
        Record(bytes(16), 1, "u", None, 0, 0, 0, 0, None, [("k", 1, None, b"1"), ("k", 2, None, b"2")])
    with pytest.raises(ValueError, match="session_id"):
        Record(b"short", 1, "u", None, 0, 0, 0, 0, None)
    with pytest.raises(TypeError):
        Record(bytes(16), 1, "u", None, 0, 0, 0, 0, None, [("k", 1, None, "text")])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="too long"):
        record_of({}, "u" * 70_000)
    record = record_of({})
    with pytest.raises(ValueError, match="not empty"):
        Record(bytes(16), 1, "u", None, 0, 0, 0, 0, None, [("k", 1, None, b"")])
    with pytest.raises(TypeError):
        Record.__new__(Record)
    with pytest.raises(TypeError, match="pickled"):
        pickle.dumps(record)


def test_an_attribute_that_is_set_anew_has_the_new_version_and_no_expiry() -> None:
    record = record_of({"a": (1, 99, b"1"), "b": (1, 99, b"1")}).changed(
        version=2, updated_at=20, last_accessed=3, expires_at=4, inactivity=0, group_id=None,
        sets=[("a", b"2", None)], deletes=[],
    )  # fmt: skip
    assert record.attributes() == [("a", 2, None, b"2"), ("b", 1, 99, b"1")]


far = st.sampled_from([0, 1, 2**32 - 1, 2**32, 2**40])


@given(
    st.dictionaries(names, st.tuples(far, st.none() | st.integers(1, 2**62)), max_size=6),
    st.tuples(far, far, far),
    far,
    st.data(),
)
def test_versions_are_the_same_however_far_they_are_from_the_record_s(
    ages: dict, rotation: tuple[int, int, int], passed: int, data: st.DataObject
) -> None:
    version = 2**41
    generations = {"generation": 7, "owner_since": version - passed}
    rotated = dict(zip(("previous_generation", "previous_until", "rotated_at"), rotation, strict=True))
    attributes = {key: (version - age, ends, key.encode()) for key, (age, ends) in ages.items()}
    listed = [(key, *rest) for key, rest in attributes.items()]
    record = Record(bytes(16), version, "u", "g", 1, 2, 3, 4, 5, listed, **generations, **rotated)
    assert record.attributes() == [(key, *attributes[key]) for key in sorted(attributes)]

    written = data.draw(st.sets(st.sampled_from([*attributes, "new"])))
    later = version + passed
    after = record.changed(
        version=later, updated_at=2, last_accessed=3, expires_at=4, inactivity=5, group_id="g",
        sets=[(key, b"set", None) for key in written], deletes=[],
    )  # fmt: skip
    attributes |= dict.fromkeys(written, (later, None, b"set"))
    assert after.attributes() == [(key, *attributes[key]) for key in sorted(attributes)]
    for of in (record, after):
        assert {name: getattr(of, name) for name in rotated | generations} == rotated | generations
        assert (of.user_id, of.group_id, of.created_at) == ("u", "g", 1)


def test_a_change_does_without_memory_or_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """The comparison of versions makes no objects, which could not be told that there is no memory for them."""
    testcapi = pytest.importorskip("_testcapi")
    hidden: list[object] = []
    monkeypatch.setattr(sys, "unraisablehook", hidden.append)
    record = record_of({f"k{number}": (1, None, b"1") for number in range(9)})
    changes = {"updated_at": 1, "last_accessed": 1, "expires_at": 1, "inactivity": 0, "group_id": None}
    sets = [("k1", b"2", None)]
    failed = 0
    for allocation in range(60):
        after = None
        testcapi.set_nomemory(allocation, allocation + 1)
        try:
            after = record.changed(version=2**32, sets=sets, deletes=[], **changes)
        except MemoryError:
            failed += 1
        finally:
            testcapi.remove_mem_hooks()
        if after is not None:
            expected = [(f"k{number}", 1, None, b"1") for number in range(9)]
            expected[1] = ("k1", 2**32, None, b"2")
            assert after.attributes() == expected
    assert failed and not hidden
