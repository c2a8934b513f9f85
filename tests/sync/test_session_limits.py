# Generated from tests/aio/test_session_limits.py by tools/async_to_sync.py: never edit.

"""A session that a save would make too large is refused before anything is sent; what is stored is read as ever."""

from __future__ import annotations

import psycopg
import pytest

import pgsession
from pgsession import errors
from tests.versions import changes

from .conftest import OpenAsyncManager


def test_a_new_session_that_is_too_large_is_not_made(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_session_size=20, max_attributes=2)
    with pytest.raises(errors.SessionTooLargeError, match="max_session_size is 20") as too_large:
        manager.create_session("ann", {"ü": "x" * 17})
    assert (too_large.value.size, too_large.value.limit) == (21, 20)
    with pytest.raises(errors.TooManyAttributesError, match="max_attributes is 2") as too_many:
        manager.create_session("ann", {"a": 1, "b": 1, "c": 1})
    assert (too_many.value.count, too_many.value.limit) == (3, 2)
    assert manager.list_user_sessions("ann") == []
    session = manager.create_session("ann", {"ü": "x" * 14, "a": 1})
    assert dict(session) == {"ü": "x" * 14, "a": 1}


def test_an_update_that_is_too_large_is_not_sent_and_stays_pending(
    open_manager: OpenAsyncManager,
) -> None:
    manager = open_manager(max_session_size=20, max_attributes=2)
    session = manager.create_session("ann", {"list": [1]})
    session["list"].append("x" * 20)
    with pytest.raises(errors.SessionTooLargeError):
        manager.update_session(session)
    assert session.is_modified and session["list"] == [1, "x" * 20] and changes(session) == 0
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and dict(read) == {"list": [1]} and changes(read) == 0
    session["list"][1] = 2
    session["a"] = session["b"] = 1
    with pytest.raises(errors.TooManyAttributesError):
        manager.update_session(session, expires_in=60)
    del session["b"]
    manager.update_session(session)
    assert dict(session) == {"list": [1, 2], "a": 1}


def test_a_session_beyond_a_limit_is_read_and_may_shrink(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    large = open_manager(max_attributes=5)
    small = open_manager(max_session_size=16, max_attributes=2)
    made = large.create_session("ann", {f"k{i}": "x" * 10 for i in range(3)})
    with psycopg.Connection.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"UPDATE {schema}.session_attributes SET value = '\"12345678901\"' WHERE key = 'k0'"  # type: ignore[arg-type]
        )
    session = small.get_session(made.id, refresh=True)
    assert session is not None and len(session) == 3 and session["k0"] == "12345678901"
    session["k0"] = "y" * 11
    small.update_session(session)
    session["k0"] += "y"
    with pytest.raises(errors.SessionTooLargeError):
        small.update_session(session)
    session["k0"] = "y"
    session["other"] = 1
    with pytest.raises(errors.TooManyAttributesError):
        small.update_session(session)
    del session["k1"]
    small.update_session(session, group_id="g")
    del session["other"]
    small.update_session(session)
    again = large.get_session(made.id, refresh=True)
    assert again is not None and dict(again) == {"k0": "y", "k2": "x" * 10} and again.group_id == "g"


def test_the_limits_have_defaults_that_are_said(manager: pgsession.SessionManager) -> None:
    assert (pgsession.Config().max_session_size, pgsession.Config().max_attributes) == (1_048_576, 1000)
    manager.create_session("ann", {f"k{i}": 1 for i in range(1000)})
    with pytest.raises(errors.TooManyAttributesError):
        manager.create_session("ann", {f"k{i}": 1 for i in range(1001)})
    with pytest.raises(errors.SessionTooLargeError):
        manager.create_session("ann", {f"k{i}": "x" * 16_000 for i in range(66)})
