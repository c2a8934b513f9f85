"""When the other nodes are told of an update, and when not."""

from __future__ import annotations

import logging

import pytest

import pgsession

from .conftest import OpenAsyncManager
from .helpers import eventually


async def heard_all(a: pgsession.AsyncSessionManager, b: pgsession.AsyncSessionManager) -> None:
    """Whatever a has announced so far, b has heard: they arrive in order."""
    marker = await a.create_session("marker")
    await b.get_session(marker.id)
    await a.delete_session(marker.id)

    async def gone() -> bool:
        return b.get_cached_session(marker.id) is None

    await eventually(gone)


@pytest.mark.parametrize("by", ["configuration", "argument"])
async def test_updates_need_not_be_announced(open_manager: OpenAsyncManager, by: str) -> None:
    a, b = await open_manager(notify_on_updates=by == "argument"), await open_manager()
    session = await a.create_session("u", {"n": 1}, group_id="g")
    await b.get_session(session.id)
    session["n"] = 2
    await a.update_session(session, notify=by == "configuration")
    await heard_all(a, b)
    read = await b.get_session(session.id)
    assert read is not None and read["n"] == 1 and read.from_cache
    session["n"] = 3
    await a.update_session(session, notify=by == "configuration", group_id="h")  # that always is

    async def told() -> bool:
        read = await b.get_session(session.id)
        return read is not None and read["n"] == 3 and read.group_id == "h"

    await eventually(told)


@pytest.mark.parametrize("announced", [True, False])
async def test_failed_updates_may_be_announced(open_manager: OpenAsyncManager, announced: bool) -> None:
    a, b = await open_manager(notify_on_failed_updates=announced), await open_manager()
    session = await a.create_session("u", {"n": 1})
    outdated = await a.get_session(session.id)
    assert outdated is not None
    await b.get_session(session.id)
    session["n"] = 2
    await a.update_session(session, notify=False)
    outdated["n"] = 3
    with pytest.raises(pgsession.SessionVersionConflict):
        await a.update_session(outdated, check="session")
    await heard_all(a, b)
    read = await b.get_session(session.id)
    assert read is not None and read["n"] == (2 if announced else 1)


async def test_a_logger_of_the_callers_is_used(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    manager = await open_manager(logger=logging.getLogger("app.sessions"))
    runtime = manager._open_runtime()
    await runtime.store.query(runtime.statements.notify, ("0" * 16, "garbage"))

    async def logged() -> bool:
        return any(
            record.name == "app.sessions" and "unreadable" in record.message for record in caplog.records
        )

    await eventually(logged)
