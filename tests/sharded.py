"""Which of the manager's tests run on shards as well, and why the others do not.

`PGSESSION_TEST_SHARDS=all` has the generated tests run on them, too; `PGSESSION_TEST_SHARD_SERVERS=4` puts each of the
four shards on a server of its own. `PGSESSION_TEST_SHARDS=citus` has them run on shards that Citus moves from server to
server all the time, in the cluster that `PGSESSION_CITUS_DSN` names.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Callable
from inspect import getsource, isclass, isfunction, signature
from typing import NamedTuple, TypeAlias

import psycopg
from psycopg import sql

import pgsession

Shards: TypeAlias = "list[pgsession.Shard]"  # in quotes: `make faults` runs tests on what had no shards

ON_CITUS = os.environ.get("PGSESSION_TEST_SHARDS") == "citus"
KINDS = ["citus"] if ON_CITUS else ["one", "sharded"]

# The sync managers are generated: of their tests these, so that all do not take twice as long.
SYNC_FILES = {"test_anonymous", "test_modify", "test_rotation"}

EXCLUDED_FILES = {
    "test_chosen_ids": "it chooses ids that name no shard",
}

# They ask for these.
ONE_SCHEMA = {
    "dsn": "it writes SQL to the one server that it knows",
    "schema": "it writes SQL to the one schema that it knows",
    "tables": "it looks at the tables of the one schema that it knows",
    "own_server": "it restarts the one server that it knows",
    "admin": "it looks at the tables of the one schema that it knows",
    "path": "each shard has a file of its own",
}

# What they look at is inside of one manager, of which the sharded one has several.
INSIDE = re.compile(
    r"\._(runtime|open_runtime|coherence|cache|conflict_retry|confirm_everywhere|clock|node)\b"
)

_MOVES = "a move ends the token, it does not supersede it"
_COUNTS = "it counts what one server does"

EXCLUDED = {
    "test_logging_in_binds_the_user_and_ends_the_visitors_token": _MOVES,
    "test_an_update_that_changes_the_user_is_a_login": _MOVES,
    "test_new_tokens_and_logins": _MOVES,
    "test_whoever_is_current_is_let_in_and_nobody_writes_into_anothers_session": "it knows sessions by ids, and a move "
    "changes those",
    "test_locks_stay": "a move ends the locks, and one can be tied to a session of its shard only",
    "test_a_session_of_a_chosen_id_is_there_for_who_asked_before": "it chooses ids that name no shard",
    "test_a_flood_of_forged_tokens_causes_no_query": _COUNTS,
    "test_the_deletion_of_many_has_nobody_else_read_again": _COUNTS,
    "test_a_new_manager_has_done_next_to_nothing": _COUNTS,
    "test_cache_capacity_and_evictions": "each shard has its part of the cache",
    "test_negative_hits": "an id of no shard is absent without a look",
    "test_few_callers_share_one_lane": _COUNTS,
    "test_nothing_that_a_service_does_is_reported": "it looks inside of one manager",
    "test_nodes": "a node of others is registered in one shard only",
}

_ONE_PLACE = "shards that move share no cache of the host"

EXCLUDED_ON_CITUS = {
    "test_a_write_whose_second_commit_fails_is_unknown": "no write has a second commit",
    "test_shared_fallback_reason": _ONE_PLACE,
    "test_shared_hits_shared_sessions_leader": _ONE_PLACE,
    "test_who_has_greenlets_for_threads_shares_nothing_shared_fallback_reason": _ONE_PLACE,
}

# These run while no shard moves: they expect memory to keep what it has, count what is done once more after a move, or
# have a crowd that conflicts be done with in the time of one call, of which a move takes its part.
AT_REST = {
    "test_a_crowd_is_written_in_two_lanes",
    "test_a_created_session_is_read_back",
    "test_an_update_reaches_the_other_node",
    "test_another_node_reads_from_the_database_then_from_memory",
    "test_defect_09_values_are_not_shared_between_session_objects",
    "test_events_and_invalidations",
    "test_evicting_a_user_leaves_the_others_in_memory",
    "test_expirations",
    "test_hits_misses_fills_cached_sessions",
    "test_it_may_call_the_manager",
    "test_min_version_reads_past_an_older_copy",
    "test_updates_need_not_be_announced",
    "test_warmed_sessions",
    "test_what_is_in_memory_is_answered_in_any_loop",
    "test_writes_and_batches",
    "test_writes_of_the_same_moment_share_transactions",
}


class Sharding(NamedTuple):
    """The shards of a test's nodes, and the schema name in their configuration."""

    shards: Shards | pgsession.CitusShards
    schema_name: str


def why_not_on_shards(test: Callable[..., object]) -> str | None:
    """Why a test does not run on shards; None: it does."""
    file = test.__module__.rpartition(".")[2]
    if ON_CITUS and test.__name__ in EXCLUDED_ON_CITUS:
        return EXCLUDED_ON_CITUS[test.__name__]
    if test.__name__ in EXCLUDED or file in EXCLUDED_FILES:
        return EXCLUDED.get(test.__name__) or EXCLUDED_FILES[file]
    for fixture in signature(test).parameters:
        if fixture in ONE_SCHEMA:
            return ONE_SCHEMA[fixture]
    if _looks_inside(test):
        return "it looks inside of one manager"
    return None


def _looks_inside(test: Callable[..., object]) -> bool:
    """True where the text of a test does so, or that of what it uses of its own file."""
    source = getsource(test)
    if INSIDE.search(source):
        return True
    own = vars(sys.modules[test.__module__])
    used = (own.get(name) for name in set(re.findall(r"\w+", source)) - {test.__name__})
    return any(
        bool(INSIDE.search(getsource(each)))
        for each in used
        if (isfunction(each) or isclass(each)) and each.__module__ == test.__module__
    )


def runs_on_shards(test: Callable[..., object]) -> bool:
    folder, _, file = test.__module__.rpartition(".")
    chosen = (
        not folder.endswith("sync") or file in SYNC_FILES or os.environ.get("PGSESSION_TEST_SHARDS") == "all"
    )
    return chosen and why_not_on_shards(test) is None


def number_of_servers() -> int:
    """How many servers the shards of all tests are on."""
    return int(os.environ.get("PGSESSION_TEST_SHARD_SERVERS", "2"))


def make_shards(servers: list[str], name: str, count: int) -> Shards:
    """Shards with tables, spread over the servers."""
    shards = [
        pgsession.Shard(database=servers[number % len(servers)], schema_name=f"{name}_{number}")
        for number in range(count)
    ]
    with pgsession.ShardedSessionManager(shards, pgsession.Config(create_schema_if_missing=True)):
        return shards


def empty(shards: Shards) -> None:
    """Empty the tables of shards, whose nodes are closed, or were killed."""
    for dsn in {str(shard.database) for shard in shards}:
        with psycopg.connect(dsn, autocommit=True) as connection:
            for shard in shards:
                if shard.database == dsn:
                    tables = [
                        sql.Identifier(str(shard.schema_name), table)
                        for table in ("sessions", "session_attributes", "session_locks", "session_nodes")
                    ]
                    for table in tables:
                        connection.execute(sql.SQL("DELETE FROM {}").format(table))
