"""Every counter and gauge of `stats()` is made to move; `check_health()` tells the truth."""

from __future__ import annotations

import os
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import psycopg
import pytest

import pgsession
from pgsession._concurrency import AsyncEvent
from pgsession.embedded import EmbeddedServer
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


def test_every_counter_has_its_test() -> None:
    tests = " ".join(name for name in vars(sys.modules[__name__]) if name.startswith("test_"))
    assert [name for name in pgsession.Stats.__struct_fields__ if name not in tests] == []


async def moved(manager: pgsession.AsyncSessionManager, before: pgsession.Stats, **expected: int) -> None:
    """Exactly these counters rose, among those named, by exactly so much; it may take a moment."""

    async def as_expected() -> bool:
        now = manager.stats()
        return all(getattr(now, name) - getattr(before, name) == by for name, by in expected.items())

    await eventually(as_expected, f"{expected} after {before}, not {manager.stats()}")


async def test_a_new_manager_has_done_next_to_nothing(manager: pgsession.AsyncSessionManager) -> None:
    stats = manager.stats()
    started = {"cache_capacity": 10_000, "proofs": stats.proofs, "resyncs": 1, "nodes": 1, "in_sync": True}
    started |= {name: getattr(stats, name) for name in ("proof_age", "clock_error", "pool_size")}
    started["shared_fallback_reason"] = None
    expected = dict.fromkeys(pgsession.Stats.__struct_fields__, 0) | started
    assert msgspec.to_builtins(stats) == expected and stats.proofs >= 1


async def test_hits_misses_fills_cached_sessions(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u")
    before = b.stats()
    await b.get_session(session.id)
    await moved(b, before, hits=0, misses=1, fills=1, cached_sessions=1)
    before = b.stats()
    for _ in range(5):
        await b.get_session(session.id)
    assert b.get_cached_session(session.id) is not None
    await moved(b, before, hits=6, misses=0, fills=0, cached_sessions=0)
    before = b.stats()
    await b.get_session(session.id, refresh=True)
    await moved(b, before, hits=0, fills=1)


async def test_negative_hits(manager: pgsession.AsyncSessionManager) -> None:
    unknown, before = uuid.uuid4(), manager.stats()
    for _ in range(3):
        assert await manager.get_session(unknown) is None
    await moved(manager, before, negative_hits=2, misses=3, hits=0, fills=1)


async def test_cache_capacity_and_evictions(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(cache_size=3, max_sessions=0)
    sessions = await create_many(manager, 5)
    stats = manager.stats()
    assert (stats.cache_capacity, stats.cached_sessions, stats.evictions) == (3, 3, 2)
    assert await manager.get_session(sessions[0].id) is not None


async def test_expirations(manager: pgsession.AsyncSessionManager) -> None:
    session = await manager.create_session("u", expires_in=0.5)
    assert manager.stats().cached_sessions == 1

    async def gone() -> bool:
        return manager.get_cached_session(session.id) is None

    await eventually(gone)
    assert manager.stats().expirations == 1


async def test_joined_fills(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"n": 1})
    store = b._open_runtime().store
    read, may_go_on = store.read, AsyncEvent()

    async def slow(key: bytes, deadline: float) -> Any:
        await may_go_on.wait(20)
        return await read(key, deadline)

    store.read = slow  # type: ignore[method-assign]
    before = b.stats()
    crew = AsyncCrew()
    for _ in range(20):
        crew.start(b.get_session, session.id)
    await moved(b, before, fills=1, joined_fills=19)
    may_go_on.set()
    assert all(found is not None and found["n"] == 1 for found in await crew.join())
    await moved(b, before, fills=1, joined_fills=19, misses=20)


async def test_discarded_fills(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u", {"n": 1})
    store = b._open_runtime().store
    read = store.read

    async def overtaken(key: bytes, deadline: float) -> Any:
        result = await read(key, deadline)
        before = b.stats()
        session["n"] = 2
        await a.update_session(session)
        await moved(b, before, events=1)
        return result

    store.read = overtaken  # type: ignore[method-assign]
    before = b.stats()
    found = await b.get_session(session.id)
    store.read = read  # type: ignore[method-assign]
    assert found is not None and found["n"] == 1
    await moved(b, before, discarded_fills=1, cached_sessions=0)


async def test_stale_served(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(
            proxy.conninfo, stale_if_error=3600, max_staleness=1, operation_timeout=2
        )
        session = await manager.create_session("u", {"n": 1})
        proxy.refuse()
        proxy.cut()

        async def out_of_sync() -> bool:
            return manager.get_cached_session(session.id) is None

        await eventually(out_of_sync)
        read = await manager.get_session(session.id)
        assert read is not None and read["n"] == 1 and read.from_cache
        assert manager.stats().stale_served == 1
        with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
            await manager.get_session(session.id, refresh=True)
        proxy.forward()


async def test_writes_and_batches(manager: pgsession.AsyncSessionManager) -> None:
    before = manager.stats()
    session = await manager.create_session("u")
    session["n"] = 1
    await manager.update_session(session)
    await manager.update_session(session)  # nothing to write
    await manager.delete_session(session.id)
    await moved(manager, before, writes=3, batches=3, failed_writes=0, conflicts=0)
    before = manager.stats()
    await create_many(manager, 40)
    stats = manager.stats()
    assert stats.writes - before.writes == 40 and stats.batches - before.batches < 40


async def test_conflicts(manager: pgsession.AsyncSessionManager) -> None:
    session = await manager.create_session("u", {"n": 1})
    other = await manager.get_session(session.id)
    assert other is not None
    session["n"], other["n"] = 2, 3
    await manager.update_session(session)
    before = manager.stats()
    for check in ("session", "attributes"):
        with pytest.raises(pgsession.ConflictError):
            await manager.update_session(other, check=check)  # type: ignore[arg-type]
    await moved(manager, before, conflicts=2, failed_writes=0, writes=0)


async def test_failed_writes(manager: pgsession.AsyncSessionManager, tables: Tables) -> None:
    tables.run("ALTER TABLE {sessions} ADD CONSTRAINT no_such_user CHECK (user_id <> 'refused')")
    before = manager.stats()
    with pytest.raises(psycopg.errors.CheckViolation):
        await manager.create_session("refused")
    await moved(manager, before, failed_writes=1, writes=0)


async def test_events_and_invalidations(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(), await open_manager()
    session = await a.create_session("u")
    await b.get_session(session.id)
    before, own = b.stats(), a.stats()
    session["n"] = 1
    await a.update_session(session)
    await moved(b, before, events=1, invalidations=1, cached_sessions=-1)
    await moved(a, own, events=1, cached_sessions=0)
    before = b.stats()
    await a.delete_session(session.id)
    await moved(b, before, events=1, invalidations=0)


async def test_malformed_events(manager: pgsession.AsyncSessionManager, tables: Tables) -> None:
    await manager.create_session("u")
    before = manager.stats()
    runtime = manager._open_runtime()
    await runtime.store.query(runtime.statements.notify, ("0" * 16, "garbage"))
    await moved(manager, before, events=1, malformed_events=1, cached_sessions=-1)


async def test_proofs(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(max_staleness=0.3)
    before = manager.stats().proofs

    async def more() -> bool:
        return manager.stats().proofs > before + 1

    await eventually(more)


async def test_listener_losses_and_resyncs(manager: pgsession.AsyncSessionManager, tables: Tables) -> None:
    session = await manager.create_session("u")
    before = manager.stats()
    tables.run("SELECT pg_terminate_backend(%s)", manager._open_runtime().listener.pid)
    await moved(manager, before, listener_losses=1, resyncs=1, cached_sessions=0)

    async def from_memory() -> bool:
        return manager.get_cached_session(session.id) is not None

    await eventually(from_memory)


async def test_pending_accesses_written_accesses_failed_access_batches(
    manager: pgsession.AsyncSessionManager, tables: Tables
) -> None:
    session = await manager.create_session("u")
    before = manager.stats()
    await manager.get_session(session.id)
    await moved(manager, before, pending_accesses=1, written_accesses=0)
    tables.run("ALTER FUNCTION {schema}.session_write_accesses_1 RENAME TO away")
    await manager._open_runtime().maintenance.write_accesses()
    await moved(manager, before, pending_accesses=1, written_accesses=0, failed_access_batches=1)
    tables.run("ALTER FUNCTION {schema}.away RENAME TO session_write_accesses_1")
    await manager._open_runtime().maintenance.write_accesses()
    await moved(manager, before, pending_accesses=0, written_accesses=1, failed_access_batches=1)


async def test_lost_accesses(manager: pgsession.AsyncSessionManager) -> None:
    """Accesses of sessions that are not in memory: so many that they are written early, or given up."""
    session = await manager.create_session("u")
    now = manager._clock.database_now()
    before = manager.stats()
    many = [(uuid.uuid4().bytes, now) for _ in range(70_000)]
    manager._cache.restore_accesses(many)
    stats = manager.stats()
    assert stats.lost_accesses == before.pending_accesses + 70_000 - stats.pending_accesses > 0
    await manager.get_session(session.id, refresh=True)  # the interval is ten minutes

    async def all_written() -> bool:
        return manager.stats().pending_accesses <= 1

    await eventually(all_written, timeout=30)


async def test_cleanups_and_deleted_sessions(manager: pgsession.AsyncSessionManager, tables: Tables) -> None:
    await manager.create_session("u")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now()")
    before = manager.stats()
    await manager._open_runtime().maintenance.clean_up()
    await moved(manager, before, cleanups=1, deleted_sessions=1)


async def test_audit_events_and_lost_audit_events(open_manager: OpenAsyncManager) -> None:
    heard: list[pgsession.AuditEvent] = []
    manager = await open_manager(on_audit_event=heard.append)
    await manager.create_session("u")

    async def told() -> bool:
        return manager.stats().audit_events == len(heard) == 1

    await eventually(told)
    assert manager.stats().lost_audit_events == 0
    runtime = manager._open_runtime()
    runtime._audit_thread.give_up()
    runtime.audit.ended("logout")
    assert manager.stats().lost_audit_events == 0, "of a manager that is closed"


async def test_held_locks(manager: pgsession.AsyncSessionManager) -> None:
    async with manager.lock("a"):
        assert manager.stats().held_locks == 1
        async with manager.lock("b"):
            assert manager.stats().held_locks == 2
    assert manager.stats().held_locks == 0


async def test_nodes(open_manager: OpenAsyncManager) -> None:
    managers = [await open_manager() for _ in range(3)]
    assert [manager.stats().nodes for manager in managers] == [1, 2, 3]
    await managers[0].close()
    assert (await open_manager()).stats().nodes == 3


async def test_notification_queue_usage(
    own_server: Callable[..., EmbeddedServer],
    open_manager: OpenAsyncManager,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not tables.run("SELECT 1 FROM pg_settings WHERE name = 'max_notify_queue_pages'"):
        pytest.skip("the queue cannot be made small enough to fill")
    server = own_server(settings={"max_notify_queue_pages": 64})
    manager = await open_manager(server.conninfo, max_staleness=0.5)
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("LISTEN nothing")
        connection.execute("BEGIN")
        connection.execute("SELECT 1")  # a listener inside a transaction holds the queue
        with psycopg.connect(server.conninfo, autocommit=True) as talker:
            for number in range(30):
                talker.execute("SELECT pg_notify('nothing', %s)", (f"{number}".ljust(7900),))

        async def told() -> bool:
            return manager.stats().notification_queue_usage > 0.25 and "queue is" in caplog.text

        await eventually(told)
        connection.execute("COMMIT")


async def test_oldest_write_while_somebody_holds_a_row(
    manager: pgsession.AsyncSessionManager, tables: Tables
) -> None:
    """Others write meanwhile, and do not make it younger."""
    session = await manager.create_session("u", {"n": 1})
    assert manager.stats().oldest_write == 0 and (await manager.check_health()).oldest_write is None
    began = time.monotonic()
    with tables.locked("SELECT 1 FROM {sessions} WHERE id = %s FOR UPDATE", session.id):
        session["n"] = 2
        crew = AsyncCrew()
        crew.start(manager.update_session, session)

        async def waits() -> bool:
            await manager.create_session("v")
            return manager.stats().oldest_write > 0.5

        await eventually(waits)
        health = await manager.check_health()
        assert health.oldest_write is not None and 0.5 < health.oldest_write < time.monotonic() - began
        assert health.ready and health.healthy
    await crew.join()
    assert manager.stats().oldest_write == 0 and (await manager.check_health()).oldest_write is None


# -- health --------------------------------------------------------------------------------------------------------


async def test_a_healthy_node(manager: pgsession.AsyncSessionManager) -> None:
    health = await manager.check_health()
    assert health.ready and health.healthy and health.reason is None
    assert health.in_sync and health.listening and health.database is None
    assert health.proof_age is not None and 0 <= health.proof_age < 60
    assert health.round_trip is not None and health.round_trip > 0
    assert health.pool_size >= 1 and health.pool_waiting == 0 and health.queued_writes == 0


async def test_a_node_without_a_listener_is_ready_and_not_healthy(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(listener_conninfo=proxy.conninfo)
        assert (await manager.check_health()).healthy
        proxy.refuse()
        proxy.cut()

        async def deaf() -> bool:
            health = await manager.check_health()
            return not health.healthy and not health.listening and "refused" in (health.reason or "")

        await eventually(deaf)
        health = await manager.check_health()
        assert health.ready and health.database is None and health.round_trip is not None
        assert health.reason is not None and "the listener does not listen: connection" in health.reason
        session = await manager.create_session("u", {"n": 1})
        read = await manager.get_session(session.id)
        assert read is not None and not read.from_cache
        proxy.forward()

        async def well() -> bool:
            return (await manager.check_health()).healthy

        await eventually(well)


async def test_a_node_with_a_frozen_listener_is_not_healthy(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(listener_conninfo=proxy.conninfo, max_staleness=0.5)
        proxy.freeze()

        async def out_of_sync() -> bool:
            health = await manager.check_health()
            return not health.healthy and not health.in_sync and health.database is None

        await eventually(out_of_sync)
        health = await manager.check_health()
        assert (
            health.ready
            and health.reason is not None
            and health.reason.startswith("Reads go to the database")
        )
        proxy.forward()


@pytest.mark.parametrize("how", ["refused", "frozen"])
async def test_a_node_without_a_database_is_not_healthy(
    open_manager: OpenAsyncManager, dsn: str, how: str
) -> None:
    """Nor is it ready, for it cannot write, nor read what is not in memory."""
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(proxy.conninfo, listener_conninfo=dsn)
        if how == "refused":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.freeze()
        health = await manager.check_health(timeout=0.5)
        assert not health.ready and not health.healthy and health.database and health.round_trip is None
        assert health.reason == f"The database does not answer: {health.database}"
        assert health.listening, "the listener has a way of its own"
        proxy.forward()

        async def well() -> bool:
            return (await manager.check_health(timeout=0.5)).healthy

        await eventually(well)


async def test_a_node_that_may_answer_for_a_database_that_is_down_is_ready(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(
            proxy.conninfo, stale_if_error=3600, max_staleness=0.5, operation_timeout=1
        )
        session = await manager.create_session("u")
        proxy.refuse()
        proxy.cut()

        async def down() -> bool:
            return (await manager.check_health()).database is not None and not manager._coherence.in_sync

        await eventually(down)
        health = await manager.check_health()
        assert health.ready and not health.healthy and health.reason is not None
        assert await manager.get_session(session.id) is not None
        proxy.forward()


async def test_a_manager_that_is_not_open_is_not_ready(open_manager: OpenAsyncManager, dsn: str) -> None:
    health = await pgsession.AsyncSessionManager(dsn).check_health()
    assert not health.ready and not health.healthy and health.reason is not None and "open()" in health.reason
    manager = await open_manager()
    await manager.close()
    health = await manager.check_health()
    assert not health.ready and health.reason == "the manager is closed"


async def test_a_check_takes_no_longer_than_any_call(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = await open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=0.5)
        proxy.freeze()
        began = time.monotonic()
        health = await manager.check_health(timeout=60)
        assert not health.ready and time.monotonic() - began < 3 * 0.5
        proxy.forward()


async def test_warmed_sessions(open_manager: OpenAsyncManager, tmp_path: Path) -> None:
    a = await open_manager(warm=tmp_path / "ids")
    session = await a.create_session("u")
    await a.close()
    b = await open_manager(warm=tmp_path / "ids")
    assert b.get_cached_session(session.id) is not None
    assert b.stats().warmed_sessions == b.stats().fills == 1


async def test_misses_out_of_sync_misses_not_cached_misses_over_misses_outdated_misses_refreshed_misses_refused(
    open_manager: OpenAsyncManager,
) -> None:
    manager = await open_manager(signer=pgsession.Signer(b"k" * 32))
    session = await manager.create_session("u")
    short = await manager.create_session("u", expires_in=0.05)
    before = manager.stats()
    await manager.get_session(uuid.uuid4())
    await moved(manager, before, misses=1, misses_not_cached=1)
    await manager.get_session(session.id, refresh=True)
    await moved(manager, before, misses=2, misses_refreshed=1)
    await manager.get_session(session.id, min_version=session.version + 1)
    await moved(manager, before, misses=3, misses_outdated=1)
    manager.get_cached_session_by_token("forged")
    await moved(manager, before, misses=4, misses_refused=1)

    async def is_over() -> bool:
        return manager.get_cached_session(short.id) is None

    await eventually(is_over)
    await moved(manager, before, misses=5, misses_over=1)
    manager._cache.in_sync_until = 0
    manager.get_cached_session(session.id)
    await moved(manager, before, misses=6, misses_out_of_sync=1, misses_not_cached=1)
    manager._cache.get(uuid.uuid4(), False)  # as stale_if_error does, for a read that was counted
    await moved(manager, before, misses=6, misses_not_cached=1)


async def test_in_sync_proof_age_clock_error(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager()
    stats = manager.stats()
    assert stats.in_sync is True
    assert stats.proof_age is not None and 0 <= stats.proof_age < 60
    assert stats.clock_error is not None and 0 < stats.clock_error < 10
    manager._coherence.on_lost()
    stats = manager.stats()
    assert stats.in_sync is False and stats.proof_age is None and stats.clock_error is not None


async def test_queued_writes_pool_size_pool_waiting(manager: pgsession.AsyncSessionManager) -> None:
    await manager.create_session("u")
    stats = manager.stats()
    assert stats.pool_size >= 1 and stats.pool_waiting == 0 and stats.queued_writes == 0
    assert manager._runtime is not None
    manager._runtime.group_commit._incoming.append(object())  # type: ignore[arg-type]
    assert manager.stats().queued_writes == 1
    manager._runtime.group_commit._incoming.clear()


async def test_audited_sessions_failed_audits(open_manager: OpenAsyncManager) -> None:
    """What fails is in test_auditor."""
    manager = await open_manager(audit_sample=10)
    await create_many(manager, 3)
    before = manager.stats()
    assert manager._runtime is not None
    await manager._runtime.auditor.audit()
    await moved(manager, before, audited_sessions=3, failed_audits=0)


async def test_refused_tokens_forged_tokens_superseded_tokens_ended_tokens(
    open_manager: OpenAsyncManager,
) -> None:
    manager = await open_manager(signer=pgsession.Signer(b"k" * 32))
    session = await manager.create_session("u")
    good, before = manager.token(session), manager.stats()
    assert good is not None and await manager.get_session_by_token(good) is not None
    assert manager.get_cached_session_by_token("forged") is None
    assert (await manager.open_token("forged")).state == "forged"
    await manager.delete_session(session.id)
    assert await manager.get_session_by_token(good) is None
    await moved(manager, before, refused_tokens=3, forged_tokens=2, ended_tokens=1, superseded_tokens=0)
    other = await manager.create_session("u")
    old = manager.token(other)
    assert old is not None
    await manager.rotate_session(other, grace=0)
    assert await manager.get_session_by_token(old) is None
    await moved(manager, before, refused_tokens=4, superseded_tokens=1)


class _GreenLock:
    """What gevent has for a lock."""


gevent_like = SimpleNamespace(Lock=_GreenLock)


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, Any]:
    """What a manager is told that shares its cache."""
    tmp_path.chmod(0o700)
    return {"shared_cache": str(tmp_path), "shared_cache_size": 2**24}  # 4 MiB for each of four shards


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing")
async def test_shared_hits_shared_sessions_leader(
    open_manager: OpenAsyncManager, shared: dict[str, Any]
) -> None:
    a, b = await open_manager(**shared), await open_manager(**shared)
    session = await a.create_session("u")
    before = b.stats()
    for _ in range(3):
        assert await b.get_session(session.id) is not None
    await moved(b, before, hits=3, shared_hits=1, misses=0)
    assert [manager.stats().shared_sessions for manager in (a, b)] == [1, 1]
    assert [manager.stats().leader for manager in (a, b)] == [True, False]
    assert [manager.stats().cache_capacity for manager in (a, b)] == [2000, 2000]


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing")
async def test_failovers_arena_resets_ring_overruns(
    open_manager: OpenAsyncManager, shared: dict[str, Any]
) -> None:
    a, b = await open_manager(**shared), await open_manager(**shared)
    before = b.stats()
    arena = a._cache.shared
    assert arena is not None
    arena.poison()
    await moved(b, before, arena_resets=1, failovers=0, ring_overruns=0)


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing anyway")
async def test_who_has_greenlets_for_threads_shares_nothing_shared_fallback_reason(
    open_manager: OpenAsyncManager, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsession._host.watch.threading", gevent_like)
    stats = (await open_manager(**shared)).stats()
    assert stats.shared_fallback_reason is not None and "gevent" in stats.shared_fallback_reason
    assert stats.in_sync


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing anyway")
async def test_shared_fallback_reason(open_manager: OpenAsyncManager, shared: dict[str, Any]) -> None:
    os.chmod(shared["shared_cache"], 0o755)
    manager = await open_manager(**shared, cache_size=10_000)
    stats = manager.stats()
    assert stats.shared_fallback_reason is not None and "0700" in stats.shared_fallback_reason
    assert (stats.leader, stats.shared_sessions, stats.cache_capacity) == (False, 0, 10_000)
