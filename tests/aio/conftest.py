"""Managers for tests: each on the test's own schema, closed with the test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import pytest_asyncio

import pgsession

OpenAsyncManager: TypeAlias = Callable[..., Awaitable[pgsession.AsyncSessionManager]]


@pytest_asyncio.fixture
async def open_manager(dsn: str, schema: str) -> AsyncIterator[OpenAsyncManager]:
    """`await open_manager(max_sessions=2, ...)`: another node on the test's tables."""
    async with AsyncExitStack() as stack:

        async def open_one(
            database: Any = dsn, *, listener: Any = None, signer: Any = None, **fields: Any
        ) -> pgsession.AsyncSessionManager:
            fields = {"create_schema_if_missing": True, "schema_name": schema, **fields}
            manager = pgsession.AsyncSessionManager(
                database, pgsession.Config(**fields), listener=listener, signer=signer
            )
            return await stack.enter_async_context(manager)

        yield open_one


@pytest_asyncio.fixture
async def manager(open_manager: OpenAsyncManager) -> pgsession.AsyncSessionManager:
    return await open_manager()
