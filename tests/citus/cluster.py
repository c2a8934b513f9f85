"""A cluster of Citus that is there: which of its servers has a shard, and how shards are moved."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import psycopg
from psycopg import sql

DSN = os.environ.get("PGSESSION_CITUS_DSN", "")
WHY_NOT = "PGSESSION_CITUS_DSN does not name the coordinator of a cluster of Citus"
PATIENCE = 120.0
"""Seconds for a rebalance to end."""


class Node(NamedTuple):
    """A server, by the address that Citus has for it."""

    host: str
    port: int


class Coordinator(NamedTuple):
    """Where a run connects to."""

    conninfo: str


class CitusCluster:
    """Moves the shards of one run, whose schemas are `name_0`, `name_1` and so on."""

    def __init__(self, dsn: str, name: str, shards: int) -> None:
        self.primary = Coordinator(dsn)
        self.servers: Sequence[Coordinator] = [self.primary]
        self.schemas = [f"{name}_{number}" for number in range(shards)]
        self._connection = psycopg.connect(dsn, autocommit=True)
        self.moves = 0

    def execute(self, query: str, *parameters: Any) -> list[tuple[Any, ...]]:
        cursor = self._connection.execute(query.encode(), parameters)
        return cursor.fetchall() if cursor.description else []

    def workers(self) -> list[Node]:
        query = "SELECT nodename, nodeport FROM pg_dist_node WHERE shouldhaveshards AND isactive ORDER BY 2"
        return [Node(*row) for row in self.execute(query)]

    def where(self, number: int) -> Node:
        query = (
            "SELECT d.nodename, d.nodeport FROM pg_dist_shard s JOIN pg_dist_placement p USING (shardid)"
            " JOIN pg_dist_node d USING (groupid) WHERE s.logicalrelid = %s::regclass"
        )
        ((host, port),) = self.execute(query, f"{self.schemas[number]}.sessions")
        return Node(host, port)

    def move(self, number: int, to: Node, mode: str = "force_logical") -> None:
        """Move a shard by `citus_move_shard_placement`."""
        self.execute(
            "SELECT citus_move_shard_placement(s.shardid, %s, %s, %s, %s,"
            " shard_transfer_mode := %s::citus.shard_transfer_mode)"
            " FROM pg_dist_shard s WHERE s.logicalrelid = %s::regclass",
            *self.where(number), *to, mode, f"{self.schemas[number]}.sessions",
        )  # fmt: skip
        self.moves += 1

    def move_schema(self, number: int, to: Node) -> None:
        """Move a shard by `citus_schema_move`."""
        self.execute(
            "SELECT citus_schema_move(%s::regnamespace, %s, %s, shard_transfer_mode := 'force_logical')",
            self.schemas[number], *to,
        )  # fmt: skip
        self.moves += 1

    def others(self, number: int) -> list[Node]:
        here = self.where(number)
        return [node for node in self.workers() if node != here]

    def rebalance(self) -> int:
        """Have `citus_rebalance_start` spread the shards, and wait for its end; return how many it moved."""
        before = [self.where(number) for number in range(len(self.schemas))]
        self.execute(
            "SELECT citus_rebalance_start(rebalance_strategy := 'by_shard_count',"
            " shard_transfer_mode := 'force_logical')"
        )
        end = time.monotonic() + PATIENCE
        while True:
            states = {state for (state,) in self.execute("SELECT state::text FROM pg_dist_background_job")}
            if not states & {"scheduled", "running", "cancelling"}:
                break
            if time.monotonic() > end:
                raise TimeoutError("the rebalance does not end")
            time.sleep(0.1)
        moved = sum(self.where(number) != node for number, node in enumerate(before))
        self.moves += moved
        return moved

    def drop(self) -> None:
        """Drop everything of the run, on each of the servers."""
        for schema in self.schemas:
            self._connection.execute(
                sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
            )
        for node in self.workers():
            with psycopg.connect(
                self.primary.conninfo, host=node.host, port=node.port, autocommit=True,
                options="-c citus.enable_ddl_propagation=off",
            ) as connection:  # fmt: skip
                for schema in self.schemas:
                    local = sql.Identifier(f"{schema}_local")
                    connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(local))

    def close(self) -> None:
        try:
            self.drop()
        finally:
            self._connection.close()

    def logs(self) -> str:
        return ""  # they are the cluster's own
