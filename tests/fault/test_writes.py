"""Writes: durable when acknowledged, waiting for nobody's row but their own, right whatever the defaults are."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession._async import store as async_store
from pgsession._sync import store
from tests.chaos.cluster import Cluster
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until
from tests.versions import changes


def with_options(dsn: str, options: str) -> str:
    return make_conninfo(dsn, options=options)


def test_durable_when_acknowledged(kind: str, own_server: Callable[..., Any]) -> None:
    """By what survives: the asynchronous commit alone would be lost, since nothing else flushes it so soon."""
    # Nothing but the node writes: no proofs for a while, no vacuum, no snapshots for standbys.
    quiet = {"autovacuum": "off", "wal_level": "minimal", "max_wal_senders": 0}
    server = own_server(settings={"wal_writer_delay": "10s", **quiet})
    # A role's default of "off" does not slip through.
    conninfo = with_options(server.conninfo, "-c synchronous_commit=off")
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=600, max_sessions=0)
    with Node(kind, conninfo, config) as node, psycopg.connect(server.conninfo, autocommit=True) as probe:
        for _ in range(20):
            session = node.create_session("u", {"n": 0})
            _assert_flushed(probe)
            session["n"] = 1
            node.update_session(session)
            _assert_flushed(probe)
        other = node.create_session("other")
        assert node.delete_attribute_from_user_sessions("u", "n") == 20
        _assert_flushed(probe)
        assert node.delete_session(other.id)
        _assert_flushed(probe)
        session["last"] = True
        node.update_session(session)
        probe.close()
        server.restart("immediate")
        with psycopg.connect(server.conninfo) as connection:
            rows = connection.execute("SELECT id, version FROM sessions").fetchall()
        assert len(rows) == 20 and (session.id, session.version) in rows and changes(session) == 3


def _assert_flushed(probe: psycopg.Connection[Any]) -> None:
    # Where the next record goes is past the header of its page (24 bytes, or 40), also if nothing is written there yet.
    row = probe.execute(
        "SELECT inserted - flushed <= CASE (flushed - '0/0') % 8192 WHEN 0 THEN 40 ELSE 0 END"
        " FROM pg_current_wal_flush_lsn() flushed, pg_current_wal_insert_lsn() inserted"
    ).fetchone()
    assert row == (True,)


def test_a_cancelled_wait_for_a_standby_is_an_unknown_outcome(kind: str, cluster: Cluster) -> None:
    """The server reports success, with a warning: committed here, and perhaps not there."""
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=2)
    with Node(kind, cluster.primary.conninfo, config) as node, ThreadPoolExecutor(1) as crew:
        session = node.create_session("u", {"n": 0})
        with cluster.frozen_standby(), Console(cluster.primary.conninfo, "public") as console:
            session["n"] = 1
            update = crew.submit(node.update_session, session)
            waiting = (
                "SELECT pid FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
                " AND application_name = 'pgsession'"
            )
            until(lambda: bool(console(waiting)), "the update to wait for the standby")
            assert not update.done()
            console(f"SELECT pg_cancel_backend(pid) FROM ({waiting}) w")
            with pytest.raises(pgsession.WriteOutcomeUnknown, match=r"replicated|durable"):
                update.result(30)
        assert session.is_modified
        assert node.get_session(session.id)["n"] == 1


def test_nobody_waits_for_somebody_elses_row(new_node: NewNode, console: Console, dsn: str) -> None:
    """64 updates waited 2.0 s for one foreign lock: here 63 are done while it is held."""
    node = new_node(max_sessions=0)
    sessions = [node.create_session("u", {"n": 0}) for _ in range(64)]
    for session in sessions:
        session["n"] = 1
    with ThreadPoolExecutor(64) as crew:
        with Console(dsn, node.manager._config.schema_name) as other, other.connection.transaction():
            other("UPDATE {t}.sessions SET expires_at = expires_at WHERE id = %s", sessions[7].id)
            updates = [crew.submit(node.update_session, session) for session in sessions]
            for number, update in enumerate(updates):
                if number != 7:
                    assert changes(update.result(30)) == 1
            assert not updates[7].done()
        assert changes(updates[7].result(30)) == 2, "the other's change came first"
    assert all(node.from_memory(session.id)["n"] == 1 for session in sessions)


@pytest.mark.parametrize("patience", [store.BATCH_LOCK_TIMEOUT, 5_000])
def test_a_batch_survives_a_deadlock_with_psql(
    new_node: NewNode, console: Console, dsn: str, monkeypatch: pytest.MonkeyPatch, patience: int
) -> None:
    """An attribute edited in psql locks the attribute first and the session second: the other way round.

    The batch gives up before the server looks for deadlocks, and after that if it has the patience.
    """
    for module in (async_store, store):
        monkeypatch.setattr(module, "BATCH_LOCK_TIMEOUT", patience)
    node = new_node(max_sessions=0)
    sessions = [node.create_session("u", {"n": 0}) for _ in range(8)]
    schema = node.manager._config.schema_name
    with Console(dsn, schema) as other, ThreadPoolExecutor(8) as crew:
        other("SET deadlock_timeout = '60s'")  # the library's transaction is the one that is chosen
        with other.connection.transaction():
            # What a trigger of the operator's own may do: lock a row of the attributes, and no session yet.
            other("SELECT FROM {t}.session_attributes WHERE session_id = %s FOR UPDATE", sessions[3].id)
            for session in sessions:
                session["n"] = 1
            updates = [crew.submit(node.update_session, session) for session in sessions]
            until(lambda: console.waiting() > 0, "the batch to wait for the attribute")
            other("UPDATE {t}.session_attributes SET value = '5' WHERE session_id = %s", sessions[3].id)
        for update in updates:
            assert update.result(30)
    assert [node.get_session(session.id, refresh=True)["n"] for session in sessions] == [1] * 8
    assert changes(node.get_session(sessions[3].id)) == 2


@pytest.mark.parametrize("level", ["repeatable\\ read", "serializable"])
def test_whatever_the_isolation_level_is_by_default(new_node: NewNode, dsn: str, level: str) -> None:
    """Under REPEATABLE READ the lock of a row that was changed meanwhile fails with 40001."""
    conninfo = with_options(dsn, f"-c default_transaction_isolation={level}")
    nodes = [new_node(conninfo, listener_conninfo=dsn) for _ in range(2)]
    session = nodes[0].create_session("u", {"count": 0})

    def increment(number: int) -> None:
        def change(session: pgsession.Session) -> None:
            session["count"] += 1

        nodes[number % 2].modify_session(session.id, change, retries=1000)

    with ThreadPoolExecutor(6) as crew:
        list(crew.map(increment, range(24)))
    final = nodes[0].get_session(session.id, refresh=True)
    assert final["count"] == changes(final) == 24


def test_read_only_by_default(new_node: NewNode, dsn: str) -> None:
    node = new_node()
    read_only = with_options(dsn, "-c default_transaction_read_only=on")
    other = new_node(read_only, listener_conninfo=dsn, create_schema_if_missing=False)
    session = other.create_session("u", {"n": 0})
    assert node.get_session(session.id)["n"] == 0


def test_updates_of_one_session_at_once_are_all_done(new_node: NewNode) -> None:
    """In one statement with the id twice one of them would be applied, silently."""
    node = new_node()
    session = node.create_session("u")

    def put(number: int) -> int:
        mine = node.get_session(session.id)
        mine[f"key {number}"] = number
        return changes(node.update_session(mine))

    with ThreadPoolExecutor(16) as crew:
        numbers = sorted(crew.map(put, range(32)))
    assert numbers == list(range(1, 33))
    assert len(node.get_session(session.id, refresh=True)) == 32


def test_a_conflict_after_an_unannounced_update_does_not_repeat_for_ever(new_node: NewNode) -> None:
    one, other = new_node(), new_node()
    session = one.create_session("u", {"n": 0})
    stale = other.from_memory(session.id)
    session["n"] = 1
    one.update_session(session, notify=False)
    stale["n"] = 2
    with pytest.raises(pgsession.SessionVersionConflict):
        other.update_session(stale, check="session")
    fresh = other.get_session(session.id)
    assert changes(fresh) == fresh["n"] == 1
    fresh["n"] = 2
    assert changes(other.update_session(fresh, check="session")) == 2
