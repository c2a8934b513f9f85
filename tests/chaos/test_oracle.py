"""The oracle has teeth: each broken promise, in a history made by hand, is found, and what is allowed is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.history import Call, Fault
from tests.chaos.oracle import Oracle
from tests.chaos.verdict import Limits, Row, Verdict

SECOND = 1_000_000
LIMITS = Limits(max_staleness=2 * SECOND, operation_timeout=SECOND, max_sessions=2)


def call(kind: str, began: float, **fields: Any) -> Call:
    """At a second; over a hundredth of a second later."""
    fields = {"node": 0, "who": "0.0", "session": "s", "user": "u", **fields}
    start = int(began * SECOND)
    return Call(kind=kind, began=start, ended=start + SECOND // 100, **fields)


def create(began: float = 0, **fields: Any) -> Call:
    return call("create", began, **{"version": 1, "content": {"0.0": 1}, "wrote": {"0.0": 1}, **fields})


def update(began: float, version: int, **fields: Any) -> Call:
    content = {"0.0": version}
    return call("update", began, **{"version": version, "content": content, "wrote": content, **fields})


def get(began: float, version: int, **fields: Any) -> Call:
    return call("get", began, **{"version": version, "content": {"0.0": version}, "who": "", **fields})


def crash(began: float, ended: float) -> Fault:
    return Fault(kind="crash", began=int(began * SECOND), ended=int(ended * SECOND), lossy=True)


def checked(
    *calls: Call,
    faults: tuple[Fault, ...] = (),
    row: Row | None = None,
    rows: dict[str, Row] | None = None,
) -> Verdict:
    """What the oracle says, the session's row being as after the last write where nothing else is given."""
    if rows is None:
        last = max((c.version for c in calls if c.outcome == "ok" and c.kind != "get"), default=1)
        rows = {} if row is None else {"s": row}
        if row is None and not any(c.kind.startswith("delete") for c in calls):
            rows = {"s": Row(last, {"0.0": last})}
    return Oracle(list(calls), list(faults), rows, LIMITS).check()


def kinds(verdict: Verdict) -> set[str]:
    return {violation.kind for violation in verdict.violations}


def test_nothing_is_wrong_with_an_ordinary_history() -> None:
    verdict = checked(create(), update(1, 2), get(1.1, 2), get(1.2, 1, node=1), get(1.5, 2, node=1))
    assert not verdict.violations
    assert verdict.longest_stale == pytest.approx(0.19 * SECOND)


def test_a_version_that_goes_back() -> None:
    assert "backwards" in kinds(checked(create(), update(1, 2), get(1.1, 2, node=1), get(1.2, 1, node=1)))


def test_calls_that_overlap_may_be_in_either_order() -> None:
    slow = get(1.1, 1, node=1)
    slow.ended += SECOND
    assert not checked(create(), update(1, 2), slow, get(1.15, 2, node=1)).violations


def test_an_own_write_that_is_not_read() -> None:
    assert "own" in kinds(checked(create(), update(1, 2), get(1.1, 1)))


def test_a_token_that_is_not_honoured() -> None:
    assert "own" in kinds(checked(create(), update(1, 2), get(1.1, 1, node=1, floor=2)))


def test_a_record_served_for_too_long() -> None:
    assert "stale" in kinds(checked(create(), update(1, 2), get(3.5, 1, node=1)))


def test_an_acknowledged_write_that_is_lost() -> None:
    assert "lost" in kinds(checked(create(), update(1, 2), row=Row(1, {"0.0": 1})))
    overwritten = get(2, 3, node=1, content={"0.0": 1})
    assert "lost" in kinds(checked(create(), update(1, 2), overwritten, row=Row(3, {"0.0": 2})))


def test_a_session_that_is_lost() -> None:
    assert "lost" in kinds(checked(create(), call("get", 1, outcome="none")))


def test_two_increments_to_the_same_number() -> None:
    one, other = (
        call("update", at, version=at + 1, who=f"{at}.0", wrote={"count": 1}, content={"0.0": 1, "count": 1})
        for at in (1, 2)
    )
    assert "lost" in kinds(checked(create(), one, other, row=Row(3, {"0.0": 1, "count": 1})))


def test_one_version_with_two_contents() -> None:
    assert "torn" in kinds(checked(create(), update(1, 2), get(1.1, 2, content={"0.0": 2, "more": 1})))


def test_a_deleted_session_that_comes_back() -> None:
    deleted = call("delete", 1)
    assert "resurrected" in kinds(checked(create(), deleted, get(1.1, 1)))
    assert not checked(create(), deleted, get(1.1, 1, node=1)).violations, "the others are told of it"
    assert "resurrected" in kinds(checked(create(), deleted, get(4, 1, node=1)))
    assert "resurrected" in kinds(checked(create(), deleted, row=Row(1, {"0.0": 1})))


def test_a_session_that_every_node_knew_to_be_deleted() -> None:
    deleted = call("delete", 1, wait=SECOND, confirmed=True)
    assert "resurrected" in kinds(checked(create(), deleted, get(1.1, 1, node=1)))
    assert checked(create(), deleted, call("get", 1.1, node=1, outcome="none")).tried["ended everywhere"] == 1
    of_user = call("delete_user", 1, session="", wait=SECOND, confirmed=True)
    assert "resurrected" in kinds(checked(create(), of_user, get(1.1, 1, node=1)))
    deleted.confirmed = False
    verdict = checked(create(), deleted, get(1.1, 1, node=1))
    assert not verdict.violations and verdict.unconfirmed == 1


def test_a_session_that_a_bulk_deletion_left() -> None:
    deleted = call("delete_user", 1, session="")
    assert "resurrected" in kinds(checked(create(), deleted, row=Row(1, {"0.0": 1})))
    kept = call("delete_user", 1, session="", keep="s")
    assert not checked(create(), kept, row=Row(1, {"0.0": 1})).violations


def test_a_dropped_attribute_that_comes_back() -> None:
    content = {"0.0": 2, "shared": "mine"}
    wrote = update(1, 2, wrote=content, content=content)
    dropped = call("drop", 2, session="")
    back = get(2.1, 2, content=content)
    assert "resurrected" in kinds(checked(create(), wrote, dropped, back, row=Row(3, {"0.0": 2})))


def test_a_failed_write_that_was_done() -> None:
    failed = call("update", 1, outcome="error", wrote={"0.0": 2})
    assert "undone" in kinds(checked(create(), failed, get(2, 2), row=Row(2, {"0.0": 2})))
    unknown = call("update", 1, outcome="unknown", wrote={"0.0": 2})
    assert not checked(create(), unknown, get(2, 2), row=Row(2, {"0.0": 2})).violations


def test_a_cache_that_differs_in_the_end() -> None:
    stale = call("final", 9, version=1, content={"0.0": 1}, node=1)
    assert "quiescent" in kinds(checked(create(), update(1, 2), stale))
    gone = call("final", 9, version=1, content={"0.0": 1}, node=1)
    assert "quiescent" in kinds(checked(create(), call("delete", 1), gone))


def test_what_nobody_was_told_of_may_be_lost_in_a_crash() -> None:
    unknown = call("update", 1, outcome="unknown", wrote={"0.0": 2})
    seen, back = get(1.2, 2, node=1), get(3, 1, node=1)
    row = Row(1, {"0.0": 1})
    assert "backwards" in kinds(checked(create(), unknown, seen, back, row=row))
    assert not checked(create(), unknown, seen, back, faults=(crash(1.5, 2),), row=row).violations
    again = update(3.1, 2, node=1, who="1.0", content={"0.0": 1, "1.0": 7}, wrote={"1.0": 7})
    end = Row(2, {"0.0": 1, "1.0": 7})
    history = (create(), unknown, seen, back, again)
    assert not checked(*history, faults=(crash(1.5, 2),), row=end).violations, "the number is given out again"


def test_what_was_acknowledged_may_not_be_lost_in_a_crash() -> None:
    verdict = checked(create(), update(1, 2), get(3, 1), faults=(crash(1.5, 2),), row=Row(1, {"0.0": 1}))
    assert {"own", "lost"} <= kinds(verdict)


def test_what_was_lost_is_not_served_for_longer_than_anything_else() -> None:
    unknown = call("update", 1, outcome="unknown", wrote={"0.0": 2})
    content = {"0.0": 1, "1.0": 7}
    again = update(3.1, 2, node=1, who="1.0", content=content, wrote={"1.0": 7})
    seen, late = get(1.2, 2), get(6, 2)
    history = (create(), unknown, seen, again, late)
    assert "stale" in kinds(checked(*history, faults=(crash(1.5, 2),), row=Row(2, content)))


def test_an_attribute_that_outlives_its_expiry() -> None:
    assert "expired" in kinds(checked(create(), get(1, 1, overdue=2 * SECOND)))
