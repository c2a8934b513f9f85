"""The oracle of chosen ids has teeth: each broken promise, in a history made by hand, is found."""

from __future__ import annotations

from typing import Any

from tests.chaos import claims
from tests.chaos.history import Call
from tests.chaos.verdict import Row

SECOND = 1_000_000


def claim(began: float, by: str, **fields: Any) -> Call:
    """At a second; over a hundredth of a second later. It creates the session where nothing else is said."""
    start = int(began * SECOND)
    wrote = {"by": by}
    fields = {"node": 0, "session": "s", "wrote": wrote, "content": wrote, "state": "error", **fields}
    if fields.get("outcome", "ok") != "ok":
        fields["content"] = None
    return Call(kind="claim", began=start, ended=start + SECOND // 100, **fields)


def returned(began: float, by: str) -> Call:
    return claim(began, "me", state="return", content={"by": by})


def found(*calls: Call, row: str | None = "a") -> list[str]:
    """What the oracle finds, where the row in the end is this one's."""
    tried = {"claims": 0}
    rows = {} if row is None else {"s": Row(1, {"by": row})}
    texts = [violation.text for violation in claims.violations(calls, rows, tried)]
    assert tried["claims"] == (len(calls) if len(calls) > 1 else 0)
    return texts


def test_what_is_allowed_is_not_found() -> None:
    assert not found(claim(1, "a"), claim(1, "b", outcome="exists"), returned(2, "a"))
    for doubtful in ("unknown", "interrupted"):
        assert not found(claim(1, "a", outcome=doubtful), claim(2, "b", outcome="exists"), returned(3, "a"))
        assert not found(claim(1, "a", outcome=doubtful), row=None)


def test_an_id_that_is_created_twice() -> None:
    assert found(claim(1, "a"), claim(2, "b")) == ["created twice"]
    assert found(claim(1, "a"), returned(2, "b")) == ["another one than was created"]


def test_who_is_not_told_that_it_is_there() -> None:
    assert found(claim(1, "a"), claim(2, "b", content={"by": "a"}))


def test_what_nobody_created() -> None:
    assert found(claim(1, "b", outcome="exists"), row=None)
    assert found(claim(1, "a", outcome="error"), claim(2, "b", outcome="exists"), row=None)
    assert found(claim(1, "b", outcome="exists"), claim(2, "a"))


def test_what_is_lost_in_the_end() -> None:
    assert found(claim(1, "a"), row=None)
    assert found(claim(1, "a"), row="b")
