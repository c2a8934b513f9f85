"""Which of the manager's tests run on shards as well, and why the others do not.

`PGSESSION_TEST_SHARDS=all` tries those of every file.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from inspect import getsource, signature
from typing import TypeAlias

import psycopg
from psycopg import sql

import pgsession

Shards: TypeAlias = "list[pgsession.Shard]"  # in quotes: `make faults` runs tests on what had no shards

KINDS = ["one", "sharded"]

FILES = {
    "test_anonymous",
    "test_many_sessions",
    "test_manager",
    "test_modify",
    "test_rotation",
    "test_session_limits",
    "test_tokens",
}
# The sync managers are generated: of their tests these, so that all do not take twice as long.
SYNC_FILES = {"test_anonymous", "test_modify", "test_rotation"}

# They ask for these.
ONE_SCHEMA = {
    "dsn": "it writes SQL to the one server that it knows",
    "schema": "it writes SQL to the one schema that it knows",
    "tables": "it looks at the tables of the one schema that it knows",
    "own_server": "it restarts the one server that it knows",
}

# What they look at is inside of one manager, of which the sharded one has several.
INSIDE = re.compile(r"\._(runtime|coherence|cache|conflict_retry|clock|node)\b")

EXCLUDED = {
    "test_logging_in_binds_the_user_and_ends_the_visitors_token": "a move ends the token, it does not supersede it",
    "test_an_update_that_changes_the_user_is_a_login": "a move ends the token, it does not supersede it",
    "test_locks_stay": "a move ends the locks, and one can be tied to a session of its shard only",
    "test_a_flood_of_forged_tokens_causes_no_query": "it counts the statements inside of one manager",
    "test_the_deletion_of_many_has_nobody_else_read_again": "it counts the statements inside of one manager",
}


def why_not_on_shards(test: Callable[..., object]) -> str | None:
    """Why a test does not run on shards; None: it does."""
    if test.__name__ in EXCLUDED:
        return EXCLUDED[test.__name__]
    for fixture in signature(test).parameters:
        if fixture in ONE_SCHEMA:
            return ONE_SCHEMA[fixture]
    if INSIDE.search(getsource(test)):
        return "it looks inside of one manager"
    return None


def runs_on_shards(test: Callable[..., object]) -> bool:
    folder, _, file = test.__module__.rpartition(".")
    files = SYNC_FILES if folder.endswith("sync") else FILES
    chosen = os.environ.get("PGSESSION_TEST_SHARDS") == "all" or file in files
    return chosen and why_not_on_shards(test) is None


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
                    connection.execute(
                        sql.SQL("DELETE FROM {}; DELETE FROM {}; DELETE FROM {}").format(*tables)
                    )
