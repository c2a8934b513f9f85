"""`modify_session`: read, change, save, and again after a conflict."""

from __future__ import annotations

import pytest

import pgsession
from tests.crew import AsyncCrew

from .conftest import OpenAsyncManager


def add_one(session: pgsession.Session) -> None:
    session["n"] += 1


async def test_as_many_as_like_may_modify_one_session(open_manager: OpenAsyncManager) -> None:
    """On one node they queue after a first conflict, so a few tries are enough for any number of them."""
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 0})
    crew = AsyncCrew()

    async def add() -> int:
        return int((await manager.modify_session(session.id, add_one, retries=30))["n"])

    for _ in range(30):
        crew.start(add)
    assert sorted(await crew.join()) == list(range(1, 31))
    assert len(manager._conflict_retry) == 0


async def test_a_session_can_be_modified_while_it_is_modified(open_manager: OpenAsyncManager) -> None:
    """It conflicts, as it must; nobody waits for himself."""
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 0})

    async def twice(outer: pgsession.Session) -> None:
        await manager.modify_session(session.id, add_one)
        outer["n"] += 1

    with pytest.raises(pgsession.AttributeVersionConflict):
        await manager.modify_session(session.id, twice, retries=2)
    read = await manager.get_session(session.id)
    assert read is not None and read["n"] == 3 and len(manager._conflict_retry) == 0


async def test_options_and_errors_pass_through(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 0})
    changed = await manager.modify_session(session.id, add_one, check=None, group_id="g", expires_in=60)
    assert changed.group_id == "g" and changed["n"] == 1

    def fail(session: pgsession.Session) -> None:
        session["n"] = 100
        raise RuntimeError("of the change")

    with pytest.raises(RuntimeError, match="of the change"):
        await manager.modify_session(session.id, fail)
    read = await manager.get_session(session.id)
    assert read is not None and read["n"] == 1
    with pytest.raises(ValueError, match="retries"):
        await manager.modify_session(session.id, add_one, retries=-1)


@pytest.mark.parametrize("option", ["grace", "wait", "session", "deadline"])
async def test_what_is_no_argument_of_update_session_is_refused(
    open_manager: OpenAsyncManager, option: str
) -> None:
    manager = await open_manager()
    session = await manager.create_session("u", {"n": 0})
    with pytest.raises(TypeError, match=option):
        await manager.modify_session(session.id, add_one, **{option: 1})
    read = await manager.get_session(session.id, refresh=True)
    assert read is not None and read.version == session.version
