"""The listener has to be where the data comes from (C6), at open and for as long as the node lives."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

import pgsession
from pgsession._sync import synchronizer
from tests.chaos.cluster import Cluster
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until
from tests.fault_proxy import FaultProxy


def test_another_database_is_refused(new_node: NewNode, console: Console, dsn: str, schema: str) -> None:
    """Its own notifications come back, 5 of 5, and no event does."""
    console(f"CREATE DATABASE {schema}")
    try:
        elsewhere = make_conninfo(dsn, dbname=schema)
        with pytest.raises(pgsession.ListenerError, match="same database"):
            new_node(listener_conninfo=elsewhere, max_staleness=2)
        # Also where the tables are there too.
        with Node("sync", elsewhere, pgsession.Config(create_schema_if_missing=True, schema_name=schema)):
            pass
        with pytest.raises(pgsession.ListenerError, match="same database"):
            new_node(listener_conninfo=elsewhere, max_staleness=2)
    finally:
        console(f"DROP DATABASE {schema} WITH (FORCE)")


def test_a_server_in_recovery_is_refused(own_server: Callable[..., Any], new_node: NewNode, dsn: str) -> None:
    server = own_server()
    (server.folder / "standby.signal").touch()
    server.restart()
    with pytest.raises(pgsession.ListenerError, match=r"standby.*primary"):
        new_node(listener_conninfo=server.conninfo, max_staleness=2)


def test_a_pool_that_fails_over_without_the_listener_is_noticed(kind: str, cluster: Cluster) -> None:
    """The old primary lives on: every proof of the listener's own returns, and its events mean nothing any more."""
    with FaultProxy(cluster.primary.conninfo) as way:
        config = pgsession.Config(
            create_schema_if_missing=True, max_staleness=2, listener_conninfo=cluster.primary.conninfo
        )
        old, new = cluster.primary, cluster.standby
        with Node(kind, way.conninfo, config) as node:
            session = node.create_session("u", {"n": 0})
            node.from_memory(session.id)
            cluster.promote(new)
            with psycopg.connect(new.conninfo, autocommit=True) as connection:
                connection.execute("UPDATE session_attributes SET value = '1'")
            way.redirect(new.conninfo)
            until(lambda: not node.in_sync, "the node to notice")
            for _ in range(3):
                read = node.get_session(session.id)
                assert read["n"] == 1 and not read.from_cache
            # And it stays so, until the listener finds the new primary.
            assert old.run("pg_ctl", "-D", old.folder, "status")
            assert not node.in_sync


def test_a_standby_that_is_promoted_under_the_listener(kind: str, cluster: Cluster) -> None:
    """Multi-host conninfos, primary crashed: both find the new one, and nothing of before is served unchecked."""
    hosts = [psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"] for server in cluster.servers]
    several = make_conninfo(cluster.primary.conninfo, host=",".join(map(str, hosts)))
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=2)
    with Node(kind, several, config) as node:
        session = node.create_session("u", {"n": 0})
        node.from_memory(session.id)
        cluster.fail_over()
        node.until_in_sync()
        read = node.get_session(session.id)
        assert read is not None and not read.from_cache, "versions of two servers are not comparable"
        read["n"] = 1
        node.update_session(read)
        assert node.from_memory(session.id)["n"] == 1
        assert node.stats().listener_losses >= 1


def test_a_former_primary_that_is_found_first(kind: str, cluster: Cluster) -> None:
    """It stood still when another was promoted, and knows of nothing: nobody goes back to it."""
    hosts = [psycopg.conninfo.conninfo_to_dict(server.conninfo)["host"] for server in cluster.servers]
    several = make_conninfo(cluster.primary.conninfo, host=",".join(map(str, hosts)), connect_timeout="2")
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=2, operation_timeout=2)
    old, new = cluster.primary, cluster.standby
    with Node(kind, several, config) as node:
        session = node.create_session("u", {"n": 0})

        def done(action: Callable[[], object]) -> bool:
            try:
                action()
            except (psycopg.Error, pgsession.WriteOutcomeUnknown, pgsession.DatabaseUnavailable):
                return False
            return True

        with cluster.silent(cluster.primary):
            cluster.promote(new)
            session["n"] = 1
            until(lambda: done(lambda: node.update_session(session)), "the node to find the new primary")
        with psycopg.connect(new.conninfo, autocommit=True) as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name LIKE 'pgsession%'"
            )

        def read() -> None:
            read = node.get_session(session.id, refresh=True)
            assert read is not None and read["n"] == 1

        until(lambda: done(read), "an answer")
        session["n"] = 2
        until(lambda: done(lambda: node.update_session(session)), "a write")
        with psycopg.connect(old.conninfo) as before, psycopg.connect(new.conninfo) as after:
            values = [
                one.execute("SELECT value FROM session_attributes").fetchone() for one in (before, after)
            ]
        # What it was sent while it stood still is done there, and nothing else.
        assert values[0] in ((0,), (1,)) and values[1] == (2,)


def test_a_name_that_leads_to_a_standby_for_a_moment(kind: str, cluster: Cluster) -> None:
    """Connections made meanwhile work, and are of no use: they are not kept."""
    with FaultProxy(cluster.primary.conninfo) as way:
        config = pgsession.Config(
            create_schema_if_missing=True, max_staleness=2, listener_conninfo=cluster.primary.conninfo
        )
        with Node(kind, way.conninfo, config) as node:
            session = node.create_session("u", {"n": 0})
            way.redirect(cluster.standby.conninfo)
            with pytest.raises((psycopg.Error, pgsession.WriteOutcomeUnknown, pgsession.DatabaseUnavailable)):
                node.update_session(session, group_id="g")
            way.redirect(cluster.primary.conninfo, cut=False)  # what was made meanwhile stays

            def written() -> bool:
                try:
                    node.update_session(session, group_id="h")
                except (psycopg.Error, pgsession.WriteOutcomeUnknown, pgsession.DatabaseUnavailable):
                    return False
                return True

            until(written, "a connection to the primary")
            assert node.get_session(session.id, refresh=True).group_id == "h"


def test_a_listener_that_is_lost_while_a_manager_opens(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shared one connects again as long as that takes; `open` does not wait for it without a bound."""
    monkeypatch.setattr(synchronizer, "LISTENING_WITHIN", 0.5, raising=False)
    look = synchronizer.Synchronizer._refuse_what_cannot_work
    with FaultProxy(dsn) as way, pgsession.Listener(way.conninfo) as listener:

        def look_and_lose(its: synchronizer.Synchronizer) -> None:
            look(its)
            way.refuse()
            way.cut()
            until(lambda: not listener.connected, "the listener to notice")

        monkeypatch.setattr(synchronizer.Synchronizer, "_refuse_what_cannot_work", look_and_lose)
        config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
        manager = pgsession.SessionManager(dsn, config, listener=listener)
        opening = ThreadPoolExecutor(1).submit(manager.open)
        with pytest.raises(pgsession.ListenerError, match=r"within 0\.5 s"):
            opening.result(10)
        way.forward()


def test_a_callers_pool_that_leads_to_a_standby(cluster: Cluster) -> None:
    """Also where the caller's conninfo does not ask for the primary."""
    with FaultProxy(cluster.primary.conninfo) as way:
        config = pgsession.Config(
            create_schema_if_missing=True, max_staleness=2, listener_conninfo=cluster.primary.conninfo
        )
        with (
            ConnectionPool(way.conninfo, min_size=1, max_size=3, timeout=5, open=True) as pool,
            Node("sync", pool, config) as node,
        ):
            session = node.create_session("u", {"n": 0})
            way.redirect(cluster.standby.conninfo)
            with pytest.raises((psycopg.Error, pgsession.DatabaseUnavailable)):
                node.get_session(session.id, refresh=True)
            way.redirect(cluster.primary.conninfo, cut=False)  # what was made meanwhile stays
            until(lambda: answers(node, session.id), "a connection to the primary")


def answers(node: Node, session_id: Any) -> bool:
    try:
        return node.get_session(session_id, refresh=True) is not None
    except (psycopg.Error, pgsession.DatabaseUnavailable, pgsession.OperationTimeout):
        return False
