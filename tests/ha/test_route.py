"""Where a name leads by what the members say; without a cluster."""

from __future__ import annotations

from tests.ha.route import chosen


def test_whoever_says_yes() -> None:
    assert chosen("", {"pg1": False, "pg2": True}) == "pg2"
    assert chosen("pg1", {"pg1": False, "pg2": True}) == "pg2"


def test_nobody() -> None:
    assert chosen("pg1", {"pg1": False, "pg2": False}) == ""
    assert chosen("", {}) == ""


def test_one_that_says_yes_is_kept() -> None:
    assert chosen("pg2", {"pg1": True, "pg2": True}) == "pg2"
