"""The oracle of idle timeouts has teeth: each broken promise, in a history made by hand, is found."""

from __future__ import annotations

from typing import Any

from tests.chaos import idle
from tests.chaos.history import Call

SECOND = 1_000_000
INACTIVITY = idle.INACTIVITY / SECOND


def call(kind: str, began: float, **fields: Any) -> Call:
    """At a second; over a hundredth of a second later."""
    start = int(began * SECOND)
    return Call(kind=kind, node=0, session="s", began=start, ended=start + SECOND // 100, **fields)


def use(began: float, outcome: str = "ok") -> Call:
    return call("use", began, outcome=outcome)


def used(seconds: int) -> list[Call]:
    """A session, and its use each second."""
    return [call("start", 0), *(use(at) for at in range(1, seconds + 1))]


def found(*calls: Call) -> tuple[set[str], dict[str, int]]:
    """What the oracle finds, and what was put to the test."""
    tried = dict.fromkeys(idle.TRIED, 0)
    texts = {violation.text.partition(",")[0] for violation in idle.violations(calls, SECOND, tried)}
    return texts, tried


def test_one_in_use_that_is_said_to_be_gone() -> None:
    assert found(*used(20)) == (set(), {"in use": 20 - int(INACTIVITY), "left alone": 0})
    assert found(*used(20), use(20.5, "none"))[0] == {"in use"}
    assert found(*used(3), use(3.5, "none"))[0] == {"in use"}
    assert not found(*used(20), use(23, "none"))[0], "it was not in use any more"
    again = [use(at) for at in range(9, 16)]
    assert not found(*used(3), *again[:2], use(10.5, "none"))[0], "nor is it yet again"
    assert found(*used(3), *again, use(15.5, "none"))[0] == {"in use"}


def test_one_that_was_left_alone_and_is_there() -> None:
    late = 3 + INACTIVITY + 1.1
    assert found(*used(3), use(late))[0] == {"left alone"}
    assert found(*used(3), use(late, "none")) == (set(), {"in use": 0, "left alone": 1})
    assert not found(*used(3), use(late - 0.2))[0]
    for outcome in ("error", "interrupted"):
        assert not found(*used(3), use(3.5, outcome), use(late + 1))[0], "it may have been an access"
    assert found(*used(3), use(9, "none"), use(late))[0] == {"left alone"}, "which is no access"
