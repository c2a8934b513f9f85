"""Whoever is interrupted, at whatever line: nobody else hears of it, nothing hangs, and nothing is left behind."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from tests.crew import Crew
from tests.fault.interrupts import Interrupt, Interrupter, SoftLimit
from tests.leftovers import UNRELEASED, Leftovers

ROOT = Path(__file__).resolve().parents[2]
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


def lock_by_hand(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    held = manager.lock(f"of {threading.get_ident()}", lease_time=0.5, heartbeat_interval=0.1)
    assert held.acquire(timeout=PATIENCE)
    held.extend(0.5)
    held.release()


def listen(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    listener = manager._open_runtime().listener
    heard = threading.Event()

    def hear(notification: psycopg.Notify) -> None:
        heard.set()

    listener.listen("news", hear)
    listener.notify("news", "1")
    assert heard.wait(PATIENCE)
    listener.unlisten("news", hear)


def look(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    assert manager.list_user_sessions("u")
    assert manager.check_health().database is None
    manager.delete_attribute_from_user_sessions("u", "x")


@UNRELEASED
@pytest.mark.parametrize(
    ("act", "exception"),
    [
        *(
            (act, exception)
            for act in (save, read, log_in, lock, look)
            for exception in (Interrupt, SoftLimit)
        ),
        (lock_by_hand, Interrupt),
        (listen, SoftLimit),
    ],
)
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


def by_hand(thing: Any) -> None:
    thing.open()
    thing.close(5)


def in_a_block(thing: Any) -> None:
    with thing:
        pass


@pytest.mark.parametrize(("act", "exception"), [(by_hand, SoftLimit), (in_a_block, Interrupt)])
@pytest.mark.parametrize("make", [pgsession.SessionManager, pgsession.Listener])
def test_an_interrupted_open_or_close_leaves_nothing(
    dsn: str,
    schema: str,
    make: Callable[..., Any],
    act: Callable[[Any], None],
    exception: type[BaseException],
) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema, max_staleness=60)
    with pgsession.SessionManager(dsn, config):
        pass
    with Leftovers(dsn) as left:
        for step in range(MOST_STEPS):
            thing = make(left.conninfo, config) if make is pgsession.SessionManager else make(left.conninfo)
            interrupter = Interrupter(step, exception)
            interrupter.run(partial(act, thing), PATIENCE * 2)
            thing.close(5)
            if not interrupter.raised:
                break
        assert 10 < step < MOST_STEPS, "each line has had its turn"


@pytest.mark.parametrize("exception", [Interrupt, SoftLimit])
def test_an_interrupted_listen_is_as_if_never_asked(dsn: str, exception: type[BaseException]) -> None:
    def hear(notification: psycopg.Notify) -> None:
        pass

    with pgsession.Listener(dsn) as listener:
        for step in range(MOST_STEPS):
            interrupter = Interrupter(step, exception)
            interrupter.run(lambda: listener.listen("news", hear), PATIENCE)
            if not interrupter.raised:
                break
            listener.execute("SELECT 1")
            assert not listener._loop._subscriptions
        assert 10 < step < MOST_STEPS, "each line has had its turn"
        for step in range(MOST_STEPS):
            interrupter = Interrupter(step, exception)
            interrupter.run(lambda: listener.unlisten("news", hear), PATIENCE)
            if not interrupter.raised:
                break
            listener.unlisten("news", hear)
            assert not listener._loop._subscriptions
            listener.listen("news", hear)
        assert 10 < step < MOST_STEPS, "each line has had its turn"


INTERRUPTS = int(os.environ.get("PGSESSION_INTERRUPTS", "60"))  # 10,000 take five minutes for each kind


@pytest.mark.parametrize("kind", ["ctrl-c", "alarm", "soft limit", "cancel", "kill"])
def test_a_storm_of_interrupts_leaves_everything_as_before(kind: str, dsn: str, schema: str) -> None:
    if kind == "kill":
        pytest.importorskip("gevent")
    if kind in ("ctrl-c", "alarm") and not hasattr(signal, "setitimer"):
        pytest.skip("there are no such signals here")
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("descriptors cannot be counted here")
    seed = random.randrange(2**32)
    done = subprocess.run(
        [sys.executable, "-m", "tests.fault.storm", kind, str(INTERRUPTS), str(seed), dsn, schema],
        capture_output=True, text=True, timeout=60 + INTERRUPTS, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, f"seed {seed}\n{done.stdout}{done.stderr}"
