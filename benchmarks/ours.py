"""pgsession as a service uses it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from typing import Any
from uuid import UUID

import pgsession

from .service import ATTRIBUTES, SESSIONS, THREE, Service
from .stage import Stage

SIGNER = pgsession.Signer([b"benchmark" * 4])


@contextmanager
def manager(
    stage: Stage, *, count: int = 0, database: str | None = None, **settings: Any
) -> Iterator[pgsession.SessionManager]:
    """An open manager with `count` sessions of as many users, all of them in its memory.

    If not told otherwise it has a database of its own, so that no other contender's events reach it.
    """
    config = pgsession.Config(create_schema_if_missing=True, **{"cache_size": max(count, 10_000), **settings})
    with pgsession.SessionManager(database or stage.new_database(), config, signer=SIGNER) as sessions:
        with ThreadPoolExecutor(64) as crowd:
            list(
                crowd.map(lambda number: sessions.create_session(f"user {number}", ATTRIBUTES), range(count))
            )
        yield sessions


@contextmanager
def async_manager(
    stage: Stage, *, count: int = 0, database: str | None = None, **settings: Any
) -> Iterator[pgsession.AsyncSessionManager]:
    """The same with asyncio; it lives in the stage's loop."""
    config = pgsession.Config(create_schema_if_missing=True, **{"cache_size": max(count, 10_000), **settings})
    context = _open(database or stage.new_database(), config, count)
    sessions = stage.loop.run(context.__aenter__())
    try:
        yield sessions
    finally:
        stage.loop.run(context.__aexit__(None, None, None))


def cached_ids(sessions: Any) -> list[bytes]:
    """The ids of what a manager holds in memory."""
    keys: list[bytes] = sessions._cache.versions()[0]
    return keys


@contextmanager
def threads(stage: Stage) -> Iterator[Service]:
    """`SessionManager`."""
    with manager(stage, count=SESSIONS) as sessions:
        numbers = iter(range(10**9))

        def change(session_id: UUID) -> None:
            session = sessions.get_session(session_id)
            assert session is not None
            session["cart"] = ["book", next(numbers)]
            sessions.update_session(session)

        yield Service(
            [UUID(bytes=key) for key in cached_ids(sessions)],
            read=lambda session_id: sessions.get_session(session_id, refresh=True),
            change=change,
            create=lambda: sessions.create_session(f"new {next(numbers)}", THREE),
        )


@contextmanager
def tasks(stage: Stage, *, database: str | None = None) -> Iterator[Service]:
    """`AsyncSessionManager`."""
    with async_manager(stage, count=SESSIONS, database=database) as sessions:
        numbers = iter(range(10**9))

        async def change(session_id: UUID) -> None:
            session = await sessions.get_session(session_id)
            assert session is not None
            session["cart"] = ["book", next(numbers)]
            await sessions.update_session(session)

        yield Service(
            [UUID(bytes=key) for key in cached_ids(sessions)],
            read=lambda session_id: sessions.get_session(session_id, refresh=True),
            change=change,
            create=lambda: sessions.create_session(f"new {next(numbers)}", THREE),
        )


@asynccontextmanager
async def _open(
    database: str, config: pgsession.Config, count: int
) -> AsyncIterator[pgsession.AsyncSessionManager]:
    async with pgsession.AsyncSessionManager(database, config, signer=SIGNER) as sessions:
        for start in range(0, count, 512):
            some = range(start, min(count, start + 512))
            await asyncio.gather(*(sessions.create_session(f"user {number}", ATTRIBUTES) for number in some))
        yield sessions
