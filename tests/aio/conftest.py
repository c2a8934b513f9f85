"""Managers for tests: each on the test's own schema, closed with the test. `tests.sharded` says what runs on shards."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any, TypeAlias

import pytest
import pytest_asyncio

import pgsession
from tests.sharded import KINDS, Sharding, runs_on_shards

OpenAsyncManager: TypeAlias = Callable[..., Awaitable[pgsession.AsyncSessionManager]]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have the manager's tests run with one server and with several shards."""
    if "manager_kind" in metafunc.fixturenames and runs_on_shards(metafunc.function):
        metafunc.parametrize("manager_kind", KINDS, indirect=True)


@pytest.fixture
def manager_kind(request: pytest.FixtureRequest) -> str:
    """Which manager the test is about."""
    return str(getattr(request, "param", "one"))


@pytest.fixture
def shards(manager_kind: str, request: pytest.FixtureRequest) -> Sharding | None:
    """The shards that the test's nodes have, None where it has one server."""
    if manager_kind == "sharded":
        return Sharding(request.getfixturevalue("empty_shards"), "pgsession")
    return request.getfixturevalue("moving_shards") if manager_kind == "citus" else None


@pytest_asyncio.fixture
async def open_manager(dsn: str, schema: str, shards: Sharding | None) -> AsyncIterator[OpenAsyncManager]:
    """`await open_manager(max_sessions=2, ...)`: another node on the test's tables."""
    async with AsyncExitStack() as stack:

        async def open_one(
            database: Any = dsn, *, listener: Any = None, signer: Any = None, **fields: Any
        ) -> pgsession.AsyncSessionManager:
            manager: pgsession.AsyncSessionManager
            if shards is not None:
                assert database is dsn and listener is None, "several servers have no one conninfo"
                config = pgsession.Config(schema_name=shards.schema_name, **fields)
                manager = pgsession.AsyncShardedSessionManager(shards.shards, config, signer=signer)
            else:
                fields = {"create_schema_if_missing": True, "schema_name": schema, **fields}
                manager = pgsession.AsyncSessionManager(
                    database, pgsession.Config(**fields), listener=listener, signer=signer
                )
            return await stack.enter_async_context(manager)

        yield open_one


@pytest_asyncio.fixture
async def manager(open_manager: OpenAsyncManager) -> pgsession.AsyncSessionManager:
    return await open_manager()
