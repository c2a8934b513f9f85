"""More than one session: limits, lists, deletions and evictions, and that every node hears of them."""

from __future__ import annotations

import uuid
from datetime import timedelta
from typing import Any

import pytest

import pgsession
from pgsession._async.store import LONGEST_REST
from pgsession._concurrency import AsyncEvent
from pgsession._database.statements import NIL
from tests.crew import AsyncCrew
from tests.leftovers import UNRELEASED
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually

MANY = 500  # more than fit into one notification, which holds 140


async def empty(manager: pgsession.AsyncSessionManager) -> None:
    async def nothing_cached() -> bool:
        return manager.stats().cached_sessions == 0

    await eventually(nothing_cached, "an empty cache")


# -- the most sessions that a user may have ----------------------------------------------------------------------


async def test_the_least_recently_used_session_is_evicted(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(max_sessions=3), await open_manager(max_sessions=3)
    first, second, third = [await a.create_session("u") for _ in range(3)]
    assert await a.get_session(first.id) is not None  # pending here, not written: it counts all the same
    await b.get_session(second.id)
    fourth = await a.create_session("u")
    assert await a.get_session(second.id) is None
    assert {session.id for session in await a.list_user_sessions("u")} == {first.id, third.id, fourth.id}

    async def gone() -> bool:
        return b.get_cached_session(second.id) is None

    await eventually(gone)
    assert await b.get_session(second.id) is None


async def test_too_many_sessions_are_rejected(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(max_sessions=2, max_sessions_policy="reject")
    first = await manager.create_session("u")
    await manager.create_session("u")
    with pytest.raises(pgsession.TooManySessionsError) as caught:
        await manager.create_session("u")
    assert (caught.value.user_id, caught.value.limit) == ("u", 2)
    await manager.create_session("somebody else")
    await manager.delete_session(first.id)
    assert await manager.create_session("u") is not None


@pytest.mark.parametrize("policy", ["evict", "reject"])
async def test_concurrent_logins_on_two_nodes_keep_to_the_limit(
    open_manager: OpenAsyncManager, tables: Tables, policy: str
) -> None:
    nodes = [await open_manager(max_sessions=3, max_sessions_policy=policy) for _ in range(2)]
    crew = AsyncCrew()

    async def log_in(node: pgsession.AsyncSessionManager) -> bool:
        try:
            await node.create_session("u")
        except pgsession.TooManySessionsError:
            return False
        return True

    for number in range(20):
        crew.start(log_in, nodes[number % 2])
    accepted = sum(await crew.join())
    assert accepted == (20 if policy == "evict" else 3)
    assert tables.count() == 3
    assert len(await nodes[0].list_user_sessions("u")) == 3


async def test_expired_sessions_do_not_count(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager(max_sessions=1, max_sessions_policy="reject")
    session = await manager.create_session("u")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '1 s' WHERE id = %s", session.id)
    assert await manager.create_session("u") is not None


async def test_no_limit(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(max_sessions=0)
    await create_many(manager, 50)
    assert len(await manager.list_user_sessions("u")) == 50


# -- lists -------------------------------------------------------------------------------------------------------


async def test_lists_are_of_live_sessions_newest_access_first(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager(max_sessions=0)
    sessions = [await manager.create_session("u", {"n": n}, group_id="g") for n in range(5)]
    other = await manager.create_session("v", group_id="g")
    expired, inactive, kept = sessions[1], sessions[2], sessions[0]
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", expired.id)
    tables.run_unheard(
        "UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE id = %s", inactive.id
    )
    await manager.get_session(kept.id)  # an access that only this node knows of, until it is written
    listed = await manager.list_user_sessions("u")
    assert [session["n"] for session in listed] == [4, 3, 0]
    assert not any(session.from_cache for session in listed)
    assert listed[2].last_accessed > kept.last_accessed
    assert await manager._open_runtime().maintenance.write_accesses()
    listed = await manager.list_user_sessions("u")
    assert [session["n"] for session in listed] == [0, 4, 3]
    assert {session.id for session in await manager.list_group_sessions("g")} == {
        session.id for session in [*listed, other]
    }
    assert await manager.list_user_sessions("nobody") == []
    assert await manager.list_group_sessions("none") == []


async def test_listing_is_no_access_and_fills_no_cache(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u")
    (listed,) = await b.list_user_sessions("u")
    assert listed.id == session.id
    stats = b.stats()
    assert stats.cached_sessions == 0 and stats.pending_accesses == 0
    listed["n"] = 1  # and it can be changed
    await b.update_session(listed)
    read = await a.get_session(session.id, min_version=listed.version)
    assert read is not None and read["n"] == 1


# -- deletions ---------------------------------------------------------------------------------------------------


async def test_all_but_one_of_a_users_sessions_end(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(max_sessions=0)
    sessions = await create_many(manager, 5)
    other = await manager.create_session("v")
    assert await manager.delete_user_sessions("u", keep=sessions[2].id) == 4
    for session in sessions:
        found = await manager.get_session(session.id)
        assert (found is not None) == (session is sessions[2])
    assert await manager.get_session(other.id) is not None
    assert await manager.delete_user_sessions("u", keep=str(sessions[2].id)) == 0
    assert await manager.delete_user_sessions("u") == 1
    assert await manager.delete_user_sessions("u") == 0


@pytest.mark.parametrize("scope", ["user", "group", "all"])
async def test_any_number_of_sessions_ends_on_every_node(
    open_manager: OpenAsyncManager, tables: Tables, scope: str
) -> None:
    a, b = await open_manager(max_sessions=0), await open_manager()
    sessions = await create_many(a, MANY, group_id="g")
    assert a.stats().cached_sessions == MANY
    delete = {
        "user": lambda: b.delete_user_sessions("u"),
        "group": lambda: b.delete_group_sessions("g"),
        "all": lambda: b.delete_all_sessions(),
    }[scope]
    assert await delete() == MANY
    await empty(a)
    assert tables.count() == 0
    assert await a.get_session(sessions[0].id) is None
    assert await delete() == 0


async def test_an_attribute_goes_from_all_of_a_users_sessions(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(max_sessions=0), await open_manager()
    sessions = await create_many(a, 200, attributes={"roles": ["admin"], "theme": "dark"})
    bare = await a.create_session("u", {"theme": "dark"})
    other = await a.create_session("v", {"roles": ["admin"]})
    assert await b.delete_attribute_from_user_sessions("u", "roles") == 200

    async def without_roles() -> bool:
        read = await a.get_session(sessions[-1].id)
        return read is not None and "roles" not in read

    await eventually(without_roles)
    for session in sessions[:5]:
        read = await a.get_session(session.id)
        assert read is not None and dict(read) == {"theme": "dark"} and changes(read) == 1
    for untouched in (bare, other):
        read = await a.get_session(untouched.id)
        assert read is not None and changes(read) == 0
    assert await b.delete_attribute_from_user_sessions("u", "roles") == 0
    with pytest.raises(TypeError, match="key"):
        await b.delete_attribute_from_user_sessions("u", 7)  # type: ignore[arg-type]


# -- memory ------------------------------------------------------------------------------------------------------


async def test_clearing_the_cache_empties_every_node_and_loses_nothing(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    a, b = await open_manager(max_sessions=0), await open_manager()
    sessions = await create_many(a, 10)
    for session in sessions:
        await b.get_session(session.id)
    assert b.stats().cached_sessions == 10
    await a.clear_cache()
    assert a.stats().cached_sessions == 0, "on the own node it is done on return"
    await empty(b)
    assert tables.count() == 10
    read = await b.get_session(sessions[0].id)
    assert read is not None and not read.from_cache


async def test_evicting_a_user_leaves_the_others_in_memory(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    mine, other = await a.create_session("u"), await a.create_session("v")
    for session in (mine, other):
        await b.get_session(session.id)
    await b.evict_user_sessions("u")
    assert b.get_cached_session(mine.id) is None and b.get_cached_session(other.id) is not None

    async def gone() -> bool:
        return a.get_cached_session(mine.id) is None

    await eventually(gone)
    assert a.get_cached_session(other.id) is not None
    read = await a.get_session(mine.id)
    assert read is not None and not read.from_cache


# -- the cleanup -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ended", ["expired", "inactive"])
async def test_the_cleanup_reaches_every_node_whatever_the_number(
    open_manager: OpenAsyncManager, tables: Tables, ended: str
) -> None:
    a, b = await open_manager(max_sessions=0), await open_manager()
    sessions = await create_many(a, 4 * MANY + 100)  # more than one step of the cleanup, too
    live = await a.create_session("live")
    tables.run_unheard(
        "UPDATE {sessions} SET expires_at = now() - interval '1 s' WHERE user_id = 'u'"
        if ended == "expired"
        else "UPDATE {sessions} SET last_accessed = now() - interval '49 h' WHERE user_id = 'u'"
    )
    assert a.get_cached_session(sessions[0].id) is not None, "a cannot know yet"
    assert await b._open_runtime().maintenance.clean_up()
    assert tables.count() == 1
    assert b.stats().deleted_sessions == len(sessions)

    async def only_the_live_one() -> bool:
        return a.stats().cached_sessions == 1

    await eventually(only_the_live_one)
    assert a.get_cached_session(live.id) is not None


async def test_one_node_at_a_time_cleans_up(open_manager: OpenAsyncManager, tables: Tables) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", session.id)
    with tables.locked("SELECT 1 FROM {session_user_buckets} WHERE bucket = -1 FOR UPDATE"):
        assert not await a._open_runtime().maintenance.clean_up(), "somebody else is at it"
    assert tables.count() == 1 and a.stats().cleanups == 0
    crew = AsyncCrew()
    for node in (a, b):
        crew.start(node._open_runtime().maintenance.clean_up)
    assert any(await crew.join())
    assert tables.count() == 0
    assert a.stats().deleted_sessions + b.stats().deleted_sessions == 1


async def test_the_cleanup_steps_over_rows_that_others_hold(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager(max_sessions=0)
    sessions = await create_many(manager, 10)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now()")
    with tables.locked("SELECT 1 FROM {sessions} WHERE id = %s FOR UPDATE", sessions[0].id):
        assert await manager._open_runtime().maintenance.clean_up()
        assert tables.count() == 1
    assert await manager._open_runtime().maintenance.clean_up()
    assert tables.count() == 0


@UNRELEASED
async def test_the_cleanup_takes_expired_attributes_and_locks(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager()
    session = await manager.create_session("u", {"stay": 1})
    session.set("code", "x", expires_in=timedelta(days=1))
    await manager.update_session(session)
    assert await manager.lock("r").acquire()
    tables.run_unheard("UPDATE {session_attributes} SET expires_at = now() WHERE key = 'code'")
    tables.run_unheard("UPDATE {session_locks} SET expires_at = now()")
    assert await manager._open_runtime().maintenance.clean_up()
    assert tables.run("SELECT key FROM {session_attributes}") == [("stay",)]
    assert tables.run("SELECT * FROM {session_locks}") == []
    assert manager.stats().deleted_sessions == 0


async def test_the_cleanup_runs_by_itself(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager(cleanup_interval=0.2)
    await manager.create_session("u", expires_in=timedelta(milliseconds=1))

    async def cleaned() -> bool:
        return manager.stats().deleted_sessions == 1

    await eventually(cleaned)
    assert tables.count() == 0


async def test_a_cleanup_that_fails_is_tried_again(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager(cleanup_interval=0.1)
    await manager.create_session("u", expires_in=timedelta(milliseconds=1))
    tables.run("ALTER FUNCTION {schema}.session_cleanup_1 RENAME TO away")
    store = manager._open_runtime().store
    with pytest.raises(Exception, match="session_cleanup"):
        await store.cleanup("expired", 0, NIL)
    tables.run("ALTER FUNCTION {schema}.away RENAME TO session_cleanup_1")

    async def cleaned() -> bool:
        return manager.stats().deleted_sessions == 1

    await eventually(cleaned)


async def test_deleting_what_is_not_there(manager: pgsession.AsyncSessionManager) -> None:
    assert not await manager.delete_session(uuid.uuid4())
    assert await manager.delete_user_sessions(uuid.uuid4()) == 0
    assert await manager.delete_group_sessions(7) == 0
    assert await manager.delete_all_sessions() == 0
    await manager.evict_user_sessions("nobody")
    await manager.clear_cache()


async def test_the_deletion_of_many_has_nobody_else_read_again(open_manager: OpenAsyncManager) -> None:
    """What is on its way into another node's memory enters it: each deleted session is named, not its user."""
    a, b = await open_manager(max_sessions=0), await open_manager()
    await create_many(a, MANY)
    other = await a.create_session("another")
    await b.get_session((await a.list_user_sessions("u"))[0].id)
    store = b._open_runtime().store
    read, under_way, go_on = store.read, AsyncEvent(), AsyncEvent()

    async def slow_read(key: bytes, deadline: float) -> Any:
        answer = await read(key, deadline)
        under_way.set()
        assert await go_on.wait(10)
        return answer

    store.read = slow_read  # type: ignore[method-assign]
    async with AsyncCrew() as crew:
        crew.start(b.get_session, other.id)
        assert await under_way.wait(10)
        assert await a.delete_user_sessions("u") == MANY
        await empty(b)
        go_on.set()
    assert b.get_cached_session(other.id) is not None


async def test_others_write_between_the_steps_of_a_deletion(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing is held from one step to the next: what is to be deleted can be changed until its turn comes."""
    a, b = await open_manager(max_sessions=0), await open_manager(max_sessions=0)
    sessions = await create_many(a, 7)
    last = max(sessions, key=lambda session: session.id.bytes)
    here = await b.get_session(last.id)
    assert here is not None
    rests: list[float] = []

    async def rest(seconds: float) -> None:
        rests.append(seconds)
        await b.create_session("another")
        if len(rests) <= 3:  # the fourth step deletes it, and the fifth finds none
            assert here is not None
            here["n"] = len(rests)
            await b.update_session(here)

    monkeypatch.setattr("pgsession._async.store.STEP", 2)
    monkeypatch.setattr("pgsession._async.store.async_sleep", rest)
    assert await a.delete_user_sessions("u") == 7
    assert len(rests) == 4 and all(0 < seconds <= LONGEST_REST for seconds in rests)
    assert await b.count_sessions(user_id="another") == 4
