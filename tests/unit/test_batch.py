"""What a batch takes, and what becomes of it when the server's answer does not fit it."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import msgspec
import pytest

from pgsession._protocol.batch import MAX_BYTES, MAX_OPERATIONS, Batch, Queue
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


def sized(*sizes: int) -> Queue:
    queue = Queue()
    for number, size in enumerate(sizes):
        delete = Delete(number.to_bytes(16, "big"))
        delete.size = size
        queue.add(delete)
    return queue


def test_a_batch_takes_what_fits_and_at_least_one() -> None:
    queue = sized(MAX_BYTES + 1, MAX_BYTES - 1, 1, 1)
    assert [len(queue.take().operations) for _ in range(4)] == [1, 2, 1, 0]


def test_a_batch_takes_so_many_whoever_asks_for_more() -> None:
    queue = sized(*[1] * (2 * MAX_OPERATIONS))
    assert len(queue.take(3).operations) == 3
    assert len(queue.take(2 * MAX_OPERATIONS).operations) == MAX_OPERATIONS


def test_what_is_tried_again_comes_first() -> None:
    queue = sized(1, 1, 1)
    (first,) = queue.take(1).operations
    queue.again(first)
    assert queue.take(1).operations == [first]


def test_a_batch_has_the_time_of_its_most_patient_caller() -> None:
    sent = batch()
    for operation, deadline in zip(sent.operations, (5.0, 9.0), strict=True):
        operation.deadline = deadline
    assert sent.deadline == 9.0


def test_nothing_is_sent_of_who_has_gone() -> None:
    sent = batch()
    gone, other = sent.operations
    gone.given_up = True
    assert sent.leave_out_given_up() == [gone]
    assert sent.operations == [other] and sent.rows() == ([], [], [other.key.hex()])
