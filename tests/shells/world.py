"""One random history: callers, other nodes and trouble, and then what the manager has promised."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from typing import NamedTuple

import psycopg

import pgsession
from pgsession._core.hit import session_of

from .server import Fate, Server
from .wire import Connection, Step

TIMEOUT = 2.0  # operation_timeout
STALENESS = 3.0  # max_staleness
NOISE = 0.1  # seconds to hear of it
SETTLED = 40.0  # seconds in which a node is in sync again
SESSIONS = 3
STEPS = 40
TROUBLES = (
    "cut", "lost answer", "slow", "late answer", "error", "second commit", "deadlock", "row", "listener", "down",
    "restart",
)  # fmt: skip
_REFUSED = (psycopg.Error, pgsession.PgSessionError)


class Write(NamedTuple):
    """A call that wrote `marker` into a session: how it ended."""

    key: str
    marker: int
    outcome: str  # "done", "unknown" or "not done"
    number: int


class World:
    """A manager on a scripted server."""

    def __init__(self, seed: int, now: Callable[[], int], conninfo: str) -> None:
        self.choose = random.Random(seed)
        random.seed(seed)  # pauses are spread by it
        self.troubles = {trouble for trouble in TROUBLES if self.choose.random() < 0.35}
        self.now = now
        self.quiet = True
        self.server = Server(now, self._fate)
        self.conninfo = conninfo
        self.marker = 0
        self.writes: list[Write] = []
        self.seen: dict[str, int] = {}  # the newest version that this node was given
        self.calls: set[asyncio.Task[None]] = set()
        self.manager: pgsession.AsyncSessionManager
        self.stats: pgsession.Stats
        self.sessions: list[pgsession.Session] = []

    async def run(self) -> None:
        """Raises AssertionError where a promise is broken."""
        config = pgsession.Config(
            operation_timeout=TIMEOUT, max_staleness=STALENESS, pool_min_size=1, cleanup_interval=0,
            pool_max_size=self.choose.randint(1, 3), stale_if_error=0,
        )  # fmt: skip
        self.manager = pgsession.AsyncSessionManager(self.conninfo, config)
        async with self.manager:
            for _ in range(SESSIONS):
                self.sessions.append(await self.manager.create_session("u", {"n": self._next()}))
            for session in self.sessions:
                await self.manager.get_session(session.id)
                self.seen[session.id.hex] = session.version
            self.quiet = False
            for _ in range(STEPS):
                await self._step()
            self.quiet = True
            self.server.release()
            self.server.up = True
            await self._settle()
            self._check_writes()
            await self._check_reads()
            self.stats = self.manager.stats()
        await asyncio.sleep(10)
        left = [(one.pid, one.units) for one in self.server.connections]
        assert not left, f"connections are left: {left}"

    # Trouble

    def _fate(self, connection: Connection, steps: list[Step]) -> Fate:
        choose = self.choose
        if self.quiet or choose.random() < 0.6:
            return Fate(before=0.001 * choose.randrange(20))
        listens = any(connection in ears for ears in self.server.listening.values())
        if listens and "listener" not in self.troubles:
            return Fate()
        commits = [number for number, step in enumerate(steps) if step.statement.startswith("COMMIT")]
        trouble = choose.choice(TROUBLES)
        if trouble not in self.troubles:
            return Fate()
        if trouble == "cut":
            return Fate(cut_at=choose.randrange(len(steps) + 1))
        if trouble == "lost answer":
            return Fate(cut_at=len(steps))
        if trouble == "slow":
            return Fate(before=choose.choice((0.3, 1.0, 5.0)))
        if trouble == "late answer":
            return Fate(after=choose.choice((0.3, 1.0, 5.0)))
        if trouble == "error":
            state = choose.choice(("57P01", "53300", "XX000", "23514", "55P03", "57014"))
            return Fate(fails_at=choose.randrange(len(steps)), sqlstate=state)
        if trouble == "second commit" and len(commits) == 2:
            return Fate(fails_at=choose.randint(commits[0], commits[1]), sqlstate="57014")
        if trouble == "deadlock" and commits:
            return Fate(fails_at=min(1, commits[0]), sqlstate="40P01")
        return Fate()

    async def _step(self) -> None:
        choose = self.choose
        key = choose.choice(self.sessions).id.hex
        action = choose.choice(
            ("write",) * 6 + ("read",) * 6 + ("refresh", "plain", "sleep", "sleep", "many", *self.troubles)
        )
        if action == "write":
            self._call(self._write(choose.choice(self.sessions)), TIMEOUT)
        elif action == "read":
            self._call(self._read(choose.choice(self.sessions), refresh=False), TIMEOUT)
        elif action == "refresh":
            self._call(self._read(choose.choice(self.sessions), refresh=True), TIMEOUT)
        elif action == "many":
            self._call(self._clear(), TIMEOUT)
        elif action == "plain":
            self.server.plain_sql(key, self._next())
        elif action == "row":
            self.server.hold(key)
            self._later(choose.choice((0.05, 0.5, 3.0)), self.server.release)
        elif action == "listener":
            self.server.cut(lambda one: any(one in ears for ears in self.server.listening.values()))
        elif action == "restart":
            self.server.restart()
        elif action == "down":
            self.server.up = False
            self.server.cut()
            self._later(choose.choice((0.1, 1.0, 6.0)), self._up)
        await asyncio.sleep(choose.choice((0, 0, 0.001, 0.01, 0.3, 1.5)) if action == "sleep" else 0)

    def _up(self) -> None:
        self.server.up = True

    def _later(self, seconds: float, action: Callable[[], None]) -> None:
        asyncio.get_running_loop().call_later(seconds, action)

    # Calls

    def _next(self) -> int:
        self.marker += 1
        return self.marker

    def _call(self, work: Awaitable[None], bound: float) -> None:
        async def timed() -> None:
            began = time.monotonic()
            await work
            took = time.monotonic() - began
            assert took <= bound + NOISE, f"a call took {took:.1f} s"

        task = asyncio.create_task(timed())
        self.calls.add(task)

    async def _write(self, session: pgsession.Session) -> None:
        key, marker = session.id.hex, self._next()
        mine = session_of(self.manager._cache, session._record, from_cache=False)
        mine["n"] = marker
        try:
            await self.manager.update_session(mine)
        except pgsession.WriteOutcomeUnknown:
            outcome = "unknown"
            assert self.server.received[marker] or self.server.cuts, "it was never sent"
        except _REFUSED:
            outcome = "not done"
        else:
            outcome = "done"
            assert self.server.durable[marker], "done, it says, and it is not durable"
            assert mine["n"] == marker
            self.seen[key] = max(self.seen[key], mine.version)
        self.writes.append(Write(key, marker, outcome, marker))

    async def _read(self, session: pgsession.Session, *, refresh: bool) -> None:
        key, began, seen = session.id.hex, self.now() / 1e6, self.seen[session.id.hex]
        try:
            read = await self.manager.get_session(session.id, refresh=refresh)
        except _REFUSED:
            return
        assert read is not None
        self._check_read(key, read, began, seen, began if refresh else began - STALENESS)
        self.seen[key] = max(self.seen[key], read.version)

    def _check_read(self, key: str, read: pgsession.Session, began: float, seen: int, true_at: float) -> None:
        assert read.version >= seen, "older than what this node has given before (C2, C3)"
        mine = [commit for commit in self.server.commits if commit.key == key]
        (commit,) = [commit for commit in mine if commit.version == read.version]
        assert commit.marker == read["n"], "a version has one contents (C4)"
        newer = [commit for commit in mine if commit.version > read.version and commit.at < true_at - NOISE]
        assert not newer, f"outdated {began - newer[0].at:.1f} s before the call (C6)"

    async def _clear(self) -> None:
        try:
            await self.manager.evict_user_sessions("u")
        except _REFUSED:
            pass

    # The end

    async def _settle(self) -> None:
        while waiting := [task for task in self.calls if not task.done()]:
            _, late = await asyncio.wait(waiting, timeout=SETTLED)
            assert not late, f"{len(late)} callers were never answered"
        for task in self.calls:
            task.result()
        for _ in range(int(SETTLED)):
            await asyncio.sleep(1)
            if self.manager._coherence.in_sync:
                break
        else:
            raise AssertionError("the node is never in sync again")
        await asyncio.sleep(10)  # what was slow is done now
        assert len(self.manager._open_runtime().group_commit) == 0, "a write still waits"
        assert len(self.manager._coherence._leases) == 0, "a lease is still open"

    def _check_writes(self) -> None:
        commits = [commit for commit in self.server.commits if commit.marker is not None]
        count = {
            write.marker: sum(commit.marker == write.marker for commit in commits) for write in self.writes
        }
        place = {commit.marker: number for number, commit in enumerate(commits)}
        assert len({write.marker for write in self.writes}) == len(self.writes), "answered twice"
        for write in self.writes:
            allowed = {"done": (1,), "unknown": (0, 1), "not done": (0,)}[write.outcome]
            assert count[write.marker] in allowed, f"{write} was done {count[write.marker]} times"
        for session in self.sessions:
            done = sorted(w.number for w in self.writes if w.key == session.id.hex and w.outcome == "done")
            order = [place[marker] for marker in done]
            assert order == sorted(order), "a session's writes are done in the order of their calls"

    async def _check_reads(self) -> None:
        for session in self.sessions:
            for _ in range(2):
                read = await self.manager.get_session(session.id)
                there = self.server.sessions[session.id.hex]
                assert read is not None and read.version == there.version
                self._check_read(
                    session.id.hex, read, self.now() / 1e6, self.seen[session.id.hex], self.now() / 1e6
                )
            assert read is not None and read.from_cache, "nothing is served from memory again"
