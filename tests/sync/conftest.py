# Generated from tests/aio/conftest.py by tools/async_to_sync.py: never edit.

"""Managers for tests: each on the test's own schema, closed with the test."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

import pgsession

OpenAsyncManager: TypeAlias = Callable[..., Awaitable[pgsession.SessionManager]]


@pytest.fixture
def open_manager(dsn: str, schema: str) -> Iterator[OpenAsyncManager]:
    """`await open_manager(max_sessions=2, ...)`: another node on the test's tables."""
    with ExitStack() as stack:

        def open_one(
            database: Any = dsn, *, listener: Any = None, signer: Any = None, **fields: Any
        ) -> pgsession.SessionManager:
            fields = {"create_schema_if_missing": True, "schema_name": schema, **fields}
            manager = pgsession.SessionManager(
                database, pgsession.Config(**fields), listener=listener, signer=signer
            )
            return stack.enter_context(manager)

        yield open_one


@pytest.fixture
def manager(open_manager: OpenAsyncManager) -> pgsession.SessionManager:
    return open_manager()
