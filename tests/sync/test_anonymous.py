# Generated from tests/aio/test_anonymous.py by tools/async_to_sync.py: never edit.

"""Sessions of visitors who have not logged in: nobody's, and in no user's way."""

from __future__ import annotations

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually


def test_a_session_may_be_nobodys(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session(attributes={"cart": ["book"]}, group_id="shop")
    assert session.user_id is None and session.group_id == "shop"
    for node in (a, b):
        for _ in range(2):  # from the database, then from memory
            read = node.get_session(session.id)
            assert read is not None and read.user_id is None and read["cart"] == ["book"]
    session["cart"].append("pen")
    session = a.update_session(session)
    read = b.get_session(session.id, min_version=session.version)
    assert read is not None and read.user_id is None and read["cart"] == ["book", "pen"]
    read = b.modify_session(session.id, lambda one: one.pop("cart"))
    assert read.user_id is None and not len(read) and read.group_id == "shop"
    (listed,) = a.list_group_sessions("shop")
    assert listed.id == session.id and listed.user_id is None
    assert a.delete_session(session.id)

    def gone() -> bool:
        return b.get_session(session.id) is None

    eventually(gone)


def test_anonymous_sessions_count_toward_nobodys_limit(open_manager: OpenAsyncManager) -> None:
    for policy in ("evict", "reject"):
        manager = open_manager(max_sessions=2, max_sessions_policy=policy)
        visitors = [manager.create_session(group_id=policy) for _ in range(4)]
        for _ in range(2):
            manager.create_session(policy)
        visitors += [manager.create_session(group_id=policy) for _ in range(2)]
        assert len(manager.list_group_sessions(policy)) == len(visitors) == 6
        assert len(manager.list_user_sessions(policy)) == 2


def test_no_user_has_them(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """What is done to a user's sessions, also to those of one called "None", does nothing to them."""
    manager = open_manager()
    visitor = manager.create_session(None, {"k": 1})
    for user in ("None", "null"):
        manager.create_session(user, {"k": 1})
        assert len(manager.list_user_sessions(user)) == 1
        assert manager.delete_attribute_from_user_sessions(user, "k") == 1
        manager.evict_user_sessions(user)
        assert manager.delete_user_sessions(user) == 1
    read = manager.get_session(visitor.id, refresh=True)
    assert read is not None and dict(read) == {"k": 1}
    assert tables.one("SELECT user_id IS NULL FROM {sessions}")
    assert manager.delete_all_sessions() == 1


def test_a_session_that_plain_sql_gives_to_somebody_is_his(
    manager: pgsession.SessionManager, tables: Tables
) -> None:
    session = manager.create_session()
    tables.run("UPDATE {sessions} SET user_id = 'ann' WHERE id = %s", session.id)
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and read.user_id == "ann"
    assert tables.one("SELECT owner_since = version FROM {sessions}")
    tables.run("UPDATE {sessions} SET user_id = NULL WHERE id = %s", session.id)
    read = manager.get_session(session.id, refresh=True)
    assert read is not None and read.user_id is None
    assert tables.one("SELECT owner_since = version FROM {sessions}")


def test_accesses_of_a_visitor_are_written_after_the_record_left(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = open_manager(cache_size=1)
    visitor = manager.create_session()
    before = tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", visitor.id)
    manager.get_session(visitor.id)
    manager.create_session()
    manager._open_runtime().maintenance.write_accesses()
    assert tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", visitor.id) > before
