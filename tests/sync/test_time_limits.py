# Generated from tests/aio/test_time_limits.py by tools/async_to_sync.py: never edit.

"""A server that stays connected and answers nothing: each call ends, says what it knows, and leaves nothing behind."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgsession
from tests.fault_proxy import FaultProxy
from tests.sync.conftest import OpenAsyncManager

LIMIT = 0.3
GUARD = 3 * LIMIT + 1  # of a busy machine; a hang takes for ever

Call = Callable[[pgsession.SessionManager, pgsession.Session], Awaitable[Any]]

READS: dict[str, Call] = {
    "get_session": lambda manager, session: manager.get_session(session.id, refresh=True),
    "list_user_sessions": lambda manager, session: manager.list_user_sessions("u"),
    "list_group_sessions": lambda manager, session: manager.list_group_sessions("g"),
    "clear_cache": lambda manager, session: manager.clear_cache(),
}
WRITES: dict[str, Call] = {
    "create_session": lambda manager, session: manager.create_session("u"),
    "update_session": lambda manager, session: manager.update_session(session, group_id="h"),
    "delete_session": lambda manager, session: manager.delete_session(session.id),
    "lock": lambda manager, session: manager.lock("r").acquire(blocking=False),
}


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_a_silent_server_is_not_waited_for(name: str, open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT)
        session = manager.create_session("u", {"n": 1}, group_id="g")
        proxy.freeze()
        expected = pgsession.WriteOutcomeUnknown if name in WRITES else pgsession.OperationTimeout
        began = time.monotonic()
        with pytest.raises(expected):
            (WRITES | READS)[name](manager, session)
        assert time.monotonic() - began < GUARD
        # The connection is gone, and there is no other one to be had: known not to be done.
        began = time.monotonic()
        with pytest.raises(psycopg.OperationalError):
            (WRITES | READS)[name](manager, session)
        assert time.monotonic() - began < GUARD
        proxy.forward()


def test_what_is_stale_is_served_once_the_limit_is_over(open_manager: OpenAsyncManager, dsn: str) -> None:
    with FaultProxy(dsn) as proxy:
        manager = open_manager(
            proxy.conninfo, listener_conninfo=dsn, operation_timeout=LIMIT, max_staleness=1, stale_if_error=60
        )
        session = manager.create_session("u", {"n": 1})
        proxy.freeze()
        manager._coherence.on_lost()  # nothing is served as if it were in sync
        began = time.monotonic()
        found = manager.get_session(session.id)
        assert found is not None and found["n"] == 1 and time.monotonic() - began < GUARD
        proxy.forward()
