"""One process of a host: does with its manager what the test says, one thing after the other.

It is forked from a server that has imported everything, so that a test may start many.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import random
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pgsession
from tests.sharded import Shards

Do = Callable[[Any], Any]
"""What a test has done: a function of its module, of the worker's `Ways`."""


class Ways:
    """A manager for threads or asyncio, of one server or of shards, called alike."""

    def __init__(self, dsn: str | Shards, fields: dict[str, Any]) -> None:
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

    def wait(self, result: Any) -> Any:
        raise NotImplementedError


class Threads(Ways):
    def open(self) -> None:
        self.manager: Any = (
            pgsession.SessionManager(self.dsn, self.config)
            if isinstance(self.dsn, str)
            else pgsession.ShardedSessionManager(self.dsn, self.config)
        )
        self.manager.open()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        return getattr(self.manager, name)(*arguments, **options)

    def wait(self, result: Any) -> Any:
        return result


class Tasks(Ways):
    def open(self) -> None:
        self.loop = asyncio.new_event_loop()
        threading.Thread(target=self.loop.run_forever, daemon=True).start()

        async def open_one() -> None:
            self.manager = (
                pgsession.AsyncSessionManager(self.dsn, self.config)
                if isinstance(self.dsn, str)
                else pgsession.AsyncShardedSessionManager(self.dsn, self.config)
            )
            await self.manager.open()

        self.run(open_one())

    def run(self, coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result()

    def call(self, name: str, *arguments: Any, **options: Any) -> Any:
        async def done() -> Any:
            result = getattr(self.manager, name)(*arguments, **options)
            return await result if asyncio.iscoroutine(result) or asyncio.isfuture(result) else result

        return self.run(done())

    def wait(self, result: Any) -> Any:
        return self.run(result)


def serve(kind: str, line: Connection, dsn: str | Shards, fields: dict[str, Any]) -> None:
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


def stats_by_shard(worker: Any) -> dict[int, pgsession.Stats]:
    return worker.call("stats_by_shard")  # type: ignore[no-any-return]


def is_healthy(worker: Any) -> bool:
    return bool(worker.call("check_health").healthy)


def lead_no_more(worker: Any, number: int) -> None:
    """Leave a shard to another process, as one does that could not lead it."""
    worker.manager._all[number].runtime._host._watch.resign(shy=True)


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


def in_memory(worker: Any, session_id: str) -> dict[str, Any] | None:
    """What memory has, without the database."""
    session = worker.call("get_cached_session", session_id)
    return None if session is None else dict(session)


def lock(worker: Any, resource: str) -> int:
    held = worker.kept[resource] = worker.call("lock", resource, lease_time=30, heartbeat_interval=10)
    worker.wait(held.acquire(timeout=20))
    return int(held.token)


def unlock(worker: Any, resource: str) -> None:
    worker.wait(worker.kept.pop(resource).release())


def poison(worker: Any) -> None:
    worker.manager._cache.shared.poison()


def in_child(worker: Any, session_id: str) -> tuple[Any, bool, bool]:
    """What the child of a fork reads, twice; and whether it leads, or was refused."""
    ours, theirs = os.pipe(), 0
    child = os.fork()
    if not child:
        try:
            read(worker, session_id)
            found = read(worker, session_id)
            told = stats(worker)
            answer = repr((found, told.leader, told.shared_fallback_reason is None))
            worker.call("close")
        except BaseException as error:
            answer = repr(error)
        os.write(ours[1], answer.encode())
        os._exit(0)
    os.close(ours[1])
    answer = os.read(ours[0], 10_000).decode()
    os.waitpid(child, theirs)
    return eval(answer)  # type: ignore[no-any-return]


def fork_one(worker: Any, user: str) -> None:
    """Have a child that creates a session once it is told to."""
    ours, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if not child:
        try:
            os.read(theirs[0], 1)
            answer = create(worker, user)
            worker.call("close")
        except BaseException as error:
            answer = repr(error)
        os.write(ours[1], answer.encode())
        os._exit(0)
    os.close(ours[1])
    os.close(theirs[0])
    worker.kept["child"] = child, ours[0], theirs[1]


def child_creates(worker: Any) -> str:
    """Return the id of the session that it has created, or what was wrong."""
    child, answers, line = worker.kept.pop("child")
    os.write(line, b"1")
    answer = os.read(answers, 10_000).decode()
    os.waitpid(child, 0)
    return answer


def forks_in_the_middle(worker: Any, sessions: list[str], times: int) -> tuple[list[Any], int]:
    """Fork again and again while threads write; return what was wrong in the children, and how often was written."""
    told: list[Any] = []
    ended = threading.Event()
    written = [0] * len(sessions)

    def writes(place: int) -> None:
        while not ended.is_set():
            write(worker, sessions[place], n=written[place] + 1)
            written[place] += 1

    threads = [threading.Thread(target=writes, args=(place,)) for place in range(len(sessions))]
    for thread in threads:
        thread.start()
    for place in range(times):
        before = written[place % len(sessions)]
        found, leads, shares = in_child(worker, sessions[place % len(sessions)])
        if leads or not shares or found[0]["n"] < before:
            told.append((found, leads, shares, before))
    ended.set()
    for thread in threads:
        thread.join()
    return told, sum(written)


def storm(worker: Any, sessions: list[str], path: str, number: int, seed: int) -> tuple[int, int]:
    """Read and write as fast as it goes until slot 0 is set; return how many reads there were, and how many hits.

    Each process has a slot a session, in which it tells the newest version that it has got: what any process reads
    after that is at least as new (C2, for a host).
    """
    dice = random.Random(f"{seed} {number}")
    reads = hits = 0
    with Path(path).open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
        told = memoryview(memory).cast("q")
        try:
            while not told[0]:
                place = dice.randrange(len(sessions))
                slots = range(1 + place, len(told), len(sessions))
                least = max(told[slot] for slot in slots)
                try:
                    session = worker.call("get_session", sessions[place])
                    assert session.version >= least, f"{session.version} after {least}"
                    reads += 1
                    hits += session.from_cache
                    if dice.random() < 0.1:
                        session["n"] = dice.random()
                        worker.call("update_session", session)
                except (pgsession.OperationTimeout, pgsession.SessionVersionConflict):
                    continue
                told[slots[number]] = max(told[slots[number]], session.version)
        finally:
            told.release()
    return reads, hits
