"""The oracle of tokens and owners has teeth: each broken promise, in a history made by hand, is found."""

from __future__ import annotations

from typing import Any

from tests.chaos.history import Call
from tests.chaos.identity import TRIED, Identity
from tests.chaos.verdict import Limits, Row, Verdict

SECOND = 1_000_000
LIMITS = Limits(max_staleness=2 * SECOND)


def call(kind: str, began: float, **fields: Any) -> Call:
    """At a second; over a hundredth of a second later."""
    start = int(began * SECOND)
    fields = {"node": 0, "session": "s", **fields}
    return Call(kind=kind, began=start, ended=start + SECOND // 100, **fields)


def rotate(began: float, generation: int, gave: int, **fields: Any) -> Call:
    fields = {"version": int(began * 10), "gives": True, **fields}
    return call("rotate", began, generation=generation, gave=gave, **fields)


def bind(began: float, generation: int, gave: int, user: str, **fields: Any) -> Call:
    return rotate(began, generation, gave, user=user, content={"owner": user, "user": user}, **fields)


def replace(began: float, gave: int, user: str, **fields: Any) -> Call:
    content = {"owner": user, "user": user}
    fields = {"version": int(began * 10), "content": content, **fields}
    return call("replace", began, user=user, gave=gave, **fields)


def shown(began: float, generation: int, state: str, **fields: Any) -> Call:
    """A token of this generation, on another node."""
    fields = {"node": 1, "outcome": "ok" if state in ("current", "previous") else "none", **fields}
    fields = {"gives": state == "current", **fields}
    return call("open", began, generation=generation, state=state, **fields)


def save(began: float, user: str, floor: int, outcome: str = "none") -> Call:
    return call("save", began, user=user, floor=floor, outcome=outcome)


def found(*calls: Call, row: Row | None = None) -> tuple[set[str], dict[str, int]]:
    """What the oracle finds, and what was put to the test."""
    identity = Identity(calls, {} if row is None else {"s": row}, LIMITS)
    kinds = {violation.kind for violation in identity.violations()}
    return kinds, {name: count for name, count in identity.tried.items() if count}


def test_what_is_allowed_is_not_found() -> None:
    graced = rotate(2, 2, 3, grace=SECOND)
    calls = [
        shown(0.5, 1, "current"), rotate(1, 1, 2), shown(1.5, 1, "current"), shown(1.6, 2, "current"),
        shown(1.7, 1, "superseded", node=0), graced, shown(2.5, 2, "previous"), shown(4.5, 1, "superseded"),
        shown(5.9, 2, "current"), shown(6.5, 2, "ended"), bind(7, 3, 4, "bob"), save(7.5, "alice", 20),
        save(7.6, "bob", 70, "ok"),
    ]  # fmt: skip
    kinds, tried = found(*calls, row=Row(80, {"owner": "bob"}, "bob"))
    assert not kinds
    assert tried == {"current": 2, "previous": 1, "older": 1, "ended here": 1, "ended": 2, "former": 1}
    assert set(tried) | {"replaced", "confirmed"} == set(TRIED)


def test_a_current_token_that_is_refused() -> None:
    assert found(rotate(1, 1, 2), shown(1.5, 2, "superseded"))[0] == {"refused"}
    for outcome in ("unknown", "interrupted"):  # it may have been done, and may yet be
        doubtful = rotate(1.2, 2, 0, outcome=outcome)
        assert not found(rotate(1, 1, 2), doubtful, shown(9, 2, "ended"))[0]
    for outcome in ("conflict", "error", "none"):
        assert found(rotate(1.2, 2, 0, outcome=outcome), shown(9, 2, "ended"))[0] == {"refused"}


def test_a_token_that_is_refused_within_its_grace() -> None:
    graced = rotate(1, 1, 2, grace=SECOND)
    assert found(graced, shown(1.5, 1, "superseded"))[0] == {"refused"}
    assert not found(graced, shown(2.1, 1, "superseded"))[0]
    assert not found(graced, rotate(1.2, 2, 3), shown(1.5, 1, "superseded"))[0], "at most two live"


def test_an_ended_token_that_opens_a_session() -> None:
    assert found(rotate(1, 1, 2), shown(3.1, 1, "current"))[0] == {"outlived"}
    assert found(rotate(1, 1, 2), shown(1.1, 1, "current", node=0))[0] == {"outlived"}, "on its own node"
    graced = rotate(1, 1, 2, grace=SECOND)
    assert found(graced, shown(5.1, 1, "previous"))[0] == {"outlived"}
    assert found(graced, rotate(1.2, 2, 3), shown(4.5, 1, "previous"))[0] == {"outlived"}


def test_a_token_of_before_a_replacement() -> None:
    calls = [rotate(0, 0, 1), replace(1, 2, "bob")]
    assert found(*calls, shown(3.1, 1, "superseded")) == (set(), {"ended": 1, "replaced": 1})
    assert found(*calls, shown(3.1, 1, "current"))[0] == {"outlived"}
    assert found(*calls, shown(1.1, 1, "current", node=0))[0] == {"outlived"}, "on its own node"
    assert not found(*calls, shown(2.9, 1, "current"))[0]
    assert found(*calls, shown(3.1, 2, "ended"))[0] == {"refused"}, "the current one"
    doubtful = replace(1.5, 0, "eve", outcome="unknown", version=0)
    assert not found(*calls, doubtful, shown(9, 2, "ended"))[0], "it may have been done, and may yet be"
    graced = rotate(0.9, 1, 3, grace=SECOND)
    assert not found(graced, *calls, shown(1.2, 1, "superseded"))[0], "and so does that within its grace"


def test_replacements_that_overlap_are_told_apart_by_their_versions() -> None:
    first, second = replace(1, 1, "bob", version=10), replace(1.001, 2, "eve", version=11)
    assert found(first, second, shown(4, 2, "current"), shown(4, 1, "current"))[0] == {"outlived"}
    assert found(first, second, shown(4, 2, "ended"))[0] == {"refused"}


def test_a_token_of_which_nobody_was_told_who_gave_it() -> None:
    assert not found(replace(1, 2, "bob"), shown(4, 7, "current"), shown(4, 7, "ended"))[0]


def test_what_a_rotation_has_waited_for() -> None:
    waited = rotate(1, 1, 2, grace=SECOND, wait=SECOND, confirmed=True)
    assert found(waited, shown(1.1, 1, "current"))[0] == {"outlived"}
    assert found(waited, shown(1.1, 1, "previous")) == (set(), {"previous": 1, "older": 1, "confirmed": 1})
    waited.confirmed = False
    assert not found(waited, shown(1.1, 1, "current"))[0]


def test_a_token_that_was_not_earned() -> None:
    graced = rotate(1, 1, 2, grace=SECOND)
    assert found(graced, shown(1.5, 1, "previous", gives=True))[0] == {"earned"}
    assert found(rotate(1, 1, 2), rotate(1.1, 1, 3))[0] == {"earned"}
    assert not found(rotate(1, 1, 2), rotate(1.1, 1, 0, gives=False))[0]


def test_what_crosses_owners() -> None:
    assert found(bind(1, 1, 2, "bob"), save(2, "alice", 5, "ok"))[0] == {"crossed"}
    assert found(replace(1, 2, "bob"), save(2, "alice", 5, "ok"))[0] == {"crossed"}
    assert found(shown(1, 1, "current", content={"owner": "alice", "user": "bob"}))[0] == {"crossed"}
    assert found(bind(1, 1, 2, "bob"), row=Row(10, {"owner": "alice"}, "bob"))[0] == {"crossed"}


def test_what_was_never_tried_is_said() -> None:
    verdict = Verdict(tried=dict.fromkeys(TRIED, 1) | {"former": 0})
    verdict.add_untried(TRIED)
    assert [violation.text for violation in verdict.violations] == [TRIED["former"]]
