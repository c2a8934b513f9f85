"""How a cluster loses its leader. A fault has ended when another one takes writes; `do` returns when all follow it."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Sequence

from tests.chaos.faults import Plan
from tests.chaos.history import Fault, now
from tests.ha.cluster import Member, PatroniCluster


class LeaderFaults(Plan):
    """What happens to leaders.

    Args:
        cluster: Where.
        unfenced: The nodes that find the servers by themselves: nobody ends their connections to a former primary.
        chance: Decides the order.
        max_staleness: Seconds; some things last longer than that.
    """

    def __init__(
        self, cluster: PatroniCluster, unfenced: Sequence[int], *, chance: random.Random, max_staleness: float
    ) -> None:
        super().__init__(chance)
        self._cluster = cluster
        self._unfenced = list(unfenced)
        self._max_staleness = max_staleness
        self.kinds = {
            "switchover": (1, self._switch_over),
            "leader's host killed": (1, self._kill_leader),
            "leader's PostgreSQL killed": (1, self._kill_postgres),
            "leader's host paused": (1, self._pause_leader),
            "leader cut from etcd": (1, self._cut_from_store),
            "leader's Patroni stopped": (1, self._stop_patroni),
        }

    def _switch_over(self, fault: Fault) -> None:
        old, new = self._cluster.switch_over()
        self._succeeded(fault, old, new)
        self._cluster.wait_until_whole()

    def _kill_leader(self, fault: Fault) -> None:
        """SIGKILL to Patroni and to all of PostgreSQL."""
        old = self._cluster.leader()
        fault.lossy, fault.began = True, now()
        old.signal_all(signal.SIGKILL)
        self._succeeded(fault, old, self._cluster.wait_for_successor(old))
        self._cluster.start(old)
        self._cluster.wait_until_whole()

    def _kill_postgres(self, fault: Fault) -> None:
        """Patroni lives, and starts it again, or leaves the lead to another."""
        old = self._cluster.leader()
        fault.lossy, fault.began = True, now()
        old.signal_postgres(signal.SIGKILL)
        self._succeeded(fault, old, self._cluster.wait_for_primary())
        self._cluster.wait_until_whole()

    def _pause_leader(self, fault: Fault) -> None:
        """SIGSTOP to all of it, until there is another; then it goes on where it was, as a primary.

        At this moment all connections to the new one end, so that nodes look for the primary anew, and find two.
        """
        old = self._cluster.leader()
        fault.lossy, fault.began = True, now()
        old.signal_all(signal.SIGSTOP)
        try:
            new = self._cluster.wait_for_successor(old)
            self._succeeded(fault, old, new)
            time.sleep(self._max_staleness * self._random.uniform(1, 2))
        finally:
            comes_back = Fault(kind="paused leader goes on", began=now(), lossy=True, detail=old.name)
            self.done.append(comes_back)
            old.signal_all(signal.SIGCONT)
        new.terminate_clients()
        self._resigned(comes_back, old)

    def _cut_from_store(self, fault: Fault) -> None:
        """Its Patroni gets no answers from etcd, and makes a standby of the primary; connections to that are open."""
        old = self._cluster.leader()
        fault.lossy, fault.began = True, now()
        old.store.freeze()
        try:
            self._succeeded(fault, old, self._cluster.wait_for_successor(old))
            time.sleep(self._max_staleness * self._random.uniform(1, 2))
        finally:
            old.store.forward()
        self._cluster.wait_until_whole()

    def _stop_patroni(self, fault: Fault) -> None:
        """Nobody tells PostgreSQL that it leads no more: two primaries, both of which take connections."""
        old = self._cluster.leader()
        fault.lossy, fault.began = True, now()
        old.signal_patroni(signal.SIGSTOP)
        both = Fault(kind="two primaries", began=fault.began, lossy=True, unfenced=self._unfenced)
        try:
            self._succeeded(fault, old, self._cluster.wait_for_successor(old))
            both.began = now()
            self.done.append(both)
            time.sleep(self._max_staleness * self._random.uniform(4, 6))
            both.detail = f"{old.name} lives on" if old.writable() else f"{old.name} does NOT live on"
        finally:
            old.signal_patroni(signal.SIGCONT)
        self._resigned(both, old)

    def _succeeded(self, fault: Fault, old: Member, new: Member) -> None:
        fault.ended = now()
        fault.detail = f"{old.name}, then {new.name}"

    def _resigned(self, fault: Fault, old: Member) -> None:
        """Until a former primary is none any more."""
        self._cluster.wait_for(lambda: not old.writable(), f"{old.name} to resign")
        fault.ended = now()
        self._cluster.wait_until_whole()
