"""Reads of many sessions go to the database together, and each into the cache by a fill of its own."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final, TypeAlias

import msgspec
import psycopg

from pgsession._concurrency import AsyncBackgroundTasks, AsyncSharedFuture
from pgsession._core.cache import Cache
from pgsession._core.record import Record
from pgsession._protocol.coherence import Coherence, Fill
from pgsession.errors import DatabaseUnavailable, ManagerClosedError, OperationTimeout

from .runtime import AsyncRuntime

AGAIN: Final = object()  # the result of a fill whose record nobody may have: read again
Result: TypeAlias = object  # a record, None where there is no live session, or AGAIN
TOGETHER: Final = 256  # sessions in one statement


class AsyncManyReads:
    """Reads sessions that are not in memory, up to `TOGETHER` by one statement; joins the fills that are under way.

    Each statement has `operation_timeout` of its own.
    """

    def __init__(
        self, runtime: AsyncRuntime, coherence: Coherence, cache: Cache, background: AsyncBackgroundTasks
    ) -> None:
        self._runtime = runtime
        self._coherence = coherence
        self._cache = cache
        self._background = background

    async def read(self, keys: Sequence[bytes], before: int) -> dict[bytes, Record]:
        """Return the records of those sessions that are live.

        Args:
            keys: The ids, none of them twice.
            before: How many sessions the caller has already.

        Raises:
            OperationTimeout: The database did not answer in time; those of earlier statements are in memory.
        """
        found: dict[bytes, Record] = {}
        for start in range(0, len(keys), TOGETHER):
            some = keys[start : start + TOGETHER]
            try:
                found |= await self._read(some)
            except (psycopg.Error, OperationTimeout, DatabaseUnavailable) as error:
                stale = [self._coherence.stale_if_error(key) for key in some]
                if None not in stale:
                    found |= {record.key: record for record in stale if record is not None}
                    continue
                if not isinstance(error, OperationTimeout):
                    raise
                done = before + len(found)
                raise error._after(done) from error
        return found

    async def _read(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        deadline = self._runtime.store.deadline()
        found: dict[bytes, Record] = {}
        while keys:
            self._runtime.check_available()
            fills, led = self._open(keys, deadline)
            results = [await self._wait(fill, fill in led, deadline) for fill in fills]
            found |= {result.key: result for result in results if isinstance(result, Record)}
            keys = [fill.key for fill, result in zip(fills, results, strict=True) if result is AGAIN]
        return found

    def _open(self, keys: Sequence[bytes], deadline: float) -> tuple[list[Fill], set[Fill]]:
        """Return a fill for each session, and which of them are led here: these are begun."""
        opened: list[tuple[bytes, AsyncSharedFuture[Result]]] = []
        fills: list[Fill] = []
        led: set[Fill] = set()
        try:
            for key in keys:
                future: AsyncSharedFuture[Result] = AsyncSharedFuture()
                opened.append((key, future))
                fill, leads = self._coherence.open_fill(key, new_future=lambda: future)  # noqa: B023
                fills.append(fill)
                if leads:
                    led.add(fill)
            # Whoever opened another one may have been interrupted before it got so far.
            begun = [fill for fill in fills if not fill.future.handed_over]
            if begun:
                self._background.run(partial(self._fill, begun, deadline), "pgsession fill")
                for fill in begun:
                    fill.future.handed_over = True
        except BaseException:
            for key, future in opened:
                if not future.handed_over:
                    self._coherence.withdraw_fill(key, future)
            raise
        return fills, led

    async def _wait(self, fill: Fill, led: bool, deadline: float) -> Result:
        try:
            return await fill.future.wait(self._runtime.store.left(deadline))
        except TimeoutError:
            if not fill.future.done:
                raise OperationTimeout("the database did not answer in time") from None
            if led or self._runtime.store.is_late(deadline):
                raise
            return AGAIN  # whoever leads it had less time

    async def _fill(self, fills: list[Fill], deadline: float) -> None:
        """Read sessions once for all who wait for them (C10); the callers may come and go."""
        fills = [fill for fill in fills if fill.future.begin()]
        try:
            records, incarnation, now, xmax = await self._runtime.store.read_many(
                [fill.key for fill in fills], deadline
            )
            self._settle(fills, {record.key: record for record in records}, incarnation, now, xmax)
        except msgspec.DecodeError:  # of one of them, that plain SQL has stored
            for fill in fills:
                await self._fill_alone(fill, deadline)
        except BaseException as error:
            self._give_up(fills, error)

    async def _fill_alone(self, fill: Fill, deadline: float) -> None:
        try:
            record, incarnation, now, xmax, _ = await self._runtime.store.read(fill.key, deadline)
            self._settle([fill], {} if record is None else {fill.key: record}, incarnation, now, xmax)
        except BaseException as error:
            self._give_up([fill], error)

    def _settle(
        self,
        fills: list[Fill],
        records: dict[bytes, Record],
        incarnation: str | None,
        now: int,
        xmax: int,
    ) -> None:
        answers = [(fill, records.get(fill.key)) for fill in fills]
        verdicts = self._coherence.close_fills(answers, incarnation, now, xmax)
        if self._cache.many_evicted_accesses:
            self._runtime.maintenance.write_accesses_soon()
        if any(verdict.reconnect for verdict in verdicts):
            self._runtime.synchronizer.reconnect()
        for (fill, record), verdict in zip(answers, verdicts, strict=True):
            fill.future.set_result(AGAIN if verdict.again else record)

    def _give_up(self, fills: list[Fill], error: BaseException) -> None:
        for fill in fills:
            self._coherence.fail_fill(fill)
            fill.future.set_error(
                error if isinstance(error, Exception) else ManagerClosedError("the manager is closed")
            )
        if not isinstance(error, Exception):
            raise error
