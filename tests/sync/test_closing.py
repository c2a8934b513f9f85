# Generated from tests/aio/test_closing.py by tools/async_to_sync.py: never edit.

"""Closing: one bound for all of it, also where the server answers nothing; and nothing is left."""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession._concurrency import Event
from pgsession._sync.store import Store
from pgsession._sync.synchronizer import Synchronizer
from pgsession.errors import PgSessionError
from tests.crew import Crew
from tests.fault_proxy import FaultProxy
from tests.leftovers import UNRELEASED, Leftovers
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

BOUND = 0.5
GUARD = 3 * BOUND + 1  # of a busy machine; a hang takes for ever
SOON = 3 * 0.1 + 1  # psycopg looks up ten times a second when it connects


def config(schema: str, **fields: Any) -> pgsession.Config:
    return pgsession.Config(create_schema_if_missing=True, schema_name=schema, **fields)


def write(manager: pgsession.SessionManager) -> None:
    manager.create_session("u")


def read(manager: pgsession.SessionManager) -> None:
    manager.list_user_sessions("u")


def wait_for_a_lock(manager: pgsession.SessionManager) -> None:
    manager.lock("taken").acquire(timeout=600)


def nothing(manager: pgsession.SessionManager) -> None:
    pass


@UNRELEASED
@pytest.mark.parametrize("timeout", [0, BOUND])
@pytest.mark.parametrize("act", [nothing, write, read, wait_for_a_lock])
def test_a_silent_server_does_not_hold_up_a_close(
    dsn: str, schema: str, act: Callable[[pgsession.SessionManager], Awaitable[None]], timeout: float
) -> None:
    with Leftovers(dsn) as left:
        with FaultProxy(left.conninfo) as proxy:
            left.know()
            manager = pgsession.SessionManager(proxy.conninfo, config(schema))
            manager.open()
            session = manager.create_session("u")
            locks = [manager.lock(f"{n}") for n in range(8)]
            for lock in locks:
                assert lock.acquire()
            assert manager.lock("taken").acquire()
            proxy.freeze()
            assert manager.get_session(session.id) is not None  # an access to be written
            begun = Event()

            def call() -> None:
                begun.set()
                with suppress(psycopg.Error, PgSessionError):
                    act(manager)

            with Crew() as crew:
                crew.start(call)
                assert begun.wait(GUARD)
                began = time.monotonic()
                manager.close(timeout)
                assert time.monotonic() - began < (GUARD if timeout else SOON)
            assert all(lock.lost.is_set() for lock in locks)
            left.nothing_runs()
            proxy.forward()


def test_locks_that_cannot_be_given_back_are_told_of_once(
    dsn: str, schema: str, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = pgsession.SessionManager(proxy.conninfo, config(schema))
        manager.open()
        locks = [manager.lock(f"{n}") for n in range(8)]
        for lock in locks:
            assert lock.acquire()
        proxy.freeze()
        with caplog.at_level(logging.WARNING, "pgsession"):
            manager.close(BOUND)
        told = [record.getMessage() for record in caplog.records if "given back" in record.getMessage()]
        assert len(told) == 1 and told[0].startswith("8 locks"), told
        proxy.cut()
        proxy.forward()
        assert tables.one("SELECT count(*) FROM {session_locks} WHERE expires_at > clock_timestamp()") == 8


def test_all_locks_are_given_back(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager()
    locks = [manager.lock(f"{n}") for n in range(40)]
    for lock in locks:
        assert lock.acquire()
    manager.close()
    assert tables.one("SELECT count(*) FROM {session_locks}") == 0
    assert not any(lock.locked for lock in locks)


STEPS = {
    "the listener connects": None,
    "the pool is asked": (Store, "look_for_pooler"),
    "the listener is asked": (Synchronizer, "start"),
    "the cache is compared": (Store, "incarnate"),
    "the proof is awaited": (Synchronizer, "_prove_first"),
}


@pytest.mark.parametrize("step", STEPS)
def test_a_close_ends_an_open_that_hangs(
    dsn: str, schema: str, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with Leftovers(dsn) as left:
        with FaultProxy(left.conninfo) as proxy:
            left.know()
            hangs = Event()
            place = STEPS[step]
            if place is None:
                proxy.freeze()
                hangs.set()
            else:
                original = getattr(*place)

                def freeze(*arguments: Any) -> Any:
                    proxy.freeze()
                    hangs.set()
                    return original(*arguments)

                monkeypatch.setattr(*place, freeze)
                monkeypatch.setattr(Synchronizer, "_on_event", lambda *_: None)  # it is too quick
            manager = pgsession.SessionManager(proxy.conninfo, config(schema))

            def open_it() -> None:
                with pytest.raises(pgsession.ManagerClosedError):
                    manager.open()

            def connecting() -> bool:
                return proxy.connections > 0

            with Crew() as crew:
                crew.start(open_it)
                crew.start(open_it)
                assert hangs.wait(10)
                eventually(connecting)
                began = time.monotonic()
                manager.close(600)
                assert time.monotonic() - began < GUARD
            left.nothing_runs()
            with pytest.raises(pgsession.ManagerClosedError):
                manager.open()
            proxy.forward()


def test_a_shared_listener_that_is_silent_does_not_hold_up_a_close(dsn: str, schema: str) -> None:
    with Leftovers(dsn) as left:
        with FaultProxy(left.conninfo) as proxy:
            with pgsession.Listener(proxy.conninfo) as listener:
                manager = pgsession.SessionManager(left.conninfo, config(schema), listener=listener)
                manager.open()
                proxy.freeze()
                began = time.monotonic()
                manager.close(BOUND)
                assert time.monotonic() - began < GUARD
                proxy.forward()

                def unlistened() -> bool:
                    return not listener._loop._subscriptions

                eventually(unlistened)  # it has no manager any more, and forgets it


@pytest.mark.parametrize("timeout", [0, BOUND])
def test_a_listener_that_is_silent(dsn: str, timeout: float) -> None:
    def on_notification(notification: psycopg.Notify) -> None:
        pass

    with Leftovers(dsn) as left:
        with FaultProxy(left.conninfo) as proxy:
            left.know()
            listener = pgsession.Listener(proxy.conninfo)
            listener.open()
            listener.listen("news", on_notification)
            proxy.freeze()
            began = time.monotonic()
            with pytest.raises(TimeoutError):
                listener.unlisten("news", timeout=0.1)
            listener.close(timeout)
            assert time.monotonic() - began < (GUARD if timeout else SOON)
            left.nothing_runs()
            proxy.forward()


def test_a_close_ends_a_listener_that_is_connecting(dsn: str) -> None:
    with Leftovers(dsn) as left:
        with FaultProxy(make_conninfo(left.conninfo, connect_timeout=600)) as proxy:
            left.know()
            proxy.freeze()
            listener = pgsession.Listener(proxy.conninfo)

            def open_it() -> None:
                with pytest.raises((pgsession.ListenerError, psycopg.OperationalError)):
                    listener.open()

            def connecting() -> bool:
                return proxy.connections > 0

            with Crew() as crew:
                crew.start(open_it)
                eventually(connecting)
                began = time.monotonic()
                listener.close(600)
                assert time.monotonic() - began < GUARD
            left.nothing_runs()
            proxy.forward()


@pytest.mark.parametrize("how", ["delete_session", "delete_user_sessions", "rotate_session"])
def test_what_was_ended_before_the_close_is_said_to_be_done(
    manager: pgsession.SessionManager, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The manager is closed between the write and the wait for all nodes."""
    session = manager.create_session("u")
    confirm = manager._confirm_everywhere

    def close_first(*args: Any) -> None:
        manager.close()
        confirm(*args)

    monkeypatch.setattr(manager, "_confirm_everywhere", close_first)
    given = {"delete_session": session.id, "delete_user_sessions": "u", "rotate_session": session}[how]
    with pytest.raises(pgsession.RevocationNotConfirmed) as caught:
        getattr(manager, how)(given, wait=5)
    assert caught.value.done == 1
