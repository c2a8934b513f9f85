"""The oracle of logins that move has teeth: each broken promise, in a history made by hand, is found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.chaos.history import Call
from tests.chaos.test_oracle import SECOND, call, checked, create, get, kinds, update
from tests.chaos.verdict import Row

NEW = Row(1, {"0.0": 1, "0.1": 5}, user="v")


def move(began: float, content: dict[str, int] | None = None, **fields: Any) -> Call:
    """Of session "s" to a user "v", whose it is as "t"; the caller writes its own attribute."""
    content = {"0.0": 1} if content is None else content
    fields = {"who": "0.1", "user": "v", "wrote": {"0.1": 5}, "became": "t", "version": 1, **fields}
    if fields.get("outcome", "ok") == "ok":
        fields["content"] = content | fields["wrote"]
    else:
        fields |= {"became": "", "version": 0}
    return call("move", began, **fields)


def found(*calls: Call, **rows: Row) -> set[str]:
    return kinds(checked(*calls, rows=rows))


def moved(began: float, **fields: Any) -> Call:
    return get(began, 1, **{"session": "t", "content": {"0.0": 1, "0.1": 5}, **fields})


def test_what_is_allowed_is_not_found() -> None:
    verdict = checked(create(), move(1), get(1.1, 1, node=1), moved(1.2), rows={"t": NEW})
    assert not verdict.violations
    assert (verdict.tried["moved"], verdict.tried["carried"], verdict.writes) == (1, 1, 2)
    later = update(2, 2, session="t", content={"0.0": 2, "0.1": 5}, wrote={"0.0": 2})
    assert not found(create(), move(1), later, t=Row(2, {"0.0": 2, "0.1": 5}))


def test_a_login_that_ends_the_session_without_a_look_at_its_version() -> None:
    """What another tab wrote while it was copied is lost."""
    between = update(1.001, 2, who="1.0", content={"0.0": 1, "1.0": 7}, wrote={"1.0": 7}, node=1)
    assert found(create(), move(1), between, t=NEW) == {"lost"}
    carried = move(1, {"0.0": 1, "1.0": 7})
    assert not found(create(), carried, between, t=Row(1, {"0.0": 1, "0.1": 5, "1.0": 7}))
    plain = update(1.001, 2, who="1.0", content=None, wrote={"1.0": 7}, node=1)
    plain.kind = "sql_set"
    assert not found(create(), move(1), plain, t=NEW), "plain SQL writes into what has ended, too"
    plain.began, plain.ended = SECOND // 2, SECOND // 2 + 1
    assert "lost" in found(create(), move(1), plain, t=NEW)


def test_increments_that_a_login_loses() -> None:
    count = {"0.0": 1, "count": 3}
    counted = update(0.5, 2, who="1.0", content=count, wrote={"count": 3}, node=1)
    assert found(create(), counted, move(1, {"0.0": 1, "count": 2}), t=NEW) == {"lost"}


def test_a_moved_session_that_comes_back() -> None:
    assert "resurrected" in found(create(), move(1), get(1.1, 1), t=NEW), "where it was moved"
    assert "resurrected" in found(create(), move(1), get(4, 1, node=1), t=NEW), "and elsewhere after a while"
    ended = Row(2, {"0.0": 1})
    assert "resurrected" in found(create(), move(1), t=NEW, s=ended), "and in the database for ever"


def test_a_session_that_is_moved_after_its_end() -> None:
    ended = call("delete", 0.5)
    assert "resurrected" in found(create(), ended, move(1), t=NEW)
    assert not found(create(), call("delete", 0.999), move(1), t=NEW), "they overlap"
    gone = call("get", 0.5, outcome="none", node=1)
    assert "resurrected" in found(create(), gone, move(1), t=NEW)


def test_a_session_that_is_moved_twice() -> None:
    twin = move(1.001, who="1.0", wrote={"1.0": 6}, became="u", user="w", node=1)
    assert "earned" in found(create(), move(1), twin, t=NEW, u=Row(1, {"0.0": 1, "1.0": 6}))


def test_a_new_session_that_is_lost() -> None:
    assert "lost" in found(create(), move(1))
    assert "lost" in found(create(), move(1), call("get", 2, session="t", outcome="none"), t=NEW)


def test_what_a_login_sets_shows_in_the_session_of_before() -> None:
    planted = get(1.1, 2, content={"0.0": 1, "0.1": 5}, node=1)
    assert "undone" in found(create(), move(1), planted, t=NEW)


@pytest.mark.parametrize("outcome", ["error", "refused", "conflict"])
def test_a_login_that_failed_leaves_the_session_and_nothing_else(outcome: str) -> None:
    failed = move(1, outcome=outcome)
    here = Row(1, {"0.0": 1})
    assert not found(create(), failed, get(1.1, 1), s=here)
    assert "lost" in found(create(), failed, call("get", 1.1, outcome="none"))
    assert "undone" in found(create(), failed, s=here, t=NEW)
    listed = moved(1.02, node=1, user="v")
    if outcome != "refused":
        assert not found(create(), failed, listed, s=here), "a copy may be there for a moment"
    assert "undone" in found(create(), failed, moved(3.5, node=1, user="v"), s=here)


def test_a_copy_of_a_try_before_the_one_that_was_done() -> None:
    """Somebody found it in a list."""
    content = {"0.0": 1, "0.1": 5}
    listed = get(1.005, 1, session="x", content=content, node=1, user="v")
    gone = call("get", 1.5, session="x", outcome="none", node=1)
    assert not found(create(), move(1), listed, gone, t=NEW)
    assert "lost" in found(create(), move(1), call("get", 1.5, session="t", outcome="none"), t=NEW)
    assert "resurrected" in found(create(), move(1), listed, gone, t=NEW, x=Row(1, content))


@pytest.mark.parametrize("outcome", ["unknown", "interrupted"])
def test_a_login_in_doubt_was_done_or_not_or_by_half(outcome: str) -> None:
    doubtful = move(1, outcome=outcome)
    assert not found(create(), doubtful, s=Row(1, {"0.0": 1}))
    assert not found(create(), doubtful, moved(4, user="v"), t=NEW)
    assert not found(create(), doubtful)
    assert "lost" in found(create(), doubtful, update(2, 2), s=Row(1, {"0.0": 1}))


def test_a_login_may_end_another_session_of_its_user() -> None:
    """Also one that came to nothing: it makes room before it knows."""
    other = create(0, session="w", user="v")
    for outcome in ("ok", "unknown", "error"):
        login = move(1, outcome=outcome, evicts=True)
        rows = {"t": NEW} if outcome == "ok" else {"s": Row(1, {"0.0": 1})}
        assert not found(create(), other, login, **rows)
        login.evicts = False
        assert "lost" in found(create(), other, login, **rows)
