"""How the store puts the parts of an operation together, with scripts that are answered as they are told to be."""

from __future__ import annotations

import logging
import uuid
from typing import Any

import pytest

import pgsession
from pgsession._async import store as store_module
from pgsession._async.prober import AsyncProber
from pgsession._async.store import AsyncStore
from pgsession._concurrency import AsyncBackgroundTasks
from pgsession._database.script import Script
from pgsession._database.statements import Statements
from pgsession._protocol.breaker import Breaker

LOG = logging.getLogger("tests.store")
NEXT = uuid.UUID(int=1)


@pytest.fixture
def store() -> AsyncStore:
    prober = AsyncProber(Breaker(), None, ask_idle=None, timeout=1, on_down=lambda: None, logger=LOG)  # type: ignore[arg-type]
    return AsyncStore(
        None, Statements(), node="n" * 16, inactivity=1, commit="split", operation_timeout=1, limited=True,  # type: ignore[arg-type]
        background=AsyncBackgroundTasks(LOG), prober=prober,
    )  # fmt: skip


def answering(store: AsyncStore, patch: pytest.MonkeyPatch, *answers: Any) -> list[bool]:
    """Have the steps of walks answered so; returns whether each waits for rows."""
    waits: list[bool] = []
    left = list(answers)

    async def run(script: Script) -> Any:
        waits.append(script.steps[script.answer].parameters[-1] == b"t")
        answer = left.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    patch.setattr(store, "_run_between_others", run)
    return waits


async def test_a_walk_counts_all_of_its_steps(store: AsyncStore, monkeypatch: pytest.MonkeyPatch) -> None:
    waits = answering(
        store, monkeypatch, (NEXT, 3, 0), (NEXT, 2, 1), (None, 0, 0), (NEXT, 1, 0), (None, 0, 0)
    )
    assert await store.delete_all() == 6
    assert waits == [False, False, False, True, True], "then once more, for what somebody held"


async def test_a_walk_tells_what_was_done_before_its_time_was_over(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = pgsession.OperationTimeout("late")
    answering(store, monkeypatch, (NEXT, 3, 1), (None, 0, 0), (NEXT, 2, 0), late)
    with pytest.raises(pgsession.OperationTimeout, match="but for 5 sessions") as raised:
        await store.delete_all()
    assert raised.value.done == 5


@pytest.mark.parametrize("second", ["a", "b"])
async def test_a_resync_is_the_answer_of_one_server(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.setattr(store_module, "COMPARED", 2)
    keys = [bytes([number]) * 16 for number in range(3)]
    answers = [("a", 0, keys[1]), (second, 0, keys[2])]

    async def query(*_: Any, **options: Any) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(store, "query", query)
    found, answered_by = await store.resync(keys, [1, 1, 1])
    assert answered_by == ("a" if second == "a" else None)
    assert second == "b" or found == keys[1:]
