"""What a session may grow to: checked where changes are collected, before anything is sent."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import pgsession._core.session as core_session
from pgsession import errors
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._core.session import Session

from .conftest import HOUR, START, saved

MANY = 100_000


def session_on(
    attributes: Iterable[tuple[str, int, int | None, bytes]], clock: Clock | None = None, **limits: int
) -> Session:
    clock = clock or Clock(manual=START)
    cache = Cache(1, clock, access_interval=0, lifetime=0, max_attribute_length=10**6, **limits)
    record = Record(bytes(16), 7, "u", "g", START, START, START, START + HOUR, None, list(attributes))
    return session_of(cache, record, from_cache=False)


def stored(values: dict[str, bytes]) -> list[tuple[str, int, int | None, bytes]]:
    return [(key, 7, None, text) for key, text in values.items()]


def bytes_of(values: dict[str, bytes]) -> int:
    return sum(len(key.encode()) + len(text) for key, text in values.items())


texts = st.integers(0, 6).map(lambda length: b'"' + b"x" * length + b'"')
keys = st.sampled_from(["a", "bb", "ü", "😀", "naïve", "dddd"])


@given(
    st.dictionaries(keys, texts),
    st.dictionaries(keys, texts | st.none()),
    st.integers(1, 60),
    st.integers(1, 6),
)
def test_a_save_is_refused_where_the_session_grows_beyond_a_limit(
    before: dict[str, bytes], changes: dict[str, bytes | None], size: int, count: int
) -> None:
    session = session_on(stored(before), max_session_size=size, max_attributes=count)
    after: dict[str, bytes] = dict(before)
    for key, text in changes.items():
        if text is not None:
            session[key] = text[1:-1].decode()
            after[key] = text
        elif session.pop(key, None) is not None:
            del after[key]
    expected: type[Exception] | None = None
    if len(after) > max(count, len(before)):
        expected = errors.TooManyAttributesError
    elif bytes_of(after) > max(size, bytes_of(before)):
        expected = errors.SessionTooLargeError
    if expected is None:
        saved(session)
    else:
        with pytest.raises(expected) as refused:
            saved(session)
        found: Any = refused.value
        if isinstance(found, errors.SessionTooLargeError):
            assert (found.size, found.limit) == (bytes_of(after), size)
        else:
            assert (found.count, found.limit) == (len(after), count)
        assert isinstance(found, errors.PgSessionError) and isinstance(found, ValueError)
        assert session.is_modified
    assert {key: f'"{value}"'.encode() for key, value in session.items()} == after


def test_what_has_expired_does_not_count() -> None:
    gone = [("gone", 7, START, b'"xxxxxxxx"'), ("soon", 7, START + 1, b"1"), ("here", 7, None, b"1")]
    session = session_on(gone, max_session_size=16, max_attributes=3)
    session["gone"] = 5
    saved(session)
    assert dict(session) == {"gone": 5, "soon": 1, "here": 1}
    session["x"] = 1
    with pytest.raises(errors.TooManyAttributesError) as refused:
        saved(session)
    assert (refused.value.count, refused.value.limit) == (4, 3)
    del session["x"]
    session["here"] = 123
    with pytest.raises(errors.SessionTooLargeError) as too_large:
        saved(session)
    assert (too_large.value.size, too_large.value.limit) == (4 + 4 + 4 + 1 + 1 + 3, 16)


def test_what_grows_inside_of_a_value_counts() -> None:
    session = session_on(stored({"l": b"[1]"}), max_session_size=6)
    session["l"].append(2)
    saved(session)
    session["l"].append(3)
    with pytest.raises(errors.SessionTooLargeError):
        saved(session)
    assert session["l"] == [1, 2, 3] and session.is_modified
    session["l"].remove(1)
    assert dict(saved(session)) == {"l": [2, 3]}


# ---- the time that many attributes take, in steps ----


def stored_ones() -> Session:
    return session_on(stored({f"k{i}": b"{}" for i in range(MANY)}))


def stored_ones_that_expire() -> Session:
    return session_on([(f"k{i}", 7, START + i % 2, b"{}") for i in range(MANY)])


def stored_ones_that_were_read() -> Session:
    session = stored_ones()
    assert len(list(session.values())) == MANY
    return session


def added_ones() -> Session:
    session = session_on([])
    session.update((f"k{i}", {}) for i in range(MANY))
    return session


def added_ones_before_many_that_were_read() -> Session:
    session = session_on(stored({f"k{i}": b"{}" for i in range(MANY // 2)}))
    session.update((f"new{i}", {}) for i in range(MANY // 2))
    for key in [key for key in session if key.startswith("k")]:
        session[key]
    return session


def added_ones_before_many_that_expire() -> Session:
    clock = Clock(manual=START)
    session = session_on([], clock)
    session.update((f"k{i}", {}) for i in range(MANY // 2))
    for number in range(MANY // 2):
        session.set(f"new{number}", 1, expires_in=1)
    session["last"] = 1
    clock.advance(2_000_000)
    return session


@pytest.mark.parametrize(
    "make",
    [
        stored_ones,
        stored_ones_that_expire,
        stored_ones_that_were_read,
        added_ones,
        added_ones_before_many_that_were_read,
        added_ones_before_many_that_expire,
    ],
)
def test_popitem_empties_a_session_in_linear_time(make: Callable[[], Session]) -> None:
    session = make()
    keys = list(session)
    before = core_session._looks()
    assert [session.popitem()[0] for _ in keys] == keys[::-1]
    with pytest.raises(KeyError):
        session.popitem()
    assert core_session._looks() - before <= 5 * MANY
    assert len(session) == 0
