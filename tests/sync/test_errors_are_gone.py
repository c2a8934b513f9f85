# Generated from tests/aio/test_errors_are_gone.py by tools/async_to_sync.py: never edit.

"""An error is gone once nobody has it, and so are what its caller had, and his: no collection has to find it."""

from __future__ import annotations

import gc
import uuid
import weakref
from collections.abc import Awaitable, Callable, Iterator

import pytest

import pgsession
from pgsession._sync.shard import ShardManager
from pgsession._sync.store import Store
from tests.sharded import Shards

from .helpers import eventually

Manager = pgsession.SessionManager


@pytest.fixture(autouse=True)
def _no_collection() -> Iterator[None]:
    gc.disable()
    yield
    gc.enable()


class Failed(Exception):
    pass


def create_again(manager: Manager, session: pgsession.Session) -> None:
    manager.create_session("v", session_id=session.id)


def create_too_many(manager: Manager, session: pgsession.Session) -> None:
    manager.create_session("u")


def update_what_is_gone(manager: Manager, session: pgsession.Session) -> None:
    manager.delete_session(session.id)
    manager.update_session(session, expires_in=9)


def conflict(manager: Manager, session: pgsession.Session) -> None:
    other = manager.get_session(session.id, refresh=True)
    assert other is not None
    manager.update_session(other, expires_in=9)
    manager.update_session(session, expires_in=9, check="session")


def lock(manager: Manager, session: pgsession.Session) -> None:
    manager.lock("r").acquire()


@pytest.mark.parametrize("act", [create_again, create_too_many, update_what_is_gone, conflict, lock])
def test_who_is_refused(
    dsn: str,
    config: pgsession.Config,
    monkeypatch: pytest.MonkeyPatch,
    act: Callable[[Manager, pgsession.Session], Awaitable[None]],
) -> None:
    def refuse(*_: object) -> None:
        raise Failed

    limited = pgsession.Config(
        schema_name=config.schema_name,
        create_schema_if_missing=True,
        max_sessions=1,
        max_sessions_policy="reject",
    )
    with pgsession.SessionManager(dsn, limited) as manager:
        session = manager.create_session("u", session_id=uuid.uuid4())
        if act is lock:
            monkeypatch.setattr(Store, "acquire", refuse)
        seen: weakref.ref[Exception] | None = None
        try:
            act(manager, session)
        except (pgsession.PgSessionError, Failed) as error:
            seen = weakref.ref(error)
        assert seen is not None

        def is_gone() -> bool:
            return seen() is None

        eventually(is_gone)


def test_of_several_shards(empty_shards: Shards, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(shard: ShardManager) -> None:
        raise Failed

    with pgsession.ShardedSessionManager(empty_shards) as manager:
        with monkeypatch.context() as patched:
            patched.setattr(ShardManager, "clear_cache", fail)
            seen: list[weakref.ref[Exception]] = []
            try:
                manager.clear_cache()
            except pgsession.ShardsFailed as error:
                seen = [weakref.ref(error), *map(weakref.ref, error.failed.values())]
        assert len(seen) == 5

        def are_gone() -> bool:
            return not any(each() for each in seen)

        eventually(are_gone)
