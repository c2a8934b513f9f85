"""Sessions of visitors who have not logged in: nobody's, and in no user's way."""

from __future__ import annotations

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually


async def test_a_session_may_be_nobodys(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session(attributes={"cart": ["book"]}, group_id="shop")
    assert session.user_id is None and session.group_id == "shop"
    for node in (a, b):
        for _ in range(2):  # from the database, then from memory
            read = await node.get_session(session.id)
            assert read is not None and read.user_id is None and read["cart"] == ["book"]
    session["cart"].append("pen")
    session = await a.update_session(session)
    read = await b.get_session(session.id, min_version=session.version)
    assert read is not None and read.user_id is None and read["cart"] == ["book", "pen"]
    read = await b.modify_session(session.id, lambda one: one.pop("cart"))
    assert read.user_id is None and not len(read) and read.group_id == "shop"
    (listed,) = await a.list_group_sessions("shop")
    assert listed.id == session.id and listed.user_id is None
    assert await a.delete_session(session.id)

    async def gone() -> bool:
        return await b.get_session(session.id) is None

    await eventually(gone)


async def test_anonymous_sessions_count_toward_nobodys_limit(open_manager: OpenAsyncManager) -> None:
    for policy in ("evict", "reject"):
        manager = await open_manager(max_sessions=2, max_sessions_policy=policy)
        visitors = [await manager.create_session(group_id=policy) for _ in range(4)]
        for _ in range(2):
            await manager.create_session(policy)
        visitors += [await manager.create_session(group_id=policy) for _ in range(2)]
        assert len(await manager.list_group_sessions(policy)) == len(visitors) == 6
        assert len(await manager.list_user_sessions(policy)) == 2


async def test_no_user_has_them(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """What is done to a user's sessions, also to those of one called "None", does nothing to them."""
    manager = await open_manager()
    visitor = await manager.create_session(None, {"k": 1})
    for user in ("None", "null"):
        await manager.create_session(user, {"k": 1})
        assert len(await manager.list_user_sessions(user)) == 1
        assert await manager.delete_attribute_from_user_sessions(user, "k") == 1
        await manager.evict_user_sessions(user)
        assert await manager.delete_user_sessions(user) == 1
    read = await manager.get_session(visitor.id, refresh=True)
    assert read is not None and dict(read) == {"k": 1}
    assert tables.one("SELECT user_id IS NULL FROM {sessions}")
    assert await manager.delete_all_sessions() == 1


async def test_a_session_that_plain_sql_gives_to_somebody_is_his(
    manager: pgsession.AsyncSessionManager, tables: Tables
) -> None:
    session = await manager.create_session()
    tables.run("UPDATE {sessions} SET user_id = 'ann' WHERE id = %s", session.id)
    read = await manager.get_session(session.id, refresh=True)
    assert read is not None and read.user_id == "ann"
    assert tables.one("SELECT owner_since = version FROM {sessions}")
    tables.run("UPDATE {sessions} SET user_id = NULL WHERE id = %s", session.id)
    read = await manager.get_session(session.id, refresh=True)
    assert read is not None and read.user_id is None
    assert tables.one("SELECT owner_since = version FROM {sessions}")


async def test_accesses_of_a_visitor_are_written_after_the_record_left(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager(cache_size=1)
    visitor = await manager.create_session()
    before = tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", visitor.id)
    await manager.get_session(visitor.id)
    await manager.create_session()
    await manager._open_runtime().maintenance.write_accesses()
    assert tables.one("SELECT last_accessed FROM {sessions} WHERE id = %s", visitor.id) > before
