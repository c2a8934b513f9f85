# Generated from tests/aio/test_database_clock.py by tools/async_to_sync.py: never edit.

"""A session ends when it ends by the database's clock, however slow the answers are that tell the time."""

from __future__ import annotations

import logging

import pytest

import pgsession
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

SECOND = 1_000_000
DELAY = 1.0  # seconds, in each direction


def error_of_clock(manager: pgsession.SessionManager, tables: Tables) -> float:
    """By how many seconds the node's idea of the database's time is wrong at least."""
    before = manager._clock.database_now()
    (now,) = tables.run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0]
    after = manager._clock.database_now()
    return float(max(before - now, now - after, 0)) / SECOND


def test_a_slow_answer_at_a_reconnect_moves_no_end(
    open_manager: OpenAsyncManager, dsn: str, tables: Tables
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, max_staleness=10)
        session = manager.create_session("u")
        assert error_of_clock(manager, tables) < 0.1
        resyncs = manager.stats().resyncs
        proxy.delay_answers = DELAY
        tables.run("SELECT pg_terminate_backend(%s)", manager._open_runtime().listener.pid)

        def again() -> bool:
            return manager.stats().resyncs > resyncs and manager.get_cached_session(session.id) is not None

        eventually(again, timeout=30)
        assert error_of_clock(manager, tables) < 0.1
        proxy.delay_answers = 0.0
        assert manager.get_session(session.id, refresh=True) is not None
        ends_in_time(manager, tables)


def ends_in_time(manager: pgsession.SessionManager, tables: Tables) -> None:
    """A session is read again and again until it has ended: it is there as long as the database says so, no longer."""
    session = manager.create_session("u", expires_in=0.5)
    ends = int(session.expires_at.timestamp() * SECOND)

    def now() -> int:
        return int(tables.run("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint")[0][0])

    def ended() -> bool:
        before = now()
        read = manager.get_session(session.id)
        if read is not None:
            assert before < ends, f"served {before - ends} us after its end"
            return False
        assert now() >= ends, "ended too early"
        return True

    eventually(ended)


def test_an_answer_that_was_under_way_at_the_end_is_not_given(
    open_manager: OpenAsyncManager, dsn: str
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, listener_conninfo=dsn)
        session = manager.create_session("u", expires_in=0.8)
        proxy.delay_answers = DELAY
        assert manager.get_session(session.id, refresh=True) is None
        proxy.delay_answers = 0.0


@pytest.mark.parametrize("by", [60, -60])
def test_a_step_of_the_databases_clock_is_seen_by_the_next_answer(
    open_manager: OpenAsyncManager, tables: Tables, caplog: pytest.LogCaptureFixture, by: int
) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    # The other clock cannot be set here. This one, with all that is known, can: the answers say the rest.
    offset = manager._coherence._offset
    offset._lowest += by * SECOND
    offset._highest += by * SECOND
    manager._clock.offset += by * SECOND
    with caplog.at_level(logging.WARNING):
        assert manager.get_session(session.id, refresh=True) is not None
    assert error_of_clock(manager, tables) < 0.1
    assert f"stepped by {'-' if by > 0 else '+'}" in caplog.text
    ends_in_time(manager, tables)
