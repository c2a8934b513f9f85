"""Which of the manager's tests run on shards as well, and why the others do not."""

from __future__ import annotations

from collections.abc import Callable
from inspect import signature
from typing import TypeAlias

import psycopg
from psycopg import sql

import pgsession

Shards: TypeAlias = list[pgsession.Shard]

KINDS = ["one", "sharded"]

FILES: set[str] = set()
ONE_SCHEMA = {"dsn", "schema", "tables", "own_server"}


def runs_on_shards(test: Callable[..., object]) -> bool:
    return not ONE_SCHEMA & set(signature(test).parameters)


def make_shards(servers: list[str], name: str, count: int) -> Shards:
    """Shards with tables, spread over the servers."""
    shards = [
        pgsession.Shard(database=servers[number % len(servers)], schema_name=f"{name}_{number}")
        for number in range(count)
    ]
    with pgsession.ShardedSessionManager(shards, pgsession.Config(create_schema_if_missing=True)):
        return shards


def empty(shards: Shards) -> None:
    """Empty the tables of shards, whose nodes are closed."""
    for dsn in {str(shard.database) for shard in shards}:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for shard in shards:
                if shard.database == dsn:
                    tables = [
                        sql.Identifier(str(shard.schema_name), table)
                        for table in ("sessions", "session_attributes", "session_locks")
                    ]
                    connection.execute(sql.SQL("DELETE FROM {}; DELETE FROM {}; DELETE FROM {}").format(*tables))
