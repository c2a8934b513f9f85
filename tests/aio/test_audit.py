"""What a manager tells a security log, and that whoever listens slowly, or fails, delays nobody."""

from __future__ import annotations

import logging
import threading
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

import pgsession
from pgsession import AuditEvent
from tests.crew import AsyncCrew
from tests.leftovers import Leftovers
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

BOUND = 0.5  # seconds for what waits at a `close`; otherwise 5


class Heard:
    """Keeps what it is called with."""

    def __init__(self) -> None:
        self.events: list[AuditEvent] = []
        self.threads: set[int] = set()

    def __call__(self, event: AuditEvent) -> None:
        self.events.append(event)
        self.threads.add(threading.get_ident())

    async def kinds(self, count: int) -> list[tuple[str, str | None]]:
        """Those of so many events, once there are."""

        async def all_there() -> bool:
            return len(self.events) >= count

        await eventually(all_there, f"{count} events, not {self.events},")
        return [(event.kind, event.reason) for event in self.events]


async def test_the_life_of_a_session(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    manager = await open_manager(on_audit_event=heard)
    session = await manager.create_session("alice", group_id="g")
    assert await manager.delete_session(session.id)
    assert not await manager.delete_session(session.id)
    assert await heard.kinds(2) == [("session_created", None), ("session_expired", "logout")]
    for event in heard.events:
        assert (event.session_id, event.user_id, event.group_id) == (session.id, "alice", "g")
        assert event.node == manager._node and event.count == 1
        assert abs(event.time - datetime.now(UTC)) < timedelta(seconds=30)
    assert heard.threads and threading.get_ident() not in heard.threads
    assert manager.stats().audit_events == 2 and manager.stats().lost_audit_events == 0


async def test_whose_a_session_was_is_told_also_where_it_was_not_in_memory(
    open_manager: OpenAsyncManager,
) -> None:
    heard = Heard()
    session = await (await open_manager()).create_session('a"b\\☃', group_id=None)
    assert await (await open_manager(on_audit_event=heard)).delete_session(session.id)
    await heard.kinds(1)
    assert heard.events[0].user_id == 'a"b\\☃' and heard.events[0].group_id is None


async def test_who_has_to_make_room(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    manager = await open_manager(max_sessions=1, on_audit_event=heard)
    first = await manager.create_session("alice")
    await manager.create_session("alice")
    assert (await heard.kinds(3))[1:] == [("session_created", None), ("session_expired", "evicted")]
    assert heard.events[2].session_id == first.id and heard.events[2].user_id == "alice"


async def test_new_tokens_and_logins(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    manager = await open_manager(max_sessions=1, on_audit_event=heard, signer=pgsession.Signer(b"k" * 32))
    old = await manager.create_session("alice")
    session = await manager.create_session()
    token = manager.token(session)
    await manager.rotate_session(session, user_id="alice")
    await manager.rotate_session(session, user_id="alice")
    await manager.rotate_session(session)
    assert token is not None and (await manager.open_token(token)).session is None
    assert (await heard.kinds(7))[2:] == [
        ("session_bound", None),
        ("session_expired", "evicted"),
        ("session_renewed", None),
        ("session_renewed", None),
        ("session_use_after_expire", "superseded"),
    ]
    bound, evicted, *_ = heard.events[2:]
    assert (bound.session_id, bound.user_id) == (session.id, "alice")
    assert (evicted.session_id, evicted.user_id) == (old.id, "alice")


async def test_many_are_told_at_once_with_their_number(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    other = await open_manager(max_sessions=0)
    manager = await open_manager(max_sessions=0, on_audit_event=heard)
    for user in ("alice", "alice", "bob", "bob", "carol"):
        await other.create_session(user, group_id="g" if user == "bob" else None)
    assert await manager.delete_user_sessions("alice") == 2
    assert await manager.delete_group_sessions("g") == 2
    assert await manager.delete_all_sessions() == 1
    assert await manager.delete_all_sessions() == 0
    assert await heard.kinds(3) == [("session_expired", "revoked")] * 3
    told = [(event.user_id, event.group_id, event.session_id, event.count) for event in heard.events]
    assert told == [("alice", None, None, 2), (None, "g", None, 2), (None, None, None, 1)]


async def test_what_a_cleanup_removes(open_manager: OpenAsyncManager, tables: Tables) -> None:
    heard = Heard()
    manager = await open_manager(max_sessions=0, on_audit_event=heard)
    for _ in range(3):
        await manager.create_session("alice")
    await manager.create_session("bob")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() - interval '1 s' WHERE user_id = 'alice'")
    tables.run_unheard("UPDATE {sessions} SET last_accessed = now() - interval '90 d' WHERE user_id = 'bob'")
    assert await manager._open_runtime().maintenance.clean_up()
    assert (await heard.kinds(6))[4:] == [("session_expired", "expired"), ("session_expired", "inactive")]
    assert [event.count for event in heard.events[4:]] == [3, 1]


async def test_tokens_that_nobody_signed(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    manager = await open_manager(signer=pgsession.Signer(b"k" * 32), on_audit_event=heard)
    assert await manager.get_session_by_token("forged") is None
    assert await manager.get_session_by_token("") is None, "nobody has sent one"
    await manager.create_session("alice")
    assert await heard.kinds(2) == [("session_token_forged", None), ("session_created", None)]


async def test_conflicts(open_manager: OpenAsyncManager) -> None:
    heard = Heard()
    manager = await open_manager(on_audit_event=heard)
    session = await manager.create_session("alice", {"n": 0})
    old = await manager.get_session(session.id)
    unchanged = await manager.get_session(session.id)
    assert old is not None and unchanged is not None
    session["n"] = 1
    await manager.update_session(session)
    old["n"] = 2
    for outdated, check in ((old, "session"), (old, "attributes"), (unchanged, "session")):
        with pytest.raises(pgsession.ConflictError):
            await manager.update_session(outdated, check=check)  # type: ignore[arg-type]
    assert (await heard.kinds(4))[1:] == [
        ("session_update_conflict", reason) for reason in ("session", "attributes", "session")
    ]
    assert {event.user_id for event in heard.events} == {"alice"}


async def test_a_lock_that_is_lost(open_manager: OpenAsyncManager, tables: Tables) -> None:
    heard = Heard()
    manager = await open_manager(on_audit_event=heard)
    lock = manager.lock("rebuild", heartbeat_interval=0.05)
    assert await lock.acquire()
    tables.run("DELETE FROM {session_locks}")
    await heard.kinds(1)
    assert [(event.kind, event.resource) for event in heard.events] == [("session_lock_lost", "rebuild")]


async def test_a_function_that_hangs_delays_nobody(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("pgsession._async.runtime.REPORTING", BOUND)
    goes_on = threading.Event()
    called: list[AuditEvent] = []

    def hangs(event: AuditEvent) -> None:
        called.append(event)
        goes_on.wait()

    config = pgsession.Config(
        schema_name=schema, create_schema_if_missing=True, on_audit_event=hangs, max_sessions=0
    )
    with Leftovers(dsn):
        manager = pgsession.AsyncSessionManager(dsn, config)
        await manager.open()
        async with AsyncCrew() as crew:
            for _ in range(20):
                crew.start(logins, manager, 10)
            await crew.join()
        for _ in range(12_000):
            manager._open_runtime().audit.ended("logout")
        assert len(called) == 1 and manager.stats().audit_events == 1
        assert manager.stats().lost_audit_events == 12_000 + 200 - 1 - 10_000
        began = time.monotonic()
        audit = manager._open_runtime().audit
        await manager.close(timeout=None)
        assert time.monotonic() - began < 3 * (BOUND + 1)
        assert audit.lost == 12_000 + 200 - 1
        assert "on_audit_event was never called with 12,199 events" in caplog.text
        goes_on.set()
    assert len(called) == 1


async def logins(manager: pgsession.AsyncSessionManager, count: int) -> None:
    for number in range(count):
        session = await manager.create_session(f"u{number}")
        assert await manager.get_session(session.id) is not None


async def test_a_close_waits_for_what_waits(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def slow(event: AuditEvent) -> None:
        time.sleep(0.001)
        heard(event)

    manager = await open_manager(on_audit_event=slow)
    for _ in range(100):
        manager._open_runtime().audit.ended("logout")
    await manager.close()
    assert len(heard.events) == 100 and "on_audit_event" not in caplog.text


async def test_a_function_that_raises_is_logged_and_called_again(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture
) -> None:
    heard = Heard()

    def raises(event: AuditEvent) -> None:
        heard(event)
        raise SystemExit("no more")

    manager = await open_manager(on_audit_event=raises)
    for _ in range(5):
        await manager.create_session("alice")
    await heard.kinds(5)
    await manager.close()
    lines = [record for record in caplog.records if "on_audit_event" in record.getMessage()]
    assert len(lines) == 1 and lines[0].levelno == logging.ERROR


async def test_it_may_call_the_manager(open_manager: OpenAsyncManager) -> None:
    made: list[Any] = []

    def calls(event: AuditEvent) -> None:
        manager = made[0]
        assert event.session_id is not None
        made.append((manager.stats().audit_events, manager.get_cached_session(event.session_id)))

    made.append(await open_manager(on_audit_event=calls))
    session = await made[0].create_session("alice")

    async def called() -> bool:
        return len(made) == 2

    await eventually(called)
    assert made[1][0] == 1 and (made[1][1] is None or made[1][1].id == session.id)
