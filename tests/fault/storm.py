"""A storm of interrupts on one manager: `python -m tests.fault.storm KIND COUNT SEED DSN SCHEMA`.

One caller does things and is interrupted at moments that nobody chooses, until COUNT interrupts have hit; others do
the same things undisturbed. Then everything has to be as before: connections, server processes, descriptors, threads,
tasks.

| kind | how |
|---|---|
| ctrl-c | SIGINT to the main thread |
| alarm | a signal's handler that raises an exception |
| soft limit | `PyThreadState_SetAsyncExc`, as task queues do |
| cancel | cancelled tasks (asyncio) |
| kill | killed greenlets (gevent) |
"""

from __future__ import annotations

import sys

if __name__ == "__main__" and sys.argv[1] == "kill":
    from gevent import monkey

    monkey.patch_all()

import asyncio
import faulthandler
import os
import random
import signal
import threading
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Any

import psutil
import psycopg
from psycopg.conninfo import make_conninfo

import pgsession
from tests.fault.interrupts import Interrupt, SoftLimit, know_when_threads_start, raise_in

PATIENCE = 30  # seconds for one call; a hang takes for ever
LONGEST = 0.006  # seconds until an interrupt
HITS = (KeyboardInterrupt, Interrupt, SoftLimit)
NAME = f"pgsession storm {os.getpid()}"


class Storm:
    """What is done, to whom, and what has to be as before."""

    def __init__(self, kind: str, count: int, seed: int, dsn: str, schema: str) -> None:
        self.kind = kind
        self.choice = random.Random(seed)
        self.count = count
        self.hits = 0
        self.over = False
        self.errors: list[BaseException] = []
        self._dsn = dsn
        self.conninfo = make_conninfo(dsn, application_name=NAME)
        self.config = pgsession.Config(
            create_schema_if_missing=True,
            schema_name=schema,
            max_staleness=60,
            max_sessions=0,
            cleanup_interval=0,
        )

    def delay(self) -> float:
        return self.choice.uniform(0, LONGEST)

    def threads(self) -> int:
        """Count those that there are: who is interrupted in `Thread.start` leaves an entry in `threading` for ever."""
        return psutil.Process().num_threads() if self.kind != "kill" else 0  # greenlets are not

    def state(self, manager: Any) -> dict[str, object]:
        runtime = manager._open_runtime()
        with psycopg.connect(self._dsn) as connection:
            row = connection.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = %s", [NAME]
            ).fetchone()
        pool = runtime.connections
        return {
            "backends beyond the pool's": int(row[0] if row else 0) - runtime.pool.get_stats()["pool_size"],
            "descriptors but for the pool's": len(os.listdir("/proc/self/fd")) - 2 * len(pool._members)
            - (runtime.pool.get_stats()["pool_size"] - len(pool._members)),
            "lent connections": len(pool._members) - len(pool._kept),
            "the pool is no larger than it may be": runtime.pool.get_stats()["pool_size"] <= 8,
            "threads": self.threads(),
            "leases": len(manager._coherence._leases),
            "writes": len(runtime.group_commit) + len(runtime.group_commit._behind),
            "locks": len(runtime.lock_renewal),
            "subscriptions": len(runtime.listener._loop._subscriptions),
        }  # fmt: skip


def save(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    copy = manager.get_session(session.id)
    assert copy is not None
    copy[f"by {threading.get_ident() % 7}"] = time.monotonic()
    manager.update_session(copy)


def fill(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    assert manager.get_session(session.id, refresh=True) is not None


def log_in(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    assert manager.delete_session(manager.create_session("another", {"n": 1}).id)


def lock(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    with manager.lock("resource", lease_time=2, heartbeat_interval=0.2, max_retries=None) as held:
        held.extend(2)


def listen(manager: pgsession.SessionManager, session: pgsession.Session) -> None:
    listener = manager._open_runtime().listener

    def hear(notification: psycopg.Notify) -> None:
        pass

    try:
        listener.listen("news", hear)
        listener.notify("news", "1")
    finally:
        with suppress(*HITS):
            listener.unlisten("news", hear)


ACTS = [save, fill, log_in, lock, listen]


def bystand(storm: Storm, *arguments: Any) -> None:
    choice = random.Random(storm.choice.random())
    try:
        while not storm.over:
            choice.choice(ACTS)(*arguments)
            time.sleep(0.001)
    except BaseException as error:
        storm.errors.append(error)
        storm.over = True


def by_signals(storm: Storm, act: Callable[[], None]) -> None:
    """In the main thread: SIGALRM comes at random, and its handler raises, or sends SIGINT."""
    while storm.hits < storm.count and not storm.over:
        try:
            try:
                signal.setitimer(signal.ITIMER_REAL, max(storm.delay(), 1e-6))
                act()
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
        except HITS:
            storm.hits += 1


def ctrl_c(storm: Storm, act: Callable[[], None]) -> None:
    signal.signal(signal.SIGALRM, lambda *_: signal.raise_signal(signal.SIGINT))
    by_signals(storm, act)


def alarm(storm: Storm, act: Callable[[], None]) -> None:
    def handler(*_: object) -> None:
        raise SoftLimit

    signal.signal(signal.SIGALRM, handler)
    by_signals(storm, act)


def soft_limit(storm: Storm, act: Callable[[], None]) -> None:
    """In a thread: another one raises into it while it is at work."""
    know_when_threads_start()
    at_work = threading.Lock()  # held by who interrupts, and by who goes to work or comes from it
    working = False

    def work() -> None:
        nonlocal working
        while storm.hits < storm.count and not storm.over:
            try:
                try:
                    with at_work:
                        working = True
                    act()
                finally:
                    while working:
                        try:
                            with at_work:
                                working = False
                        except Interrupt:
                            storm.hits += 1
                time.sleep(0)  # what was raised at last arrives
            except Interrupt:
                storm.hits += 1

    victim = threading.Thread(target=work, daemon=True)
    victim.start()
    while victim.is_alive() and not storm.over:
        time.sleep(storm.delay())
        with at_work:
            if working:
                raise_in(victim.ident or 0, Interrupt)
    victim.join(PATIENCE)
    if victim.is_alive():
        raise TimeoutError("whoever is interrupted hangs")


def kill(storm: Storm, act: Callable[[], None]) -> None:
    """Greenlets: each does one thing, and is killed meanwhile."""
    import gevent

    while storm.hits < storm.count and not storm.over:
        victim = gevent.spawn(act)
        gevent.sleep(storm.delay())
        if not victim.dead:
            victim.kill(timeout=PATIENCE)
            if not victim.dead:
                raise TimeoutError("whoever is killed hangs")
            storm.hits += 1
        victim.get()


def run_threads(storm: Storm) -> None:
    interrupt = {"ctrl-c": ctrl_c, "alarm": alarm, "soft limit": soft_limit, "kill": kill}[storm.kind]
    with pgsession.SessionManager(storm.conninfo, storm.config) as manager:
        session = manager.create_session("u", {"n": 0})
        arguments = manager, session
        for act in ACTS:
            act(*arguments)
        time.sleep(1.5)  # threads that wait for more work end
        before = storm.state(manager)
        bystanders = [
            threading.Thread(target=bystand, args=(storm, *arguments), daemon=True) for _ in range(2)
        ]
        for bystander in bystanders:
            bystander.start()
        interrupt(storm, lambda: storm.choice.choice(ACTS)(*arguments))
        storm.over = True
        for bystander in bystanders:
            bystander.join(PATIENCE)
            if bystander.is_alive():
                faulthandler.dump_traceback()
                os._exit(1)  # a bystander hangs
        manager._open_runtime().listener.unlisten(
            "news"
        )  # whose `unlisten` was interrupted before it was sent
        same(before, lambda: storm.state(manager))


def same(before: dict[str, object], state: Callable[[], dict[str, object]]) -> None:
    end = time.monotonic() + PATIENCE
    while (now := state()) != before:
        if time.monotonic() >= end:
            faulthandler.dump_traceback()  # which thread is one too many
            raise AssertionError(f"before {before}, after {now}")
        time.sleep(0.1)


# -- asyncio ---------------------------------------------------------------------------------------------------


async def async_lock(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    async with manager.lock("resource", lease_time=2, heartbeat_interval=0.2, max_retries=None) as held:
        await held.extend(2)


async def async_save(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    copy = await manager.get_session(session.id)
    assert copy is not None
    copy["n"] = time.monotonic()
    await manager.update_session(copy)


async def async_fill(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    assert await manager.get_session(session.id, refresh=True) is not None


async def async_log_in(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    assert await manager.delete_session((await manager.create_session("another", {"n": 1})).id)


async def async_listen(manager: pgsession.AsyncSessionManager, session: pgsession.Session) -> None:
    listener = manager._open_runtime().listener

    def hear(notification: psycopg.Notify) -> None:
        pass

    try:
        await listener.listen("news", hear)
        await listener.notify("news", "1")
    finally:
        await listener.unlisten("news", hear)


ASYNC_ACTS: list[Callable[[pgsession.AsyncSessionManager, pgsession.Session], Awaitable[None]]] = [
    async_save, async_fill, async_log_in, async_lock, async_listen,
]  # fmt: skip


async def run_tasks(storm: Storm) -> None:
    async with pgsession.AsyncSessionManager(storm.conninfo, storm.config) as manager:
        session = await manager.create_session("u", {"n": 0})
        for act in ASYNC_ACTS:
            await act(manager, session)

        def state() -> dict[str, object]:
            return {**storm.state(manager), "tasks": len(asyncio.all_tasks())}

        before = state()

        async def work(choice: random.Random) -> None:
            while not storm.over:
                await choice.choice(ASYNC_ACTS)(manager, session)

        async with asyncio.TaskGroup() as group:
            for _ in range(2):
                group.create_task(work(random.Random(storm.choice.random())))
            while storm.hits < storm.count:
                victim = asyncio.ensure_future(storm.choice.choice(ASYNC_ACTS)(manager, session))
                await asyncio.sleep(storm.delay())
                storm.hits += victim.cancel()
                done, _ = await asyncio.wait({victim}, timeout=PATIENCE)
                assert done, "whoever is cancelled hangs"
                with suppress(asyncio.CancelledError):
                    victim.result()
            storm.over = True
        await manager._open_runtime().listener.unlisten("news")
        end = time.monotonic() + PATIENCE
        while (now := state()) != before:
            assert time.monotonic() < end, f"before {before}, after {now}"
            await asyncio.sleep(0.1)


def main() -> None:
    kind, count, seed, dsn, schema = sys.argv[1:]
    storm = Storm(kind, int(count), int(seed), dsn, schema)
    began = time.monotonic()
    if kind == "cancel":
        asyncio.run(run_tasks(storm))
    else:
        run_threads(storm)
    if storm.errors:
        raise storm.errors[0]
    print(
        f"{kind}: {storm.hits} interrupts in {time.monotonic() - began:.0f} s, seed {seed}; all is as before"
    )


if __name__ == "__main__":
    main()
