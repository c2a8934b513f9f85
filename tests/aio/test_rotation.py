"""Rotation: a new token for the same session, at logins and elsewhere; who has an older one, and who may write."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import pgsession
from pgsession import Signer
from tests.crew import AsyncCrew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

SIGNER = Signer(b"k" * 32)


class Nodes:
    """Two nodes, of which each may have what it has in memory or not."""

    def __init__(self, a: pgsession.AsyncSessionManager, b: pgsession.AsyncSessionManager) -> None:
        self.a, self.b = a, b

    async def states(self, token: str | None) -> set[str]:
        """What both say of a token, from the database and from memory."""
        assert token is not None
        states = set()
        for node in (self.a, self.b):
            for fresh in (True, False):
                opened = await node.open_token(token, refresh=fresh)
                assert (opened.session is not None) == (opened.state in ("current", "previous"))
                states.add(str(opened.state))
        return states

    def token(self, session: pgsession.Session) -> str:
        token = self.a.token(session)
        assert token is not None
        return token


@pytest.fixture
def open_nodes(open_manager: OpenAsyncManager) -> Any:
    async def open_both(**fields: Any) -> Nodes:
        first = await open_manager(signer=SIGNER, **fields)
        return Nodes(first, await open_manager(signer=SIGNER, **fields))

    return open_both


async def test_a_rotation_saves_and_gives_a_new_token(open_nodes: Any) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session("u", {"n": 1, "old": True}, group_id="g")
    before = nodes.token(session)
    session_id, expires_at, version = session.id, session.expires_at, session.version
    session["n"] = 2
    del session["old"]
    rotated = await nodes.a.rotate_session(session)
    assert rotated is session and session.id == session_id and dict(session) == {"n": 2}
    assert not session.is_modified and session.version > version
    assert (session.user_id, session.group_id, session.expires_at) == ("u", "g", expires_at)
    after = nodes.token(session)
    assert after != before
    assert await nodes.states(after) == {"current"}
    assert await nodes.states(before) == {"previous"}, "for the requests that are under way"
    read = await nodes.b.get_session_by_token(before)
    assert read is not None and dict(read) == {"n": 2} and nodes.b.token(read) is None
    cached = nodes.b.get_cached_session_by_token(before)
    assert cached is not None and nodes.b.token(cached) is None


async def test_the_grace_ends(open_nodes: Any, tables: Tables) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session("u")
    first = nodes.token(session)
    second = nodes.token(await nodes.a.rotate_session(session, grace=timedelta(hours=1)))
    third = nodes.token(await nodes.a.rotate_session(session, grace=3600))
    assert await nodes.states(first) == {"superseded"}, "two generations live at most"
    assert await nodes.states(second) == {"previous"}
    stored = tables.run("SELECT previous_until - rotated_at, rotated_at < now() FROM {sessions}")
    assert stored == [(timedelta(hours=1), True)]
    tables.run("UPDATE {sessions} SET previous_until = now() - interval '1 minute'")
    assert await nodes.states(second) == {"superseded"}
    tables.run("UPDATE {sessions} SET rotated_at = now() - interval '1 minute'")
    assert await nodes.states(first) == await nodes.states(second) == {"ended"}
    assert await nodes.states(third) == {"current"}
    assert await nodes.a.delete_session(session.id)
    assert await nodes.states(third) == await nodes.states(first) == {"ended"}


async def test_without_a_grace_the_token_of_before_ends_at_once(open_nodes: Any, tables: Tables) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session("u")
    before = nodes.token(session)
    await nodes.b.get_session(session.id)
    after = nodes.token(await nodes.a.rotate_session(session, grace=0))
    assert await nodes.states(before) == {"superseded"}
    assert await nodes.states(after) == {"current"}
    assert tables.run("SELECT previous_generation, previous_until FROM {sessions}") == [(None, None)]
    refused = nodes.a.stats().refused_tokens
    assert await nodes.a.get_session_by_token(before) is None
    assert nodes.a.stats().refused_tokens == refused + 1


async def test_a_new_token_is_good_where_the_rotation_was_not_heard_of(open_nodes: Any) -> None:
    nodes = await open_nodes()
    for _ in range(20):
        session = await nodes.a.create_session("u")
        await nodes.b.get_session(session.id)
        after = nodes.token(await nodes.a.rotate_session(session, grace=0))
        opened = await nodes.b.open_token(after)
        assert opened.state == "current" and opened.session.version == session.version


async def test_logging_in_binds_the_user_and_ends_the_visitors_token(open_nodes: Any) -> None:
    """Fixation: who has planted the visitor's token is not logged in with it."""
    nodes = await open_nodes(session_expiration=7200)
    visitor = await nodes.a.create_session(None, {"cart": ["book"]}, expires_in=60)
    planted = nodes.token(visitor)
    visitor["cart"].append("pen")
    session = await nodes.a.rotate_session(visitor, user_id=uuid.UUID(int=7), group_id="g")
    assert session.user_id == str(uuid.UUID(int=7)) and session.group_id == "g"
    assert session.expires_at - datetime.now(UTC) > timedelta(seconds=3600), "the default anew"
    assert await nodes.states(planted) == {"superseded"}
    assert await nodes.states(nodes.token(session)) == {"current"}
    (listed,) = await nodes.b.list_user_sessions(uuid.UUID(int=7))
    assert listed.id == session.id and listed["cart"] == ["book", "pen"]
    for user, expires_in in ((uuid.UUID(int=7), 60), (None, None)):
        before = nodes.token(session)
        await nodes.a.rotate_session(session, user_id=user, expires_in=expires_in)
        assert await nodes.states(before) == {"superseded"}, "also where the user stays, or leaves"
        assert (session.expires_at - datetime.now(UTC) < timedelta(seconds=61)) == (expires_in == 60)
    assert session.user_id is None and await nodes.b.list_user_sessions(uuid.UUID(int=7)) == []


async def test_an_update_that_changes_the_user_is_a_login(open_nodes: Any) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session()
    before = nodes.token(session)
    session["n"] = 1
    await nodes.a.update_session(session, user_id="ann", check="session", notify=False)
    assert session.user_id == "ann" and await nodes.states(before) == {"superseded"}
    assert await nodes.states(nodes.token(session)) == {"current"}


async def test_a_grace_is_not_for_logins(manager: pgsession.AsyncSessionManager) -> None:
    session = await manager.create_session()
    version = session.version
    with pytest.raises(ValueError, match=r"^grace: "):
        await manager.rotate_session(session, user_id="ann", grace=1)
    for bad in (-1, "1", True):
        with pytest.raises((ValueError, TypeError), match=r"^grace: "):
            await manager.rotate_session(session, grace=bad)  # type: ignore[arg-type]
    assert session.version == version


@pytest.mark.parametrize("policy", ["evict", "reject"])
async def test_limits_are_enforced_where_the_user_is_bound(open_nodes: Any, policy: str) -> None:
    nodes = await open_nodes(max_sessions=2, max_sessions_policy=policy)
    old = [await nodes.a.create_session("ann") for _ in range(2)]
    # What the node believes of the server's clock may be behind by as much as an answer took.
    while (await nodes.a.get_session(old[0].id)).last_accessed <= old[1].last_accessed:
        pass
    visitor = await nodes.a.create_session(None, {"cart": 1})
    token, version = nodes.token(visitor), visitor.version
    visitor["cart"] = 2
    if policy == "reject":
        with pytest.raises(pgsession.TooManySessionsError) as caught:
            await nodes.a.rotate_session(visitor, user_id="ann")
        assert caught.value.user_id == "ann" and caught.value.limit == 2
        assert visitor.version == version and visitor.user_id is None and visitor.is_modified
        assert await nodes.states(token) == {"current"}
        await nodes.a.rotate_session(old[0], user_id="ann")
        assert len(await nodes.b.list_user_sessions("ann")) == 2, "who has it already takes no more room"
        return
    await nodes.a.rotate_session(visitor, user_id="ann")
    left = {session.id for session in await nodes.b.list_user_sessions("ann")}
    assert left == {old[0].id, visitor.id}, "the least recently used one went, by this node's accesses too"
    assert await nodes.b.get_session(old[1].id) is None and nodes.a.get_cached_session(old[1].id) is None
    await nodes.a.rotate_session(old[0], user_id="ann")
    assert len(await nodes.b.list_user_sessions("ann")) == 2
    last = await nodes.a.create_session("ann")
    assert last.id in {session.id for session in await nodes.b.list_user_sessions("ann")}
    assert len(await nodes.b.list_user_sessions("ann")) == 2


@pytest.mark.parametrize("policy", ["evict", "reject"])
@pytest.mark.parametrize("again_first", [True, False])
async def test_who_logs_in_again_takes_its_own_room(open_nodes: Any, policy: str, again_first: bool) -> None:
    """Also where another session is given to the user at the same moment, in the same batch."""
    nodes = await open_nodes(max_sessions=1, max_sessions_policy=policy)
    again, visitor = await nodes.a.create_session("ann"), await nodes.a.create_session()
    sessions = (again, visitor) if again_first else (visitor, again)
    crew, refused = AsyncCrew(), []

    async def log_in(session: pgsession.Session) -> None:
        try:
            await nodes.a.rotate_session(session, user_id="ann")
        except (pgsession.TooManySessionsError, pgsession.SessionNotFoundError):
            refused.append(session)

    for session in sessions:
        crew.start(log_in, session)
    await crew.join()
    left = await nodes.b.list_user_sessions("ann")
    assert len(left) == 1 and (policy == "evict" or left[0].id == again.id)
    if policy == "reject":
        assert refused == [visitor]


@pytest.mark.parametrize("policy", ["evict", "reject"])
async def test_who_may_not_leave_a_user_still_takes_room(open_nodes: Any, policy: str) -> None:
    nodes = await open_nodes(max_sessions=1, max_sessions_policy=policy)
    leaving, visitor = await nodes.a.create_session("ann"), await nodes.a.create_session()
    await nodes.a.create_session("bob")
    crew = AsyncCrew()

    async def give(session: pgsession.Session, user: str) -> None:
        try:
            await nodes.a.rotate_session(session, user_id=user)
        except (pgsession.TooManySessionsError, pgsession.SessionNotFoundError):
            pass

    crew.start(give, leaving, "bob")
    crew.start(give, visitor, "ann")
    await crew.join()
    for user in ("ann", "bob"):
        assert len(await nodes.b.list_user_sessions(user)) == 1


async def test_many_logins_at_once_keep_to_the_limit(open_nodes: Any) -> None:
    nodes = await open_nodes(max_sessions=2)
    visitors = [await nodes.a.create_session() for _ in range(12)]
    crew = AsyncCrew()

    async def log_in(number: int) -> None:
        node = (nodes.a, nodes.b)[number % 2]
        session = await node.get_session(visitors[number].id)
        assert session is not None
        await node.rotate_session(session, user_id="ann")

    for number in range(len(visitors)):
        crew.start(log_in, number)
    await crew.join()
    assert len(await nodes.a.list_user_sessions("ann")) == 2


async def test_two_rotations_of_one_session_are_one(open_nodes: Any, tables: Tables) -> None:
    """Two tabs: the second one's changes are saved, and the browser keeps the first one's token."""
    nodes = await open_nodes()
    session = await nodes.a.create_session("u", {"n": 1})
    token = nodes.token(session)
    first, second = await nodes.a.get_session_by_token(token), await nodes.b.get_session_by_token(token)
    first["a"], second["b"] = 1, 2
    await nodes.a.rotate_session(first)
    generation = tables.one("SELECT generation FROM {sessions}")
    await nodes.b.rotate_session(second)
    assert tables.one("SELECT generation FROM {sessions}") == generation
    assert dict(second) == {"n": 1, "a": 1, "b": 2} and nodes.b.token(second) is None
    assert nodes.a.token(first) is not None
    third = await nodes.b.get_session_by_token(token)
    third["c"] = 3
    await nodes.b.rotate_session(third)
    assert tables.one("SELECT generation FROM {sessions}") == generation and third["c"] == 3
    assert nodes.b.token(third) is None and not third.is_modified
    await nodes.b.rotate_session(third)
    assert nodes.b.token(third) is None


async def test_who_has_an_older_token_binds_nobody(open_nodes: Any) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session(None, {"n": 1})
    token = nodes.token(session)
    late = await nodes.a.get_session_by_token(token)
    await nodes.a.rotate_session(session)
    version = session.version
    for older in (late, await nodes.b.get_session_by_token(token)):
        older["n"] = 2
        for bind in (nodes.b.rotate_session, nodes.b.update_session):
            with pytest.raises(pgsession.SessionVersionConflict):
                await bind(older, user_id="thief")
        assert older.user_id is None and older.is_modified
    read = await nodes.a.get_session(session.id, refresh=True)
    assert read is not None and read.version == version and read.user_id is None


async def test_an_update_earns_no_token_of_a_rotation_meanwhile(open_nodes: Any) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session("u")
    thief = await nodes.b.get_session_by_token(nodes.token(session))
    await nodes.a.rotate_session(session)
    thief["n"] = 1
    await nodes.b.update_session(thief)
    assert nodes.b.token(thief) is None
    idle = await nodes.b.get_session_by_token(nodes.token(session))
    await nodes.a.rotate_session(session)
    await nodes.b.update_session(idle)  # writes nothing, reads
    assert nodes.b.token(idle) is None


async def test_what_is_held_never_writes_into_another_users_session(open_nodes: Any, tables: Tables) -> None:
    """Whatever is checked: alice's object is of a session that is no more."""
    nodes = await open_nodes()
    session = await nodes.a.create_session("alice", {"n": 1, "k": 1})
    held = [await nodes.b.get_session(session.id) for _ in range(6)]
    await nodes.a.rotate_session(session, user_id="bob")
    del session["k"]
    await nodes.a.update_session(session)
    checks: list[dict[str, Any]] = [{}, {"check": "session"}, {"check": "attributes"}, {"group_id": "g"}]
    for one, options in zip(held, checks, strict=False):
        one["n"] = "alice's"
        one.pop("k")
        with pytest.raises(pgsession.SessionNotFoundError, match="was given to another user, or replaced"):
            await nodes.b.update_session(one, **options)
        assert one.is_modified and one.user_id == "alice"
    with pytest.raises(pgsession.SessionNotFoundError, match="was given to another user, or replaced"):
        await nodes.b.update_session(held[4])
    assert held[4].user_id == "alice", "nor does it become bob's by an update that writes nothing"
    for bind in ({}, {"user_id": "alice"}):
        with pytest.raises((pgsession.SessionNotFoundError, pgsession.SessionVersionConflict)):
            await nodes.b.rotate_session(held[5], **bind)
    read = await nodes.b.get_session(session.id)
    assert read is not None and read.user_id == "bob" and dict(read) == {"n": 1}
    tables.run("UPDATE {sessions} SET user_id = 'alice'")
    with pytest.raises(pgsession.SessionNotFoundError):
        await nodes.a.update_session(session, group_id="g")


async def test_a_rotation_that_keeps_the_user_refuses_no_open_session(open_nodes: Any) -> None:
    """A long WebSocket goes on saving."""
    nodes = await open_nodes()
    session = await nodes.a.create_session("ann", {"n": 1})
    held = await nodes.b.get_session(session.id)
    for options in ({"grace": 0}, {"user_id": "ann"}, {}):
        await nodes.a.rotate_session(session, **options)
        held["n"] = held["n"] + 1
        await nodes.b.update_session(held)
    assert held["n"] == 4


async def test_what_is_gone_is_not_rotated(open_nodes: Any) -> None:
    nodes = await open_nodes(max_sessions=1)
    old = await nodes.a.create_session("ann")
    session = await nodes.a.create_session()
    await nodes.b.delete_session(session.id)
    for options in ({}, {"user_id": "ann"}):
        with pytest.raises(pgsession.SessionNotFoundError, match="no live session"):
            await nodes.a.rotate_session(session, **options)
    assert await nodes.a.get_session(old.id, refresh=True) is not None, "nobody was evicted for nothing"


async def test_what_is_not_written_evicts_nobody(open_nodes: Any, tables: Tables) -> None:
    nodes = await open_nodes(max_sessions=1)
    old = await nodes.a.create_session("ann")
    expired, outdated = await nodes.a.create_session(), await nodes.a.create_session()
    tables.run("UPDATE {sessions} SET expires_at = now() - interval '1 second' WHERE id = %s", expired.id)
    with pytest.raises(pgsession.SessionNotFoundError):
        await nodes.a.rotate_session(expired, user_id="ann")
    other = await nodes.b.get_session(outdated.id)
    await nodes.b.update_session(other, group_id="g")
    with pytest.raises(pgsession.SessionVersionConflict):
        await nodes.a.update_session(outdated, user_id="ann", check="session")
    assert await nodes.a.get_session(old.id, refresh=True) is not None


async def test_locks_stay(open_nodes: Any) -> None:
    nodes = await open_nodes()
    session = await nodes.a.create_session()
    async with nodes.b.lock("r", session_id=session.id) as lock:
        await nodes.a.rotate_session(session, user_id="ann")
        await lock.extend(60)
        assert not lock.lost.is_set()


async def test_a_rotation_is_told_whatever_is_notified(open_nodes: Any) -> None:
    nodes = await open_nodes(notify_on_updates=False)
    session = await nodes.a.create_session("u")
    before = nodes.token(session)
    await nodes.b.get_session(session.id)
    await nodes.a.rotate_session(session, grace=0)

    async def refused() -> bool:
        return bool((await nodes.b.open_token(before)).state == "superseded")

    await eventually(refused, "an event to reach the other node")
