# Generated from tests/aio/test_one_round_trip.py by tools/async_to_sync.py: never edit.

"""How often each call goes to the server and back, counted at a proxy between the two."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import pgsession
from tests.fault_proxy import FaultProxy

from .conftest import OpenAsyncManager

Act = Callable[[pgsession.SessionManager, pgsession.Session], Awaitable[Any]]


def update(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    session["n"] += 1
    manager.update_session(session)


def rotate(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager.rotate_session(session, user_id="u")


def create(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager.create_session("v", {"n": 0})


def delete(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager.delete_session(session.id)


def read(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager.get_session(session.id, refresh=True)


def hit(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    manager.get_session(session.id)


def lock_and_unlock(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    with manager.lock("resource"):
        pass


@pytest.mark.parametrize(
    ("act", "round_trips"),
    [(update, 1), (rotate, 1), (create, 1), (delete, 1), (read, 1), (hit, 0), (lock_and_unlock, 2)],
)
def test_how_often_a_call_goes_to_the_server(
    dsn: str, open_manager: OpenAsyncManager, act: Act, round_trips: int
) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, max_staleness=600, cleanup_interval=0)
        session = manager.create_session("u", {"n": 0})
        for _ in range(3):  # also the first time, when statements are prepared
            before = proxy.round_trips
            act(manager, session)
            assert proxy.round_trips - before == round_trips
        manager.close()
