"""A close that functions of the user's ask for, which the library is calling: it does not wait for them."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from typing import Any

import psycopg
import pytest

import pgsession
from tests.leftovers import Leftovers

from .conftest import OpenAsyncManager
from .helpers import eventually

GUARD = 3.0  # seconds; who waited for himself would do so for 5 at least


class Closing:
    """Closes a manager from inside, once, as whoever runs in no event loop has to; notes how long that takes."""

    def __init__(self) -> None:
        self.manager: Any = None
        self.took: float | None = None
        self._loop = asyncio._get_running_loop()
        self._begun = False

    def __call__(self, *_: object) -> None:
        """Close it, from another thread than that of the event loop, if there is one."""
        if self._begun or self.manager is None:
            return
        self._begun = True
        began = time.monotonic()
        closing = self.manager.close()
        if closing is not None:
            asyncio.run_coroutine_threadsafe(closing, self._loop).result()
        self.took = time.monotonic() - began

    async def inside(self, *_: object) -> None:
        """Close it where the caller is."""
        if self._begun or self.manager is None:
            return
        self._begun = True
        began = time.monotonic()
        await self.manager.close()
        self.took = time.monotonic() - began

    async def done(self) -> None:
        """Wait for the end."""

        async def ended() -> bool:
            return self.took is not None

        await eventually(ended, "the close from inside")
        assert self.took is not None and self.took < GUARD


async def test_by_the_function_that_hears_of_what_happens(open_manager: OpenAsyncManager) -> None:
    closing = Closing()
    heard: list[str] = []

    def hears(event: pgsession.AuditEvent) -> None:
        closing()
        heard.append(event.kind)

    manager = await open_manager(on_audit_event=hears)
    audit = manager._open_runtime().audit
    closing.manager = manager
    for _ in range(3):
        audit.ended("logout")
    await closing.done()

    async def all_told() -> bool:
        return len(heard) == 3

    await eventually(all_told, "what waited is told after the close")


async def test_by_that_function_while_somebody_else_closes(open_manager: OpenAsyncManager) -> None:
    closing = Closing()
    called, others = threading.Event(), threading.Event()

    def hears(event: pgsession.AuditEvent) -> None:
        called.set()
        others.wait()
        closing()

    manager = await open_manager(on_audit_event=hears)
    await manager.create_session("u")
    assert await eventually_set(called)
    closing.manager = manager
    began = time.monotonic()
    threading.Timer(0.2, others.set).start()  # the other close is under way, or the first one will do
    await manager.close()
    assert time.monotonic() - began < GUARD
    await closing.done()


async def eventually_set(event: threading.Event) -> bool:
    async def is_set() -> bool:
        return event.is_set()

    await eventually(is_set)
    return True


async def test_by_a_filter_of_its_log(open_manager: OpenAsyncManager) -> None:
    """(A handler holds a lock of its own meanwhile, for which whoever logs anything then would wait.)"""
    closing = Closing()

    def sees(record: logging.LogRecord) -> bool:
        if record.threadName == "pgsession audit":
            closing()
        return False

    def fails(event: pgsession.AuditEvent) -> None:
        raise ValueError

    logger = logging.Logger("pgsession.test.closing")
    logger.addFilter(sees)
    closing.manager = await open_manager(on_audit_event=fails, logger=logger)
    await closing.manager.create_session("u")
    await closing.done()


@pytest.mark.parametrize("callback", ["on_notification", "on_out_of_sync", "on_error", "on_done"])
async def test_by_a_callback_of_a_listener_that_is_shared(callback: str, dsn: str, schema: str) -> None:
    closing = Closing()
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)

    async def nothing(*_: object) -> None: ...

    with Leftovers(dsn) as left:
        listener = pgsession.AsyncListener(left.conninfo)
        await listener.open()
        closing.manager = manager = pgsession.AsyncSessionManager(left.conninfo, config, listener=listener)
        await manager.open()
        given: dict[str, Any] = {"on_notification": nothing, callback: closing.inside}
        await listener.listen("c", **given)
        if callback == "on_notification":
            await listener.notify("c")
        elif callback == "on_done":
            await listener.unlisten("c")
        else:
            with psycopg.connect(dsn, autocommit=True) as admin:
                admin.execute("SELECT pg_terminate_backend(%s)", [listener.pid])
        await closing.done()
        await listener.close()


async def test_by_a_change(open_manager: OpenAsyncManager) -> None:
    closing = Closing()
    closing.manager = manager = await open_manager()
    session = await manager.create_session("u")

    async def change(session: pgsession.Session) -> None:
        session["n"] = 1
        await closing.inside()

    with pytest.raises(pgsession.ManagerClosedError):
        await manager.modify_session(session.id, change)
    await closing.done()
