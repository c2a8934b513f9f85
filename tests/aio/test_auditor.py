"""The auditor finds what memory or the tables should not have, and nothing else."""

from __future__ import annotations

import logging
import random
import uuid
from datetime import timedelta
from typing import Any

import pytest

import pgsession
from pgsession._concurrency import async_call, async_sleep
from pgsession._core.record import Record
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


def forged(record: Record, **changes: Any) -> Record:
    """What a record would be if it were otherwise, at the same version."""
    said: dict[str, Any] = {
        name: getattr(record, name)
        for name in ("key", "version", "user_id", "group_id", "created_at", "updated_at", "last_accessed", "expires_at",
                     "inactivity", "generation", "owner_since", "previous_generation", "previous_until", "rotated_at",
                     "incarnation")
    }  # fmt: skip
    return Record(**{**said, "attributes": record.attributes(), **changes})


class Audited:
    """A node whose audits are made by the test, one after the other."""

    def __init__(self, manager: pgsession.AsyncSessionManager, events: list[pgsession.AuditEvent]) -> None:
        self.manager = manager
        self.told = events
        assert manager._runtime is not None
        self.auditor = manager._runtime.auditor

    async def audit(self) -> int:
        """Audits, has all that was committed be heard, and audits again; how many were compared."""
        before = self.manager.stats().audited_sessions
        await self.auditor.audit()
        await self.heard_all()
        await self.auditor.audit()
        return self.manager.stats().audited_sessions - before

    async def heard_all(self) -> None:
        """Waits for an event from after all that was committed so far."""
        runtime = self.manager._runtime
        assert runtime is not None
        *_, xmax = await runtime.store.query(runtime.statements.look, ())
        await self.manager.evict_user_sessions("nobody")

        async def heard() -> bool:
            return self.manager._coherence._proofs.has_heard(int(xmax))

        await eventually(heard)

    @property
    def failed(self) -> int:
        return self.manager.stats().failed_audits

    def record(self, session: pgsession.Session) -> Record:
        record = self.manager._cache.get(session.id, False)
        assert record is not None
        return record

    async def until_told(self, *reasons: str) -> list[pgsession.AuditEvent]:
        def of_audits() -> list[pgsession.AuditEvent]:
            return [event for event in self.told if event.kind == "session_audit_failed"]

        async def told() -> bool:
            return [event.reason for event in of_audits()] == list(reasons)

        await eventually(told, f"{reasons}, not {of_audits()}")
        return of_audits()


async def audited(open_manager: OpenAsyncManager, **fields: Any) -> Audited:
    events: list[pgsession.AuditEvent] = []
    manager = await open_manager(audit_sample=10_000, max_sessions=0, on_audit_event=events.append, **fields)
    return Audited(manager, events)


@pytest.mark.parametrize(
    "change",
    [
        {"user_id": "mallory"},
        {"group_id": "admins"},
        {"expires_at": 2**60},
        {"inactivity": None},
        {"attributes": [("role", 1, None, b'"root"')]},
        {"attributes": []},
    ],
    ids=str,
)
async def test_a_cache_that_was_corrupted_is_reported(
    open_manager: OpenAsyncManager, caplog: pytest.LogCaptureFixture, change: dict[str, Any]
) -> None:
    node = await audited(open_manager)
    session = await node.manager.create_session("ann", {"role": "guest"})
    await create_many(node.manager, 3)
    assert node.manager._cache.put(forged(node.record(session), **change))
    await node.auditor.audit()
    assert node.failed == 1 and node.manager.stats().audited_sessions == 4
    (event,) = await node.until_told("contents")
    assert event.session_id == session.id
    (line,) = [
        record for record in caplog.records if getattr(record, "pgsession_event", "") == "audit_failed"
    ]
    assert (
        line.levelno == logging.ERROR
        and "1 session in memory was not what the database has" in line.getMessage()
    )
    read = await node.manager.get_session(session.id)
    assert read is not None and read.user_id == "ann" and dict(read) == {"role": "guest"}
    assert await node.audit() > 0 and node.failed == 1


async def test_a_version_that_went_back_is_reported(open_manager: OpenAsyncManager) -> None:
    node = await audited(open_manager)
    session = await node.manager.create_session("ann")
    assert node.manager._cache.put(forged(node.record(session), version=session.version + 5))
    await node.auditor.audit()
    assert node.failed == 1
    await node.until_told("version")


async def test_a_write_between_the_two_reads_is_not_reported(open_manager: OpenAsyncManager) -> None:
    """Each kind of write of another node, after the record was taken and before the database is read."""
    node = await audited(open_manager)
    other = await open_manager(max_sessions=0)
    sessions = await create_many(node.manager, 7, attributes={"n": 1})
    taken = node.manager._cache.sample(100)
    changed = [await other.get_session(session.id) for session in sessions]
    async with HeldEvents(node.manager):
        changed[0]["n"] = 2  # type: ignore[index]
        await other.update_session(changed[0], group_id="g")  # type: ignore[arg-type]
        await other.delete_session(changed[1].id)  # type: ignore[union-attr]
        await other.rotate_session(changed[2], user_id="bob")  # type: ignore[arg-type]
        await other.rotate_session(changed[3])  # type: ignore[arg-type]
        changed[4]["n"] = 3  # type: ignore[index]
        await other.update_session(changed[4], notify=False)  # type: ignore[arg-type]
        await other.delete_session(changed[5].id)  # type: ignore[union-attr]
        await other.create_session("eve", session_id=changed[5].id)  # type: ignore[union-attr]
        await node.auditor._compare(taken)
        assert len(node.auditor._suspicions) == 5
        node.auditor._look_again()
        assert len(node.auditor._suspicions) == 5, "nothing was heard yet"
        assert node.failed == 0
    await node.heard_all()
    assert await node.audit() > 0 and node.failed == 0
    assert not node.auditor._suspicions


async def test_an_end_that_nobody_was_told_of_is_not_reported(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """An update with `notify=False` has set an earlier end, which is over; the cleanup has not come by yet."""
    node = await audited(open_manager)
    session = await node.manager.create_session("ann")
    tables.run_unheard(
        "UPDATE {sessions} SET version = version + 1, expires_at = now() - interval '1 hour' WHERE id = %s",
        session.id,
    )
    await node.audit()
    assert node.failed == 0 and node.manager.get_cached_session(session.id) is not None
    tables.run_unheard("DELETE FROM {sessions} WHERE id = %s", session.id)
    await node.audit()
    assert node.failed == 1, "that would have been told"


class HeldEvents:
    """Within it what the node hears is not applied; then it is, in its order."""

    def __init__(self, manager: pgsession.AsyncSessionManager) -> None:
        assert manager._runtime is not None
        self._subscription = manager._runtime.synchronizer._events

    async def __aenter__(self) -> None:
        self._held: list[Any] = []
        self._apply = self._subscription.on_notification
        self._subscription.on_notification = self._held.append

    async def __aexit__(self, *_: object) -> None:
        while self._held:
            await async_call(self._apply, self._held.pop(0))
        self._subscription.on_notification = self._apply


@pytest.mark.parametrize("lost", ["ended", "outdated"])
async def test_an_event_that_never_comes_is_reported(open_manager: OpenAsyncManager, lost: str) -> None:
    node, other = await audited(open_manager), await open_manager()
    session = await node.manager.create_session("ann")
    held = HeldEvents(node.manager)
    await held.__aenter__()
    if lost == "ended":
        await other.delete_session(session.id)
    else:
        read = await other.get_session(session.id)
        assert read is not None
        await other.rotate_session(read, user_id="bob")

    async def has_come() -> bool:
        return bool(held._held)

    await eventually(has_come)
    held._held.clear()
    await held.__aexit__()
    assert await node.audit() == 1
    assert node.failed == 1 and node.manager.get_cached_session(session.id) is None
    (event,) = await node.until_told(lost)
    assert event.session_id == session.id


async def test_nothing_that_a_service_does_is_reported(open_manager: OpenAsyncManager) -> None:
    """Whatever is written, in whatever way, memory has what the database has, or hears of it."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    node, other = await audited(open_manager), await open_manager(max_sessions=0)
    live = [session.id for session in await create_many(node.manager, 10, attributes={"n": 0})]
    compared = 0
    for _ in range(120):
        here = chance.choice([node.manager, node.manager, other])
        session = await here.get_session(chance.choice(live))
        assert session is not None
        match chance.randrange(7):
            case 0:
                session["n"] = [chance.random(), "é", None]
                session.set("soon", 1, expires_in=chance.choice([0.01, 60]))
                await here.update_session(session, notify=chance.random() < 0.7)
            case 1:
                await here.rotate_session(session, user_id=chance.choice([None, "a", "b"]))
            case 2:
                await here.rotate_session(session, grace=chance.choice([0, 30]))
            case 3:
                await here.update_session(
                    session, inactivity=chance.choice([None, timedelta(hours=1)]), group_id="g"
                )
            case 4:
                await here.delete_session(session.id)
                again = await here.create_session("u", {"n": 0}, session_id=session.id)
                assert again.id == session.id
            case 5:
                del session["n"]
                session["m"] = 1
                await here.update_session(session, expires_in=3600)
                session["n"] = 0
                await here.update_session(session)
            case _:
                await here.delete_attribute_from_user_sessions("u", "m")
        if chance.random() < 0.2:
            compared += await node.audit()
    compared += await node.audit()
    assert compared > 50 and node.failed == 0


async def test_what_a_disabled_trigger_keeps_from_the_nodes_is_reported(
    open_manager: OpenAsyncManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    """Row 46 of the faults, after `open()`."""
    node = await audited(open_manager)
    changed, ended = await create_many(node.manager, 2, attributes={"role": "guest"})
    await node.auditor.audit()
    assert node.failed == 0
    tables.run("ALTER TABLE {sessions} DISABLE TRIGGER USER")
    tables.run("ALTER TABLE {session_attributes} DISABLE TRIGGER USER")
    tables.run("""UPDATE {session_attributes} SET value = '"root"' WHERE session_id = %s""", changed.id)
    tables.run("DELETE FROM {sessions} WHERE id = %s", ended.id)
    await node.audit()
    told = await node.until_told("contents", "schema", "ended")
    assert [event.session_id for event in told] == [changed.id, None, ended.id]
    assert told[1].resource is not None and "pgsession_2_note" in told[1].resource
    assert node.failed == 4, "the tables were looked at twice"
    assert caplog.text.count("have been changed") == 1


async def test_rights_that_are_given_to_everybody_are_reported_once(
    open_manager: OpenAsyncManager, tables: Tables, schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = await audited(open_manager)
    tables.run(f"GRANT EXECUTE ON FUNCTION {schema}.session_send_1(text, text) TO PUBLIC")
    await node.auditor.audit()
    await node.auditor.audit()
    (event,) = await node.until_told("schema")
    assert event.resource is not None and "session_send_1" in event.resource
    assert caplog.text.count("have been changed") == 1
    tables.run(f"REVOKE EXECUTE ON FUNCTION {schema}.session_send_1(text, text) FROM PUBLIC")
    await node.auditor.audit()
    assert caplog.text.count("are again as they must be") == 1
    await node.until_told("schema")


async def test_a_node_that_is_not_in_sync_compares_nothing(open_manager: OpenAsyncManager) -> None:
    node = await audited(open_manager)
    await node.manager.create_session("ann")
    node.manager._coherence.on_lost()
    await node.auditor.audit()
    assert node.manager.stats().audited_sessions == 0


async def test_another_incarnation_says_nothing(open_manager: OpenAsyncManager) -> None:
    node = await audited(open_manager)
    session = await node.manager.create_session("ann")
    strange = forged(node.record(session), incarnation=str(uuid.uuid4()), user_id="eve")
    assert node.manager._cache.put(strange)
    await node.auditor.audit()
    assert node.failed == 0 and node.manager.stats().audited_sessions == 0


async def test_the_loop_audits_by_itself(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pgsession._async.auditor.EVERY", 0.01)
    node = await audited(open_manager)
    await node.manager.create_session("ann")

    async def did() -> bool:
        return node.manager.stats().audited_sessions > 0

    await eventually(did)
    off = await open_manager()
    await off.create_session("ann")
    await async_sleep(0)
    assert off._runtime is not None and not off._runtime.auditor._loop.running
