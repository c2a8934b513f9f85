"""The defects known of the library that this one follows, by number: none of them may exist here."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._concurrency import AsyncEvent
from pgsession._core.record import Record
from pgsession._protocol import events
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables
from tests.versions import changes

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


async def read_until(
    manager: pgsession.AsyncSessionManager, session: pgsession.Session, key: str, value: Any
) -> None:
    async def there() -> bool:
        read = await manager.get_session(session.id)
        return read is not None and read.get(key) == value

    await eventually(there, f"{key} = {value!r}")


@pytest.mark.parametrize("how", ["expired", "inactive"])
async def test_defect_01_a_session_that_ended_is_never_returned_nor_updated(
    open_manager: OpenAsyncManager, tables: Tables, how: str
) -> None:
    """It was, from the cache and from the database, until the hourly cleanup deleted it."""
    fields = {} if how == "expired" else {"inactivity_duration": 1, "last_access_update_interval": 0.3}
    a, b = await open_manager(**fields), await open_manager(**fields)
    session = await a.create_session("u", {"n": 1}, expires_in=0.6 if how == "expired" else None)
    await b.get_session(session.id, touch=False)

    async def gone() -> bool:
        here, there = [await node.get_session(session.id, touch=False) for node in (a, b)]
        return here is None and there is None

    await eventually(gone)
    assert tables.count() == 1, "no cleanup was needed"
    for node in (a, b):
        assert node.get_cached_session(session.id) is None
        assert await node.get_session(session.id, refresh=True) is None
        assert await node.list_user_sessions("u") == []
    session["n"] = 2
    with pytest.raises(pgsession.SessionNotFoundError):
        await a.update_session(session, expires_in=timedelta(hours=1), include_inactivity=False)
    assert tables.one("SELECT version FROM {sessions}") == session.version


async def test_defect_02_any_number_of_sessions_can_be_deleted_and_every_node_hears_of_it(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """More than 202 failed; after a cleanup of 300 the other nodes went on serving all of them."""
    a, b = await open_manager(max_sessions=0), await open_manager()

    async def nothing_left_in_a() -> bool:
        return a.stats().cached_sessions == 0

    await create_many(a, 300)
    assert await b.delete_user_sessions("u") == 300
    await eventually(nothing_left_in_a)
    await create_many(a, 300)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now()")
    assert a.stats().cached_sessions == 300
    await b._open_runtime().maintenance.clean_up()
    await eventually(nothing_left_in_a)
    assert tables.count() == 0


async def test_defect_03_set_and_delete_in_any_order_mean_the_same_here_and_in_the_database(
    open_manager: OpenAsyncManager,
) -> None:
    """Deleted, set again and saved: the row was gone. Set, then deleted: the cache showed the key, empty."""
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"again": 1, "gone": 1})
    del session["again"]
    session["again"] = 2
    session["gone"] = 2
    del session["gone"]
    session["new"] = 1
    del session["new"]
    await a.update_session(session)
    for node, refresh in ((a, False), (a, True), (b, True)):
        read = await node.get_session(session.id, refresh=refresh)
        assert read is not None and dict(read) == {"again": 2} and len(read) == 1
        assert "gone" not in read and "new" not in read and read.get("new") is None


async def test_defect_04_a_failing_database_never_gives_a_lock(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """It was reported as success; the lock object of another could be released; heartbeats changed the session."""
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 1})
    lock, other = manager.lock("r", session_id=session.id), manager.lock("r", session_id=session.id)
    tables.run("ALTER FUNCTION {schema}.session_lock_acquire_1 RENAME TO away")
    with pytest.raises(psycopg.Error):
        await lock.acquire()
    assert not lock.locked and lock.token is None
    tables.run("ALTER FUNCTION {schema}.away RENAME TO session_lock_acquire_1")
    assert await lock.acquire()
    with pytest.raises(pgsession.LockNotHeldError):
        await other.release()
    assert lock.locked and not await other.acquire(blocking=False)
    lock._held.renew_at = 0
    await lock._held.renew()
    session["n"] = 2
    await manager.update_session(session, check="session")
    assert changes(session) == 1
    await lock.release()


async def test_defect_05_a_read_overtaken_by_an_update_does_not_stay_in_memory(
    open_manager: OpenAsyncManager,
) -> None:
    """It began before another node's update, ended after its notification, and was served for up to 48 hours."""
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"n": 1})
    store = b._open_runtime().store
    read, overtaken, heard = store.read, AsyncEvent(), AsyncEvent()

    async def slow(key: bytes, deadline: float) -> Any:
        result = await read(key, deadline)
        overtaken.set()
        assert await heard.wait(20)
        return result

    store.read = slow  # type: ignore[method-assign]
    crew = AsyncCrew()
    crew.start(b.get_session, session.id)
    assert await overtaken.wait(20)
    before = b.stats().events
    session["n"] = 2
    await a.update_session(session)

    async def event_arrived() -> bool:
        return b.stats().events > before

    await eventually(event_arrived)
    heard.set()
    await crew.join()
    store.read = read  # type: ignore[method-assign]
    found = await b.get_session(session.id)
    assert found is not None and found["n"] == 2 and changes(found) == 1


async def test_defect_05_a_record_is_never_torn(open_manager: OpenAsyncManager) -> None:
    """The session and its attributes were two reads."""
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"x": 0, "y": 0})
    done = AsyncEvent()

    async def write() -> None:
        for number in range(1, 60):
            session["x"] = session["y"] = number
            await a.update_session(session)
        done.set()

    async def read() -> int:
        count = 0
        while not done.is_set():
            found = await b.get_session(session.id, refresh=True)
            assert found is not None and found["x"] == found["y"] == changes(found)
            count += 1
        return count

    crew = AsyncCrew()
    crew.start(write)
    crew.start(read)
    _, reads = await crew.join()
    assert reads


async def test_defect_06_what_changed_while_the_listener_was_away_is_found_whatever_the_clocks_say(
    open_manager: OpenAsyncManager, dsn: str, tables: Tables
) -> None:
    """Only what changed after the newest `updated_at` was read again."""
    with FaultProxy(dsn) as proxy:
        b = await open_manager(listener_conninfo=proxy.conninfo)
        old = await b.create_session("u", {"n": 1})
        await b.create_session("u", {"n": 1})  # newer
        before = b.stats()
        proxy.refuse()
        proxy.cut()

        async def lost() -> bool:
            return b.stats().listener_losses > before.listener_losses

        await eventually(lost)
        tables.run_unheard(
            "WITH s AS (UPDATE {sessions} SET version = version + 1, updated_at = '2001-01-01' WHERE id = %s"
            " RETURNING id)"
            " UPDATE {session_attributes} a SET value = '2', version = a.version + 1 FROM s WHERE a.session_id = s.id",
            old.id,
        )
        proxy.forward()

        async def resynced() -> bool:
            return b.stats().resyncs > before.resyncs

        await eventually(resynced)
        read = await b.get_session(old.id)
        assert read is not None and read["n"] == 2


async def test_defect_07_a_resync_has_no_limit(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """With more than 65,535 cached sessions it passed the parameter limit and failed for ever."""
    count = 70_000
    manager = await open_manager(cache_size=2 * count)
    rows = tables.run_unheard(
        "INSERT INTO {sessions} (version, owner_since, generation, user_id, expires_at)"
        " SELECT 1, 1, 0, 'u', '2100-01-01'"
        f" FROM generate_series(1, {count}) RETURNING id"  # type: ignore[arg-type]
    )
    ends = 4_102_444_800_000_000
    now = manager._clock.database_now()
    for (key,) in rows:
        manager._cache.put(Record(key.bytes, 1, "u", None, now, now, now, ends, None, []))
    changed = rows[count // 2][0]
    tables.run_unheard("UPDATE {sessions} SET version = 2 WHERE id = %s", changed)
    before = manager.stats()
    assert before.cached_sessions == count
    manager._open_runtime().listener.reconnect()

    async def in_sync_again() -> bool:
        return manager.stats().resyncs > before.resyncs and manager._coherence.in_sync

    await eventually(in_sync_again, timeout=30)
    assert manager.stats().cached_sessions == count - 1
    assert manager.get_cached_session(rows[0][0]) is not None
    assert manager.get_cached_session(changed) is None


async def test_defect_08_a_silently_dead_listener_is_noticed(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    """Without a FIN it never was: stale until the 48 hours were over."""
    with FaultProxy(dsn) as proxy:
        a = await open_manager()
        b = await open_manager(listener_conninfo=proxy.conninfo, max_staleness=0.6)
        session = await a.create_session("u", {"n": 1})
        await b.get_session(session.id)
        proxy.lose()
        session["n"] = 2
        await a.update_session(session)
        await read_until(b, session, "n", 2)

        async def listening_again() -> bool:
            read = await b.get_session(session.id)
            return read is not None and read.from_cache and b.stats().listener_losses > 0

        await eventually(listening_again)


async def test_defect_09_values_are_not_shared_between_session_objects(
    manager: pgsession.AsyncSessionManager,
) -> None:
    """One caller's mutation changed the cache for everybody."""
    created = await manager.create_session("u", {"cart": ["book"], "prefs": {"deep": {"n": [1]}}})
    created["cart"].append("of the creator")
    one = await manager.get_session(created.id)
    assert one is not None and one.from_cache
    one["cart"].append("pen")
    one["prefs"]["deep"]["n"].append(2)
    one.get("cart", type=list[str]).append("ink")
    two = await manager.get_session(created.id)
    assert two is not None and dict(two) == {"cart": ["book"], "prefs": {"deep": {"n": [1]}}}
    listed = (await manager.list_user_sessions("u"))[0]
    assert dict(listed) == dict(two)


async def test_defect_10_versions_never_come_back(open_manager: OpenAsyncManager) -> None:
    """A key that was deleted and set again started at version 1, so an old version could pass a check."""
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"k": "old"})
    outdated = await b.get_session(session.id)
    assert outdated is not None
    seen = {session.attribute("k").version}
    for number in range(3):
        del session["k"]
        await a.update_session(session)
        session["k"] = f"new {number}"
        await a.update_session(session)
        assert session.attribute("k").version not in seen
        seen.add(session.attribute("k").version)
    outdated["k"] = "mine"
    with pytest.raises(pgsession.AttributeVersionConflict) as caught:
        await b.update_session(outdated, check="attributes")
    assert caught.value.keys == ("k",)


async def test_defect_11_the_limit_of_sessions_holds_when_the_login_returns(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """It was enforced afterwards, in the background, by accesses that were up to ten minutes old."""
    a, b = await open_manager(max_sessions=2), await open_manager(max_sessions=2)
    first = await a.create_session("u")
    second = await a.create_session("u")
    for _ in range(3):
        assert await b.get_session(first.id) is not None  # used just now, written by nobody yet
    third = await b.create_session("u")
    assert tables.count() == 2
    assert {session.id for session in await a.list_user_sessions("u")} == {first.id, third.id}
    crew = AsyncCrew()
    for node in (a, b) * 5:
        crew.start(node.create_session, "u")
    await crew.join()
    assert tables.count() == 2 and await a.get_session(second.id) is None


async def test_defect_12_nothing_is_in_memory_before_it_is_committed(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """A new session was, and stayed there when the transaction failed."""
    manager = await open_manager()
    store = manager._open_runtime().store
    write = store.write

    async def look_first(*arguments: Any, **options: Any) -> str:
        assert manager.stats().cached_sessions == 0
        answer = await write(*arguments, **options)
        assert manager.stats().cached_sessions == 0 and tables.count() == 1
        return answer

    store.write = look_first  # type: ignore[method-assign]
    session = await manager.create_session("u")
    store.write = write  # type: ignore[method-assign]
    assert manager.stats().cached_sessions == 1
    await manager.delete_session(session.id)
    tables.run("ALTER TABLE {session_attributes} ADD CHECK (key <> 'refused')")
    with pytest.raises(psycopg.errors.CheckViolation):
        await manager.create_session("u", {"refused": 1})
    assert manager.stats().cached_sessions == 0 and tables.count() == 0


def test_no_payload_of_ours_can_be_too_long_for_a_notification() -> None:
    items: list[events.Item] = [events.Deleted(bytes([number % 256] * 16)) for number in range(5000)]
    items.append(events.UserChanged("ü" * 256))
    for texts in events.batches(items):
        assert len(events.payload("0" * 16, 2**64 - 1, texts)) <= events.MAX_PAYLOAD
