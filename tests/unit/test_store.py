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
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._database.script import Script
from pgsession._database.statements import Statements
from pgsession._protocol.breaker import Breaker
from pgsession._protocol.coherence import Coherence, Resync

LOG = logging.getLogger("tests.store")
NEXT = uuid.UUID(int=1)
A, B = (bytes([number]) * 16 for number in (10, 11))


@pytest.fixture
def coherence() -> Coherence:
    """It listens to the server whose incarnation is "a"."""
    clock = Clock(manual=1)
    cache = Cache(10, clock, access_interval=0, lifetime=0, max_attribute_length=10)
    coherence = Coherence(cache, clock, max_staleness=10, stale_if_error=0, logger=LOG)
    coherence.on_listening("a")
    return coherence


@pytest.fixture
def store(coherence: Coherence) -> AsyncStore:
    prober = AsyncProber(Breaker(), None, ask_idle=None, timeout=1, on_down=lambda: None, logger=LOG)  # type: ignore[arg-type]
    return AsyncStore(
        None, Statements(), node="n" * 16, commit="split", operation_timeout=1, limited=True,  # type: ignore[arg-type]
        background=AsyncBackgroundTasks(LOG), prober=prober, coherence=coherence,
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
        store,
        monkeypatch,
        (NEXT, 3, 0, A),
        (NEXT, 2, 1, None),
        (None, 0, 0, None),
        (NEXT, 1, 0, B),
        (None, 0, 0, None),
    )
    ended: list[list[bytes]] = []

    async def on_done(keys: list[bytes]) -> None:
        ended.append(keys)

    assert await store.delete_all(on_done) == 6
    assert waits == [False, False, False, True, True], "then once more, for what somebody held"
    assert ended == [[A], [], [], [B], []], "each step tells of what it ended"


async def test_a_walk_tells_what_was_done_before_its_time_was_over(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = pgsession.OperationTimeout("late")
    answering(store, monkeypatch, (NEXT, 3, 1, A), (None, 0, 0, None), (NEXT, 2, 0, B), late)
    ended: list[bytes] = []

    async def on_done(keys: list[bytes]) -> None:
        ended.extend(keys)

    with pytest.raises(pgsession.OperationTimeout, match="; 5 sessions had been done before") as raised:
        await store.delete_all(on_done)
    assert raised.value.done == 5 and ended == [A, B]


@pytest.mark.parametrize("second", ["a", "b"])
async def test_a_resync_is_the_answer_of_one_server(
    store: AsyncStore, monkeypatch: pytest.MonkeyPatch, second: str
) -> None:
    monkeypatch.setattr(store_module, "COMPARED", 2)
    keys = [bytes([number]) * 16 for number in range(3)]
    answers = [("a", 0, keys[1], "7"), (second, 0, keys[2], "7")]

    async def query(*_: Any, **options: Any) -> Any:
        return answers.pop(0)

    monkeypatch.setattr(store, "query", query)
    found = await store.resync(Resync(1, keys, [1, 1, 1], [1, 1, 1]))
    assert found == (keys[1:] if second == "a" else None)
