"""Shards that move from server to server all the time, for the manager's own tests."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import cycle

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.citus.cluster import DSN, WHY_NOT, CitusCluster
from tests.sharded import Sharding


@contextmanager
def moving(name: str, count: int) -> Iterator[Sharding]:
    """Lends shards that are moved online, one after the other, while the block runs."""
    if not DSN:
        pytest.skip(WHY_NOT)
    shards = pgsession.CitusShards(DSN, count)
    with closing(CitusCluster(DSN, name, count)) as cluster:
        config = pgsession.Config(schema_name=name, create_schema_if_missing=True)
        with pgsession.ShardedSessionManager(shards, config):
            pass
        ended = threading.Event()
        failures: list[Exception] = []

        def move() -> None:
            try:
                for number in cycle(range(count)):
                    if ended.is_set():
                        return
                    cluster.move_schema(number, cluster.others(number)[0])
            except Exception as error:
                failures.append(error)

        thread = threading.Thread(target=move, name="mover of shards")
        if not os.environ.get("NOMOVE"):
            thread.start()
        try:
            yield Sharding(shards, name)
        finally:
            ended.set()
            if not os.environ.get("NOMOVE"):
                thread.join()
            print(f"{cluster.moves} moves")
        if failures:
            raise failures[0]


def empty(sharding: Sharding) -> None:
    """Empty the tables of shards, whose nodes are closed."""
    assert isinstance(sharding.shards, pgsession.CitusShards)
    with psycopg.connect(str(sharding.shards.coordinator), autocommit=True) as connection:
        for number in range(sharding.shards.count):
            for table in ("sessions", "session_attributes", "session_locks"):
                connection.execute(
                    sql.SQL("DELETE FROM {}").format(sql.Identifier(f"{sharding.schema_name}_{number}", table))
                )
