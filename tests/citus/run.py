"""One run: five processes on shards that Citus moves from server to server, in each way that it has."""

from __future__ import annotations

import random
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from contextlib import ExitStack
from pathlib import Path

import msgspec

import pgsession
from tests.chaos import moving
from tests.chaos.faults import Plan
from tests.chaos.history import Call, Fault, State
from tests.chaos.run import SCHEMA, Options, Outcome, Scene
from tests.chaos.verdict import Verdict
from tests.chaos.worker import Task
from tests.citus.cluster import CitusCluster

SHARDS = 4


def run(options: Options, dsn: str) -> tuple[Outcome, int]:
    """Everything, and the judgement, and how many shards were moved. Leaves nothing behind."""
    began = time.monotonic()
    with ExitStack() as after:
        folder = Path(tempfile.mkdtemp(prefix="pgsession-citus-", dir="/tmp"))
        after.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = CitusCluster(dsn, SCHEMA, SHARDS)
        after.callback(cluster.close)
        cluster.drop()
        config = pgsession.Config(schema_name=SCHEMA, create_schema_if_missing=True)
        with pgsession.ShardedSessionManager(pgsession.CitusShards(dsn, SHARDS), config):
            pass
        scene = Moving(options, cluster, folder, after)
        scene.play()
        return scene.check(time.monotonic() - began), cluster.moves


class Moves(Plan):
    """How Citus moves shards. The operator's SQL rests meanwhile, as the documentation asks of it."""

    def __init__(self, cluster: CitusCluster, chance: random.Random, rest: Callable[[], object]) -> None:
        super().__init__(chance)
        self._cluster = cluster
        self._rest = rest
        self.rebalanced = 0
        self.kinds = {
            "citus_rebalance_start": (2, self._rebalance),
            "citus_move_shard_placement": (2, self._move),
            "citus_schema_move": (1, self._move_schema),
            "there and back": (1, self._there_and_back),
            "a move that blocks writes": (1, self._move_blocking),
        }

    def do(self, kind: str) -> Fault:
        self._rest()
        return super().do(kind)

    def _any(self) -> int:
        return self._random.randrange(len(self._cluster.schemas))

    def _rebalance(self, fault: Fault) -> None:
        """After all were brought to one server: unless others' shards are elsewhere there is something to do."""
        target = self._random.choice(self._cluster.workers())
        for number in range(len(self._cluster.schemas)):
            if self._cluster.where(number) != target:
                self._cluster.move(number, target)
        moved = self._cluster.rebalance()
        self.rebalanced += moved
        fault.detail = f"{moved} shards"

    def _move(self, fault: Fault) -> None:
        self._shift(fault, self._cluster.move)

    def _move_schema(self, fault: Fault) -> None:
        self._shift(fault, self._cluster.move_schema)

    def _move_blocking(self, fault: Fault) -> None:
        self._shift(fault, lambda number, to: self._cluster.move(number, to, "block_writes"))

    def _shift(self, fault: Fault, move: Callable[..., object]) -> None:
        number = self._any()
        to = self._random.choice(self._cluster.others(number))
        move(number, to)
        fault.detail = f"shard {number} to port {to.port}"

    def _there_and_back(self, fault: Fault) -> None:
        number = self._any()
        back = self._cluster.where(number)
        self._cluster.move(number, self._random.choice(self._cluster.others(number)))
        self._cluster.move(number, back)
        fault.detail = f"shard {number}"


class Moving(Scene[CitusCluster]):
    """Shards move, one after the other, while everybody reads and writes."""

    NODES = (
        ("async", "direct", "direct", "evict"),
        ("sync", "direct", "direct", "evict"),
        ("async", "direct", "direct", "reject"),
        ("sync", "direct", "direct", "reject"),
        ("sql", "direct", "direct", ""),
    )

    def _plan(self) -> Plan:
        return Moves(self._cluster, self._random, self._rest)

    def _titles(self) -> dict[str, str]:
        return moving.TRIED

    def _rest(self) -> None:
        self._ask(len(self._nodes) - 1, "quiet 3600", "quiet")

    def _task(self, node: int, place: int) -> Task:
        task = super()._task(node, place)
        return msgspec.structs.replace(
            task, database=self._cluster.primary.conninfo, listener="", shards=SHARDS
        )

    def _judge(self, verdict: Verdict, calls: list[Call], states: list[State]) -> None:
        verdict.add_untried(moving.TRIED)
        assert isinstance(self._faults, Moves)
        if not self._options.kinds and not self._faults.rebalanced:
            verdict.add_untried({"rebalanced": "shards moved by citus_rebalance_start"})

    def _inject(self, end: float) -> None:
        assert isinstance(self._faults, Moves)
        wanted = self._options.kinds
        while time.monotonic() < end:
            kind = self._faults.next_kind()
            if wanted:
                kind = self._random.choice(
                    [kind for kind in self._faults.kinds if any(part in kind for part in wanted)]
                )
            fault = self._faults.do(kind)
            if not self._options.quiet:
                print(f"  {kind}: {fault.detail} ({(fault.ended - fault.began) / 1e6:.1f} s)", flush=True)
            if self._random.random() < 0.5:
                self._recover()

    def _recover(self) -> None:
        """All get over it, then the operator goes on."""
        operator = len(self._nodes) - 1
        workers, self._workers = self._workers, self._workers[:operator]
        try:
            super()._recover()
        finally:
            self._workers = workers
        self._ask(operator, "quiet 0", "quiet")
        super()._recover()

    def _tables(self) -> Iterable[tuple[str, str]]:
        return [(self._cluster.primary.conninfo, schema) for schema in self._cluster.schemas]
