"""One run: three members of Patroni, five processes, and each way to lose a leader."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path

import psycopg

from pgsession import schema
from tests.chaos.faults import Plan
from tests.chaos.history import Call, Fault
from tests.chaos.oracle import NO_WRITES
from tests.chaos.run import SCHEMA, Options, Outcome, Scene
from tests.ha.cluster import PatroniCluster
from tests.ha.faults import LeaderFaults
from tests.ha.route import Route


def run(options: Options, *, programs: str | None = None) -> Outcome:
    """Everything, and the judgement. Leaves nothing behind."""
    began = time.monotonic()
    with ExitStack() as after:
        folder = Path(tempfile.mkdtemp(prefix="pgsession-chaos-", dir="/tmp"))
        after.callback(shutil.rmtree, folder, ignore_errors=True)
        cluster = after.enter_context(PatroniCluster(programs=programs))
        with psycopg.connect(cluster.primary.conninfo, autocommit=True) as connection:
            schema.create(connection, SCHEMA)
        scene = Lost(options, cluster, folder, after)
        scene.play()
        return scene.check(time.monotonic() - began)


class Lost(Scene[PatroniCluster]):
    """The leader is lost in each way once, in random order, and all get over it before the next time."""

    NODES = (
        ("async", "name", "name", "evict"),
        ("sync", "name", "name", "evict"),
        ("async", "direct", "direct", "reject"),
        ("sync", "direct", "direct", "reject"),
        ("sql", "name", "name", ""),
    )

    def __init__(self, options: Options, cluster: PatroniCluster, folder: Path, after: ExitStack) -> None:
        super().__init__(options, cluster, folder, after)
        names = [name for ways in self._ways for name in ways.names]
        after.enter_context(Route(cluster.members, names))

    def _plan(self) -> Plan:
        unfenced = [node for node, (_, *ways, _) in enumerate(self.NODES) if "direct" in ways]
        return LeaderFaults(
            self._cluster, unfenced, chance=self._random, max_staleness=self._options.max_staleness
        )

    def _inject(self, end: float) -> None:
        began = time.monotonic()
        kinds = [
            kind
            for kind in self._faults.kinds
            if not self._options.kinds or any(part in kind for part in self._options.kinds)
        ]
        self._random.shuffle(kinds)
        for kind in kinds:
            if time.monotonic() > end:
                self._stuck.append(f"no time was left for {kind!r}")
                continue
            time.sleep(self._random.uniform(2, 4))
            before = len(self._faults.done)
            self._faults.do(kind)
            if not self._options.quiet:
                for fault in self._faults.done[before:]:
                    took = (fault.ended - fault.began) / 1e6
                    print(f"  {fault.kind}: {fault.detail} ({took:.1f} s)", flush=True)
            self._recover()
        self._options.seconds = time.monotonic() - began

    def _judged(self, calls: list[Call]) -> Iterable[Call]:
        return promised(calls, self._faults.done)


def promised(calls: list[Call], faults: list[Fault]) -> Iterator[Call]:
    """Leave out what nodes did at a former primary that nobody kept them from, but for writes that it acknowledged."""
    for call in calls:
        if (call.outcome == "ok" and call.kind not in NO_WRITES) or not any(
            call.node in fault.unfenced and call.began < fault.ended and call.ended > fault.began
            for fault in faults
        ):
            yield call
