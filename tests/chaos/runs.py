"""The two kinds of runs, each from the making of its servers to the judgement."""

from __future__ import annotations

import shutil
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path

import psycopg

import pgsession
from pgsession import schema
from tests.chaos.cluster import Cluster, Machines
from tests.chaos.run import SCHEMA, Options, Outcome, Pair
from tests.chaos.two_servers import TwoServers, shards_of


def run(options: Options, *, programs: str | None = None) -> Outcome:
    """On a primary and its standby. Leaves nothing behind, as the other does."""
    began = time.monotonic()
    with ExitStack() as after:
        folder = _folder(after)
        cluster = after.enter_context(Cluster(programs=programs))
        with psycopg.connect(cluster.primary.conninfo, autocommit=True) as connection:
            schema.create(connection, SCHEMA)
        scene = Pair(options, cluster, folder, after)
        scene.play()
        return scene.check(time.monotonic() - began)


def run_shards(options: Options, *, programs: str | None = None) -> Outcome:
    """On the shards of two servers."""
    began = time.monotonic()
    with ExitStack() as after:
        folder = _folder(after)
        machines = after.enter_context(Machines(programs=programs))
        config = pgsession.Config(create_schema_if_missing=True)
        with pgsession.ShardedSessionManager(shards_of(machines.servers), config):
            pass
        scene = TwoServers(options, machines, folder, after)
        scene.play()
        return scene.check(time.monotonic() - began)


def _folder(after: ExitStack) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="pgsession-chaos-", dir="/tmp"))
    after.callback(shutil.rmtree, folder, ignore_errors=True)
    return folder
