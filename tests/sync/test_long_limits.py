# Generated from tests/aio/test_long_limits.py by tools/async_to_sync.py: never edit.

"""The longest time that a configuration takes is one that everything takes."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from psycopg_pool import ConnectionPool

from tests.sync.conftest import OpenAsyncManager


@pytest.mark.parametrize("lent", [False, True], ids=["own pool", "caller's pool"])
def test_calls_may_wait_for_a_hundred_years(dsn: str, open_manager: OpenAsyncManager, lent: bool) -> None:
    """A limit that the server would not take is one that no connection could be made with."""
    longest = timedelta(days=36_500)
    with ConnectionPool[Any](dsn, min_size=1, max_size=2, open=False) as pool:
        manager = open_manager(
            pool if lent else dsn, listener_conninfo=dsn, operation_timeout=longest, max_staleness=longest
        )
        session = manager.create_session("u", {"n": 0})
        session["n"] = 1
        manager.update_session(session)
        with manager.lock("resource"):
            read = manager.get_session(session.id, refresh=True)
        assert read is not None and read["n"] == 1
        assert manager.delete_user_sessions("u") == 1
        manager.close()
