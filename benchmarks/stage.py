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
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from functools import cached_property
from typing import Any, LiteralString, TypeVar

import psutil

from tests.redis_server import redis_server

from .processor import Server, Spent, accounted
from .race import Missing

T = TypeVar("T")


class Stage(ExitStack):
    """One for the whole run."""

    def __init__(self) -> None:
        super().__init__()
        self._opened: dict[Any, tuple[Any, set[Server]]] = {}
        self._used: set[Server] = set()

    @contextmanager
    def noting(self) -> Iterator[set[Server]]:
        """Notes which servers are asked for inside of the block."""
        before, self._used = self._used, set()
        try:
            yield self._used
        finally:
            before |= self._used
            self._used = before

    @property
    def postgres(self) -> str:
        """A conninfo; the server has its default settings, but for more connections."""
        return self._use(self._postgres)

    @property
    def redis(self) -> str:
        """The URL of a Redis that keeps nothing on disk (or of the one that the user names)."""
        return self._use(self._redis)

    @property
    def durable_redis(self) -> str:
        """The URL of a private Redis that flushes each write to disk before it answers, as PostgreSQL does."""
        return self._use(self._durable_redis)

    def accounted(self, work: Callable[[], T]) -> tuple[T, Spent]:
        """Does a part of a round; returns what it returned, and what this process and PostgreSQL spent on it."""
        return accounted(work, {self._postgres})

    def _use(self, server: Server) -> str:
        self._used.add(server)
        return server.address

    @cached_property
    def _postgres(self) -> Server:
        given = os.environ.get("PGSESSION_TEST_DSN")
        if given:
            return Server(given, None)
        from pgsession.embedded import EmbeddedServer

        server = self.enter_context(EmbeddedServer(tcp=True, settings={"max_connections": 300}))
        return Server(server.conninfo, psutil.Process(server.pid))

    @cached_property
    def _redis(self) -> Server:
        given = os.environ.get("REDIS_URL")
        return Server(given, None) if given else self._own_redis()

    @cached_property
    def _durable_redis(self) -> Server:
        return self._own_redis("--appendonly", "yes", "--appendfsync", "always")

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
    def loop(self) -> LoopThread:
        """An event loop (uvloop where it is installed) that runs as long as the stage stands."""
        return self.enter_context(LoopThread())

    def once(self, opener: Callable[[Stage], AbstractContextManager[T]]) -> T:
        """Opens something that several contenders use, and keeps it open to the end."""
        if opener not in self._opened:
            with self.noting() as used:
                self._opened[opener] = self.enter_context(opener(self)), used
        opened: T
        opened, used = self._opened[opener]
        self._used |= used
        return opened

    def _own_redis(self, *options: str) -> Server:
        import redis

        program = shutil.which("redis-server")
        if program is None:
            raise Missing("no redis-server on the PATH, and no REDIS_URL")
        url = self.enter_context(redis_server(program, *options))
        with redis.Redis.from_url(url) as client:
            info: Any = client.info("server")
        return Server(url, psutil.Process(info["process_id"]))


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

    def watch(self, descriptor: int, read: Callable[[], object] | None) -> None:
        """Called in the loop: has `read` called whenever something has come; None: not any more."""
        if read is None:
            self._loop.remove_reader(descriptor)
        else:
            self._loop.add_reader(descriptor, read)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
