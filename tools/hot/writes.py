"""Writes of a manager whose store is answered at once: what a write costs its client from the call to the result.

All of the library takes part, from the manager to the script that would be sent, but for psycopg, which sends it, and
for the events that come back. The answers are those of a database that does everything.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import msgspec

from pgsession import AsyncSessionManager, Session
from pgsession._async.runtime import AsyncRuntime
from pgsession._async.store import AsyncStore
from pgsession._protocol.batch import Batch
from pgsession._protocol.operations import Update

INCARNATION = "00000000-0000-0000-0000-000000000001"
ATTRIBUTES = {"role": "admin", "theme": "dark", "cart": ["book", "pen"]}


class AnsweredStore(AsyncStore):
    """Does all that a store does with a batch, but for sending it."""

    async def write(
        self, batch: Batch, end: float, *, begin: Callable[[Batch], bool], wait: bool = False
    ) -> str | None:
        def noting(batch: Batch) -> bool:
            self._begun = batch
            return begin(batch)

        return await super().write(batch, end, begin=noting, wait=wait)

    async def _run_script(self, make_script: Callable[[], object], *_: object) -> Any:
        if make_script() is None:
            return None
        answer = answered(self._begun)
        await asyncio.sleep(0)  # as long as nothing else can run
        return (answer,)


def answered(batch: Batch) -> str:
    """What a database says that has done all of it."""
    operations = list(batch.operations)
    updates = [one for one in operations if isinstance(one, Update)]
    answer: dict[str, Any] = {"incarnation": INCARNATION, "xmax": 7}
    if len(updates) < len(operations):
        answer["created_at"] = 1_700_000_000_000_000
    if updates:
        answer["written"] = list(range(1, len(updates) + 1))
        answer["versions"] = [one.record.version + 1 for one in updates]
        answer["updated_at"] = 1_700_000_000_000_000
    return msgspec.json.encode(answer).decode()


class Writes:
    """A manager that is never opened, in an event loop that runs while it is used."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._numbers: Iterator[int] = iter(range(1 << 30))
        self.run(self._begin())

    def run(self, work: Awaitable[Any]) -> Any:
        return self._loop.run_until_complete(work)

    async def _begin(self) -> None:
        self.manager = manager = AsyncSessionManager("host=nowhere dbname=nothing")
        manager._runtime = runtime = AsyncRuntime(
            manager._database,
            manager._config,
            node=manager._node,
            cache=manager._cache,
            clock=manager._clock,
            coherence=manager._coherence,
            listener=None,
            background=manager._background,
            logger=manager._logger,
        )
        manager._state = "open"
        manager._coherence.on_listening(INCARNATION)
        runtime.store.__class__ = AnsweredStore  # its owner has put it together

    async def create(self) -> Session:
        return await self.manager.create_session(f"user {next(self._numbers)}", ATTRIBUTES)

    async def update(self, session: Session) -> Session:
        session["cart"] = ["book", next(self._numbers)]
        return await self.manager.update_session(session)

    def close(self) -> None:
        self._loop.close()

    def created(self, count: int) -> list[Session]:
        made: list[Session] = self.run(gathered([self.create() for _ in range(count)]))
        return made


async def gathered(calls: list[Any]) -> list[Any]:
    return await asyncio.gather(*calls)
