"""Time that passes is the same as all times that move into the past: for the database, every node and every token."""

from __future__ import annotations

import subprocess
import sys
from contextlib import ExitStack
from datetime import timedelta

import pytest

import pgsession
from pgsession.testing import Clock, Outage
from pgsession.testing._database import schema_with_tables

MINUTES = timedelta(minutes=1)


@pytest.fixture
def manager(pgsession_manager: pgsession.SessionManager) -> pgsession.SessionManager:
    return pgsession_manager


@pytest.mark.pgsession(inactivity_duration=30 * MINUTES)
def test_an_idle_session_ends_and_one_that_is_used_does_not(
    manager: pgsession.SessionManager, pgsession_clock: Clock
) -> None:
    used, idle = manager.create_session("ann"), manager.create_session("ben")
    for _ in range(3):
        pgsession_clock.advance(3 * MINUTES)
        assert manager.get_session(used.id)
        assert manager.stats().pending_accesses == 1  # so early that it can wait
        pgsession_clock.advance(28 * MINUTES)
        assert manager.get_session(used.id)
    assert manager.get_session(idle.id) is None
    pgsession_clock.advance(29 * MINUTES)
    assert manager.get_session(used.id, touch=False)
    pgsession_clock.advance(MINUTES)
    assert manager.get_session(used.id) is None
    assert manager.count_sessions() == 0


@pytest.mark.pgsession(inactivity_duration=30 * MINUTES)
def test_accesses_that_were_only_noted_move_too(
    manager: pgsession.SessionManager, pgsession_clock: Clock
) -> None:
    session = manager.create_session("ann")
    for _ in range(20):
        pgsession_clock.advance(25 * MINUTES)
        assert manager.get_session(session.id)  # so late that it is to be written at once
        pgsession_clock.advance(1)
        assert manager.get_session(session.id)
        pgsession_clock.advance(31 * MINUTES)
        assert manager.get_session(session.id) is None
        session = manager.create_session("ann")


def test_all_that_ends_does(manager: pgsession.SessionManager, pgsession_clock: Clock) -> None:
    session = manager.create_session("ann", {"a": 1}, inactivity=None, expires_in=3600)
    session.set("code", 42, expires_in=60)
    manager.update_session(session)
    before = manager.token(session)
    between = manager.token(manager.rotate_session(session))
    assert before and between
    assert manager.open_token(before).state == "previous"
    pgsession_clock.advance(31)
    assert manager.open_token(before).state == "ended"
    after = manager.token(manager.rotate_session(session, user_id="ann", expires_in=3600))
    assert after and manager.open_token(between).state == "superseded"
    assert dict(manager.get_session(session.id) or {}) == {"a": 1, "code": 42}
    pgsession_clock.advance(28)
    assert dict(manager.get_session(session.id) or {}) == {"a": 1, "code": 42}
    assert manager.open_token(between).state == "superseded"
    pgsession_clock.advance(2)
    assert dict(manager.get_session(session.id) or {}) == {"a": 1}
    assert manager.open_token(between).state == "ended"
    assert manager.open_token(after).state == "current"
    pgsession_clock.advance(timedelta(hours=1))
    assert manager.get_session(session.id) is None
    assert manager.open_token(after).state == "ended"
    assert manager.delete_expired_sessions() == 1


def test_who_holds_a_session_can_save_it(manager: pgsession.SessionManager, pgsession_clock: Clock) -> None:
    session = manager.create_session("ann", {"cart": ["book"]})
    session.set("code", 42, expires_in=600)
    token = manager.token(manager.update_session(session))
    assert token
    session["cart"].append("pen")
    pgsession_clock.advance(10 * MINUTES)
    found = manager.get_session_by_token(token)
    assert found and found["cart"] == ["book"] and "code" not in found
    created = session.created_at
    for saved in (manager.update_session(session, check="attributes"), manager.get_session(session.id)):
        assert (
            saved and dict(saved) == {"cart": ["book", "pen"]} and created - saved.created_at == 10 * MINUTES
        )


def test_every_node_of_the_process_is_told_before_it_returns(
    manager: pgsession.SessionManager,
    pgsession_conninfo: str,
    pgsession_config: pgsession.Config,
    pgsession_clock: Clock,
) -> None:
    session = manager.create_session("ann", expires_in=60)
    with pgsession.SessionManager(pgsession_conninfo, pgsession_config) as other:
        assert other.get_session(session.id) and other.get_cached_session(session.id)
        pgsession_clock.advance(10)
        assert other.get_cached_session(session.id) is None
        found = other.get_session(session.id)
        assert found and not found.from_cache
        again = other.get_session(session.id)
        assert again and again.from_cache  # no late event empties it once more
        pgsession_clock.advance(51)
        assert other.get_session(session.id) is None is manager.get_session(session.id)


OTHER = """
import sys, pgsession
conninfo, schema = sys.argv[1:]
with pgsession.SessionManager(conninfo, pgsession.Config(schema_name=schema, operation_timeout=60)) as manager:
    for id in sys.stdin:
        found = manager.get_cached_session(id.strip()) or manager.get_session(id.strip(), touch=False)
        print("none" if found is None else "cached" if found.from_cache else "read", flush=True)
"""


def test_a_node_of_another_process_is_told_before_it_returns(
    manager: pgsession.SessionManager,
    pgsession_conninfo: str,
    pgsession_config: pgsession.Config,
    pgsession_clock: Clock,
) -> None:
    command = [sys.executable, "-c", OTHER, pgsession_conninfo, pgsession_config.schema_name]
    session = manager.create_session("ann", expires_in=3600)
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdin and other.stdout

        def read() -> str:
            assert other.stdin and other.stdout
            other.stdin.write(f"{session.id}\n")
            other.stdin.flush()
            return other.stdout.readline().strip()

        assert (read(), read()) == ("read", "cached")
        for _ in range(10):
            pgsession_clock.advance(60)
            assert (read(), read()) == ("read", "cached")
        pgsession_clock.advance(3000)
        assert read() == "none"
        other.stdin.close()
        assert other.wait(30) == 0


async def test_time_passes_in_an_event_loop(
    pgsession_async_manager: pgsession.AsyncSessionManager, pgsession_clock: Clock
) -> None:
    manager = pgsession_async_manager
    session = await manager.create_session("ann", inactivity=30 * MINUTES)
    for _ in range(3):
        await pgsession_clock.async_advance(20 * MINUTES)
        assert await manager.get_session(session.id)
    with pytest.raises(RuntimeError, match="async_advance"):
        pgsession_clock.advance(MINUTES)
    await pgsession_clock.async_advance(30 * MINUTES)
    assert await manager.get_session(session.id) is None


@pytest.mark.parametrize("duration", [0, -1, timedelta(0), timedelta(days=36501), float("nan"), 1e300])
def test_a_duration_has_to_be_one(duration: float | timedelta, pgsession_clock: Clock) -> None:
    with pytest.raises(ValueError, match="duration: must be from 1 microsecond to 36500 days"):
        pgsession_clock.advance(duration)


def test_who_was_left_open_without_tables_is_left_alone(
    manager: pgsession.SessionManager,
    pgsession_conninfo: str,
    pgsession_clock: Clock,
    pgsession_outage: Outage,
) -> None:
    with ExitStack() as stack:
        with schema_with_tables(pgsession_conninfo) as name:
            left = pgsession.SessionManager(pgsession_conninfo, pgsession.Config(schema_name=name))
            stack.enter_context(left)
            left.get_session(left.create_session("ann").id)
        session = manager.create_session("ann", expires_in=60)
        with pgsession_outage.listener():
            pgsession_clock.advance(61)
        assert manager.get_session(session.id) is None
        left.close(0)


def test_somebody_has_to_be_there(pgsession_clock: Clock) -> None:
    with pytest.raises(RuntimeError, match="no manager is open in this process"):
        pgsession_clock.advance(1)
