"""Whoever is interrupted, at whatever line: nobody else hears of it, nothing hangs, and nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

import pgsession
from tests.crew import Crew
from tests.fault.interrupts import Interrupt, Interrupter, SoftLimit

PATIENCE = 20
MOST_STEPS = 3000


@pytest.fixture
def manager(dsn: str, schema: str) -> Iterator[pgsession.SessionManager]:
    config = pgsession.Config(
        create_schema_if_missing=True, schema_name=schema, max_staleness=60, max_sessions=0
    )
    with pgsession.SessionManager(dsn, config) as manager:
        yield manager


def save(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    copy = manager.get_session(session.id)
    assert copy is not None
    copy[f"by {threading.get_ident() % 7}"] = time.monotonic()
    manager.update_session(copy)


def read(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager._cache.clear()
    assert manager.get_session(session.id) is not None


def log_in(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    other = manager.create_session("another", {"n": 1})
    assert manager.delete_session(other.id)


def lock(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    with manager.lock("resource", lease_time=0.5, heartbeat_interval=0.1, max_retries=None):
        pass  # who is interrupted on his way out lets it end with its lease


def look(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    assert manager.list_user_sessions("u")
    assert manager.check_health().database is None
    manager.delete_attribute_from_user_sessions("u", "x")


@pytest.mark.parametrize("exception", [Interrupt, SoftLimit])
@pytest.mark.parametrize("act", [save, read, log_in, lock, look])
def test_an_interrupt_at_each_line_concerns_its_caller_alone(
    manager: pgsession.SessionManager,
    act: Callable[[pgsession.SessionManager, pgsession.Session], None],
    exception: type[BaseException],
) -> None:
    session = manager.create_session("u", {"n": 0})
    for step in range(MOST_STEPS):
        interrupter = Interrupter(step, exception)
        with Crew() as crew:  # whatever these raise fails the test
            for _ in range(2):
                crew.start(act, manager, session)
            interrupter.run(lambda: act(manager, session), PATIENCE)
            crew.join(PATIENCE)
        if not interrupter.raised:
            break
        assert interrupter.error is None or isinstance(interrupter.error, exception)
        with Crew() as crew:
            crew.start(act, manager, session)
            crew.join(PATIENCE)
    assert 10 < step < MOST_STEPS, "each line has had its turn"
    at_rest(manager)
    read(manager, session)
    assert not len(manager._coherence._leases)


def at_rest(manager: pgsession.SessionManager) -> None:
    """Nothing waits, runs, is lent or is lost."""
    runtime = manager._open_runtime()
    wait_for(lambda: not len(runtime.group_commit) and not runtime.group_commit._behind, "writes")
    wait_for(lambda: not runtime.lock_renewal._held, "locks")
    wait_for(lambda: not manager._background._threads, "threads")
    connections = runtime.connections
    assert len(connections._members) == len(connections._kept), "none is lent"
    assert 1 <= runtime.pool.get_stats()["pool_size"] <= runtime.pool.max_size
    assert len(connections._members) <= runtime.pool.get_stats()["pool_size"]


def wait_for(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.005)


@pytest.mark.parametrize("exception", [Interrupt, SoftLimit])
def test_an_interrupted_open_or_close_leaves_nothing(
    dsn: str, schema: str, exception: type[BaseException]
) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema, max_staleness=60)
    with pgsession.SessionManager(dsn, config):
        pass
    process = psutil.Process()
    before: Any = None
    for step in range(MOST_STEPS):
        manager = pgsession.SessionManager(dsn, config)

        def open_and_close(manager: pgsession.SessionManager = manager) -> None:
            manager.open()
            manager.close(5)

        interrupter = Interrupter(step, exception)
        interrupter.run(open_and_close, PATIENCE * 2)
        manager.close(5)
        if before is None:
            before = process.num_fds(), process.num_threads()
        if not interrupter.raised:
            break
    wait_for(lambda: (process.num_fds(), process.num_threads()) <= before, "descriptors and threads")
