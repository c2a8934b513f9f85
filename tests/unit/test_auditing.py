"""What an audit makes of a record and of what the database says after it."""

from __future__ import annotations

from typing import Any

import pytest

from pgsession._core.record import Record
from pgsession._protocol.auditing import MARGIN, Difference, compare

NOW = 10**15


def record(version: int = 7, attributes: Any = (("k", 7, None, b"1"),), **fields: Any) -> Record:
    said: dict[str, Any] = {"generation": 1, "incarnation": "i", **fields}
    return Record(
        b"k" * 16,
        version,
        said.pop("user", "u"),
        None,
        1,
        2,
        said.pop("accessed", 3),
        2**60,
        None,
        list(attributes),
        **said,
    )


@pytest.mark.parametrize(
    ("stored", "expected"),
    [
        (record(), (None, True)),
        (record(accessed=10**9), (None, True)),
        (record(attributes=[("k", 7, None, b"2")]), ("contents", True)),
        (record(attributes=[("k", 8, None, b"1")]), ("contents", True)),
        (record(user="eve"), ("contents", True)),
        (record(6), ("version", True)),
        (record(8), (None, False)),
        (record(8, attributes=[]), (None, False)),
        (record(8, user="eve"), ("outdated", False)),
        (record(8, generation=2), ("outdated", False)),
        (record(7, generation=2), ("outdated", False)),
        (record(1, generation=2), ("outdated", False)),
        (None, ("ended", False)),
    ],
)  # fmt: skip
def test_the_rule(stored: Record | None, expected: tuple[Difference | None, bool]) -> None:
    assert compare(record(), stored, NOW) == expected


@pytest.mark.parametrize(
    ("ends", "expected"), [(NOW - 1, None), (NOW + MARGIN, None), (NOW + MARGIN + 1, "contents")]
)
def test_what_ends_by_itself_may_be_gone_from_one_of_the_two(ends: int, expected: Difference | None) -> None:
    cached = record(attributes=[("k", 7, None, b"1"), ("soon", 7, ends, b"2")])
    assert compare(cached, record(), NOW)[0] == expected
    assert compare(record(), cached, NOW)[0] == expected
