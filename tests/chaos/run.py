"""One run: the cluster, the processes and the faults, from the start to the last of them gone."""

from __future__ import annotations

import json
import queue
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import msgspec
import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from tests.chaos import history, idle
from tests.chaos.cluster import Cluster
from tests.chaos.faults import Faults, Nodes, Plan, Ways
from tests.chaos.history import Call, Fault, State
from tests.chaos.oracle import TRIED, Oracle
from tests.chaos.verdict import Limits, Row, Verdict
from tests.chaos.worker import Task
from tests.fault_proxy import FaultProxy

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = "chaos"
LONG = 40
"""Seconds of a run in which sessions with an idle timeout live long enough to be put to the test."""
HOST_TRIED = {
    "shared_hits": "reads from the memory of the host",
    "failovers": "leaders followed that were dead or frozen",
    "arena_resets": "arenas given up",
}
"""What those tell who live in the end, and what the report calls it."""
PATIENCE = 60.0
"""Seconds in which a process must answer when nothing is wrong any more."""


class Options(msgspec.Struct, kw_only=True):
    seconds: float = 60
    seed: int = 0
    max_staleness: float = 2
    operation_timeout: float = 1
    max_sessions: int = 6
    callers: int = 3
    kinds: tuple[str, ...] = ()
    """The faults to inject, part of a name being enough; all where there are none."""
    shared: bool = False
    """Whether the processes are those of two hosts, each of which shares one cache."""
    quiet: bool = False
    again: str = "make chaos SECONDS={seconds:g} ARGS='--seed {seed}'"
    """How to do the same once more."""

    @property
    def limits(self) -> Limits:
        return Limits(
            max_staleness=int(self.max_staleness * 1e6),
            operation_timeout=int(self.operation_timeout * 1e6),
            max_sessions=self.max_sessions,
        )


class Outcome(msgspec.Struct, kw_only=True):
    """What the report is made of."""

    options: Options
    verdict: Verdict
    faults: list[Fault]
    states: list[State]
    calls: list[Call]
    took: float
    titles: dict[str, str]
    """Of what was put to the test."""
    trouble: str = ""
    """Logs of servers and processes, where there were violations."""


class Worker:
    """A process of the run, seen from its parent."""

    def __init__(self, task: Task, errors: Path) -> None:
        self.node = task.node
        self.errors = errors
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        command = [sys.executable, "-m", "tests.chaos.worker", msgspec.json.encode(task).decode()]
        with errors.open("w") as log:
            self._process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True, cwd=ROOT
            )
        self.task = task
        self.died = 0
        """When it was killed."""
        self.pid = self._process.pid
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            self._answers.put(json.loads(line))

    def say(self, command: str) -> None:
        assert self._process.stdin is not None
        if self._process.poll() is not None:
            raise RuntimeError(f"node {self.node} ended by itself:\n{self.log()}")
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()

    def wait_for(self, key: str, timeout: float = PATIENCE) -> Any:
        """The next answer that has this key."""
        end = time.monotonic() + timeout
        while True:
            try:
                answer = self._answers.get(timeout=min(0.2, max(0.0, end - time.monotonic())))
            except queue.Empty:
                if self._process.poll() is not None:
                    raise RuntimeError(f"node {self.node} ended by itself:\n{self.log()}") from None
                if time.monotonic() >= end:
                    raise TimeoutError(f"node {self.node} did not say {key!r} within {timeout:g} s") from None
            else:
                if key in answer:
                    return answer[key]

    def stacks(self) -> str:
        """Where its threads are; for one that is stuck."""
        self._process.send_signal(signal.SIGUSR1)
        time.sleep(0.5)
        return self.log()

    def log(self) -> str:
        return f"--- node {self.node}\n" + self.errors.read_text(errors="replace")[-6000:]

    def end(self, timeout: float = PATIENCE) -> int:
        assert self._process.stdin is not None
        with suppress(OSError):
            self._process.stdin.close()
        return self._process.wait(timeout)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        self.died = self.died or history.now()
        self._reader.join(5)
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                with suppress(OSError):
                    pipe.close()


class Server(Protocol):
    """A server of a run, that can be connected to."""

    @property
    def conninfo(self) -> str: ...


class Servers(Protocol):
    """What a run needs of whichever cluster it runs on."""

    @property
    def servers(self) -> Sequence[Server]: ...

    @property
    def primary(self) -> Server: ...

    def logs(self) -> str: ...


C = TypeVar("C", bound=Servers)


class Scene(Generic[C]):
    """The processes and the ways between them and the servers; what happens to these is a subclass's."""

    NODES: tuple[tuple[str, str, str, str], ...] = (
        # What it is; how its listener and its pool get to the servers; what it does with a user at the limit.
        ("async", "proxies", "name", "evict"),
        ("sync", "name", "proxies", "evict"),
        ("async", "name", "direct", "reject"),
        ("sync", "proxies", "name", "reject"),
        ("sql", "direct", "direct", ""),
    )
    SHARING = (
        ("async", "proxies", "name", "evict"),
        ("sync", "name", "proxies", "evict"),
        ("async", "name", "proxies", "reject"),
        ("sync", "proxies", "name", "reject"),
        ("async", "name", "proxies", "evict"),
        ("sql", "direct", "direct", ""),
    )
    HOSTS = (0, 0, 0, 1, 1, -1)
    """Of which host each of them is."""
    MOST_NODES = 64
    """With those that come for others, in a run of hosts."""

    def __init__(self, options: Options, cluster: C, folder: Path, after: ExitStack) -> None:
        self._options = options
        self._cluster = cluster
        self._folder = folder
        self._random = random.Random(options.seed)
        self._after = after
        self._nodes = self.SHARING if options.shared else self.NODES
        self._hosts = list(self.HOSTS) if options.shared else [-1] * len(self._nodes)
        for host in {host for host in self._hosts if host >= 0}:
            (folder / f"host{host}").mkdir(mode=0o700)
        self._ways = [
            Ways(self._way(listener, after), self._way(pool, after)) for _, listener, pool, _ in self._nodes
        ]
        self._stuck: list[str] = []
        self._emptied: list[str] = []
        self._told: list[dict[str, Any]] = []
        self._all: list[Worker] = []
        self._workers = [self._start(place) for place in range(len(self._nodes))]
        self._faults = self._plan()

    def _start(self, place: int) -> Worker:
        node = len(self._all)
        worker = Worker(self._task(node, place), self._folder / f"{node}.log")
        self._after.callback(worker.kill)
        self._all.append(worker)
        return worker

    def _ask(self, place: int, command: str, key: str) -> Any:
        self._workers[place].say(command)
        return self._workers[place].wait_for(key)

    def _kill(self, places: list[int]) -> None:
        for place in places:
            self._workers[place].kill()

    def _leave(self, place: int) -> None:
        """Its calls end, and so does it."""
        worker = self._workers[place]
        worker.say("stop")
        self._try(worker, worker.wait_for, "idle")
        self._try(worker, worker.end)

    def _replace(self, places: list[int]) -> None:
        for place in places:
            self._workers[place] = self._start(place)
        for place in places:
            self._workers[place].wait_for("ready")

    def _plan(self) -> Plan:
        """Return what happens."""
        raise NotImplementedError

    def _inject(self, end: float) -> None:
        """One after the other, sometimes before the one before is got over."""
        wanted = self._options.kinds
        while (left := end - time.monotonic()) > 0:
            time.sleep(min(left, self._random.choice([0.1, 0.5, 1, 1.5])))
            kind = self._faults.next_kind()
            if wanted:
                matching = [kind for kind in self._faults.kinds if any(part in kind for part in wanted)]
                kind = self._random.choice(matching)
            if time.monotonic() < end:
                fault = self._faults.do(kind)
                if not self._options.quiet:
                    took = (fault.ended - fault.began) / 1e6
                    print(f"  {kind} {fault.detail} ({took:.1f} s)", flush=True)

    def _way(self, kind: str, after: ExitStack) -> list[FaultProxy]:
        """No proxy, one for each server, or one that leads to whichever is the primary, as a name does."""
        servers = {"direct": [], "name": [self._cluster.primary], "proxies": self._cluster.servers}[kind]
        return [after.enter_context(FaultProxy(server.conninfo)) for server in servers]

    def _task(self, node: int, place: int) -> Task:
        direct = [server.conninfo for server in self._cluster.servers]
        kind, _, _, policy = self._nodes[place]
        ways, options, host = self._ways[place], self._options, self._hosts[place]
        return Task(
            node=node,
            kind=kind,
            seed=self._random.getrandbits(60),
            database=_one_of([proxy.conninfo for proxy in ways.pool] or direct),
            listener=_one_of([proxy.conninfo for proxy in ways.listener] or direct),
            schema=SCHEMA,
            folder=str(self._folder),
            nodes=self.MOST_NODES if options.shared else len(self._nodes),
            callers=options.callers,
            max_staleness=options.max_staleness,
            operation_timeout=options.operation_timeout,
            max_sessions=options.max_sessions,
            policy=policy,
            host=host,
            shared=str(self._folder / f"host{host}") if host >= 0 else "",
        )

    def play(self) -> None:
        for worker in self._workers:
            worker.wait_for("ready")
        self._inject(time.monotonic() + self._options.seconds)
        self._recover()
        self._everybody("stop", "idle")
        self._settle()
        self._told = [told for told in self._everybody("dump", "dumped") if told]
        self._rows = dict(self._read_rows())
        for worker in self._workers:
            self._try(worker, worker.end)

    def _unwell(self) -> list[str]:
        """What is not as it should be: every node is in sync, and has written since the last fault was gone."""
        since = max((fault.ended for fault in self._faults.done), default=0)
        unwell = []
        for worker in self._workers:
            try:
                worker.say("status")
                in_sync, wrote = worker.wait_for("status")
            except (TimeoutError, OSError, RuntimeError) as error:
                unwell.append(str(error))
                continue
            if not in_sync:
                unwell.append(f"node {worker.node} is not in sync")
            if wrote <= since:
                unwell.append(f"node {worker.node} does not write")
        return unwell

    def _recover(self) -> None:
        """Let the calls go on until each node has got over the last fault."""
        end = time.monotonic() + PATIENCE
        while unwell := self._unwell():
            if time.monotonic() > end:
                self._stuck += unwell
                return
            time.sleep(0.1)

    def _settle(self) -> None:
        """Until every node is in sync by a proof that it sent after the last write."""
        time.sleep(self._options.max_staleness)
        end = time.monotonic() + PATIENCE
        waiting = list(self._workers)
        while waiting and time.monotonic() < end:
            time.sleep(0.1)
            for worker in waiting:
                self._try(worker, worker.say, "status")
            answers = [(worker, self._try(worker, worker.wait_for, "status")) for worker in waiting]
            waiting = [worker for worker, answer in answers if answer is not None and not answer[0]]
        self._stuck += [f"node {worker.node} does not get in sync again" for worker in waiting]

    def _everybody(self, command: str, answer: str) -> list[Any]:
        for worker in self._workers:
            self._try(worker, worker.say, command)
        return [self._try(worker, worker.wait_for, answer) for worker in self._workers]

    def _try(self, worker: Worker, step: Any, *arguments: Any) -> Any:
        try:
            return step(*arguments)
        except (TimeoutError, subprocess.TimeoutExpired, OSError, RuntimeError) as error:
            self._stuck.append(f"{error}\n{worker.stacks() if isinstance(error, TimeoutError) else ''}")
            return None

    def _tables(self) -> Iterable[tuple[str, str]]:
        """Return where sessions are: conninfos and schemas."""
        yield self._cluster.primary.conninfo, SCHEMA

    def _read_rows(self) -> Iterator[tuple[str, Row]]:
        for conninfo, schema in self._tables():
            sessions, attributes = (
                sql.Identifier(schema, name) for name in ("sessions", "session_attributes")
            )
            with psycopg.connect(conninfo, autocommit=True) as connection:
                contents: dict[str, dict[str, Any]] = {}
                query = sql.SQL("SELECT session_id::text, key, value::text FROM {} WHERE expires_at IS NULL")
                for key, name, value in connection.execute(query.format(attributes)):
                    contents.setdefault(key, {})[name] = json.loads(value)
                query = sql.SQL("SELECT id::text, version, user_id, expires_at > now() FROM {}")
                for key, version, user, live in connection.execute(query.format(sessions)):
                    yield key, Row(version, contents.get(key, {}), user, live)

    def _judged(self, calls: list[Call]) -> Iterable[Call]:
        """Return those for which the promise was made."""
        return calls

    def check(self, took: float) -> Outcome:
        calls: list[Call] = []
        states: list[State] = []
        for worker in self._all:
            for entry in history.read(self._folder / f"{worker.node}.history", worker.died):
                (calls if isinstance(entry, Call) else states).append(entry)  # type: ignore[arg-type]
        calls = list(self._judged(calls))
        verdict = Oracle(calls, self._faults.done, self._rows, self._options.limits).check()
        verdict.add_stuck(self._stuck)
        self._judge(verdict, calls, states)
        unasked = () if self._options.seconds >= LONG else idle.TRIED
        verdict.add_untried({name: title for name, title in TRIED.items() if name not in unasked})
        trouble = ""
        if verdict.violations:
            trouble = "\n".join([self._cluster.logs(), *(worker.log() for worker in self._all)])
        return Outcome(
            options=self._options,
            verdict=verdict,
            faults=self._faults.done,
            states=states,
            calls=calls,
            took=took,
            titles={**TRIED, **self._titles()},
            trouble=trouble,
        )

    def _titles(self) -> dict[str, str]:
        """Return what is put to the test here alone."""
        return HOST_TRIED if self._options.shared else {}

    def _judge(self, verdict: Verdict, calls: list[Call], states: list[State]) -> None:
        """Judge what is particular about the scene."""
        if not self._options.shared:
            return
        verdict.add_emptied(self._emptied)
        alone = {told["shared_fallback_reason"] for told in self._told} - {None}
        verdict.add_stuck(f"a process shares nothing: {reason}" for reason in alone)
        for name in HOST_TRIED:
            verdict.tried[name] = sum(told[name] for told in self._told)
        verdict.add_untried({"shared_hits": HOST_TRIED["shared_hits"]})


class Pair(Scene[Cluster]):
    """On a primary and its standby, to which one thing happens after the other."""

    def _plan(self) -> Plan:
        options = self._options
        return Faults(
            self._cluster,
            self._ways[:-1],
            Nodes(
                pid=lambda place: self._workers[place].pid,
                node=lambda place: self._workers[place].node,
                policies=[policy for *_, policy in self._nodes],
                hosts=self._hosts,
                say=lambda place, command: self._workers[place].say(command),
                ask=self._ask,
                kill=self._kill,
                leave=self._leave,
                replace=self._replace,
                empty=self._emptied.append,
                well=lambda: not self._unwell(),
            ),
            schema=SCHEMA,
            chance=self._random,
            max_staleness=options.max_staleness,
            operation_timeout=options.operation_timeout,
            max_sessions=options.max_sessions,
        )


def _one_of(conninfos: list[str]) -> str:
    """One conninfo with several hosts: libpq takes the one that is the primary."""
    parts = [conninfo_to_dict(conninfo) for conninfo in conninfos]
    together = {name: ",".join(str(part[name]) for part in parts) for name in ("host", "port")}
    rest = {name: value for name, value in parts[0].items() if name not in ("host", "port", "hostaddr")}
    return make_conninfo("", **rest, **together)
