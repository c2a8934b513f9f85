"""Shards that move from server to server all the time, for the manager's own tests."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from itertools import cycle

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.citus.cluster import DSN, WHY_NOT, CitusCluster
from tests.sharded import Sharding


class Mover:
    """Moves the shards of a cluster online, one after the other, in a thread of its own, from `start` to `stop`."""

    def __init__(self, cluster: CitusCluster, sharding: Sharding) -> None:
        self.sharding = sharding
        self._cluster = cluster
        self._plain = psycopg.connect(cluster.primary.conninfo, autocommit=True)
        self._thread = threading.Thread(target=self._run, name="mover of shards")
        self._moving = threading.Lock()
        self._ended = threading.Event()
        self._failure: Exception | None = None

    @property
    def moves(self) -> int:
        """How many there were so far."""
        return self._cluster.moves

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End the moves; raise what one has failed with."""
        self._ended.set()
        self._thread.join()
        self._plain.close()
        if self._failure is not None:
            raise self._failure

    @contextmanager
    def at_rest(self) -> Iterator[None]:
        """Let no shard move during the block."""
        with self._moving:
            yield

    def empty(self) -> None:
        """Empty the tables, whose nodes are closed."""
        for schema in self._cluster.schemas:
            for table in ("sessions", "session_attributes", "session_locks"):
                self._plain.execute(sql.SQL("DELETE FROM {}").format(sql.Identifier(schema, table)))

    def _run(self) -> None:
        try:
            for number in cycle(range(len(self._cluster.schemas))):
                if self._ended.is_set():
                    return
                with self._moving:
                    self._cluster.move_schema(number, self._cluster.others(number)[0])
                self._ended.wait(0.001)  # a lock is not fair: for who waits to be at rest
        except Exception as error:
            self._failure = error


@contextmanager
def moving(name: str, count: int) -> Iterator[Mover]:
    """Lends shards that move while the block runs, and drops them afterwards."""
    if not DSN:
        pytest.skip(WHY_NOT)
    shards = pgsession.CitusShards(DSN, count)
    with ExitStack() as after:
        cluster = after.enter_context(closing(CitusCluster(DSN, name, count)))
        config = pgsession.Config(schema_name=name, create_schema_if_missing=True)
        with pgsession.ShardedSessionManager(shards, config):
            pass
        mover = Mover(cluster, Sharding(shards, name))
        mover.start()
        after.callback(mover.stop)
        yield mover
        print(f"{cluster.moves} moves while the tests ran")
