"""The oracle of locks has teeth: each broken promise, in a history made by hand, is found."""

from __future__ import annotations

from tests.chaos import locks
from tests.chaos.history import Call

SECOND = 1_000_000


def held(since: float, until: float, token: int, resource: str = "r", asked: float | None = None) -> Call:
    times = {"asked": since - 0.01 if asked is None else asked, "from": since, "to": until}
    wrote = {name: int(at * SECOND) for name, at in times.items()}
    return Call(kind="unlock", node=0, began=wrote["to"], user=resource, gave=token, wrote=wrote)


def found(*calls: Call) -> bool:
    return bool(list(locks.violations(calls, {"locks": 0})))


def test_what_is_allowed_is_not_found() -> None:
    tried = {"locks": 0}
    one_by_one = [held(1, 2, 1), held(2.5, 3, 2), held(3, 4, 7), held(2, 3, 1, "another")]
    assert not list(locks.violations(one_by_one, tried)) and tried == {"locks": 2}


def test_two_that_hold_one() -> None:
    assert found(held(1, 2, 1), held(1.9, 3, 2))
    assert found(held(1, 9, 1), held(2, 3, 2), held(3.5, 4, 3))


def test_one_that_was_lost_before_its_holder_was_told_that_it_has_it() -> None:
    assert not found(held(5, 5, 1, asked=1), held(3, 6, 2))


def test_a_token_that_is_given_twice_or_too_late() -> None:
    assert found(held(1, 2, 5), held(3, 4, 5))
    assert found(held(1, 2, 5), held(3, 4, 4))
