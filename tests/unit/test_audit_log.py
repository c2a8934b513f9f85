"""What the audit log keeps of what happens, and what it counts as lost, by a clock of the test's own."""

from __future__ import annotations

from datetime import UTC, datetime
from uuid import UUID

from pgsession._core.record import Record
from pgsession._protocol import audit_log
from pgsession._protocol.audit_log import MOST_REFUSED_WAITING, MOST_WAITING, REFUSED_A_SECOND, AuditLog
from pgsession.audit import AuditEvent
from pgsession.errors import AttributeVersionConflict, SessionVersionConflict

ID = UUID(bytes=b"k" * 16)
RECORD = Record(ID.bytes, 1, "u", "g", 0, 0, 0, 10**15, None, [])


class Clock:
    seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


def make(active: bool = True) -> tuple[AuditLog, Clock]:
    clock = Clock()
    return AuditLog("node", lambda: 1_000_000, active=active, clock=clock), clock


def taken(log: AuditLog) -> list[AuditEvent]:
    events = []
    while (event := log.take()) is not None:
        events.append(event)
    return events


def test_each_kind_in_its_order() -> None:
    log, _ = make()
    log.created(RECORD)
    log.bound(RECORD)
    log.rotated(RECORD)
    log.conflict(RECORD, SessionVersionConflict(ID, 1, 2))
    log.conflict(RECORD, AttributeVersionConflict(ID, ("a",)))
    log.ended("revoked", user_id="u", count=3)
    log.ended("revoked", user_id="u", count=0)
    log.token_refused("superseded", RECORD.key)
    log.token_refused("forged", RECORD.key)
    log.lock_lost("r", "ended")
    events = taken(log)
    assert [(event.kind, event.reason) for event in events] == [
        ("session_created", None),
        ("session_bound", None),
        ("session_renewed", None),
        ("session_update_conflict", "session"),
        ("session_update_conflict", "attributes"),
        ("session_expired", "revoked"),
        ("session_use_after_expire", "superseded"),
        ("session_token_forged", None),
        ("session_lock_lost", "ended"),
    ]
    first = events[0]
    assert (first.session_id, first.user_id, first.group_id) == (ID, "u", "g")
    assert (
        first.time == datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC) and first.node == "node" and first.count == 1
    )
    assert events[5].count == 3 and events[5].session_id is None
    assert events[7].session_id is None, "anybody can name one"
    assert events[8].resource == "r"


def test_so_many_wait_and_the_rest_is_counted() -> None:
    log, _ = make()
    for _ in range(MOST_WAITING + 5):
        log.created(RECORD)
    assert len(log) == MOST_WAITING and log.lost == 5
    assert len(taken(log)) == MOST_WAITING
    log.created(RECORD)
    assert len(log) == 1 and log.lost == 5


def test_a_flood_of_tokens_pushes_out_nothing_else() -> None:
    log, _ = make()
    for _ in range(MOST_WAITING):
        log.token_refused("forged")
    assert len(log) == MOST_REFUSED_WAITING and log.lost == MOST_WAITING - MOST_REFUSED_WAITING
    for _ in range(MOST_WAITING - MOST_REFUSED_WAITING):
        log.created(RECORD)
    assert log.lost == MOST_WAITING - MOST_REFUSED_WAITING
    full, _ = make()
    for _ in range(MOST_WAITING):
        full.created(RECORD)
    full.token_refused("forged")
    assert full.lost == 0 and len(full) == MOST_WAITING + 1, "and is pushed out by nothing else"


def test_refused_tokens_have_a_rate() -> None:
    log, clock = make()
    for second in range(5):
        clock.seconds = second
        for _ in range(1_000):
            log.token_refused("forged")
        told = len(taken(log))
        assert told == (MOST_REFUSED_WAITING if second == 0 else REFUSED_A_SECOND)


def test_nothing_is_kept_where_nobody_wants_to_know() -> None:
    log, _ = make(active=False)
    log.created(RECORD)
    assert len(log) == log.lost == 0


def test_what_is_given_up_is_lost() -> None:
    log, _ = make()
    for _ in range(3):
        log.created(RECORD)
    log.take()
    log.give_up()
    log.created(RECORD)
    assert log.lost == 2 and log.take() is None


def test_the_bounds_are_those_that_the_configuration_names() -> None:
    from pgsession import Config

    text = Config.__doc__ or ""
    assert f"{audit_log.MOST_WAITING:,} events" in text and f"{REFUSED_A_SECOND} a second" in text
    assert f"{MOST_REFUSED_WAITING} about refused tokens" in " ".join(text.split())
