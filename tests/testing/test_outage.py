"""Outages begin for real, last as long as the block, and are over after it."""

from __future__ import annotations

import psycopg
import pytest

import pgsession
from pgsession.testing import Outage
from pgsession.testing._nodes import wait_until


@pytest.fixture
def manager(pgsession_manager: pgsession.SessionManager) -> pgsession.SessionManager:
    return pgsession_manager


def test_a_node_without_its_listener_works_from_the_database(
    manager: pgsession.SessionManager,
    pgsession_conninfo: str,
    pgsession_config: pgsession.Config,
    pgsession_outage: Outage,
) -> None:
    session = manager.create_session("ann", {"n": 0})
    with pgsession.SessionManager(pgsession_conninfo, pgsession_config) as other:
        for n in (1, 2):
            with pgsession_outage.listener(manager):
                health = manager.check_health()
                assert health.ready and not (health.healthy or health.in_sync or health.listening)
                assert other.check_health().healthy
                session["n"] = n
                other.update_session(session)
                for _ in range(3):
                    found = manager.get_session(session.id)
                    assert found and found["n"] == n and not found.from_cache
            assert manager.check_health().healthy
            assert (found := manager.get_session(session.id)) and found["n"] == n
            assert manager.get_cached_session(session.id)
        assert manager.stats().listener_losses == 2 and other.stats().listener_losses == 0
        with pgsession_outage.listener():
            listener = manager._runtime and manager._runtime.listener
            wait_until(lambda: listener is not None and listener.connected, "the listener to connect again")
            for _ in range(50):  # and for nothing
                assert not (manager.check_health().in_sync or other.check_health().in_sync)
            with pgsession.SessionManager(pgsession_conninfo, pgsession_config) as third:
                assert third.check_health().healthy
        assert manager.check_health().healthy and other.check_health().healthy


async def test_the_same_in_an_event_loop(
    pgsession_async_manager: pgsession.AsyncSessionManager, pgsession_outage: Outage
) -> None:
    manager = pgsession_async_manager
    session = await manager.create_session("ann")
    with pytest.raises(RuntimeError, match="async with"), pgsession_outage.listener():
        pass
    async with pgsession_outage.listener():
        health = await manager.check_health()
        assert health.ready and not health.healthy
        assert await manager.get_session(session.id) and not manager.get_cached_session(session.id)
    assert (await manager.check_health()).healthy


def test_a_database_that_is_down_comes_back_with_all_that_it_had(
    manager: pgsession.SessionManager, pgsession_outage: Outage
) -> None:
    session = manager.create_session("ann", {"cart": ["book"]})
    with pgsession_outage.database():
        with pytest.raises((psycopg.OperationalError, pgsession.DatabaseUnavailable)):
            manager.get_session(session.id, refresh=True)
        assert not manager.check_health().ready
    found = manager.get_session(session.id)
    assert found and found["cart"] == ["book"]
    assert manager.check_health().healthy


async def test_a_database_that_is_down_in_an_event_loop(
    pgsession_async_manager: pgsession.AsyncSessionManager, pgsession_outage: Outage
) -> None:
    async with pgsession_outage.database():
        assert not (await pgsession_async_manager.check_health()).ready
    assert (await pgsession_async_manager.check_health()).healthy


def test_a_node_that_is_closed_meanwhile_is_not_waited_for(
    pgsession_conninfo: str, pgsession_config: pgsession.Config, pgsession_outage: Outage
) -> None:
    with (
        pgsession.SessionManager(pgsession_conninfo, pgsession_config) as manager,
        pgsession_outage.database(),
    ):
        manager.close(1)
    with pgsession.SessionManager(pgsession_conninfo, pgsession_config) as another:
        assert another.check_health().healthy


def test_an_outage_within_an_outage_ends_with_the_outer_one(
    manager: pgsession.SessionManager, pgsession_conninfo: str, pgsession_outage: Outage
) -> None:
    with pgsession_outage.listener():
        with pgsession_outage.listener(manager):
            assert not manager.check_health().in_sync
        assert not manager.check_health().in_sync
        with pgsession_outage.database():
            with pgsession_outage.database(), pgsession_outage.listener():
                pass
            with pytest.raises(psycopg.OperationalError):
                psycopg.connect(pgsession_conninfo)
    assert manager.check_health().healthy
