"""A run on four shards of two servers, to one of which something happens at a time."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable

import msgspec
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.chaos import apart, moving
from tests.chaos.cluster import Machines
from tests.chaos.faults import PATIENCE, Plan, Ways
from tests.chaos.history import Call, Fault, State, now
from tests.chaos.run import LONG, SCHEMA, Scene
from tests.chaos.verdict import Verdict
from tests.chaos.worker import Task
from tests.fault_proxy import FaultProxy

SHARDS = 4
TRIED = {**moving.TRIED, **apart.TRIED}


def shards_of(servers: list[EmbeddedServer]) -> list[pgsession.Shard]:
    """The shards, which are on the servers in turn."""
    return [
        pgsession.Shard(database=servers[number % 2].conninfo, schema_name=f"{SCHEMA}_{number}")
        for number in range(SHARDS)
    ]


class ServerFaults(Plan):
    """What happens to one of two servers. `well` says whether all nodes are as they should be."""

    def __init__(
        self,
        servers: Machines,
        ways: list[Ways],
        well: Callable[[], bool],
        *,
        chance: random.Random,
        max_staleness: float,
    ) -> None:
        super().__init__(chance)
        self._servers = servers
        self._ways = ways
        self._well = well
        self._max_staleness = max_staleness
        self.kinds = {
            "server killed (SIGKILL)": (3, self._kill),
            "server stopped immediate": (2, self._stop),
            "server restarted fast": (1, self._restart),
            "server silent (SIGSTOP)": (4, self._silence),
            "connections cut": (2, self._cut),
            "connections cut, kept out": (2, self._keep_out),
            "connections silent (no FIN)": (2, self._lose),
            "listeners terminated": (2, self._terminate_listeners),
            "all backends terminated": (1, self._terminate_all),
        }

    def _hit(self, fault: Fault) -> tuple[EmbeddedServer, list[Ways]]:
        """Choose the server, and wait until all nodes are well, mostly; return it, and the ways that lead to it."""
        place = self._random.randrange(2)
        fault.shards = list(range(place, SHARDS, 2))
        fault.detail = f"server {place}"
        if self._random.random() < 0.85:
            fault.alone = self._wait_until_well()
        fault.began = now()
        ways = [Ways(*(way[place : place + 1] for way in each)) for each in self._ways]
        return self._servers.servers[place], ways

    def _wait_until_well(self) -> bool:
        end = time.monotonic() + PATIENCE
        while not self._well():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    def _rest(self, least: float, most: float) -> None:
        time.sleep(self._max_staleness * self._random.uniform(least, most))

    def _kill(self, fault: Fault) -> None:
        fault.lossy = True
        server, _ = self._hit(fault)
        fault.refuses = True
        self._servers.kill(server)
        self._rest(0.5, 2.5)
        server.restart("immediate")

    def _stop(self, fault: Fault) -> None:
        fault.lossy = True
        server, _ = self._hit(fault)
        fault.refuses = True
        self._servers.stop(server)
        self._rest(0.5, 2.5)
        server.restart("immediate")

    def _restart(self, fault: Fault) -> None:
        server, _ = self._hit(fault)
        server.restart("fast")

    def _silence(self, fault: Fault) -> None:
        """All of its connections, new ones too: longer than any call may take, mostly."""
        server, _ = self._hit(fault)
        with self._servers.silent(server):
            self._rest(0.5, 3)

    def _cut(self, fault: Fault) -> None:
        for proxy in _proxies(self._hit(fault)[1]):
            proxy.cut()

    def _keep_out(self, fault: Fault) -> None:
        """Those nodes that get there through a proxy: for them it is away, for others it is there."""
        proxies = _proxies(self._hit(fault)[1])
        for proxy in proxies:
            proxy.refuse()
            proxy.cut()
        self._rest(0.3, 2)
        for proxy in proxies:
            proxy.forward()

    def _lose(self, fault: Fault) -> None:
        for way in self._hit(fault)[1]:
            for proxy in way.listener if self._random.random() < 0.5 else way.pool:
                proxy.lose()

    def _terminate_listeners(self, fault: Fault) -> None:
        self._terminate(self._hit(fault)[0], "pgsession listener")

    def _terminate_all(self, fault: Fault) -> None:
        self._terminate(self._hit(fault)[0], "%")

    def _terminate(self, server: EmbeddedServer, name: str) -> None:
        self._servers.terminate(self._servers.backends(name, server), server)


def _impatient(conninfo: str) -> str:
    return make_conninfo(conninfo, connect_timeout=apart.CONNECT_TIMEOUT)


def _proxies(ways: list[Ways]) -> list[FaultProxy]:
    return [proxy for way in ways for proxy in (*way.listener, *way.pool)]


class TwoServers(Scene[Machines]):
    """Each of the nodes gets to both servers: by its pool and its listener directly, or through a proxy for each."""

    NODES = (
        ("async", "proxies", "proxies", "evict"),
        ("sync", "proxies", "direct", "evict"),
        ("async", "direct", "proxies", "reject"),
        ("sync", "proxies", "proxies", "reject"),
        ("sql", "direct", "direct", ""),
    )

    def _plan(self) -> Plan:
        return ServerFaults(
            self._cluster,
            self._ways,
            lambda: not self._unwell(),
            chance=self._random,
            max_staleness=self._options.max_staleness,
        )

    def _task(self, node: int, place: int) -> Task:
        direct = [server.conninfo for server in self._cluster.servers]
        listener, pool = ([proxy.conninfo for proxy in way] or direct for way in self._ways[place])
        task = super()._task(node, place)
        return msgspec.structs.replace(
            task,
            database="",
            shards=SHARDS,
            servers=[
                (_impatient(through), _impatient(heard))
                for through, heard in zip(pool, listener, strict=True)
            ],
        )

    def _tables(self) -> Iterable[tuple[str, str]]:
        return [(str(shard.database), str(shard.schema_name)) for shard in shards_of(self._cluster.servers)]

    def _titles(self) -> dict[str, str]:
        return TRIED

    def _judge(self, verdict: Verdict, calls: list[Call], states: list[State]) -> None:
        verdict.tried |= dict.fromkeys(apart.TRIED, 0)
        limits = self._options.limits
        verdict.violations += apart.violations(calls, self._faults.done, states, limits, verdict.tried)
        if not self._options.kinds:
            verdict.add_untried(TRIED if self._options.seconds >= LONG else moving.TRIED)
