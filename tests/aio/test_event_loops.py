# asyncio only
"""An async manager belongs to the event loop that opened it: another one is refused, and disturbs nothing."""

from __future__ import annotations

import asyncio
import inspect
import selectors
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

import pgsession
from tests.aio.conftest import OpenAsyncManager

Call = Callable[[pgsession.AsyncSessionManager, pgsession.Session], Awaitable[Any]]

# Of every coroutine method of the manager, how it is called; a new one without a row fails.
CALLS: dict[str, Call] = {
    "check_health": lambda manager, session: manager.check_health(),
    "clear_cache": lambda manager, session: manager.clear_cache(),
    "close": lambda manager, session: manager.close(),
    "count_sessions": lambda manager, session: manager.count_sessions(),
    "create_session": lambda manager, session: manager.create_session("u"),
    "delete_all_sessions": lambda manager, session: manager.delete_all_sessions(),
    "delete_attribute_from_user_sessions": lambda manager, session: (
        manager.delete_attribute_from_user_sessions("u", "n")
    ),
    "delete_expired_sessions": lambda manager, session: manager.delete_expired_sessions(),
    "delete_group_sessions": lambda manager, session: manager.delete_group_sessions("g"),
    "delete_session": lambda manager, session: manager.delete_session(session.id),
    "delete_user_sessions": lambda manager, session: manager.delete_user_sessions("u"),
    "evict_user_sessions": lambda manager, session: manager.evict_user_sessions("u"),
    "get_session": lambda manager, session: manager.get_session(session.id, refresh=True),
    "list_group_sessions": lambda manager, session: manager.list_group_sessions("g"),
    "list_user_sessions": lambda manager, session: manager.list_user_sessions("u"),
    "load_sessions": lambda manager, session: manager.load_sessions([session.id]),
    "modify_session": lambda manager, session: manager.modify_session(session.id, change, check=None),
    "rotate_session": lambda manager, session: manager.rotate_session(session),
    "update_session": lambda manager, session: manager.update_session(session, group_id="g"),
}
PATIENCE = 20
OTHERS = {"open", "get_session_by_token", "open_token"}  # does nothing where that is done; as get_session


def change(session: pgsession.Session) -> None:
    session["n"] = 7


def test_every_coroutine_method_has_a_row() -> None:
    methods = {
        name
        for name, method in inspect.getmembers(pgsession.AsyncSessionManager, inspect.iscoroutinefunction)
        if not name.startswith("_")
    }
    assert methods | {"get_session", "get_session_by_token", "open_token"} == set(CALLS) | OTHERS


@pytest.mark.parametrize("name", CALLS)
async def test_another_loop_is_refused_at_once(name: str, open_manager: OpenAsyncManager) -> None:
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 1}, group_id="g")
    version = session.version

    async def elsewhere() -> list[object]:
        calls = [CALLS[name](manager, session) for _ in range(20)]
        async with asyncio.timeout(PATIENCE):
            return list(await asyncio.gather(*calls, return_exceptions=True))

    answers = await asyncio.to_thread(asyncio.run, elsewhere())
    assert [type(answer) for answer in answers] == [pgsession.EventLoopError] * 20, answers
    again = await manager.get_session(session.id, refresh=True)
    assert again is not None and again.version == version and again["n"] == 1
    assert (await manager.check_health()).healthy


async def test_what_is_in_memory_is_answered_in_any_loop(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 1})

    async def elsewhere() -> Any:
        cached = await manager.get_session(session.id)
        assert cached is not None
        return cached["n"]

    assert await asyncio.to_thread(asyncio.run, elsewhere()) == 1


async def test_a_lock_too_belongs_to_the_loop(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager()
    lock = manager.lock("r")

    async def elsewhere() -> bool:
        return await lock.acquire()

    with pytest.raises(pgsession.EventLoopError, match="belongs to the event loop that opened it"):
        await asyncio.to_thread(asyncio.run, elsewhere())
    assert await lock.acquire()
    await lock.release()


class ProactorEventLoop(asyncio.SelectorEventLoop):
    """Stands for Windows' own, which exists nowhere else."""

    def __init__(self) -> None:
        super().__init__(selectors.SelectSelector())


@pytest.mark.parametrize("what", [pgsession.AsyncSessionManager, pgsession.AsyncListener])
def test_the_loop_that_psycopg_cannot_use_is_named(
    what: Callable[[str], Any], dsn: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asyncio, "ProactorEventLoop", ProactorEventLoop, raising=False)

    async def use() -> None:
        async with what(dsn):
            pass

    with asyncio.Runner(loop_factory=ProactorEventLoop) as runner:
        with pytest.raises(pgsession.EventLoopError, match=r"ProactorEventLoop: run .*SelectorEventLoop"):
            runner.run(use())
