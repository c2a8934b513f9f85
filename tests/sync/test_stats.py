# Generated from tests/aio/test_stats.py by tools/async_to_sync.py: never edit.

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
from pgsession._concurrency import Event
from pgsession.embedded import EmbeddedServer
from tests.crew import Crew
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


def test_every_counter_has_its_test() -> None:
    tests = " ".join(name for name in vars(sys.modules[__name__]) if name.startswith("test_"))
    assert [name for name in pgsession.Stats.__struct_fields__ if name not in tests] == []


def moved(manager: pgsession.SessionManager, before: pgsession.Stats, **expected: int) -> None:
    """Exactly these counters rose, among those named, by exactly so much; it may take a moment."""

    def as_expected() -> bool:
        now = manager.stats()
        return all(getattr(now, name) - getattr(before, name) == by for name, by in expected.items())

    eventually(as_expected, f"{expected} after {before}, not {manager.stats()}")


def test_a_new_manager_has_done_next_to_nothing(manager: pgsession.SessionManager) -> None:
    stats = manager.stats()
    started = {"cache_capacity": 10_000, "proofs": stats.proofs, "resyncs": 1, "nodes": 1, "in_sync": True}
    started |= {name: getattr(stats, name) for name in ("proof_age", "clock_error", "pool_size")}
    started["shared_fallback_reason"] = None
    expected = dict.fromkeys(pgsession.Stats.__struct_fields__, 0) | started
    assert msgspec.to_builtins(stats) == expected and stats.proofs >= 1


def test_hits_misses_fills_cached_sessions(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    before = b.stats()
    b.get_session(session.id)
    moved(b, before, hits=0, misses=1, fills=1, cached_sessions=1)
    before = b.stats()
    for _ in range(5):
        b.get_session(session.id)
    assert b.get_cached_session(session.id) is not None
    moved(b, before, hits=6, misses=0, fills=0, cached_sessions=0)
    before = b.stats()
    b.get_session(session.id, refresh=True)
    moved(b, before, hits=0, fills=1)


def test_negative_hits(manager: pgsession.SessionManager) -> None:
    unknown, before = uuid.uuid4(), manager.stats()
    for _ in range(3):
        assert manager.get_session(unknown) is None
    moved(manager, before, negative_hits=2, misses=3, hits=0, fills=1)


def test_cache_capacity_and_evictions(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(cache_size=3, max_sessions=0)
    sessions = create_many(manager, 5)
    stats = manager.stats()
    assert (stats.cache_capacity, stats.cached_sessions, stats.evictions) == (3, 3, 2)
    assert manager.get_session(sessions[0].id) is not None


def test_expirations(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u", expires_in=0.5)
    assert manager.stats().cached_sessions == 1

    def gone() -> bool:
        return manager.get_cached_session(session.id) is None

    eventually(gone)
    assert manager.stats().expirations == 1


def test_joined_fills(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1})
    store = b._open_runtime().store
    read, may_go_on = store.read, Event()

    def slow(key: bytes, deadline: float) -> Any:
        may_go_on.wait(20)
        return read(key, deadline)

    store.read = slow  # type: ignore[method-assign]
    before = b.stats()
    crew = Crew()
    for _ in range(20):
        crew.start(b.get_session, session.id)
    moved(b, before, fills=1, joined_fills=19)
    may_go_on.set()
    assert all(found is not None and found["n"] == 1 for found in crew.join())
    moved(b, before, fills=1, joined_fills=19, misses=20)


def test_discarded_fills(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u", {"n": 1})
    store = b._open_runtime().store
    read = store.read

    def overtaken(key: bytes, deadline: float) -> Any:
        result = read(key, deadline)
        before = b.stats()
        session["n"] = 2
        a.update_session(session)
        moved(b, before, events=1)
        return result

    store.read = overtaken  # type: ignore[method-assign]
    before = b.stats()
    found = b.get_session(session.id)
    store.read = read  # type: ignore[method-assign]
    assert found is not None and found["n"] == 1
    moved(b, before, discarded_fills=1, cached_sessions=0)


def test_stale_served(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, stale_if_error=3600, max_staleness=1, operation_timeout=2)
        session = manager.create_session("u", {"n": 1})
        proxy.refuse()
        proxy.cut()

        def out_of_sync() -> bool:
            return manager.get_cached_session(session.id) is None

        eventually(out_of_sync)
        read = manager.get_session(session.id)
        assert read is not None and read["n"] == 1 and read.from_cache
        assert manager.stats().stale_served == 1
        with pytest.raises((pgsession.OperationTimeout, pgsession.DatabaseUnavailable)):
            manager.get_session(session.id, refresh=True)
        proxy.forward()


def test_writes_and_batches(manager: pgsession.SessionManager) -> None:
    before = manager.stats()
    session = manager.create_session("u")
    session["n"] = 1
    manager.update_session(session)
    manager.update_session(session)  # nothing to write
    manager.delete_session(session.id)
    moved(manager, before, writes=3, batches=3, failed_writes=0, conflicts=0)
    before = manager.stats()
    create_many(manager, 40)
    stats = manager.stats()
    assert stats.writes - before.writes == 40 and stats.batches - before.batches < 40


def test_conflicts(manager: pgsession.SessionManager) -> None:
    session = manager.create_session("u", {"n": 1})
    other = manager.get_session(session.id)
    assert other is not None
    session["n"], other["n"] = 2, 3
    manager.update_session(session)
    before = manager.stats()
    for check in ("session", "attributes"):
        with pytest.raises(pgsession.ConflictError):
            manager.update_session(other, check=check)  # type: ignore[arg-type]
    moved(manager, before, conflicts=2, failed_writes=0, writes=0)


def test_failed_writes(manager: pgsession.SessionManager, tables: Tables) -> None:
    tables.run("ALTER TABLE {sessions} ADD CONSTRAINT no_such_user CHECK (user_id <> 'refused')")
    before = manager.stats()
    with pytest.raises(psycopg.errors.CheckViolation):
        manager.create_session("refused")
    moved(manager, before, failed_writes=1, writes=0)


def test_events_and_invalidations(open_manager: OpenAsyncManager) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    b.get_session(session.id)
    before, own = b.stats(), a.stats()
    session["n"] = 1
    a.update_session(session)
    moved(b, before, events=1, invalidations=1, cached_sessions=-1)
    moved(a, own, events=1, cached_sessions=0)
    before = b.stats()
    a.delete_session(session.id)
    moved(b, before, events=1, invalidations=0)


def test_malformed_events(manager: pgsession.SessionManager, tables: Tables) -> None:
    manager.create_session("u")
    before = manager.stats()
    runtime = manager._open_runtime()
    runtime.store.query(runtime.statements.notify, ("0" * 16, "garbage"))
    moved(manager, before, events=1, malformed_events=1, cached_sessions=-1)


def test_proofs(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_staleness=0.3)
    before = manager.stats().proofs

    def more() -> bool:
        return manager.stats().proofs > before + 1

    eventually(more)


def test_listener_losses_and_resyncs(manager: pgsession.SessionManager, tables: Tables) -> None:
    session = manager.create_session("u")
    before = manager.stats()
    tables.run("SELECT pg_terminate_backend(%s)", manager._open_runtime().listener.pid)
    moved(manager, before, listener_losses=1, resyncs=1, cached_sessions=0)

    def from_memory() -> bool:
        return manager.get_cached_session(session.id) is not None

    eventually(from_memory)


def test_pending_accesses_written_accesses_failed_access_batches(
    manager: pgsession.SessionManager, tables: Tables
) -> None:
    session = manager.create_session("u")
    before = manager.stats()
    manager.get_session(session.id)
    moved(manager, before, pending_accesses=1, written_accesses=0)
    tables.run("ALTER FUNCTION {schema}.session_write_accesses_1 RENAME TO away")
    manager._open_runtime().maintenance.write_accesses()
    moved(manager, before, pending_accesses=1, written_accesses=0, failed_access_batches=1)
    tables.run("ALTER FUNCTION {schema}.away RENAME TO session_write_accesses_1")
    manager._open_runtime().maintenance.write_accesses()
    moved(manager, before, pending_accesses=0, written_accesses=1, failed_access_batches=1)


def test_lost_accesses(manager: pgsession.SessionManager) -> None:
    """Accesses of sessions that are not in memory: so many that they are written early, or given up."""
    session = manager.create_session("u")
    now = manager._clock.database_now()
    before = manager.stats()
    many = [(uuid.uuid4().bytes, now) for _ in range(70_000)]
    manager._cache.restore_accesses(many)
    stats = manager.stats()
    assert stats.lost_accesses == before.pending_accesses + 70_000 - stats.pending_accesses > 0
    manager.get_session(session.id, refresh=True)  # the interval is ten minutes

    def all_written() -> bool:
        return manager.stats().pending_accesses <= 1

    eventually(all_written, timeout=30)


def test_cleanups_and_deleted_sessions(manager: pgsession.SessionManager, tables: Tables) -> None:
    manager.create_session("u")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now()")
    before = manager.stats()
    manager._open_runtime().maintenance.clean_up()
    moved(manager, before, cleanups=1, deleted_sessions=1)


def test_audit_events_and_lost_audit_events(open_manager: OpenAsyncManager) -> None:
    heard: list[pgsession.AuditEvent] = []
    manager = open_manager(on_audit_event=heard.append)
    manager.create_session("u")

    def told() -> bool:
        return manager.stats().audit_events == len(heard) == 1

    eventually(told)
    assert manager.stats().lost_audit_events == 0
    runtime = manager._open_runtime()
    runtime._audit_thread.give_up()
    runtime.audit.ended("logout")
    assert manager.stats().lost_audit_events == 0, "of a manager that is closed"


def test_held_locks(manager: pgsession.SessionManager) -> None:
    with manager.lock("a"):
        assert manager.stats().held_locks == 1
        with manager.lock("b"):
            assert manager.stats().held_locks == 2
    assert manager.stats().held_locks == 0


def test_nodes(open_manager: OpenAsyncManager) -> None:
    managers = [open_manager() for _ in range(3)]
    assert [manager.stats().nodes for manager in managers] == [1, 2, 3]
    managers[0].close()
    assert (open_manager()).stats().nodes == 3


def test_notification_queue_usage(
    own_server: Callable[..., EmbeddedServer],
    open_manager: OpenAsyncManager,
    tables: Tables,
    caplog: pytest.LogCaptureFixture,
) -> None:
    if not tables.run("SELECT 1 FROM pg_settings WHERE name = 'max_notify_queue_pages'"):
        pytest.skip("the queue cannot be made small enough to fill")
    server = own_server(settings={"max_notify_queue_pages": 64})
    manager = open_manager(server.conninfo, max_staleness=0.5)
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        connection.execute("LISTEN nothing")
        connection.execute("BEGIN")
        connection.execute("SELECT 1")  # a listener inside a transaction holds the queue
        with psycopg.connect(server.conninfo, autocommit=True) as talker:
            for number in range(30):
                talker.execute("SELECT pg_notify('nothing', %s)", (f"{number}".ljust(7900),))

        def told() -> bool:
            return manager.stats().notification_queue_usage > 0.25 and "queue is" in caplog.text

        eventually(told)
        connection.execute("COMMIT")


def test_oldest_write_while_somebody_holds_a_row(manager: pgsession.SessionManager, tables: Tables) -> None:
    """Others write meanwhile, and do not make it younger."""
    session = manager.create_session("u", {"n": 1})
    assert manager.stats().oldest_write == 0 and (manager.check_health()).oldest_write is None
    began = time.monotonic()
    with tables.locked("SELECT 1 FROM {sessions} WHERE id = %s FOR UPDATE", session.id):
        session["n"] = 2
        crew = Crew()
        crew.start(manager.update_session, session)

        def waits() -> bool:
            manager.create_session("v")
            return manager.stats().oldest_write > 0.5

        eventually(waits)
        health = manager.check_health()
        assert health.oldest_write is not None and 0.5 < health.oldest_write < time.monotonic() - began
        assert health.ready and health.healthy
    crew.join()
    assert manager.stats().oldest_write == 0 and (manager.check_health()).oldest_write is None


# -- health --------------------------------------------------------------------------------------------------------


def test_a_healthy_node(manager: pgsession.SessionManager) -> None:
    health = manager.check_health()
    assert health.ready and health.healthy and health.reason is None
    assert health.in_sync and health.listening and health.database is None
    assert health.proof_age is not None and 0 <= health.proof_age < 60
    assert health.round_trip is not None and health.round_trip > 0
    assert health.pool_size >= 1 and health.pool_waiting == 0 and health.queued_writes == 0


def test_a_node_without_a_listener_is_ready_and_not_healthy(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(listener_conninfo=proxy.conninfo)
        assert (manager.check_health()).healthy
        proxy.refuse()
        proxy.cut()

        def deaf() -> bool:
            health = manager.check_health()
            return not health.healthy and not health.listening and "refused" in (health.reason or "")

        eventually(deaf)
        health = manager.check_health()
        assert health.ready and health.database is None and health.round_trip is not None
        assert health.reason is not None and "the listener does not listen: connection" in health.reason
        session = manager.create_session("u", {"n": 1})
        read = manager.get_session(session.id)
        assert read is not None and not read.from_cache
        proxy.forward()

        def well() -> bool:
            return (manager.check_health()).healthy

        eventually(well)


def test_a_node_with_a_frozen_listener_is_not_healthy(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(listener_conninfo=proxy.conninfo, max_staleness=0.5)
        proxy.freeze()

        def out_of_sync() -> bool:
            health = manager.check_health()
            return not health.healthy and not health.in_sync and health.database is None

        eventually(out_of_sync)
        health = manager.check_health()
        assert (
            health.ready
            and health.reason is not None
            and health.reason.startswith("Reads go to the database")
        )
        proxy.forward()


@pytest.mark.parametrize("how", ["refused", "frozen"])
def test_a_node_without_a_database_is_not_healthy(open_manager: OpenAsyncManager, dsn: str, how: str) -> None:
    """Nor is it ready, for it cannot write, nor read what is not in memory."""
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, listener_conninfo=dsn)
        if how == "refused":
            proxy.refuse()
            proxy.cut()
        else:
            proxy.freeze()
        health = manager.check_health(timeout=0.5)
        assert not health.ready and not health.healthy and health.database and health.round_trip is None
        assert health.reason == f"The database does not answer: {health.database}"
        assert health.listening, "the listener has a way of its own"
        proxy.forward()

        def well() -> bool:
            return (manager.check_health(timeout=0.5)).healthy

        eventually(well)


def test_a_node_that_may_answer_for_a_database_that_is_down_is_ready(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, stale_if_error=3600, max_staleness=0.5, operation_timeout=1)
        session = manager.create_session("u")
        proxy.refuse()
        proxy.cut()

        def down() -> bool:
            return (manager.check_health()).database is not None and not manager._coherence.in_sync

        eventually(down)
        health = manager.check_health()
        assert health.ready and not health.healthy and health.reason is not None
        assert manager.get_session(session.id) is not None
        proxy.forward()


def test_a_manager_that_is_not_open_is_not_ready(open_manager: OpenAsyncManager, dsn: str) -> None:
    health = pgsession.SessionManager(dsn).check_health()
    assert not health.ready and not health.healthy and health.reason is not None and "open()" in health.reason
    manager = open_manager()
    manager.close()
    health = manager.check_health()
    assert not health.ready and health.reason == "the manager is closed"


def test_a_check_takes_no_longer_than_any_call(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=0.5)
        proxy.freeze()
        began = time.monotonic()
        health = manager.check_health(timeout=60)
        assert not health.ready and time.monotonic() - began < 3 * 0.5
        proxy.forward()


def test_warmed_sessions(open_manager: OpenAsyncManager, tmp_path: Path) -> None:
    a = open_manager(warm=tmp_path / "ids")
    session = a.create_session("u")
    a.close()
    b = open_manager(warm=tmp_path / "ids")
    assert b.get_cached_session(session.id) is not None
    assert b.stats().warmed_sessions == b.stats().fills == 1


def test_misses_out_of_sync_misses_not_cached_misses_over_misses_outdated_misses_refreshed_misses_refused(
    open_manager: OpenAsyncManager,
) -> None:
    manager = open_manager(signer=pgsession.Signer(b"k" * 32))
    session = manager.create_session("u")
    short = manager.create_session("u", expires_in=0.05)
    before = manager.stats()
    manager.get_session(uuid.uuid4())
    moved(manager, before, misses=1, misses_not_cached=1)
    manager.get_session(session.id, refresh=True)
    moved(manager, before, misses=2, misses_refreshed=1)
    manager.get_session(session.id, min_version=session.version + 1)
    moved(manager, before, misses=3, misses_outdated=1)
    manager.get_cached_session_by_token("forged")
    moved(manager, before, misses=4, misses_refused=1)

    def is_over() -> bool:
        return manager.get_cached_session(short.id) is None

    eventually(is_over)
    moved(manager, before, misses=5, misses_over=1)
    manager._cache.in_sync_until = 0
    manager.get_cached_session(session.id)
    moved(manager, before, misses=6, misses_out_of_sync=1, misses_not_cached=1)
    manager._cache.get(uuid.uuid4(), False)  # as stale_if_error does, for a read that was counted
    moved(manager, before, misses=6, misses_not_cached=1)


def test_in_sync_proof_age_clock_error(open_manager: OpenAsyncManager) -> None:
    manager = open_manager()
    stats = manager.stats()
    assert stats.in_sync is True
    assert stats.proof_age is not None and 0 <= stats.proof_age < 60
    assert stats.clock_error is not None and 0 < stats.clock_error < 10
    manager._coherence.on_lost()
    stats = manager.stats()
    assert stats.in_sync is False and stats.proof_age is None and stats.clock_error is not None


def test_queued_writes_pool_size_pool_waiting(manager: pgsession.SessionManager) -> None:
    manager.create_session("u")
    stats = manager.stats()
    assert stats.pool_size >= 1 and stats.pool_waiting == 0 and stats.queued_writes == 0
    assert manager._runtime is not None
    manager._runtime.group_commit._incoming.append(object())  # type: ignore[arg-type]
    assert manager.stats().queued_writes == 1
    manager._runtime.group_commit._incoming.clear()


def test_audited_sessions_failed_audits(open_manager: OpenAsyncManager) -> None:
    """What fails is in test_auditor."""
    manager = open_manager(audit_sample=10)
    create_many(manager, 3)
    before = manager.stats()
    assert manager._runtime is not None
    manager._runtime.auditor.audit()
    moved(manager, before, audited_sessions=3, failed_audits=0)


def test_refused_tokens_forged_tokens_superseded_tokens_ended_tokens(
    open_manager: OpenAsyncManager,
) -> None:
    manager = open_manager(signer=pgsession.Signer(b"k" * 32))
    session = manager.create_session("u")
    good, before = manager.token(session), manager.stats()
    assert good is not None and manager.get_session_by_token(good) is not None
    assert manager.get_cached_session_by_token("forged") is None
    assert (manager.open_token("forged")).state == "forged"
    manager.delete_session(session.id)
    assert manager.get_session_by_token(good) is None
    moved(manager, before, refused_tokens=3, forged_tokens=2, ended_tokens=1, superseded_tokens=0)
    other = manager.create_session("u")
    old = manager.token(other)
    assert old is not None
    manager.rotate_session(other, grace=0)
    assert manager.get_session_by_token(old) is None
    moved(manager, before, refused_tokens=4, superseded_tokens=1)


class _GreenLock:
    """What gevent has for a lock."""


gevent_like = SimpleNamespace(Lock=_GreenLock)


@pytest.fixture
def shared(tmp_path: Path) -> dict[str, Any]:
    """What a manager is told that shares its cache."""
    tmp_path.chmod(0o700)
    return {"shared_cache": str(tmp_path), "shared_cache_size": 2**24}  # 4 MiB for each of four shards


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing")
def test_shared_hits_shared_sessions_leader(open_manager: OpenAsyncManager, shared: dict[str, Any]) -> None:
    a, b = open_manager(**shared), open_manager(**shared)
    session = a.create_session("u")
    before = b.stats()
    for _ in range(3):
        assert b.get_session(session.id) is not None
    moved(b, before, hits=3, shared_hits=1, misses=0)
    assert [manager.stats().shared_sessions for manager in (a, b)] == [1, 1]
    assert [manager.stats().leader for manager in (a, b)] == [True, False]
    assert [manager.stats().cache_capacity for manager in (a, b)] == [2000, 2000]


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing")
def test_failovers_arena_resets_ring_overruns(open_manager: OpenAsyncManager, shared: dict[str, Any]) -> None:
    a, b = open_manager(**shared), open_manager(**shared)
    before = b.stats()
    arena = a._cache.shared
    assert arena is not None
    arena.poison()
    moved(b, before, arena_resets=1, failovers=0, ring_overruns=0)


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing anyway")
def test_who_has_greenlets_for_threads_shares_nothing_shared_fallback_reason(
    open_manager: OpenAsyncManager, shared: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsession._host.watch.threading", gevent_like)
    stats = (open_manager(**shared)).stats()
    assert stats.shared_fallback_reason is not None and "gevent" in stats.shared_fallback_reason
    assert stats.in_sync


@pytest.mark.skipif(sys.platform != "linux", reason="shares nothing anyway")
def test_shared_fallback_reason(open_manager: OpenAsyncManager, shared: dict[str, Any]) -> None:
    os.chmod(shared["shared_cache"], 0o755)
    manager = open_manager(**shared, cache_size=10_000)
    stats = manager.stats()
    assert stats.shared_fallback_reason is not None and "0700" in stats.shared_fallback_reason
    assert (stats.leader, stats.shared_sessions, stats.cache_capacity) == (False, 0, 10_000)
