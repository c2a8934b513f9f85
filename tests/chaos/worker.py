"""One process of the run: a manager of either kind, or an operator with plain SQL, doing random things.

    python -m tests.chaos.worker '{"node": 0, "kind": "async", ...}'

Commands come on standard input, one a line. Answered with a line of JSON are `stop`, which ends the random calls,
`status`, which says whether the node is in sync and when the last acknowledged write began, and `dump`, which records
what its cache holds. `interrupt SECONDS` and `log_in TIMES USER` are only followed. The process ends when its input
does.
"""

from __future__ import annotations

import asyncio
import ctypes
import faulthandler
import json
import logging
import os
import random
import signal
import socket
import sys
import threading
import time
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import UUID

import msgspec
import psycopg

import pgsession
from pgsession._core.arena import ArenaError
from pgsession._protocol.shards import home_of, number_in
from tests.chaos import hands
from tests.chaos.claims import Claims
from tests.chaos.history import Call, State, Writer, dump, now
from tests.chaos.idle import Idle
from tests.chaos.interrupts import (
    Interrupted,
    Interrupts,
    TaskTarget,
    ThreadTarget,
    spare_threads_that_start_others,
)
from tests.chaos.locks import Locks
from tests.chaos.moving import Logins

SIGNER_KEY = b"chaos" * 8
MOST_SESSIONS = 48
"""Sessions that a process deals with at a time; fewer than that fit into a cache."""

RETRIES = 2
"""How often a change is made again that had a conflict."""

USERS = 3
"""Users for each policy; each logs in at the nodes of that policy only, since a limit is the node's."""

POLICIES = ("evict", "reject")


WRITES = ("create", "update", "move", "sql_set")

HOST = (
    "leader",
    "shared_sessions",
    "shared_hits",
    "failovers",
    "arena_resets",
    "ring_overruns",
    "shared_fallback_reason",
)
"""What a process tells of the cache that it shares."""


class Task(msgspec.Struct, kw_only=True):
    """What a process is told to be."""

    node: int
    kind: str
    """async, sync or sql"""
    seed: int
    database: str
    listener: str = ""
    schema: str
    folder: str
    nodes: int
    callers: int
    max_staleness: float
    operation_timeout: float
    max_sessions: int
    policy: str
    pause: float = 0.004
    host: int = -1
    """Which one it is of, with whose other processes it shares a cache; -1: none."""
    shared: str = ""
    """The folder of that cache."""
    shards: int = 0
    """How many there are; 0: the sessions are in one place."""
    servers: list[tuple[str, str]] = []
    """How its pool and its listener get to each server that has shards, in turn; empty: they are those of Citus, of
    which `database` is the coordinator."""

    def database_of(self, shard: int) -> str:
        """How its pool gets to a shard."""
        return self.servers[shard % len(self.servers)][0] if self.servers else self.database


class Peers:
    """Tells the other processes of sessions, by datagrams that may be lost."""

    def __init__(self, folder: Path, node: int, nodes: int) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind(str(folder / f"{node}.peer"))
        self._others = [str(folder / f"{other}.peer") for other in range(nodes) if other != node]

    def tell(self, text: str) -> None:
        for other in self._others:
            try:
                self._socket.sendto(text.encode(), other)
            except OSError:
                pass  # full, since it is frozen, or not there yet

    def heard(self) -> list[str]:
        heard = []
        while True:
            try:
                heard.append(self._socket.recv(65536).decode())
            except OSError:
                return heard


class Known(msgspec.Struct):
    """A session as far as this process knows."""

    key: str
    user: str
    group: str
    version: int


class Process:
    """What all kinds have in common: the sessions they know of, and the history."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.random = random.Random(task.seed)
        folder = Path(task.folder)
        self.history = Writer(folder / f"{task.node}.history", mortal=task.host >= 0)
        self.peers = Peers(folder, task.node, task.nodes)
        self.known: dict[str, Known] = {}
        self.gone: set[str] = set()
        self.tokens: list[tuple[str, int]] = []
        # Who hears a message that begins with this mark; an operator has no ears for it.
        self.on_message: dict[str, Callable[[list[Any]], object]] = dict.fromkeys(
            (hands.MARK, Idle.MARK), len
        )
        self.logins: deque[str] = deque()  # users whom somebody told to log in
        self.interrupts = Interrupts(random.Random(task.seed + 1))
        self.quiet_until = 0.0  # until then nobody writes
        self.arena: Callable[[], str] = str
        """Returns the id of what it shares with its host at the moment, empty: nothing."""
        # When the last acknowledged write of each shard began.
        self.wrote = dict.fromkeys(range(task.shards or 1), 0)
        self.users = [_users(policy, task.shards) for policy in POLICIES]
        self.stopping = False
        self._next = 0
        self._lock = threading.Lock()

    def number(self) -> int:
        """Grows; so what one caller writes into one attribute does as well."""
        with self._lock:
            self._next += 1
            return self._next

    def learn(self, key: str, user: str, group: str, version: int, *, tell: bool = False) -> None:
        if key in self.gone:
            return
        with self._lock:
            known = self.known.get(key)
            if user and (known is None or known.version < version):
                self.known[key] = Known(key, user, group, version)
            while len(self.known) > MOST_SESSIONS:
                del self.known[next(iter(self.known))]
        if tell:
            self.peers.tell(dump([key, user, group, version]))

    def forget(self, key: str) -> None:
        with self._lock:
            self.gone.add(key)
            self.known.pop(key, None)

    def listen_to_peers(self) -> None:
        for text in self.peers.heard():
            message = json.loads(text)
            if message[0] in self.on_message:
                self.on_message[message[0]](message)
                continue
            key, user, group, version = message
            self.learn(key, user, group, version)
            self.tokens.append((key, version))
        del self.tokens[:-100]

    def choose(self) -> Known | None:
        """Some are chosen far more often than others, so that their readers and writers meet."""
        with self._lock:
            entries = list(self.known.values())
        if not entries:
            return None
        return entries[min(int(self.random.expovariate(0.15)), len(entries) - 1)]

    def own_user(self) -> str:
        """One who logs in here."""
        return self.random.choice(self.users[POLICIES.index(self.task.policy)])

    def any_user(self) -> str:
        return self.random.choice(self.random.choice(self.users))

    def begin(self, kind: str, who: str, **fields: Any) -> Call:
        call = Call(kind=kind, node=self.task.node, arena=self.arena(), who=who, began=now(), **fields)
        call.shards = self.shards_of([call.session] if call.session else [], call.user)
        return call

    def shards_of(self, sessions: list[str], user: str = "") -> list[int]:
        """The shards that a call is about: of these sessions and this user, else all."""
        count = self.task.shards
        if not count:
            return []
        asked = {number_in(UUID(session).bytes, count, None) for session in sessions}
        if user:
            asked.add(home_of(user, count))
        return sorted(shard for shard in asked if shard is not None) or list(range(count))

    def end(self, call: Call, outcome: str = "ok", **fields: Any) -> None:
        call.ended = now()
        call.arena_after = self.arena()
        call.outcome = outcome
        for name, value in fields.items():
            setattr(call, name, value)
        if outcome == "ok" and call.kind in WRITES:
            for shard in call.shards or [0]:
                if len(call.shards) < len(self.wrote) or not call.shards:  # a visitor may have come to any
                    self.wrote[shard] = max(self.wrote[shard], call.began)
        self.history.add(call)


def _users(policy: str, shards: int) -> list[str]:
    """Some users of that policy: of each shard one, where there are some."""
    names = (f"{policy} {number}" for number in range(1000))
    if not shards:
        return [next(names) for _ in range(USERS)]
    first: dict[int, str] = {}
    while len(first) < shards:
        name = next(names)
        first.setdefault(home_of(name, shards), name)
    return list(first.values())


_EXPIRED = object()  # between the look at the keys and that at the value


def content_of(session: pgsession.Session) -> tuple[dict[str, Any], int]:
    """The attributes that do not expire, and how long the one that does should have been gone."""
    content = {key: value for key in session if (value := session.get(key, _EXPIRED)) is not _EXPIRED}
    ends = content.pop("expiring", None)
    return content, max(0, time.time_ns() // 1000 - ends) if ends else 0


class Callers:
    """The random calls on a manager. For threads as well: there the facade's coroutines never wait (`run_now`)."""

    def __init__(self, process: Process, manager: Any, pause: Callable[[float], Awaitable[None]]) -> None:
        self.process = process
        self.manager = manager
        self._pause = pause
        self._targets: dict[str, TaskTarget | ThreadTarget] = {}
        tokens = hands.Hands(process, manager, self._finish)
        process.arena = lambda: _arena_of(manager._cache)
        idle, claims = Idle(process, manager, self._finish), Claims(process, manager, self._finish)
        locks, logins = Locks(process, manager, self._finish, pause), Logins(process, manager, self._finish)
        are_apart = process.task.shards > 0
        process.on_message = {hands.MARK: tokens.hear, Idle.MARK: idle.hear}
        self._choices: dict[Callable[[str], Awaitable[None]], float] = {
            self.get: 55,
            self.get_cached: 6,
            self.get_fresh: 2,
            self.get_at_least: 8,
            self.list_user: 1,
            self.load: 0.5 + are_apart,
            self.count: 0.3 + are_apart,
            self.update: 12,
            self.count_up: 6,
            self.update_checked: 4,
            self.expire_attribute: 1,
            self.change_group: 0.6,
            self.create: 1.6,
            self.delete: 0.8,
            self.delete_user: 0.1,
            self.delete_group: 0.05,
            self.drop_attribute: 0.5,
            self.evict: 0.3,
            self.clear: 0.05,
            tokens.begin: 0.3,
            tokens.open: 14,
            tokens.rotate: 1.5,
            tokens.bind: 1,
            tokens.replace: 0.5,
            tokens.save: 2.5,
            claims.claim: 3,
            idle.use: 12,
            locks.hold: 1,
            logins.log_in: 2 * are_apart,
            logins.visit: 1.5 * are_apart,
        }

    async def run(self, number: int, target: TaskTarget | ThreadTarget) -> None:
        process = self.process
        who = f"{process.task.node}.{number}"
        process.interrupts.targets[who] = self._targets[who] = target
        actions, weights = list(self._choices), list(self._choices.values())
        while not process.stopping:
            process.listen_to_peers()
            if time.monotonic() < process.quiet_until:
                await self.get(who)
            elif process.logins or len(process.known) < 8:
                await self.create(who)
            else:
                await process.random.choices(actions, weights)[0](who)
            await self._pause(process.random.random() * 2 * process.task.pause)

    # Reads

    async def get(self, who: str) -> None:
        await self._read("get", who)

    async def get_fresh(self, who: str) -> None:
        await self._read("get", who, refresh=True)

    async def get_at_least(self, who: str) -> None:
        """A version that another process was told of."""
        if not self.process.tokens:
            return
        key, version = self.process.random.choice(self.process.tokens)
        call = self.process.begin("get", who, session=key, floor=version)
        await self._finish(call, self.manager.get_session(UUID(key), min_version=version), self._saw)

    async def get_cached(self, who: str) -> None:
        known = self.process.choose()
        if known is not None:
            call = self.process.begin("get", who, session=known.key)
            session = self.manager.get_cached_session(known.key)
            if session is not None:
                self._saw(call, session)

    async def list_user(self, who: str) -> None:
        call = self.process.begin("list", who, user=self.process.any_user())
        await self._finish(call, self.manager.list_user_sessions(call.user), self._listed)

    async def load(self, who: str) -> None:
        """Several at once, whoever's they are."""
        keys = list(dict.fromkeys(known.key for _ in range(6) if (known := self.process.choose())))

        def loaded(call: Call, sessions: dict[str, pgsession.Session]) -> None:
            """What it found, and did not find, is as if each had been asked for."""
            self.process.end(call)
            for key in keys:
                self._saw(msgspec.structs.replace(call, kind="get", session=key), sessions.get(key))

        call = self.process.begin("load", who)
        call.shards = self.process.shards_of(keys)
        await self._finish(call, self.manager.load_sessions(keys), loaded)

    async def count(self, who: str) -> None:
        call = self.process.begin("count", who)
        await self._finish(call, self.manager.count_sessions(), self._done)

    async def _read(self, kind: str, who: str, **options: Any) -> None:
        known = self.process.choose()
        if known is not None:
            call = self.process.begin(kind, who, session=known.key)
            await self._finish(call, self.manager.get_session(known.key, **options), self._saw)

    def _saw(self, call: Call, session: pgsession.Session | None) -> None:
        if session is None:
            self.process.end(call, "none")
            if self.process.random.random() < 0.3:  # some are asked for again: they are to stay gone
                self.process.forget(call.session)
            return
        content, overdue = content_of(session)
        call.user = session.user_id or ""
        self.process.end(
            call, version=session.version, content=content, from_cache=session.from_cache, overdue=overdue
        )
        self.process.learn(call.session, session.user_id or "", session.group_id or "", session.version)

    def _listed(self, call: Call, sessions: list[pgsession.Session]) -> None:
        for session in sessions:
            one = msgspec.structs.replace(call, session=str(session.id))
            content, overdue = content_of(session)
            self.process.end(one, version=session.version, content=content, overdue=overdue)
            self.process.learn(one.session, session.user_id or "", session.group_id or "", session.version)

    # Writes

    async def update(self, who: str) -> None:
        """Its own attribute, and one that everybody writes to, sometimes removing that."""
        wrote: dict[str, Any] = {who: self.process.number()}
        if self.process.random.random() < 0.4:
            removed = self.process.random.random() < 0.2
            wrote["shared"] = None if removed else f"{who}:{wrote[who]}"
        await self._update(who, wrote)

    async def update_checked(self, who: str) -> None:
        await self._update(who, {who: self.process.number()}, check="session")

    async def expire_attribute(self, who: str) -> None:
        lifetime = self.process.random.random() * 2
        ends = time.time_ns() // 1000 + int(lifetime * 1e6)
        value = pgsession.Attribute(ends, expires_at=_moment(ends))
        await self._update(who, {who: self.process.number()}, extra={"expiring": value})

    async def change_group(self, who: str) -> None:
        group = f"group {self.process.random.randrange(3)}"
        await self._update(who, {who: self.process.number()}, group_id=group)

    async def _update(
        self, who: str, wrote: dict[str, Any], *, extra: dict[str, Any] | None = None, **options: Any
    ) -> None:
        known = self.process.choose()
        if known is None:
            return
        read = self.process.begin("get", who, session=known.key)
        session = await self._finish(read, self.manager.get_session(known.key), self._saw)
        if session is None:
            return
        for name, value in ({**wrote, **(extra or {})}).items():
            if value is None:
                session.pop(name, None)
            elif isinstance(value, pgsession.Attribute):
                session.set(name, value.value, expires_at=value.expires_at)
            else:
                session[name] = value
        call = self.process.begin("update", who, session=known.key, wrote=wrote)
        call.floor = session.version if options.get("check") == "session" else 0
        await self._finish(call, self.manager.update_session(session, **options), self._wrote)

    async def count_up(self, who: str) -> None:
        """A counter that everybody increments, by optimistic locking."""
        known = self.process.choose()
        if known is None:
            return
        call = self.process.begin("update", who, session=known.key)

        def change(session: pgsession.Session) -> None:
            session["count"] = session.get("count", 0) + 1
            call.wrote = {"count": session["count"]}

        await self._finish(call, self.manager.modify_session(known.key, change, retries=RETRIES), self._wrote)

    def _wrote(self, call: Call, session: pgsession.Session) -> None:
        content, _ = content_of(session)
        self.process.end(call, version=session.version, content=content)
        self.process.learn(
            call.session, session.user_id or "", session.group_id or "", session.version, tell=True
        )

    async def create(self, who: str) -> None:
        group = f"group {self.process.random.randrange(3)}"
        number = self.process.number()
        attributes = {who: number, "shared": f"{who}:{number}"}
        try:
            user = self.process.logins.popleft()
        except IndexError:
            user = self.process.own_user()
        call = self.process.begin("create", who, user=user, group=group, wrote=attributes)
        call.evicts = self.process.task.policy == "evict"
        work = self.manager.create_session(call.user, attributes, group_id=group)
        await self._finish(call, work, self._created)

    def _created(self, call: Call, session: pgsession.Session) -> None:
        call.session = str(session.id)
        self._wrote(call, session)

    async def delete(self, who: str) -> None:
        known = self.process.choose()
        if known is not None:
            call = self.process.begin("delete", who, session=known.key)
            options = hands.patience(self.process.random, call)
            await self._finish(call, self.manager.delete_session(known.key, **options), self._deleted)
            self.process.forget(known.key)

    def _deleted(self, call: Call, was_there: int) -> None:
        self.process.end(call, "ok" if was_there else "none")

    async def delete_user(self, who: str) -> None:
        known = self.process.choose()
        if known is not None:
            call = self.process.begin("delete_user", who, user=known.user, keep=known.key)
            options = hands.patience(self.process.random, call)
            work = self.manager.delete_user_sessions(known.user, keep=known.key, **options)
            await self._finish(call, work, self._done)

    async def delete_group(self, who: str) -> None:
        call = self.process.begin("delete_group", who, group=f"group {self.process.random.randrange(3)}")
        await self._finish(call, self.manager.delete_group_sessions(call.group), self._done)

    async def drop_attribute(self, who: str) -> None:
        call = self.process.begin("drop", who, user=self.process.any_user())
        work = self.manager.delete_attribute_from_user_sessions(call.user, "shared")
        await self._finish(call, work, self._done)

    async def evict(self, who: str) -> None:
        call = self.process.begin("evict", who, user=self.process.any_user())
        await self._finish(call, self.manager.evict_user_sessions(call.user), self._done)

    async def clear(self, who: str) -> None:
        call = self.process.begin("clear", who)
        await self._finish(call, self.manager.clear_cache(), self._done)

    def _done(self, call: Call, _: Any) -> None:
        self.process.end(call)

    # What may come of a call

    async def _finish(self, call: Call, work: Awaitable[Any], done: Callable[[Call, Any], None]) -> Any:
        """Wait for the end of a call and note it; return what it returned, None after an error."""
        self.process.history.begin(call)
        try:
            result = await self._targets[call.who].run(work)
        except pgsession.RevocationNotConfirmed as error:
            done(call, error.done)
        except pgsession.SessionNotFoundError:
            self.process.end(call, "none")
        except pgsession.SessionExistsError:
            self.process.end(call, "exists")
        except pgsession.ConflictError as error:
            self.process.end(call, "conflict", error=str(error))
        except pgsession.TooManySessionsError as error:
            self.process.end(call, "refused", error=str(error))
        except pgsession.ShardsFailed as error:
            self.process.end(call, "unknown", error=str(error)[:200], failed=sorted(error.failed))
        except pgsession.WriteOutcomeUnknown as error:
            self.process.end(call, "unknown", error=str(error)[:200])
        except Interrupted:
            self.process.end(call, "interrupted")
        except (psycopg.Error, TimeoutError, pgsession.DatabaseUnavailable) as error:
            self.process.end(call, "error", error=f"{type(error).__name__}: {error}"[:200])
        except Exception as error:
            logging.getLogger("chaos").exception("a call failed as none should")
            self.process.end(call, "surprise", error=f"{type(error).__name__}: {error}"[:500])
        else:
            call.confirmed = call.wait > 0
            done(call, result)
            return result


def _moment(microseconds: int) -> Any:
    from datetime import UTC, datetime

    return datetime.fromtimestamp(microseconds / 1e6, UTC)


def _arena_of(cache: Any) -> str:
    """Return the id of the arena that a cache shares, empty: none."""
    with suppress(ArenaError):
        arena = cache.shared
        return arena.id.hex() if arena is not None else ""
    return ""


class Facade:
    """A `SessionManager` whose calls look like those of an `AsyncSessionManager`."""

    def __init__(self, manager: pgsession.SessionManager) -> None:
        self._manager = manager
        self.get_cached_session = manager.get_cached_session
        self.token = manager.token
        self._cache = manager._cache
        if isinstance(manager, pgsession.ShardedSessionManager):
            self.shard_of_user = manager.shard_of_user
            self.shard_of_session = manager.shard_of_session
            self.id_for = manager.id_for

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        return _awaited(getattr(self._manager, name))

    def lock(self, resource: str, **options: Any) -> LockFacade:
        return LockFacade(self._manager.lock(resource, **options))


class LockFacade:
    """A `Lock` whose calls look like those of an `AsyncLock`."""

    def __init__(self, lock: pgsession.Lock) -> None:
        self._lock = lock
        self.acquire, self.release = _awaited(lock.acquire), _awaited(lock.release)

    @property
    def locked(self) -> bool:
        return self._lock.locked

    @property
    def token(self) -> int | None:
        return self._lock.token


def _awaited(method: Callable[..., Any]) -> Callable[..., Awaitable[Any]]:
    async def call(*args: Any, **options: Any) -> Any:
        return method(*args, **options)

    return call


def run_now(work: Coroutine[Any, Any, Any]) -> Any:
    """Runs a coroutine that never waits."""
    try:
        work.send(None)
    except StopIteration as end:
        return end.value
    raise AssertionError("it waits")


# The three kinds of processes


def _config(task: Task) -> pgsession.Config:
    return pgsession.Config(
        max_sessions=task.max_sessions,
        max_sessions_policy=task.policy,  # type: ignore[arg-type]
        cache_size=24 * (task.shards or 1),
        max_staleness=task.max_staleness,
        operation_timeout=task.operation_timeout,
        last_access_update_interval=1,
        inactivity_duration=3600,
        cleanup_interval=2,
        rotation_grace=hands.GRACE,
        schema_name=task.schema,
        listener_conninfo=None if task.shards else task.listener or None,
        shared_cache=task.shared or None,
        shared_cache_size=2**22,
    )


def _async_manager(task: Task) -> pgsession.AsyncSessionManager:
    signer = pgsession.Signer([SIGNER_KEY])
    if task.shards:
        return pgsession.AsyncShardedSessionManager(_shards(task), _config(task), signer=signer)
    return pgsession.AsyncSessionManager(task.database, _config(task), signer=signer)


def _sync_manager(task: Task) -> pgsession.SessionManager:
    signer = pgsession.Signer([SIGNER_KEY])
    if task.shards:
        return pgsession.ShardedSessionManager(_shards(task), _config(task), signer=signer)
    return pgsession.SessionManager(task.database, _config(task), signer=signer)


def _shards(task: Task) -> list[pgsession.Shard | str] | pgsession.CitusShards:
    if not task.servers:
        return pgsession.CitusShards(task.database, task.shards)
    return [
        pgsession.Shard(database=pool, listener_conninfo=listener, schema_name=f"{task.schema}_{number}")
        for number in range(task.shards)
        for pool, listener in [task.servers[number % len(task.servers)]]
    ]


async def be_async(task: Task, process: Process) -> None:
    async with _async_manager(task) as manager:
        callers = Callers(process, manager, asyncio.sleep)
        console = Console(process, manager)
        console.say({"ready": True})
        watch = asyncio.create_task(_watch(console, asyncio.sleep))
        strikes = asyncio.create_task(_strike(console, asyncio.sleep))

        async def call(number: int) -> None:
            await callers.run(number, TaskTarget())

        async with asyncio.TaskGroup() as group:
            for number in range(task.callers):
                group.create_task(call(number))
        console.say({"idle": True})
        await asyncio.to_thread(console.ended.wait)
        watch.cancel()
        strikes.cancel()


def be_sync(task: Task, process: Process) -> None:
    async def pause(seconds: float) -> None:
        time.sleep(seconds)  # noqa: ASYNC251 - a thread's

    with _sync_manager(task) as manager:
        callers = Callers(process, Facade(manager), pause)
        console = Console(process, manager)
        console.say({"ready": True})
        for loop in (_watch, _strike):
            threading.Thread(target=run_now, args=[loop(console, pause)], daemon=True).start()
        targets: dict[int, ThreadTarget] = {}
        spare_threads_that_start_others(targets)

        def call(number: int) -> None:
            target = targets[threading.get_ident()] = ThreadTarget()
            run_now(callers.run(number, target))

        threads = [
            threading.Thread(target=call, args=[number], daemon=True) for number in range(1, task.callers)
        ]
        for thread in threads:
            thread.start()
        call(0)  # in the main thread, which gets signals
        for thread in threads:
            thread.join()
        console.say({"idle": True})
        console.ended.wait()


class Operator:
    """Somebody with psql: changes rows as nothing of pgsession does (C12)."""

    def __init__(self, task: Task, process: Process) -> None:
        self._task = task
        self._process = process
        self._connections: dict[str, psycopg.Connection[Any]] = {}

    def _table(self, name: str, session: str) -> psycopg.sql.Identifier:
        shards = self._task.shards
        key = UUID(session).bytes
        schema = f"{self._task.schema}_{(key[6] & 15) << 8 | key[7]}" if shards else self._task.schema
        return psycopg.sql.Identifier(schema, name)

    def run(self) -> None:
        process, who = self._process, f"{self._task.node}.0"
        actions = [self._set_attribute, self._touch_row, self._delete, self._count]
        while not process.stopping:
            process.listen_to_peers()
            known = process.choose()
            if known is not None and time.monotonic() >= process.quiet_until:
                process.random.choices(actions, [10, 4, 0.5, 3])[0](known, who)
            time.sleep(process.random.random() * 10 * self._task.pause)

    def _set_attribute(self, known: Known, who: str) -> None:
        """Attribute first, session second: the other way round than pgsession locks them."""
        number = self._process.number()
        call = self._process.begin("sql_set", who, session=known.key, wrote={who: number})
        statement = psycopg.sql.SQL(
            "INSERT INTO {} AS a (session_id, key, value) VALUES (%s, %s, %s::json)"
            " ON CONFLICT (session_id, key) DO UPDATE SET value = excluded.value"
        ).format(self._table("session_attributes", known.key))
        self._execute(call, statement, (known.key, who, str(number)))

    def _touch_row(self, known: Known, who: str) -> None:
        call = self._process.begin("sql_set", who, session=known.key, wrote={})
        statement = psycopg.sql.SQL(
            "UPDATE {} SET expires_at = expires_at + interval '1 second' WHERE id = %s"
        ).format(self._table("sessions", known.key))
        self._execute(call, statement, (known.key,))

    def _delete(self, known: Known, who: str) -> None:
        call = self._process.begin("sql_delete", who, session=known.key)
        statement = psycopg.sql.SQL("DELETE FROM {} WHERE id = %s RETURNING version").format(
            self._table("sessions", known.key)
        )
        self._execute(call, statement, (known.key,))
        self._process.forget(known.key)

    def _count(self, known: Known, who: str) -> None:
        """How many sessions the user has who has most of them."""
        call = self._process.begin("sql_count", who)
        call.shards = self._process.shards_of([known.key])
        statement = psycopg.sql.SQL(
            "SELECT count(*), user_id FROM {} WHERE expires_at > clock_timestamp() AND user_id IS NOT NULL"
            " GROUP BY 2 ORDER BY 1 DESC LIMIT 1"
        ).format(self._table("sessions", known.key))
        self._execute(call, statement, ())

    def _execute(self, call: Call, statement: Any, parameters: tuple[Any, ...]) -> None:
        try:
            connection = self._connected(call)
            with connection.transaction():
                cursor = connection.execute(statement, parameters)
                if call.kind == "sql_set":  # an attribute may be written whose session is gone
                    version = psycopg.sql.SQL("SELECT version FROM {} WHERE id = %s")
                    sessions = self._table("sessions", call.session)
                    cursor = connection.execute(version.format(sessions), (call.session,))
                row = cursor.fetchone()
        except psycopg.Error as error:
            self._process.end(call, "unknown", error=f"{type(error).__name__}: {error}"[:200])
        else:
            version = row[0] if row and call.kind == "sql_set" else 0
            if row and call.kind == "sql_count":
                call.wrote, call.user = {"sessions": row[0]}, row[1]
            self._process.end(call, "ok" if row else "none", version=version)
            if version:
                self._process.peers.tell(dump([call.session, "", "", version]))

    def _connected(self, call: Call) -> psycopg.Connection[Any]:
        database = self._task.database_of(call.shards[0] if call.shards else 0)
        connection = self._connections.get(database)
        if connection is None or connection.closed:
            connection = self._connections[database] = psycopg.connect(
                database, autocommit=True, connect_timeout=5,
                target_session_attrs="read-write", application_name="operator",
            )  # fmt: skip
        return connection


def be_operator(task: Task, process: Process) -> None:
    console = Console(process, None)
    console.say({"ready": True})
    Operator(task, process).run()
    console.say({"idle": True})
    console.ended.wait()


class Console:
    """The conversation with whoever started this process."""

    def __init__(self, process: Process, manager: Any) -> None:
        self.ended = threading.Event()
        self._process = process
        self._manager = manager
        self._output = threading.Lock()
        self._inside = False
        threading.Thread(target=self._listen, name="console", daemon=True).start()

    def say(self, answer: dict[str, Any]) -> None:
        with self._output:
            print(dump(answer), flush=True)

    def in_sync(self) -> bool:
        return all(manager._coherence.in_sync for manager in self._managers())

    def _managers(self) -> list[Any]:
        """That of each shard, where there are some."""
        if self._manager is None:
            return []
        return list(self._manager._all) if self._process.task.shards else [self._manager]

    def _listen(self) -> None:
        for line in sys.stdin:
            command, *arguments = line.split(maxsplit=2)
            self._follow(command, arguments)
        self._process.stopping = True
        self._process.history.flush()
        self.ended.set()

    def _follow(self, command: str, arguments: list[str]) -> None:
        if command == "stop":
            self._process.stopping = True
        elif command == "status":
            self.say({"status": [self.in_sync(), min(self._process.wrote.values())]})
        elif command == "host":
            self.say({"host": self._host()})
        elif command == "quiet":
            self._process.quiet_until = time.monotonic() + float(arguments[0])
            self.say({"quiet": True})
        elif command == "enter":
            self._inside = self._cache.begin()
            self.say({"inside": True})
        elif command == "leave":
            if self._inside:
                with suppress(ArenaError):
                    self._cache.end()
        elif command == "dump":
            self._dump()
            self.say({"dumped": self._host()})
        elif command == "interrupt":
            self._process.interrupts.last(float(arguments[0]))
        elif command == "log_in":
            self._process.logins.extend([arguments[1].strip()] * int(arguments[0]))

    def _dump(self) -> None:
        """What memory holds when everything is quiet."""
        if self._manager is not None:
            for record in self._cached():
                content = {
                    key: json.loads(text) for key, _, ends, text in record.attributes() if ends is None
                }
                call = self._process.begin("final", "", session=str(UUID(bytes=record.key)))
                self._process.end(call, version=record.version, content=content)
        self._process.history.flush()

    def _cached(self) -> list[Any]:
        records = []
        for manager in self._managers():
            cache = manager._cache
            keys = {*cache.versions()[0], *(cache.identities()[0] if cache.shared else ())}
            records += [cache.get(key, False) for key in keys]
        return [record for record in records if record is not None]

    @property
    def _cache(self) -> Any:
        return self._manager._cache

    def _host(self) -> dict[str, Any]:
        """What it knows of the cache that it shares."""
        if self._manager is None or self._process.task.host < 0:
            return {}
        stats = self._manager.stats()
        return {name: getattr(stats, name) for name in HOST}


async def _watch(console: Console, pause: Callable[[float], Awaitable[None]]) -> None:
    """Notes when the node goes in and out of sync, and writes the history away."""
    process = console._process
    before = None
    written = now()
    while not console.ended.is_set():
        in_sync = console.in_sync()
        if in_sync != before:
            process.history.add(State(node=process.task.node, at=now(), in_sync=in_sync))
            before = in_sync
        if now() - written > 500_000:
            process.history.flush()
            written = now()
        await pause(0.01)


async def _strike(console: Console, pause: Callable[[float], Awaitable[None]]) -> None:
    """Interrupts callers while it is told to."""
    while not console.ended.is_set():
        await pause(console._process.interrupts.strike())


def _die_with_parent() -> None:
    """Also when the parent is killed, and this process is stopped."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
        if os.getppid() == 1:
            raise SystemExit


def main() -> None:
    _die_with_parent()
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: the parent ends us
    faulthandler.register(signal.SIGUSR1, all_threads=True)
    logging.basicConfig(level=logging.WARNING, format="%(asctime)s %(message)s")
    task = msgspec.json.decode(sys.argv[1], type=Task)
    process = Process(task)
    if task.kind == "async":
        asyncio.run(be_async(task, process))
    else:
        {"sync": be_sync, "sql": be_operator}[task.kind](task, process)


if __name__ == "__main__":
    main()
