"""The oracle's rules about how calls end have teeth, too: each broken one is found, and what is allowed is not."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.endings import GUARD, bounds
from tests.chaos.history import Call, Fault
from tests.chaos.test_oracle import LIMITS, SECOND, call, checked, create, get, kinds, update
from tests.chaos.verdict import Row


def lasting(made: Call, seconds: float) -> Call:
    made.ended = made.began + int(seconds * SECOND)
    return made


def fault(began: float, ended: float, **fields: Any) -> Fault:
    return Fault(kind="a fault", began=int(began * SECOND), ended=int(ended * SECOND), **fields)


def login(began: float, number: int, **fields: Any) -> Call:
    """A create at a node that evicts."""
    fields = {"who": "1.0", "session": f"s{number}", "evicts": True, "wrote": {"1.0": number}, **fields}
    return call("create", began, **{"version": 1, "content": fields["wrote"], **fields})


@pytest.mark.parametrize(
    ("kind", "name"), [("get", "read"), ("update", "write"), ("drop", "bulk"), ("clear", "notify")]
)
def test_a_call_that_takes_too_long(kind: str, name: str) -> None:
    longest = GUARD * bounds(LIMITS)[name] / SECOND
    slow = lasting(call(kind, 1, session="", outcome="error"), longest + 1)
    assert "late" in kinds(checked(create(), slow))
    assert "late" not in kinds(checked(create(), lasting(slow, longest)))


def test_a_call_may_wait_for_all_nodes_for_as_long_as_it_was_to() -> None:
    slow = lasting(call("delete", 1, wait=2 * SECOND), GUARD * bounds(LIMITS)["write"] / SECOND + 2)
    assert "late" not in kinds(checked(create(), slow))
    slow.ended += SECOND
    assert "late" in kinds(checked(create(), slow))


def test_a_frozen_process_is_excused_for_its_own_calls_only() -> None:
    slow = lasting(get(1, 1, node=1), 20)
    assert "late" in kinds(checked(create(), slow))
    assert not checked(create(), slow, faults=(fault(2, 19, frozen=1),)).violations
    assert "late" in kinds(checked(create(), slow, faults=(fault(2, 19, frozen=0),)))


def test_the_longest_calls_are_reported() -> None:
    verdict = checked(create(), lasting(get(1, 1), 2), lasting(call("drop", 1, session=""), 3))
    assert (verdict.longest["read"], verdict.longest["bulk"]) == (2 * SECOND, 3 * SECOND)


def test_a_call_that_fails_for_rows_which_it_does_not_need() -> None:
    held = fault(1, 3, alone=True, sessions=["another"], users=["u"])
    failed = call("update", 1.5, outcome="unknown", wrote={"0.0": 2})
    assert "bystander" in kinds(checked(create(), failed, faults=(held,)))
    assert "bystander" in kinds(checked(create(), call("get", 1.5, outcome="error"), faults=(held,)))
    stranger = call("create", 1.5, session="", user="v", outcome="error")
    assert "bystander" in kinds(checked(create(), stranger, faults=(held,)))


def test_who_needs_held_rows_may_fail() -> None:
    held = fault(1, 3, alone=True, sessions=["s"], users=["u"])
    failed = call("update", 1.5, outcome="unknown", wrote={"0.0": 2})
    refused = call("create", 1.5, session="", outcome="error")
    everything = call("drop", 1.5, session="", user="v", outcome="error")
    assert not checked(create(), failed, refused, everything, faults=(held,)).violations


def test_a_call_that_fails_for_anothers_interrupt() -> None:
    interrupts = fault(1, 3, alone=True)
    interrupted = call("update", 1.5, outcome="interrupted", wrote={"0.0": 2})
    assert not checked(create(), interrupted, faults=(interrupts,)).violations
    failed = call("update", 1.5, outcome="unknown", wrote={"0.0": 2})
    assert "bystander" in kinds(checked(create(), interrupted, failed, faults=(interrupts,)))


def test_who_is_hit_by_another_fault_is_no_bystander() -> None:
    failed = call("update", 1.5, outcome="unknown", wrote={"0.0": 2})
    others = {"sessions": ["another"], "users": ["v"]}
    assert not checked(create(), failed, faults=(fault(1, 3, **others),)).violations, "others were not well"
    following = fault(1.505, 4)
    assert not checked(create(), failed, faults=(fault(1, 1.5, alone=True, **others), following)).violations
    late = lasting(call("update", 1.5, outcome="unknown", wrote={"0.0": 2}), 2)
    assert not checked(create(), late, faults=(fault(1, 3, alone=True, **others), fault(3.1, 4))).violations


@pytest.mark.parametrize("outcome", ["error", "refused"])
def test_a_failed_create_that_shows_up(outcome: str) -> None:
    failed = login(1, 7, session="", outcome=outcome, version=0, content=None)
    seen = get(2, 1, session="s7", content={"1.0": 7})
    ended = call("delete", 3, session="s7")
    assert "undone" in kinds(checked(failed, seen, ended))
    assert "undone" in kinds(checked(failed, row=Row(1, {"1.0": 7})))
    failed.outcome = "unknown"
    assert not checked(failed, seen, ended).violations


def test_more_sessions_than_allowed_in_a_list() -> None:
    listed = [get(1, 1, session=f"s{number}") for number in range(3)]
    for one in listed:
        one.kind, one.who = "list", "0.1"
    ends = [call("delete", 2, session=one.session) for one in listed]
    assert "crowd" in kinds(checked(*listed, *ends))
    assert not checked(*listed[:2], *ends[:2]).violations


def test_more_sessions_than_allowed_when_somebody_counts() -> None:
    counted = call("sql_count", 1, session="", wrote={"sessions": 3})
    assert "crowd" in kinds(checked(create(), counted))
    counted.wrote = {"sessions": 2}
    assert not checked(create(), counted).violations


def test_more_sessions_than_allowed_in_the_end() -> None:
    rows = {f"s{number}": Row(1, {"1.0": number}, user="u") for number in range(3)}
    calls = [login(number, number) for number in range(3)]
    assert "crowd" in kinds(checked(*calls, rows=rows))
    rows["s0"].live = False
    assert not checked(*calls, rows=rows).violations


def test_an_evicted_session_is_not_lost_and_stays_ended() -> None:
    first, second, third = (login(number, number) for number in range(3))
    rows = {f"s{number}": Row(1, {"1.0": number}, user="u") for number in (1, 2)}
    gone = call("get", 3, session="s0", outcome="none", node=2)
    history = (first, second, third, gone)
    assert not checked(*history, rows=rows).violations
    back = get(6, 1, session="s0", content={"1.0": 0}, node=1)
    assert "resurrected" in kinds(checked(*history, back, rows=rows))
    soon = get(4, 1, session="s0", content={"1.0": 0}, node=1)
    assert not checked(*history, soon, rows=rows).violations, "another node may not know yet"
    assert "resurrected" in kinds(checked(*history, rows=rows | {"s0": Row(1, {"1.0": 0})}))


def test_a_create_that_was_refused_evicts_nobody() -> None:
    first = login(0, 0)
    refused = login(1, 1, session="", outcome="refused", version=0, content=None)
    assert "lost" in kinds(checked(first, refused, rows={}))
    refused.outcome = "unknown"
    assert not checked(first, refused, rows={}).violations


def test_an_interrupted_write_may_have_been_done() -> None:
    interrupted = call("update", 1, outcome="interrupted", wrote={"0.0": 2})
    assert not checked(create(), interrupted, get(2, 2), row=Row(2, {"0.0": 2})).violations
    assert not checked(create(), interrupted, get(2, 1), row=Row(1, {"0.0": 1})).violations


def test_an_interrupted_write_is_no_excuse_for_what_was_acknowledged() -> None:
    interrupted = call("update", 1, outcome="interrupted", wrote={"0.0": 2})
    assert "lost" in kinds(checked(create(), update(0.5, 2), interrupted, row=Row(3, {"0.0": 1})))


def test_a_connection_that_was_kept_to_the_wrong_server() -> None:
    assert "astray" in kinds(checked(create(), faults=(fault(1, 2, astray=1),)))
    assert not checked(create(), faults=(fault(1, 2),)).violations
