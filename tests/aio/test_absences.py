"""Whom the database does not know is not asked for again and again; and nobody who is there is ever called absent."""

from __future__ import annotations

import uuid
from typing import Any

import pytest

import pgsession
from pgsession import Signer
from tests.crew import AsyncCrew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually

FOR_EVER = 3600  # seconds of max_staleness: what ends an absence in these tests is no clock
SIGNER = Signer(b"k" * 32)


def count_reads(manager: pgsession.AsyncSessionManager) -> list[Any]:
    """Which sessions were read from the database since."""
    store = manager._open_runtime().store
    read, read_many, asked = store.read, store.read_many, []

    async def counted(key: bytes, deadline: float) -> Any:
        asked.append(key)
        return await read(key, deadline)

    async def counted_many(keys: Any, deadline: float) -> Any:
        asked.extend(keys)
        return await read_many(keys, deadline)

    store.read, store.read_many = counted, counted_many  # type: ignore[method-assign]
    return asked


async def test_the_same_unknown_ids_again_and_again_cost_one_query_each(
    open_manager: OpenAsyncManager,
) -> None:
    manager = await open_manager(max_staleness=FOR_EVER)
    asked = count_reads(manager)
    unknown = [uuid.uuid4() for _ in range(50)]
    for _ in range(20):
        for key in unknown:
            assert await manager.get_session(key) is None
    assert len(asked) == 50
    stats = manager.stats()
    assert (stats.misses, stats.negative_hits, stats.fills) == (1000, 950, 50)
    assert await manager.load_sessions(unknown) == {} and len(asked) == 50
    assert await manager.get_session(unknown[0], refresh=True) is None and len(asked) == 51


async def test_the_tokens_of_ended_sessions_cost_one_query_each(open_manager: OpenAsyncManager) -> None:
    a = await open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    b = await open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    sessions = await create_many(a, 3)
    tokens = [a.token(session) for session in sessions]
    assert None not in [await b.get_session_by_token(token) for token in tokens]
    assert await a.delete_user_sessions("u") == 3
    await eventually_gone(b, sessions)
    asked = count_reads(b)
    for _ in range(5):
        for token in tokens:
            assert await b.get_session_by_token(token) is None
            assert (await b.open_token(token)).state == "ended"
    assert len(asked) == 3
    assert b.stats().refused_tokens == 30


async def eventually_gone(manager: pgsession.AsyncSessionManager, sessions: list[pgsession.Session]) -> None:
    async def gone() -> bool:
        return all(manager.get_cached_session(session.id) is None for session in sessions)

    await eventually(gone)


async def test_many_callers_with_many_ids(open_manager: OpenAsyncManager) -> None:
    """Ids that nobody has asked for have to be read, each once, whoever asks at the same moment."""
    manager = await open_manager(max_staleness=FOR_EVER)
    asked = count_reads(manager)
    unknown = [uuid.uuid4() for _ in range(40)]
    crew = AsyncCrew()

    async def ask() -> None:
        for key in unknown:
            assert await manager.get_session(key) is None

    for _ in range(8):
        crew.start(ask)
    await crew.join()
    assert sorted(asked) == sorted(key.bytes for key in unknown)


# -- who is there ------------------------------------------------------------------------------------------------


async def test_what_is_inserted_is_there(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = await open_manager(max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert await manager.get_session(key) is None and await manager.get_session(key) is None
    tables.run(
        "INSERT INTO {sessions} (id, user_id, expires_at) VALUES (%s, 'u', now() + interval '1 hour')", key
    )

    async def there() -> bool:
        return await manager.get_session(key) is not None

    await eventually(there, "the event")
    assert manager.stats().negative_hits > 0


async def test_who_comes_with_a_newer_token_is_never_called_absent(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Not even where no event says that the session is there."""
    manager = await open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    session = await manager.create_session("u")
    old = manager.token(session)
    await manager.delete_session(session.id, wait=20)  # its event is heard, and drops no absence any more
    assert await manager.get_session_by_token(old) is None
    row = "(id, version, owner_since, generation, user_id, expires_at)"
    again = session.version + 5
    tables.run_unheard(
        f"INSERT INTO {{sessions}} {row} VALUES (%s, %s, %s, %s, 'v', now() + interval '1 hour')",  # type: ignore[arg-type]
        session.id, again, again, 1,
    )  # fmt: skip
    assert await manager.get_session_by_token(old) is None
    assert await manager.get_session(session.id) is None, "memory says so, for max_staleness"
    new = SIGNER._session_token(session.id.bytes, 1, again)
    found = await manager.get_session_by_token(new)
    assert found is not None and found.user_id == "v"
    found = await manager.get_session(session.id)
    assert found is not None, "it is in memory now"


@pytest.mark.parametrize("by_token", [False, True])
async def test_a_session_of_a_chosen_id_is_there_for_who_asked_before(
    open_manager: OpenAsyncManager, by_token: bool
) -> None:
    """For a user, who comes with its token, at once; for who has the bare id, with the event."""
    a = await open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    b = await open_manager(signer=SIGNER, max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert await a.get_session(key) is None and await b.get_session(key) is None
    session = await a.create_session("u", session_id=key)
    assert await a.get_session(key) is not None, "whoever has created it never waits for the event"
    token = a.token(session)

    async def there() -> bool:
        found = await (b.get_session_by_token(token) if by_token else b.get_session(key))
        assert found is not None or not by_token
        return found is not None

    await eventually(there, "the event")


async def test_c8_an_inactive_session_is_not_taken_for_absent(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """Another node has an access of it that is not written yet."""
    session = await (await open_manager()).create_session("u")
    manager = await open_manager(max_staleness=FOR_EVER)
    move = "UPDATE {sessions} SET last_accessed = last_accessed + %s * interval '1 day'"
    tables.run_unheard(move, -30)
    assert await manager.get_session(session.id) is None
    tables.run_unheard(move, 30)
    assert await manager.get_session(session.id) is not None


async def test_c8_what_has_just_ended_may_yet_be_prolonged(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """By a write of which nobody is told, that began before the end and is not committed yet."""
    session = await (await open_manager()).create_session("u")
    manager = await open_manager(max_staleness=FOR_EVER)
    move = "UPDATE {sessions} SET expires_at = now() + %s * interval '1 second'"
    tables.run_unheard(move, -50)
    assert await manager.get_session(session.id) is None
    tables.run_unheard(move, 3600)
    assert await manager.get_session(session.id) is not None


async def test_what_has_ended_for_good_is_remembered(open_manager: OpenAsyncManager, tables: Tables) -> None:
    session = await (await open_manager()).create_session("u")
    manager = await open_manager(max_staleness=FOR_EVER)
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '70 seconds'")
    asked = count_reads(manager)
    for _ in range(3):
        assert await manager.get_session(session.id) is None
    assert len(asked) == 1
    tables.run("UPDATE {sessions} SET expires_at = now() + interval '1 hour'")

    async def there() -> bool:
        return await manager.get_session(session.id) is not None

    await eventually(there, "the event")


async def test_clear_cache_forgets_who_is_not_there(open_manager: OpenAsyncManager) -> None:
    a, b = await open_manager(max_staleness=FOR_EVER), await open_manager(max_staleness=FOR_EVER)
    key = uuid.uuid4()
    assert await a.get_session(key) is None and await b.get_session(key) is None
    asked = count_reads(b)
    await a.evict_user_sessions("u")
    assert await b.get_session(key) is None and not asked
    await a.clear_cache()

    async def asked_again() -> bool:
        assert await b.get_session(key) is None
        return bool(asked)

    await eventually(asked_again)
