"""What contenders stand on: servers and an event loop, each started when first asked for, all ended at the end.

Both kinds of server are reached by TCP, as services reach theirs. `PGSESSION_TEST_DSN` names a PostgreSQL server to use
instead of the embedded one, `REDIS_URL` a Redis server instead of private ones (they come from a `redis-server` on the
PATH).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import shutil
import threading
from collections.abc import Callable, Coroutine
from contextlib import AbstractContextManager, ExitStack
from functools import cached_property
from typing import Any, LiteralString, TypeVar

from tests.redis_server import redis_server

from .race import Missing

T = TypeVar("T")


class Stage(ExitStack):
    """One for the whole run."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[Any, Any] = {}

    @cached_property
    def postgres(self) -> str:
        """A conninfo; the server has its default settings, but for more connections."""
        given = os.environ.get("PGSESSION_TEST_DSN")
        if given:
            return given
        from pgsession.embedded import EmbeddedServer

        return self.enter_context(EmbeddedServer(tcp=True, settings={"max_connections": 300})).conninfo

    def new_database(self) -> str:
        """A conninfo of an empty database on that server: notifications do not cross databases."""
        import psycopg
        from psycopg import sql
        from psycopg.conninfo import make_conninfo

        name = f"pgsession_benchmark_{secrets.token_hex(4)}"

        def execute(statement: LiteralString) -> None:
            with psycopg.connect(self.postgres, autocommit=True) as connection:
                connection.execute(sql.SQL(statement).format(sql.Identifier(name)))

        execute("CREATE DATABASE {}")
        self.callback(execute, "DROP DATABASE {} WITH (FORCE)")
        return make_conninfo(self.postgres, dbname=name)

    @cached_property
    def redis(self) -> str:
        """The URL of a Redis that keeps nothing on disk (or of the one that the user names)."""
        return os.environ.get("REDIS_URL") or self._own_redis()

    @cached_property
    def durable_redis(self) -> str:
        """The URL of a private Redis that flushes each write to disk before it answers, as PostgreSQL does."""
        return self._own_redis("--appendonly", "yes", "--appendfsync", "always")

    @cached_property
    def loop(self) -> LoopThread:
        """An event loop (uvloop where it is installed) that runs as long as the stage stands."""
        return self.enter_context(LoopThread())

    def once(self, opener: Callable[[Stage], AbstractContextManager[T]]) -> T:
        """Opens something that several contenders use, and keeps it open to the end."""
        if opener not in self._opened:
            self._opened[opener] = self.enter_context(opener(self))
        opened: T = self._opened[opener]
        return opened

    def _own_redis(self, *options: str) -> str:
        program = shutil.which("redis-server")
        if program is None:
            raise Missing("no redis-server on the PATH, and no REDIS_URL")
        return self.enter_context(redis_server(program, *options))


class LoopThread:
    """An event loop in a thread of its own: managers stay alive in it while others are measured."""

    def __enter__(self) -> LoopThread:
        self._loop = _new_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs the coroutine in the loop, and waits for what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
