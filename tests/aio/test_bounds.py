"""Every wait has a bound: each public method that waits, against each thing that may keep it waiting."""

from __future__ import annotations

import inspect
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
import pytest
from psycopg import AsyncConnection, sql

import pgsession
from tests.aio.conftest import OpenAsyncManager
from tests.aio.helpers import eventually
from tests.crew import AsyncCrew
from tests.fault_proxy import FaultProxy
from tests.leftovers import UNRELEASED

LIMIT = 1.0
GUARD = 3 * LIMIT  # of a busy machine, in which all of the calls are under way at once; a hang takes for ever

SIGNER = pgsession.Signer([b"k" * 32])
NOT_DONE = (pgsession.OperationTimeout, pgsession.DatabaseUnavailable, psycopg.Error)


class Subjects(NamedTuple):
    """What the calls are about: made before anything goes wrong."""

    manager: pgsession.AsyncSessionManager
    listener: pgsession.AsyncListener
    session: pgsession.Session
    locks: list[pgsession.AsyncLock]  # that are held


Call = Callable[[Subjects], Awaitable[Any]]


async def change(session: pgsession.Session) -> None:
    session["n"] = 2


MANAGER: dict[str, Call] = {
    "check_health": lambda it: it.manager.check_health(timeout=LIMIT),
    "clear_cache": lambda it: it.manager.clear_cache(),
    "count_sessions": lambda it: it.manager.count_sessions(),
    "create_session": lambda it: it.manager.create_session("u"),
    "delete_all_sessions": lambda it: it.manager.delete_all_sessions(),
    "delete_attribute_from_user_sessions": lambda it: it.manager.delete_attribute_from_user_sessions(
        "u", "n"
    ),
    "delete_expired_sessions": lambda it: it.manager.delete_expired_sessions(),
    "delete_group_sessions": lambda it: it.manager.delete_group_sessions("g"),
    "delete_session": lambda it: it.manager.delete_session(it.session.id),
    "delete_user_sessions": lambda it: it.manager.delete_user_sessions("u"),
    "evict_user_sessions": lambda it: it.manager.evict_user_sessions("u"),
    "get_session": lambda it: it.manager.get_session(it.session.id, refresh=True),
    "get_session_by_token": lambda it: it.manager.get_session_by_token(
        it.manager.token(it.session), refresh=True
    ),
    "list_group_sessions": lambda it: it.manager.list_group_sessions("g"),
    "list_user_sessions": lambda it: it.manager.list_user_sessions("u"),
    "open_token": lambda it: it.manager.open_token(it.manager.token(it.session), refresh=True),
    "load_sessions": lambda it: it.manager.load_sessions([UUID(int=1)]),
    "modify_session": lambda it: it.manager.modify_session(it.session.id, change, retries=50),
    "rotate_session": lambda it: it.manager.rotate_session(it.session, user_id="u"),
    "update_session": lambda it: it.manager.update_session(it.session, group_id="h"),
}
LISTENER: dict[str, Call] = {
    "execute": lambda it: it.listener.execute("SELECT 1"),
    "listen": lambda it: it.listener.listen("new", print, timeout=LIMIT),
    "notify": lambda it: it.listener.notify("known", "x"),
    "unlisten": lambda it: it.listener.unlisten("known", print),
}
LOCK: dict[str, Call] = {
    "acquire": lambda it: it.manager.lock("other").acquire(),
    "extend": lambda it: it.locks[0].extend(60),
    "release": lambda it: it.locks[1].release(),
}
CALLS = {**MANAGER, **LISTENER, **LOCK}
ELSEWHERE = {
    "open": "test_time_limits.py",
    "close": "test_lifetimes.py",
}
AT_ONCE = {  # never wait
    "add_lost_hook", "get_cached_session", "get_cached_session_by_token", "lock", "notify_query", "reconnect",
    "remove_lost_hook", "stats", "token",
}  # fmt: skip


@pytest.mark.parametrize(
    "kind", [pgsession.AsyncSessionManager, pgsession.AsyncListener, pgsession.AsyncLock]
)
def test_every_public_method_has_a_row(kind: type) -> None:
    names = {name for name, _ in inspect.getmembers(kind, callable) if not name.startswith("_")}
    rows = {
        pgsession.AsyncSessionManager: MANAGER,
        pgsession.AsyncListener: LISTENER,
        pgsession.AsyncLock: LOCK,
    }
    assert names - AT_ONCE - set(ELSEWHERE) == set(rows[kind])


class Ways(NamedTuple):
    """How the nodes get to the server, and a console that gets there by itself."""

    pool: FaultProxy
    listener: FaultProxy
    console: AsyncConnection[Any]
    schema: str


@asynccontextmanager
async def silent(ways: Ways, it: Subjects) -> AsyncIterator[None]:
    """The server stays connected, and answers nothing."""
    ways.pool.freeze()
    ways.listener.freeze()
    try:
        yield
    finally:
        ways.listener.forward()
        ways.pool.forward()


@asynccontextmanager
async def refused(ways: Ways, it: Subjects) -> AsyncIterator[None]:
    """The server is down."""
    for way in (ways.pool, ways.listener):
        way.refuse()
        way.cut()
    try:
        yield
    finally:
        ways.listener.forward()
        ways.pool.forward()


@asynccontextmanager
async def used_up(ways: Ways, it: Subjects) -> AsyncIterator[None]:
    """Others have all connections."""
    async with AsyncExitStack() as stack:
        connections = it.manager._open_runtime().connections
        for _ in range(8):
            await stack.enter_async_context(connections.connection(time.monotonic() + 60))
        yield


def held(statement: str) -> Callable[[Ways, Subjects], Any]:
    """Somebody holds what this statement locks."""

    @asynccontextmanager
    async def hold(ways: Ways, it: Subjects) -> AsyncIterator[None]:
        async with ways.console.transaction():
            await ways.console.execute(sql.SQL(statement).format(sql.Identifier(ways.schema)))  # type: ignore[arg-type]
            yield

    return hold


TROUBLES = {
    "silent": silent,
    "refused": refused,
    "used up": used_up,
    "tables held": held(
        "LOCK TABLE {0}.sessions, {0}.session_attributes, {0}.session_locks IN ACCESS EXCLUSIVE MODE"
    ),
    "session's row held": held("SELECT FROM {0}.sessions FOR UPDATE"),
    "attribute's row held": held("SELECT FROM {0}.session_attributes FOR UPDATE"),
    "lock's row held": held("SELECT FROM {0}.session_locks FOR UPDATE"),
    "user's bucket held": held("SELECT FROM {0}.session_user_buckets FOR UPDATE"),
}
CUT = ("silent", "refused")  # whoever had sent a write cannot know what became of it


@UNRELEASED
@pytest.mark.parametrize("trouble", TROUBLES)
async def test_every_call_ends(trouble: str, open_manager: OpenAsyncManager, dsn: str, schema: str) -> None:
    with FaultProxy(dsn) as way, FaultProxy(dsn) as listening:
        listener = pgsession.AsyncListener(listening.conninfo, command_timeout=LIMIT)
        async with listener, await AsyncConnection.connect(dsn, autocommit=True) as console:
            manager = await open_manager(
                way.conninfo, listener=listener, signer=SIGNER, operation_timeout=LIMIT, max_sessions=2
            )
            for _ in range(2):
                session = await manager.create_session("u", {"n": 1}, group_id="g")
            locks = [manager.lock(name) for name in ("held", "released")]
            for lock in locks:
                assert await lock.acquire()
            await listener.listen("known", print)
            it = Subjects(manager, listener, session, locks)
            async with TROUBLES[trouble](Ways(way, listening, console, schema), it), AsyncCrew() as crew:
                for name, call in CALLS.items():
                    crew.start(ends, trouble, name, call, it)
                await crew.join()
            await eventually(lambda: can_write(manager), "a write, as before")


async def can_write(manager: pgsession.AsyncSessionManager) -> bool:
    try:
        await manager.create_session("somebody else")
    except (pgsession.OperationTimeout, pgsession.DatabaseUnavailable):
        return False
    return True


async def ends(trouble: str, name: str, call: Call, it: Subjects) -> None:
    began = time.monotonic()
    unknown = False
    try:
        await call(it)
        outcome = "done"
    except pgsession.WriteOutcomeUnknown as error:
        outcome, unknown = f"unknown: {error}", True
    except (*NOT_DONE, TimeoutError, pgsession.SessionNotFoundError) as error:
        outcome = f"{type(error).__name__}: {error}"
    took = time.monotonic() - began
    print(f"{name}: {took:.2f} s, {outcome}")
    assert took < GUARD, f"{name} took {took:.1f} s: {outcome}"
    assert trouble in CUT or not unknown, f"{name}: what was not done is known: {outcome}"
