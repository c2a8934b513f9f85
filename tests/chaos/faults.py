"""What goes wrong in a run: each fault is done, and its cause is gone when `Faults.do` returns."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, NamedTuple

from psycopg import errors, sql

from tests.chaos.cluster import Cluster
from tests.chaos.history import Fault, now
from tests.chaos.worker import POLICIES, USERS
from tests.fault_proxy import FaultProxy

MOST_HELD = 3.0
"""Seconds that somebody holds rows: longer than who needs them waits, sometimes."""

_BUSY = "(SELECT id FROM {sessions} ORDER BY updated_at DESC OFFSET %s LIMIT 1)"
"""One of the sessions that were written to last; found apart from locking it, for what OFFSET skips is locked too."""

PATIENCE = 10.0
"""Seconds to wait for what is to be over soon."""


class Ways(NamedTuple):
    """How one node gets to the servers: by a name, which is one proxy that leads to the primary, or through a proxy for
    each server, in the order of `Cluster.servers`."""

    listener: list[FaultProxy]
    pool: list[FaultProxy]
    """Empty for a node that connects directly."""

    @property
    def names(self) -> list[FaultProxy]:
        return [way[0] for way in self if len(way) == 1]


class Nodes(NamedTuple):
    """What faults need of the processes. They are known by their places: who comes for one that is gone has its."""

    pid: Callable[[int], int]
    node: Callable[[int], int]
    """By which its calls are known."""
    policies: list[str]
    """What each does with a user who is at the limit; "" for one that lets nobody log in."""
    hosts: list[int]
    """Of which host each is that shares a cache with others; -1: none."""
    say: Callable[[int, str], object]
    """Tells one something that it does not answer."""
    ask: Callable[[int, str, str], Any]
    """Tells one something, and returns the answer that has the key."""
    kill: Callable[[list[int]], None]
    """Ends some by SIGKILL."""
    leave: Callable[[int], None]
    """Has one end in order."""
    replace: Callable[[list[int]], None]
    """Starts others for some that are gone."""
    empty: Callable[[str], None]
    """Takes note that a cache was emptied which was not to be."""
    well: Callable[[], bool]
    """Whether all are in sync, and have written since the last fault was gone."""


class Plan:
    """Chooses and does faults, and keeps what was done."""

    kinds: dict[str, tuple[float, Callable[[Fault], None]]]
    """Each with its weight, and what does it."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self.done: list[Fault] = []

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


class Faults(Plan):
    """Those of a pair of servers. Waits at most `patience` seconds within one, so that the run can end."""

    def __init__(
        self,
        cluster: Cluster,
        ways: list[Ways],
        nodes: Nodes,
        *,
        schema: str,
        chance: random.Random,
        max_staleness: float,
        operation_timeout: float,
        max_sessions: int,
    ) -> None:
        super().__init__(chance)
        self._cluster = cluster
        self._ways = ways
        self._nodes = nodes
        self._schema = schema
        self._max_staleness = max_staleness
        self._operation_timeout = operation_timeout
        self._max_sessions = max_sessions
        self.kinds = {
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
            "server silent": (2, self._silence_server),
            "name leads to the standby": (2, self._mislead),
            "callers interrupted": (2, self._interrupt_callers),
            "session's row held": (1.5, self._hold_session),
            "attribute's row held": (1.5, self._hold_attribute),
            "table locked": (1.5, self._lock_table),
            "bucket's row held": (1.5, self._hold_bucket),
            "user at the limit, rows held": (2, self._hold_user),
        }
        self._sharing = [place for place, host in enumerate(nodes.hosts) if host >= 0]
        self._of_hosts: dict[str, tuple[float, Callable[[Fault], None]]] = {}
        if self._sharing:
            self._of_hosts = {
                "process killed": (2, self._kill_process),
                "leader killed": (3, self._kill_leader),
                "leader frozen": (3, self._freeze_leader),
                "leader leaves": (3, self._restart_leader),
                "all of a host killed": (1, self._kill_host),
                "killed inside the arena": (2, self._kill_inside),
                "frozen inside the arena": (2, self._freeze_inside),
                "outage": (3, self._outage),
            }
        self.kinds |= self._of_hosts

    def next_kind(self) -> str:
        """Every kind once, in random order, then by weight; each second one is of a host's, where there are hosts."""
        kinds = self._of_hosts if self._of_hosts and self._random.random() < 0.5 else self.kinds
        fresh = [kind for kind in kinds if all(fault.kind != kind for fault in self.done)]
        if fresh:
            return self._random.choice(fresh)
        weights = [weight for weight, _ in kinds.values()]
        return self._random.choices(list(kinds), weights)[0]

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
        place = self._random.randrange(len(self._nodes.hosts))
        self._freeze(fault, place, self._max_staleness * self._random.uniform(0.1, 1.6))

    def _freeze(self, fault: Fault, place: int, seconds: float) -> None:
        fault.frozen = self._nodes.node(place)
        fault.detail = f"node {fault.frozen}"
        pid = self._nodes.pid(place)
        os.kill(pid, signal.SIGSTOP)
        try:
            time.sleep(seconds)
        finally:
            os.kill(pid, signal.SIGCONT)

    # Processes that share a cache

    def _leaders(self) -> list[int]:
        """Where those are that lead their hosts; a host may have none for a moment."""
        return [place for place in self._sharing if self._host(place)["leader"]]

    def _host(self, place: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._nodes.ask(place, "host", "host")
        return answer

    def _leader(self) -> int:
        """Where one is that leads."""
        leaders: list[int] = []
        self._wait_until(lambda: bool(leaders.extend(self._leaders()) or leaders))
        return self._random.choice(leaders or self._sharing)

    def _kill(self, fault: Fault, places: list[int]) -> None:
        fault.detail = "node " + " ".join(str(self._nodes.node(place)) for place in places)
        self._nodes.kill(places)
        time.sleep(self._random.choice([0, 0.3, 1]))
        self._nodes.replace(places)

    def _kill_process(self, fault: Fault) -> None:
        self._kill(fault, [self._random.choice(self._sharing)])

    def _kill_leader(self, fault: Fault) -> None:
        self._kill(fault, [self._leader()])

    def _kill_host(self, fault: Fault) -> None:
        host = self._random.choice(sorted({self._nodes.hosts[place] for place in self._sharing}))
        self._kill(fault, [place for place in self._sharing if self._nodes.hosts[place] == host])

    def _freeze_leader(self, fault: Fault) -> None:
        """Long enough for another one to lead, mostly."""
        self._freeze(fault, self._leader(), self._random.uniform(0.5, 4))

    def _restart_leader(self, fault: Fault) -> None:
        """As servers recycle their workers."""
        place = self._leader()
        fault.detail = f"node {self._nodes.node(place)}"
        self._nodes.leave(place)
        self._nodes.replace([place])

    def _kill_inside(self, fault: Fault) -> None:
        """While it has the arena's lock."""
        place = self._leader() if self._random.random() < 0.5 else self._random.choice(self._sharing)
        self._nodes.ask(place, "enter", "inside")
        self._kill(fault, [place])

    def _freeze_inside(self, fault: Fault) -> None:
        """While it has the arena's lock: for so long that the others go on without it, sometimes."""
        place = self._leader() if self._random.random() < 0.5 else self._random.choice(self._sharing)
        self._nodes.ask(place, "enter", "inside")
        try:
            self._freeze(fault, place, self._random.uniform(0.2, 3))
        finally:
            self._nodes.say(place, "leave")

    def _outage(self, fault: Fault) -> None:
        """The database is away while nobody writes: no cache is emptied, though its leader die meanwhile."""
        self._wait_until(self._nodes.well)
        fault.began = now()
        dies = self._random.random() < 0.6
        leader = self._leader()
        seconds = self._max_staleness * self._random.uniform(0.5, 2)
        for place in self._sharing:
            self._nodes.ask(place, f"quiet {seconds + 2 * PATIENCE}", "quiet")
        time.sleep(2 * self._operation_timeout)  # what was begun has ended
        with ExitStack() as after:
            if self._random.random() < 0.5:
                after.enter_context(self._cluster.silent(self._cluster.primary))
            for proxy in self._proxies():
                proxy.refuse()
                proxy.cut()
                after.callback(proxy.forward)
            before = {place: self._host(place)["shared_sessions"] for place in self._sharing}
            if dies:
                fault.detail = f"node {self._nodes.node(leader)} killed"
                self._nodes.kill([leader])
            time.sleep(seconds)
            for place, sessions in before.items():
                if dies and place == leader:
                    continue
                now_there = self._host(place)["shared_sessions"]
                if now_there < sessions // 2:
                    self._nodes.empty(
                        f"{now_there} sessions of {sessions} were left on host {self._nodes.hosts[place]} after {fault}"
                    )
        for place in self._sharing:
            if not dies or place != leader:
                self._nodes.ask(place, "quiet 0", "quiet")
        if dies:
            self._nodes.replace([leader])

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
        for name in self._names():
            name.redirect(self._cluster.primary.conninfo)
        fault.ended = now()  # there is a server again; that it has no standby yet concerns nobody
        self._cluster.rebuild(old)

    def _silence_server(self, fault: Fault) -> None:
        """All connections of all nodes, new ones too: longer than a read may take, sometimes."""
        with self._cluster.silent(self._cluster.primary):
            time.sleep(self._operation_timeout * self._random.uniform(1.2, 4.5))

    def _mislead(self, fault: Fault) -> None:
        """As in a failover that is thought better of; what was connected meanwhile must not be kept."""
        names = self._random.sample(self._names(), self._random.randint(1, len(self._names())))
        fault.detail = f"{len(names)} names"
        cut = self._random.random() < 0.8
        for name in names:
            name.redirect(self._cluster.standby.conninfo, cut=cut)
        time.sleep(self._max_staleness * self._random.uniform(0.2, 1.2))
        for name in names:
            name.redirect(self._cluster.primary.conninfo, cut=False)
        fault.ended = now()
        self._wait_until(lambda: not self._astray())
        fault.astray = len(self._astray())

    def _astray(self) -> list[int]:
        """The standby's backends that are the nodes'."""
        return self._cluster.backends("pgsession%", self._cluster.standby)

    def _interrupt_callers(self, fault: Fault) -> None:
        seconds = self._random.uniform(0.5, 1.5)
        fault.alone = self._wait_until(self._nodes.well)
        fault.began = now()
        for node, policy in enumerate(self._nodes.policies):
            if policy:
                self._nodes.say(node, f"interrupt {seconds}")
        time.sleep(seconds)

    # Rows that somebody holds

    def _hold_session(self, fault: Fault) -> None:
        """One that was written to a moment ago."""
        query = "SELECT id::text, user_id FROM {sessions} WHERE id = " + _BUSY + " FOR UPDATE"
        self._hold(fault, query, lambda: (self._random.randrange(5),))

    def _hold_attribute(self, fault: Fault) -> None:
        self._hold(
            fault,
            "SELECT s.id::text, s.user_id FROM {attributes} a JOIN {sessions} s ON s.id = a.session_id"
            " WHERE a.session_id = " + _BUSY + " FOR UPDATE OF a",
            lambda: (self._random.randrange(5),),
        )

    def _lock_table(self, fault: Fault) -> None:
        table = self._random.choice(["sessions", "attributes", "buckets"])
        mode = self._random.choice(["SHARE ROW EXCLUSIVE", "EXCLUSIVE", "ACCESS EXCLUSIVE"])
        fault.detail = f"{table}, {mode}"
        self._hold(fault, f"LOCK TABLE {{{table}}} IN {mode} MODE", _everything)

    def _hold_bucket(self, fault: Fault) -> None:
        """That of a user, and whoever else is in it: they do not log in meanwhile."""
        user = f"{self._random.choice(POLICIES)} {self._random.randrange(USERS)}"
        everybody = [f"{policy} {number}" for policy in POLICIES for number in range(USERS)]
        bucket = "hashtextextended({}, 0) & 1023"
        self._hold(
            fault,
            f"SELECT '', u FROM {{buckets}} b JOIN unnest(%s::text[]) u ON b.bucket = {bucket.format('u')}"
            f" WHERE b.bucket = {bucket.format('%s')} FOR UPDATE OF b",
            lambda: (everybody, user),
        )

    def _hold_user(self, fault: Fault) -> None:
        """All sessions of a user who has as many as are allowed, while there are logins of this user."""
        policy = self._random.choice(POLICIES)
        user = f"{policy} {self._random.randrange(USERS)}"
        query = "SELECT id::text, user_id FROM {sessions} WHERE user_id = %s AND expires_at > now()"

        def fill() -> tuple[str]:
            self._log_in(policy, user)
            self._wait_until(lambda: len(self._ask(query, (user,))) >= self._max_sessions)
            return (user,)

        self._hold(
            fault, query + " ORDER BY id FOR UPDATE", fill, meanwhile=lambda: self._log_in(policy, user)
        )

    def _log_in(self, policy: str, user: str) -> None:
        for node, own in enumerate(self._nodes.policies):
            if own == policy:
                self._nodes.say(node, f"log_in {self._max_sessions} {user}")

    def _hold(
        self,
        fault: Fault,
        query: str,
        choose: Callable[[], tuple[Any, ...] | None],
        *,
        meanwhile: Callable[[], None] = lambda: None,
    ) -> None:
        """Have what the query locks held by somebody with psql; its rows are the sessions and users concerned."""
        fault.alone = self._wait_until(self._nodes.well) and choose is not _everything
        parameters = choose()
        with self._cluster.transaction() as connection:
            fault.began = now()
            try:
                cursor = connection.execute(self._sql(query), parameters)
            except errors.LockNotAvailable:
                fault.detail = "held by somebody else"
                return
            rows = cursor.fetchall() if cursor.description else []
            fault.sessions = sorted({row[0] for row in rows if row[0]})
            fault.users = sorted({row[1] for row in rows})
            fault.detail = fault.detail or f"{len(fault.sessions)} sessions, {len(fault.users)} users"
            meanwhile()
            time.sleep(MOST_HELD * self._random.uniform(0.1, 1))
            fault.ended = now()

    def _ask(self, query: str, parameters: tuple[Any, ...]) -> list[Any]:
        with self._cluster.transaction() as connection:
            return connection.execute(self._sql(query), parameters).fetchall()

    def _sql(self, query: str) -> sql.Composed:
        tables = {
            name: sql.Identifier(self._schema, table)
            for name, table in (
                ("sessions", "sessions"),
                ("attributes", "session_attributes"),
                ("buckets", "session_user_buckets"),
            )
        }
        return sql.SQL(query).format(**tables)

    def _wait_until(self, condition: Callable[[], bool]) -> bool:
        end = time.monotonic() + PATIENCE
        while not condition():
            if time.monotonic() > end:
                return False
            time.sleep(0.1)
        return True

    # Ways

    def _names(self) -> list[FaultProxy]:
        return [name for way in self._ways for name in way.names]

    def _node(self, fault: Fault) -> Ways:
        number = self._random.randrange(len(self._ways))
        if self._sharing and self._random.random() < 0.7:
            number = self._leader()
        fault.detail = f"node {self._nodes.node(number)}"
        return self._ways[number]

    def _proxies(self) -> list[FaultProxy]:
        return [proxy for way in self._ways for proxy in (*way.listener, *way.pool)]


def _everything() -> None:
    """Choose nothing: a table has no rows to choose from, and concerns everybody."""
