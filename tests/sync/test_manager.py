# Generated from tests/aio/test_manager.py by tools/async_to_sync.py: never edit.

"""The main job: create, read, change, delete, on one node and on two."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql

import pgsession
from pgsession import Attribute
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import eventually


def test_a_created_session_is_read_back(manager: pgsession.SessionManager) -> None:
    before = datetime.now(UTC)
    created = manager.create_session(7, {"role": "admin", "tags": ["a", {"b": None}]}, group_id="acme")
    assert created.user_id == "7" and created.group_id == "acme" and changes(created) == 0
    assert abs(created.created_at - before) < timedelta(minutes=1)
    session = manager.get_session(created.id)
    assert session is not None and session is not created
    assert session.from_cache
    assert dict(session) == {"role": "admin", "tags": ["a", {"b": None}]}
    assert session.id == created.id and isinstance(session.id, uuid.UUID)
    assert abs(session.expires_at - session.created_at - timedelta(days=30)) < timedelta(minutes=1)


def test_the_three_forms_of_an_id(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u")
    for form in (session.id, str(session.id), str(session.id).upper(), session.id.bytes):
        found = manager.get_session(form)
        assert found is not None and found.id == session.id


@pytest.mark.parametrize("bad", [None, 7, 1.5, ["x"], bytearray(16)])
def test_an_id_of_a_wrong_type_is_refused(manager: pgsession.SessionManager, bad: Any) -> None:
    with pytest.raises(TypeError, match="session_id"):
        manager.get_session(bad)
    with pytest.raises(TypeError, match="session_id"):
        manager.get_cached_session(bad)
    with pytest.raises(TypeError, match="session_id"):
        manager.delete_session(bad)


@pytest.mark.parametrize("bad", ["", "x", "0" * 32, "g" * 36, "0" * 36, b"", b"x" * 15, b"x" * 17, "é" * 36])
def test_a_malformed_id_is_refused(manager: pgsession.SessionManager, bad: Any) -> None:
    with pytest.raises(ValueError, match="session_id"):
        manager.get_session(bad)
    with pytest.raises(ValueError, match="session_id"):
        manager.delete_session(bad)


def test_an_unknown_id_is_none(manager: pgsession.SessionManager) -> None:
    assert manager.get_session(uuid.uuid4()) is None
    assert manager.get_cached_session(uuid.uuid4()) is None
    assert not manager.delete_session(uuid.uuid4())


def test_another_node_reads_from_the_database_then_from_memory(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    created = a.create_session("u", {"k": "v"})
    assert b.get_cached_session(created.id) is None
    first = b.get_session(created.id)
    again = b.get_session(created.id)
    assert first is not None and again is not None
    assert not first.from_cache and again.from_cache
    assert dict(first) == dict(again) == {"k": "v"}
    cached = b.get_cached_session(created.id)
    assert cached is not None and cached.from_cache
    refreshed = b.get_session(created.id, refresh=True)
    assert refreshed is not None and not refreshed.from_cache


def test_an_update_reaches_the_other_node(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 0})
    b.get_session(session.id)
    session["n"] = 1
    assert a.update_session(session) is session
    assert changes(session) == 1 and session["n"] == 1 and not session.is_modified

    def seen() -> bool:
        other = b.get_session(session.id)
        return other is not None and other["n"] == 1

    eventually(seen)
    own = a.get_session(session.id)
    assert own is not None and own.from_cache and changes(own) == 1


def test_min_version_reads_past_an_older_copy(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 0})
    b.get_session(session.id)
    session["n"] = 1
    a.update_session(session, notify=False)
    stale = b.get_session(session.id)
    assert stale is not None and changes(stale) == 0
    fresh = b.get_session(session.id, min_version=session.version)
    assert fresh is not None and changes(fresh) == 1 and fresh["n"] == 1
    # a version that the database does not reach is looked for once, not at every read
    b.get_session(session.id, min_version=session.version + 7)
    again = b.get_session(session.id, min_version=session.version + 7)
    assert again is not None and again.from_cache


def test_update_writes_only_what_changed(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"mine": 1, "theirs": 1, "cart": ["book"], "gone": True})
    mine = a.get_session(session.id)
    theirs = b.get_session(session.id)
    assert mine is not None and theirs is not None
    theirs["theirs"] = 2
    b.update_session(theirs)
    mine["mine"] = 2
    mine["cart"].append("pen")
    del mine["gone"]
    assert mine.is_modified
    a.update_session(mine)
    assert dict(mine) == {"mine": 2, "theirs": 2, "cart": ["book", "pen"]}
    assert changes(mine) == 2
    assert (
        mine.attribute("theirs").version == theirs.version and mine.attribute("cart").version == mine.version
    )
    fresh = b.get_session(session.id, refresh=True)
    assert fresh is not None and dict(fresh) == dict(mine)


def test_a_change_is_not_seen_by_others_before_it_is_saved(
    manager: pgsession.SessionManager,
) -> None:
    session = manager.create_session("u", {"cart": ["book"], "n": 1})
    one, two = manager.get_session(session.id), manager.get_session(session.id)
    assert one is not None and two is not None
    one["cart"].append("pen")
    one["n"] = 2
    assert two["cart"] == ["book"] and two["n"] == 1
    third = manager.get_session(session.id)
    assert third is not None and dict(third) == {"cart": ["book"], "n": 1}


def test_reading_is_no_change(manager: pgsession.SessionManager) -> None:
    class Preferences(msgspec.Struct):
        theme: str

    session = manager.create_session("u", {"prefs": {"theme": "dark", "extra": 1}, "list": [1, 2]})
    read = manager.get_session(session.id)
    assert read is not None
    assert read.get("prefs", type=Preferences).theme == "dark"
    assert read["list"] == [1, 2]
    assert not read.is_modified
    manager.update_session(read)
    assert changes(read) == 0


def test_expiring_attributes_and_sessions(manager: pgsession.SessionManager) -> None:
    soon = datetime.now(UTC) + timedelta(seconds=0.4)
    session = manager.create_session("u", {"code": Attribute("x", expires_at=soon), "stay": 1})
    short = manager.create_session("u", {"a": 1}, expires_in=0.4)
    assert session["code"] == "x"

    def gone() -> bool:
        read = manager.get_session(session.id)
        return read is not None and "code" not in read and manager.get_session(short.id) is None

    eventually(gone)
    read = manager.get_session(session.id)
    assert read is not None and dict(read) == {"stay": 1} and len(read) == 1
    short["a"] = 2
    with pytest.raises(pgsession.SessionNotFoundError):
        manager.update_session(short)
    assert not manager.delete_session(short.id)


def test_delete_reaches_the_other_node(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    b.get_session(session.id)
    assert a.delete_session(session.id)
    assert not a.delete_session(session.id)
    assert a.get_session(session.id) is None

    def gone() -> bool:
        return b.get_session(session.id) is None

    eventually(gone)
    session["a"] = 1
    with pytest.raises(pgsession.SessionNotFoundError) as caught:
        a.update_session(session)
    assert caught.value.session_id == session.id
    assert session.is_modified and session["a"] == 1


def test_conflicts(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    created = a.create_session("u", {"x": 1, "y": 1})
    one = a.get_session(created.id)
    two = b.get_session(created.id)
    assert one is not None and two is not None
    one["x"] = 2
    a.update_session(one, check="session")
    two["x"] = 3
    with pytest.raises(pgsession.AttributeVersionConflict) as attribute:
        b.update_session(two, check="attributes")
    assert attribute.value.keys == ("x",)
    assert two.is_modified and two["x"] == 3 and changes(two) == 0
    with pytest.raises(pgsession.SessionVersionConflict):
        b.update_session(two, check="session")
    three = b.get_session(created.id)
    assert three is not None and three["x"] == 2, "a conflict must drop the local copy"
    del two["x"]
    four = b.get_session(created.id)
    assert four is not None
    four["y"] = 4
    b.update_session(four, check="attributes")
    assert dict(four) == {"x": 2, "y": 4}


def test_modify_session_retries_on_conflict(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    created = a.create_session("u", {"n": 0})
    b.get_session(created.id)
    interfered = []

    def change(session: pgsession.Session) -> None:
        if not interfered:
            interfered.append(True)
            other = a.get_session(created.id)
            assert other is not None
            other["n"] += 10
            a.update_session(other)
        session["n"] += 1

    result = b.modify_session(created.id, change)
    assert result["n"] == 11
    with pytest.raises(pgsession.SessionNotFoundError):
        b.modify_session(uuid.uuid4(), change)


def test_update_options(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u", group_id="g")
    until = datetime.now(UTC) + timedelta(days=2)
    manager.update_session(session, expires_at=until, include_inactivity=False, group_id="h")
    for read in (
        session,
        manager.get_session(session.id),
        manager.get_session(session.id, refresh=True),
    ):
        assert read is not None
        assert (read.expires_at, read.include_inactivity, read.group_id) == (until, False, "h")
    manager.update_session(session, group_id=None)
    assert session.group_id is None
    with pytest.raises(ValueError, match="only one"):
        manager.update_session(session, expires_at=until, expires_in=5)
    with pytest.raises(ValueError, match="naive"):
        manager.update_session(session, expires_at=datetime.now())
    with pytest.raises(ValueError, match="check"):
        manager.update_session(session, check="both")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("arguments", "error", "name"),
    [
        ({"user_id": 1.5}, TypeError, "user_id"),
        ({"user_id": True}, TypeError, "user_id"),
        ({"user_id": ""}, ValueError, "user_id"),
        ({"user_id": "a\0b"}, ValueError, "user_id"),
        ({"user_id": "\ud800"}, ValueError, "user_id"),
        ({"user_id": "x" * 513}, ValueError, "user_id"),
        ({"user_id": "u", "group_id": "x\0"}, ValueError, "group_id"),
        ({"user_id": "u", "attributes": [("a", 1)]}, TypeError, "attributes"),
        ({"user_id": "u", "attributes": {"a": object()}}, TypeError, "a"),
        ({"user_id": "u", "attributes": {"a": "x\0y"}}, ValueError, "a"),
        ({"user_id": "u", "attributes": {"a": "\ud800"}}, ValueError, "a"),
        ({"user_id": "u", "attributes": {7: 1}}, TypeError, "key"),
        (
            {"user_id": "u", "attributes": {"a": "x" * 20000}},
            pgsession.AttributeTooLargeError,
            "max_attribute_length",
        ),
        ({"user_id": "u", "expires_at": datetime(2100, 1, 1)}, ValueError, "naive"),
        ({"user_id": "u", "expires_at": 5}, TypeError, "expires_at"),
        ({"user_id": "u", "expires_in": 0}, ValueError, "expires_in"),
        ({"user_id": "u", "expires_in": "soon"}, TypeError, "expires_in"),
        ({"user_id": "u", "include_inactivity": 1}, TypeError, "include_inactivity"),
    ],
)
def test_bad_arguments_of_create_are_named_and_nothing_is_written(
    manager: pgsession.SessionManager, arguments: dict[str, Any], error: type[Exception], name: str
) -> None:
    with pytest.raises(error, match=name):
        manager.create_session(**arguments)
    if isinstance(arguments["user_id"], str) and arguments["user_id"] == "u":
        assert manager.list_user_sessions("u") == []


def test_user_ids_are_text(manager: pgsession.SessionManager) -> None:
    user = uuid.uuid4()
    assert (manager.create_session(user)).user_id == str(user)
    assert (manager.create_session("x" * 512)).user_id == "x" * 512
    assert len(manager.list_user_sessions(user)) == 1


def test_an_unusable_value_leaves_the_session_as_it_was(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u", {"a": 1})
    with pytest.raises(TypeError, match="a"):
        session["a"] = object()
    with pytest.raises(pgsession.AttributeTooLargeError):
        session["a"] = "x" * 20000
    assert session["a"] == 1 and not session.is_modified
    session["list"] = [1]
    session["list"].append(object())
    with pytest.raises(TypeError, match="list"):
        manager.update_session(session)
    session["list"] = [2]
    manager.update_session(session)
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and dict(read) == {"a": 1, "list": [2]}


def test_an_invalidated_session_takes_no_changes(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u", {"a": 1})
    session.invalidate()
    with pytest.raises(pgsession.SessionInvalidatedError):
        session["a"] = 2
    with pytest.raises(pgsession.SessionInvalidatedError):
        manager.update_session(session)


def test_use_after_close_and_before_open(dsn: str, schema: str) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    manager = pgsession.SessionManager(dsn, config)
    with pytest.raises(pgsession.ManagerClosedError):
        manager.get_session(uuid.uuid4())
    manager.open()
    manager.open()
    session = manager.create_session("u")
    manager.close()
    manager.close()
    for call in (
        lambda: manager.get_session(session.id),
        lambda: manager.create_session("u"),
        lambda: manager.update_session(session),
        lambda: manager.delete_session(session.id),
        lambda: manager.list_user_sessions("u"),
        lambda: manager.clear_cache(),
        lambda: manager.open(),
    ):
        with pytest.raises(pgsession.ManagerClosedError):
            call()
    with pytest.raises(pgsession.ManagerClosedError):
        manager.get_cached_session(session.id)


def test_a_missing_schema_names_the_command(dsn: str, schema: str) -> None:
    manager = pgsession.SessionManager(dsn, pgsession.Config(schema_name=schema))
    with pytest.raises(pgsession.SchemaError, match="python -m pgsession init"):
        manager.open()
    manager.close()


def test_a_listener_that_is_down_means_no_answer_from_memory(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    a, b = open_manager(), open_manager(max_staleness=1)
    session = a.create_session("u", {"n": 0})
    b.get_session(session.id)
    with psycopg.Connection.connect(dsn, autocommit=True) as connection:
        # b's listener loses its connection, and a changes the session before it is back
        pids = [row[0] for row in (connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE query LIKE 'LISTEN%' OR application_name LIKE 'pgsession listener%'"
        )).fetchall()]  # fmt: skip
        session["n"] = 1
        a.update_session(session, notify=False)
        for pid in pids:
            connection.execute("SELECT pg_terminate_backend(%s)", (pid,))

    def fresh() -> bool:
        read = b.get_session(session.id)
        assert read is not None
        return bool(read["n"] == 1)

    eventually(fresh)
    assert b.stats().listener_losses >= 1


def test_plain_sql_reaches_the_cache(open_manager: OpenAsyncManager, dsn: str, schema: str) -> None:
    manager = open_manager()
    session = manager.create_session("u", {"n": 0})
    manager.get_session(session.id)
    with psycopg.Connection.connect(dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL("UPDATE {}.session_attributes SET value = '5' WHERE session_id = %s").format(
                sql.Identifier(schema)
            ),
            (session.id,),
        )

    def changed() -> bool:
        read = manager.get_session(session.id)
        return read is not None and read["n"] == 5

    eventually(changed)
    with psycopg.Connection.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DELETE FROM {}.sessions").format(sql.Identifier(schema)))

    def gone() -> bool:
        return manager.get_session(session.id) is None

    eventually(gone)
