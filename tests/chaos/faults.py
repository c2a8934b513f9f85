"""What goes wrong in a run: each fault is done, and its cause is gone when `Faults.do` returns."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import NamedTuple

from tests.chaos.cluster import Cluster
from tests.chaos.history import Fault, now
from tests.fault_proxy import FaultProxy


class Ways(NamedTuple):
    """How one node gets to the servers: each through a proxy of its own, in the order of `Cluster.servers`."""

    listener: list[FaultProxy]
    pool: list[FaultProxy]
    """Empty for a node that connects directly."""


class Faults:
    """Chooses and does faults. Waits at most `patience` seconds within one, so that the run can end."""

    def __init__(
        self,
        cluster: Cluster,
        ways: list[Ways],
        pids: list[int],
        *,
        chance: random.Random,
        max_staleness: float,
    ) -> None:
        self._cluster = cluster
        self._ways = ways
        self._pids = pids
        self._random = chance
        self._max_staleness = max_staleness
        self.done: list[Fault] = []
        self.kinds: dict[str, tuple[float, Callable[[Fault], None]]] = {
            "pool backends terminated": (2, self._terminate_pool),
            "listener's backend terminated": (2, self._terminate_listener),
            "all backends terminated": (1, self._terminate_all),
            "listener cut (RST)": (2, self._cut_listener),
            "listener cut, kept out": (1, self._keep_listener_out),
            "listener silent (no FIN)": (3, self._lose_listener),
            "pool connections cut": (2, self._cut_pool),
            "network stalled": (1, self._stall),
            "slow server": (2, self._slow),
            "process frozen": (3, self._freeze_process),
            "standby frozen": (1, self._freeze_standby),
            "server restarted fast": (1.5, self._restart_fast),
            "server restarted immediate": (1.5, self._restart_immediate),
            "backend killed (SIGKILL)": (1.5, self._kill_backend),
            "failover": (1.5, self._fail_over),
        }

    def next_kind(self) -> str:
        """Every kind once, in random order, then by weight."""
        fresh = [kind for kind in self.kinds if all(fault.kind != kind for fault in self.done)]
        if fresh:
            return self._random.choice(fresh)
        weights = [weight for weight, _ in self.kinds.values()]
        return self._random.choices(list(self.kinds), weights)[0]

    def do(self, kind: str) -> Fault:
        fault = Fault(kind=kind, began=now())
        self.done.append(fault)
        try:
            self.kinds[kind][1](fault)
        finally:
            fault.ended = fault.ended or now()
        return fault

    # Connections

    def _terminate_pool(self, fault: Fault) -> None:
        backends = self._cluster.backends("pgsession")
        chosen = self._random.sample(backends, min(len(backends), 1 + self._random.randrange(6)))
        self._cluster.terminate(chosen)
        fault.detail = f"{len(chosen)} backends"

    def _terminate_listener(self, fault: Fault) -> None:
        backends = self._cluster.backends("pgsession listener")
        self._cluster.terminate(self._random.sample(backends, min(len(backends), 2)))

    def _terminate_all(self, fault: Fault) -> None:
        self._cluster.terminate(self._cluster.backends())

    def _cut_listener(self, fault: Fault) -> None:
        for proxy in self._node(fault).listener:
            proxy.cut()

    def _keep_listener_out(self, fault: Fault) -> None:
        """Long enough that nothing may be served from memory."""
        proxies = self._node(fault).listener
        for proxy in proxies:
            proxy.refuse()
            proxy.cut()
        time.sleep(self._max_staleness * self._random.uniform(0.3, 1.5))
        for proxy in proxies:
            proxy.forward()

    def _lose_listener(self, fault: Fault) -> None:
        for proxy in self._node(fault).listener:
            proxy.lose()

    def _cut_pool(self, fault: Fault) -> None:
        for way in self._ways:
            for proxy in way.pool:
                proxy.cut()

    def _stall(self, fault: Fault) -> None:
        with ExitStack() as after:
            for proxy in self._proxies():
                proxy.freeze()
                after.callback(proxy.forward)
            time.sleep(self._max_staleness * self._random.uniform(0.1, 1.2))

    def _slow(self, fault: Fault) -> None:
        with ExitStack() as after:
            for proxy in self._proxies():
                proxy.delay = self._random.uniform(0.005, 0.1)
                after.callback(setattr, proxy, "delay", 0.0)
            time.sleep(self._max_staleness * self._random.uniform(0.2, 1))

    # Processes and servers

    def _freeze_process(self, fault: Fault) -> None:
        """Longer than the bound, sometimes: what it holds must not be served when it goes on."""
        pid = self._random.choice(self._pids)
        fault.detail = f"node {self._pids.index(pid)}"
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(self._max_staleness * self._random.uniform(0.1, 1.6))
        finally:
            os.kill(pid, signal.SIGCONT)

    def _freeze_standby(self, fault: Fault) -> None:
        with self._cluster.frozen_standby():
            time.sleep(self._random.uniform(0.1, 0.6) * self._max_staleness)

    def _restart_fast(self, fault: Fault) -> None:
        self._cluster.restart("fast")

    def _restart_immediate(self, fault: Fault) -> None:
        fault.lossy = True
        self._cluster.restart("immediate")

    def _kill_backend(self, fault: Fault) -> None:
        fault.lossy = True
        backends = self._cluster.backends("pgsession") or self._cluster.backends()
        self._cluster.kill_backend(self._random.choice(backends))

    def _fail_over(self, fault: Fault) -> None:
        fault.lossy = True
        old = self._cluster.fail_over()
        fault.ended = now()  # there is a server again; that it has no standby yet concerns nobody
        self._cluster.rebuild(old)

    def _node(self, fault: Fault) -> Ways:
        number = self._random.randrange(len(self._ways))
        fault.detail = f"node {number}"
        return self._ways[number]

    def _proxies(self) -> list[FaultProxy]:
        return [proxy for way in self._ways for proxy in (*way.listener, *way.pool)]
