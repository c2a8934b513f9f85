"""Managers of both kinds in one shape, so that each test here is made once and run for both."""

from __future__ import annotations

import asyncio
import inspect
import secrets
import threading
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, Self

import psycopg
from psycopg import sql

import pgsession

PATIENCE = 30.0
"""Seconds for what must happen soon; running out of them is the test's failure."""


class Loop:
    """An event loop in a thread."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="loop of a node", daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(PATIENCE * 2)

    def start(self, work: Coroutine[Any, Any, Any]) -> Any:
        """A `concurrent.futures.Future` of it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


class Node:
    """A manager, called as a `SessionManager` whichever kind it is: `node.get_session(...)`."""

    def __init__(self, kind: str, database: Any, config: pgsession.Config) -> None:
        self.kind = kind
        self._loop = Loop() if kind == "async" else None
        try:
            self.manager = self._make(database, config)
            self.open()
        except BaseException:
            self.end()
            raise

    def _make(self, database: Any, config: pgsession.Config) -> Any:
        if self._loop is None:
            return pgsession.SessionManager(database, config)

        async def make() -> pgsession.AsyncSessionManager:
            return pgsession.AsyncSessionManager(database, config)

        return self._loop.run(make())

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.manager, name)
        if self._loop is None or name not in _AWAITED:
            return value
        loop = self._loop

        def call(*args: Any, **options: Any) -> Any:
            async def work() -> Any:
                result = value(*args, **options)
                return await result if inspect.isawaitable(result) else result

            return loop.run(work())

        return call

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        if hasattr(self, "manager"):
            with suppress(psycopg.Error):
                self.close(1)
        if self._loop is not None:
            self._loop.close()

    @property
    def in_sync(self) -> bool:
        return bool(self.manager._coherence.in_sync)

    @property
    def node(self) -> str:
        return str(self.manager._node)

    def until_in_sync(self) -> None:
        until(lambda: self.in_sync, "the node to be in sync")

    def until_read(self, session_id: Any, condition: Callable[[Any], bool]) -> Any:
        """Reads until what is read is so."""
        last: list[Any] = []

        def so() -> bool:
            last[:] = [self.get_session(session_id)]
            return condition(last[0])

        until(so, "a read to give what is expected")
        return last[0]

    def from_memory(self, session_id: Any) -> Any:
        """The session, once this node answers with it from memory."""
        return self.until_read(session_id, lambda session: session is not None and session.from_cache)


_AWAITED = frozenset(
    name
    for name, member in inspect.getmembers(pgsession.AsyncSessionManager)
    if inspect.iscoroutinefunction(member)
) | {"get_session", "get_session_by_token", "open_token"}


def until(condition: Callable[[], bool], what: str, timeout: float = PATIENCE) -> None:
    """Asks again and again; there is nothing to be told of it by."""
    end = time.monotonic() + timeout
    while not condition():
        if time.monotonic() > end:
            raise AssertionError(f"waited {timeout:g} s for {what}")
        time.sleep(0.005)


class Console:
    """What an operator does with psql on the tables of a test."""

    def __init__(self, conninfo: str, schema: str) -> None:
        self.connection = psycopg.connect(conninfo, autocommit=True, application_name="console")
        self._schema = schema

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.connection.close()

    def __call__(self, statement: str, *parameters: Any) -> list[Any]:
        """`{t}` stands for the schema: `console("DELETE FROM {t}.sessions")`."""
        text = sql.SQL(statement).format(t=sql.Identifier(self._schema))  # type: ignore[arg-type]
        cursor = self.connection.execute(text, parameters or None)
        return cursor.fetchall() if cursor.description else []

    def waiting(self, application: str = "pgsession%") -> int:
        """How many backends wait for a lock."""
        rows = self(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND application_name LIKE %s",
            application,
        )
        return int(rows[0][0])

    def terminate(self, application: str) -> int:
        rows = self(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name LIKE %s"
            " AND pid <> pg_backend_pid()",
            application,
        )
        return int(rows[0][0])


def new_schema() -> str:
    return f"t_{secrets.token_hex(6)}"
