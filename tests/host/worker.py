"""One process of a host: does with its manager what the test says, one thing after the other.

It is forked from a server that has imported everything, so that a test may start many.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

import pgsession

Do = Callable[[Any], Any]
"""What a test has done: a function of its module, of the worker's `Ways`."""


class Ways:
    """A manager for threads or asyncio, called alike."""

    def __init__(self, dsn: str, fields: dict[str, Any]) -> None:
        self.warnings: list[str] = []
        logger = logging.Logger("worker", logging.WARNING)
        handler = logging.Handler()
        handler.emit = lambda record: self.warnings.append(record.getMessage())  # type: ignore[method-assign]
        logger.addHandler(handler)
        self.dsn = dsn
        self.config = pgsession.Config(logger=logger, **fields)
        self.kept: dict[str, Any] = {}

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        raise NotImplementedError


class Threads(Ways):
    def open(self) -> None:
        self.manager: Any = pgsession.SessionManager(self.dsn, self.config)
        self.manager.open()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self.manager, name)(*arguments, **options)


class Tasks(Ways):
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

        async def open_one() -> None:
            self.manager = pgsession.AsyncSessionManager(self.dsn, self.config)
            await self.manager.open()

        self.run(open_one())

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        async def done() -> Any:
            result = getattr(self.manager, name)(*arguments, **options)
            return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

        return self.run(done())


def serve(kind: str, line: Connection, dsn: str, fields: dict[str, Any]) -> None:
    """Do what comes down the line, until it ends."""
    worker = {"threads": Threads, "tasks": Tasks}[kind](dsn, fields)
    while True:
        try:
            do, arguments = line.recv()
        except EOFError:
            os._exit(0)
        try:
            answer = (True, do(worker, *arguments))
        except BaseException as error:
            answer = (False, f"{type(error).__name__}: {error}")
        line.send(answer)


# What tests have done.


def open(worker: Any) -> None:
    worker.open()


def close(worker: Any) -> None:
    worker.call("close")


def stats(worker: Any) -> pgsession.Stats:
    return worker.call("stats")  # type: ignore[no-any-return]


def warnings(worker: Any) -> list[str]:
    return worker.warnings  # type: ignore[no-any-return]


def create(worker: Any, user: str, **attributes: Any) -> str:
    return str(worker.call("create_session", user, attributes=attributes or None).id)


def read(worker: Any, session_id: str) -> tuple[dict[str, Any], bool] | None:
    """What a session has, and whether it was in memory."""
    session = worker.call("get_session", session_id)
    return None if session is None else (dict(session), session.from_cache)


def write(worker: Any, session_id: str, **attributes: Any) -> int:
    session = worker.call("get_session", session_id)
    session.update(attributes)
    worker.call("update_session", session)
    return int(session.version)


def delete(worker: Any, session_id: str, wait: float | None) -> bool:
    return bool(worker.call("delete_session", session_id, wait=wait))
