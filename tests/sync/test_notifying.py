# Generated from tests/aio/test_notifying.py by tools/async_to_sync.py: never edit.

"""When the other nodes are told of an update, and when not."""

from __future__ import annotations

import logging

import pytest

import pgsession

from .conftest import OpenAsyncManager
from .helpers import eventually


def heard_all(a: pgsession.SessionManager, b: pgsession.SessionManager) -> None:
    """Whatever a has announced so far, b has heard: they arrive in order."""
    marker = a.create_session("marker")
    b.get_session(marker.id)
    a.delete_session(marker.id)

    def gone() -> bool:
        return b.get_cached_session(marker.id) is None

    eventually(gone)


@pytest.mark.parametrize("by", ["configuration", "argument"])
def test_updates_need_not_be_announced(open_manager: OpenAsyncManager, by: str) -> None:
    a, b = open_manager(notify_on_updates=by == "argument"), open_manager()
    session = a.create_session("u", {"n": 1}, group_id="g")
    b.get_session(session.id)
    session["n"] = 2
    a.update_session(session, notify=by == "configuration")
    heard_all(a, b)
    read = b.get_session(session.id)
    assert read is not None and read["n"] == 1 and read.from_cache
    session["n"] = 3
    a.update_session(session, notify=by == "configuration", group_id="h")  # that always is

    def told() -> bool:
        read = b.get_session(session.id)
        return read is not None and read["n"] == 3 and read.group_id == "h"

    eventually(told)


@pytest.mark.parametrize("announced", [True, False])
def test_failed_updates_may_be_announced(open_manager: OpenAsyncManager, announced: bool) -> None:
    a, b = open_manager(notify_on_failed_updates=announced), open_manager()
    session = a.create_session("u", {"n": 1})
    outdated = a.get_session(session.id)
    assert outdated is not None
    b.get_session(session.id)
    session["n"] = 2
    a.update_session(session, notify=False)
    outdated["n"] = 3
    with pytest.raises(pgsession.SessionVersionConflict):
        a.update_session(outdated, check="session")
    heard_all(a, b)
    read = b.get_session(session.id)
    assert read is not None and read["n"] == (2 if announced else 1)


def test_a_logger_of_the_callers_is_used(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager = open_manager(logger=logging.getLogger("app.sessions"))
    runtime = manager._open_runtime()
    runtime.store.query(runtime.statements.notify, ("0" * 16, "garbage"))

    def logged() -> bool:
        return any(
            record.name == "app.sessions" and "unreadable" in record.message for record in caplog.records
        )

    eventually(logged)
