"""Creates with chosen ids in the queue, and what is made of the server's answer to them."""

from __future__ import annotations

import json
import uuid
from typing import Any

import pytest

from pgsession._core.record import Record
from pgsession._protocol.batch import Batch, Queue
from pgsession._protocol.operations import Create, Delete, Operation, Replaced, Room
from pgsession.errors import SessionExistsError

ROOM = Room(0, True, [])


def create(number: int, if_exists: Any = "error") -> Create:
    key = number.to_bytes(16, "big")
    return Create(key, 7, "u", None, 900, None, [("a", b"1", None)], ROOM, if_exists)


def taken(queue: Queue) -> list[list[Operation]]:
    batches = []
    while len(queue):
        batches.append(queue.take().operations)
    return batches


def test_those_that_claim_ids_have_batches_of_their_own() -> None:
    queue = Queue()
    claims = [create(number) for number in range(3)]
    others: list[Operation] = [create(3, None), Delete(b"d" * 16)]
    for operation in (claims[0], others[0], claims[1], others[1], claims[2]):
        queue.add(operation)
    assert len(queue) == 5
    assert taken(queue) == [others, claims]
    queue.add(claims[0])
    queue.again(claims[1])
    assert taken(queue) == [[claims[1], claims[0]]]


def test_neither_kind_keeps_the_other_waiting() -> None:
    queue = Queue()
    for number in range(4):
        queue.add(create(number))
        queue.add(create(10 + number, None))
    kinds = []
    while len(queue):
        kinds.append({operation.claims_id for operation in queue.take(2).operations})
    assert kinds in ([{False}, {True}] * 2, [{True}, {False}] * 2)


def answer(**fields: Any) -> str:
    return json.dumps({"incarnation": "i", "xmax": 1, "created_at": 100, **fields})


def test_each_claim_gets_its_own_answer() -> None:
    creates = [create(1), create(2, "return"), create(3, "replace"), create(4)]
    there = [str(uuid.UUID(int=2)), 50, "u", None, 40, 40, 40, 900, None, [["b", 50, None, 2]], 8, 40, None]
    settled = Batch(list(creates)).settle(
        answer(
            turned_away=[[1, "exists"], [2, "same", json.dumps(there)]],
            replaced=[[3, 120, "replaced", "before", "g"]],
        )
    )
    results = dict(settled.results)
    error = results[creates[0]]
    assert isinstance(error, SessionExistsError) and error.session_id == uuid.UUID(int=1)
    returned, replacing, fresh = (results[one] for one in creates[1:])
    assert isinstance(returned, Record) and (returned.version, returned.generation) == (50, 8)
    assert (replacing.version, replacing.owner_since, replacing.created_at) == (120, 120, 100)
    assert creates[2].replaced == Replaced("replaced", "before", "g") and creates[3].replaced is None
    assert (fresh.version, fresh.owner_since, fresh.created_at) == (100, 100, 100)


def test_what_cannot_be_read_is_its_callers_error_alone() -> None:
    creates = [create(1, "return"), create(2)]
    settled = Batch(list(creates)).settle(answer(turned_away=[[1, "same", "[]"]]))
    results = dict(settled.results)
    assert isinstance(results[creates[0]], ValueError) and isinstance(results[creates[1]], Record)


def test_a_replacement_that_was_not_made_is_no_answer() -> None:
    with pytest.raises(LookupError):
        Batch([create(1)]).settle(
            answer(turned_away=[[1, "exists"]], replaced=[[1, 5, "replaced", None, None]])
        )
