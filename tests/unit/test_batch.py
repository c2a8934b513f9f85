"""What becomes of a batch when the server's answer does not fit it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pgsession._protocol.batch import Batch
from pgsession._protocol.operations import Delete
from pgsession._protocol.snapshots import record_of
from pgsession.errors import SessionNotFoundError

ROW = [str(UUID(int=1)), 1, "u", None, 1, 1, 1, 99, True, [], 5, 1, None]


def answer(**lists: Any) -> str:
    return json.dumps({"incarnation": "i", "xmax": 1, **lists})


def batch() -> Batch:
    return Batch([Delete(bytes([number]) * 16) for number in range(2)])


def test_each_operation_gets_its_own_answer_in_any_order() -> None:
    sent = batch()
    settled = sent.settle(answer(delete=[[2, "gone"], [1, "locked"]]))
    assert settled.locked == [sent.operations[0]] and sent.operations[0].locked == 1
    ((operation, result),) = settled.results
    assert operation is sent.operations[1] and isinstance(result, SessionNotFoundError)


@pytest.mark.parametrize(
    "lists",
    [
        {},
        {"delete": [[1, "ok"]]},
        {"delete": [[1, "ok"], [1, "ok"]]},
        {"delete": [[1, "locked"], [1, "locked"]]},
        {"delete": [[-1, "ok"], [-2, "ok"]]},
        {"delete": [[1, "ok"], [3, "ok"]]},
        {"delete": [[1, "ok"], [2, "later"]]},
        {"delete": [[1, "ok"]], "turned_away": [[2, "too_many"]]},
        {"delete": [[1, "ok"]], "refused": [[1, "gone"]]},
        {"delete": [[1, "ok"]], "refused": [[2, "attributes", 5]]},
        {"delete": [[1, "ok"], [2, "ok"]], "written": [1], "versions": [1]},
    ],
)
def test_an_answer_that_does_not_fit_is_refused_and_changes_nothing(lists: Any) -> None:
    sent = batch()
    with pytest.raises((msgspec.DecodeError, LookupError)):
        sent.settle(answer(**lists))
    assert [operation.locked for operation in sent.operations] == [0, 0]


@pytest.mark.parametrize(
    ("place", "value"),
    [
        (1, 2**63),
        (7, -(2**63) - 1),
        (2, "u" * 70_000),
        (9, [["k", 1, None, 1], ["k", 2, None, 2]]),
        (9, [["k", 2**63, None, 1]]),
        (10, 2**63),
        (11, None),
        (12, [1, 1, None]),
    ],
)
def test_a_snapshot_that_can_be_no_record_is_a_decode_error(place: int, value: Any) -> None:
    with pytest.raises(msgspec.DecodeError):
        record_of(json.dumps([*ROW[:place], value, *ROW[place + 1 :]]))


def test_a_snapshot_nested_without_end_is_a_decode_error() -> None:
    row = json.dumps([*ROW[:9], [["k", 1, None, "deep"]], *ROW[10:]])
    with pytest.raises(msgspec.DecodeError):
        record_of(row.replace('"deep"', "[" * 10_000 + "]" * 10_000))
