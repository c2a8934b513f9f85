"""Reads that wait at the same moment go to the database together, and each into the cache by its own fill (C10)."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Final, NamedTuple, TypeAlias

import msgspec
import psycopg

from pgsession._concurrency import AsyncCombiner, AsyncDeadlines, AsyncSharedFuture, left_until
from pgsession._core.cache import Cache
from pgsession._core.record import Record
from pgsession._database.connections import may_be_one_members
from pgsession._protocol.coherence import Answered, Coherence, Fill, satisfies
from pgsession._protocol.meter import Meter
from pgsession.errors import DatabaseUnavailable, ListenerError, ManagerClosedError, OperationTimeout

from .pool import MOST_WAITING
from .section import AsyncSection
from .store import AsyncStore

TOGETHER: Final = 256  # sessions in one statement
SLOW: Final = 0.02  # seconds after which a statement is a slow one
LEAST_TOGETHER: Final = 16  # sessions in one statement where they are slow
AT_ONCE: Final = 2  # statements under way, but for slow ones: what comes then waits for one of them

_AGAIN: Final = object()  # the result of a fill whose record nobody may have: read again
_Result: TypeAlias = object  # a record, None where there is no live session, or _AGAIN


class _Asked(NamedTuple):
    fill: Fill
    min_version: int
    deadline: float


class _Lane:
    """A lane has one statement under way at a time, with all that waited when the one before was answered."""

    def __init__(self, reads: AsyncReads, logger: logging.Logger) -> None:
        self.since: float | None = None  # the moment of `time.monotonic` at which its statement was sent
        self._reads = reads
        self._combiner = AsyncCombiner(self._read_next, "pgsession reads", logger)
        self.wake = self._combiner.wake
        self.idle = self._combiner.idle

    async def _read_next(self) -> bool:
        self.since = began = time.monotonic()
        try:
            asked = self._reads.take()
            if asked:
                await self._reads.fill(asked)
                took = time.monotonic() - began
                self._reads.note_pace(len(asked), took)
                self._reads.meter.note("read", took, len(asked))
        finally:
            self.since = None
        return self._reads.waiting


class AsyncReads:
    """Reads sessions from the database for all who wait for them.

    A read that comes while fewer than `AT_ONCE` statements are under way is sent at once. What comes then waits until
    one of them is answered, and goes by one statement, up to `TOGETHER` sessions. A statement that has been under way
    for longer than `SLOW` does not count, so that one connection which hangs holds nobody up; and the next ones are of
    half as many sessions. Each read has a fill of its own, and nothing runs while nobody reads.

    A caller does two things: it puts its fill where the lanes find it, and it waits. All else is done by the lanes, in
    tasks or threads of their own, so that however a caller's wait ends, at whatever step, each fill is brought to its
    end exactly once.

    Args:
        store: Where to read.
        coherence: Decides what enters the cache.
        cache: Says whether evicted sessions' accesses have to be written.
        deadlines: Limits the time for which callers wait.
        most_statements: How many may be under way at once.
        on_wrong_server: Called where another server has answered than the one that is listened to.
        on_evicted_accesses: Called where there are many of these.
        meter: Takes how long a statement took.
        logger: Where to log.
    """

    def __init__(
        self,
        store: AsyncStore,
        coherence: Coherence,
        cache: Cache,
        *,
        deadlines: AsyncDeadlines,
        most_statements: int,
        on_wrong_server: Callable[[], object],
        on_evicted_accesses: Callable[[], object],
        meter: Meter | None = None,
        logger: logging.Logger,
    ) -> None:
        self._store = store
        self._coherence = coherence
        self._section = AsyncSection(coherence)
        self._cache = cache
        self._deadlines = deadlines
        self._on_wrong_server = on_wrong_server
        self._on_evicted_accesses = on_evicted_accesses
        self.meter = Meter(None, logger) if meter is None else meter
        self._asked: deque[_Asked] = deque()
        self._most = TOGETHER  # for the next statement
        self._quickest = float("inf")  # seconds: about a round trip
        self._lanes = [_Lane(self, logger) for _ in range(max(most_statements, AT_ONCE))]
        self._ended = False

    async def read(
        self, key: bytes, *, refresh: bool = False, min_version: int = 0, deadline: float | None = None
    ) -> Record | None:
        """Return a session as the database has it, None where no live one is there.

        Args:
            key: Its id.
            refresh: True: by a read that begins after this call.
            min_version: The version that the caller knows of.
            deadline: The moment of `time.monotonic` until which its caller waits; None: after `operation_timeout`.

        Raises:
            OperationTimeout: The database did not answer in time.
            DatabaseUnavailable: The database is known to be down, or too many reads wait.
            ManagerClosedError: The manager was closed meanwhile.
        """
        if deadline is None:
            deadline = self._store.deadline()
        while True:
            self._check_available()
            fills, led = self._open([key], deadline, refresh, min_version)
            leads = bool(led)
            record = await self._wait(fills[0], leads, deadline)
            if isinstance(record, Record):
                if leads or satisfies(record, min_version):
                    return record
            elif record is None and (leads or satisfies(None, min_version)):
                return None

    async def read_many(self, keys: Sequence[bytes], before: int) -> dict[bytes, Record]:
        """Return the records of those sessions that are live; each `TOGETHER` have `operation_timeout` for themselves.

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
                found |= await self._read_some(some)
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

    async def _read_some(self, keys: Sequence[bytes]) -> dict[bytes, Record]:
        deadline = self._store.deadline()
        found: dict[bytes, Record] = {}
        while keys:
            self._check_available()
            fills, led = self._open(keys, deadline)
            results = [await self._wait(fill, fill in led, deadline) for fill in fills]
            found |= {result.key: result for result in results if isinstance(result, Record)}
            keys = [fill.key for fill, result in zip(fills, results, strict=True) if result is _AGAIN]
        return found

    async def read_early(self, keys: Sequence[bytes]) -> int:
        """Read sessions that nobody has asked for into the cache, by one statement; return how many entered it.

        Raises:
            ListenerError: The listener is lost, so that nothing can enter.
            OperationTimeout, DatabaseUnavailable, psycopg.Error: The database did not answer.
        """
        deadline = self._store.deadline()
        fills = self._coherence.open_early_fills(keys, _begun_future)
        await self.fill([_Asked(fill, 0, deadline) for fill in fills])
        for fill in fills:
            try:
                await fill.future.wait()
            except msgspec.DecodeError:
                pass  # of this one
        if not self._coherence.listening:
            raise ListenerError("the listener is lost")
        return sum(self._cache.version(fill.key) > 0 for fill in fills)

    async def close(self, deadline: float) -> None:
        """Wait until what was asked for is read, and end what is not by the deadline."""
        for lane in self._lanes:
            await lane.idle(left_until(deadline))
        self._ended = True
        self._refuse_rest()

    # Of the callers

    def _check_available(self) -> None:
        if self._coherence.fills_under_way >= MOST_WAITING:
            raise DatabaseUnavailable(f"{MOST_WAITING} reads wait for the database already")
        self._store.check_available()

    def _open(
        self, keys: Sequence[bytes], deadline: float, refresh: bool = False, min_version: int = 0
    ) -> tuple[list[Fill], set[Fill]]:
        """Return a fill for each session, and which of them are led here: the lanes have them all."""
        opened: list[tuple[bytes, AsyncSharedFuture[_Result]]] = []
        fills: list[Fill] = []
        led: set[Fill] = set()
        try:
            for key in keys:
                future: AsyncSharedFuture[_Result] = AsyncSharedFuture()
                opened.append((key, future))
                fill, leads = self._coherence.open_fill(key, refresh=refresh, new_future=lambda: future)  # noqa: B023
                fills.append(fill)
                if leads:
                    led.add(fill)
            for fill in fills:
                # Whoever opened another one may have been interrupted before it got so far.
                if not fill.future.handed_over:
                    self._asked.append(_Asked(fill, min_version, deadline))
                    fill.future.handed_over = True
        except BaseException:
            for key, future in opened:
                if not future.handed_over:
                    self._coherence.withdraw_fill(key, future)
            raise
        finally:
            # Also who joins does so: whoever leads may have been interrupted before it came to this.
            if self._asked:
                self._wake()
        if self._ended:
            self._refuse_rest()
        return fills, led

    def _wake(self) -> None:
        """Have what waits read, at once or by a lane that has a statement under way."""
        under_way = 0
        now = time.monotonic()
        for lane in self._lanes:
            since = lane.since
            lane.wake()
            if since is None:
                return  # it takes what waits at once
            if now - since < SLOW:
                under_way += 1
                if under_way == AT_ONCE:
                    return

    async def _wait(self, fill: Fill, leads: bool, deadline: float) -> _Result:
        try:
            result: _Result = await fill.future.wait_until(self._store.waits_until(deadline), self._deadlines)
            return result
        except TimeoutError:
            if not fill.future.done:
                raise OperationTimeout("the database did not answer in time") from None
            # It is the answer that is such an error.
            if leads or self._store.is_late(deadline):
                raise
            return _AGAIN  # whoever leads had less time

    # Of the lanes

    @property
    def waiting(self) -> bool:
        """Return True while there is something to take."""
        return bool(self._asked)

    def take(self) -> list[_Asked]:
        """Return what is to be read by the next statement."""
        taken: list[_Asked] = []
        try:
            while len(taken) < self._most:
                asked = self._asked.popleft()
                # A database that is known to be down has answered all who wait.
                if asked.fill.future.begin() and not asked.fill.future.done:
                    taken.append(asked)
        except IndexError:
            pass
        return taken

    def note_pace(self, count: int, took: float) -> None:
        """Have the next statements be of as many sessions as are read in about `SLOW` seconds beside the round trip."""
        self._quickest = min(self._quickest, took)
        beside = took - self._quickest
        if beside > SLOW and count > LEAST_TOGETHER:
            self._most = max(count // 2, LEAST_TOGETHER)
        elif beside < SLOW / 2 and count == self._most:
            self._most = min(2 * count, TOGETHER)

    async def fill(self, asked: list[_Asked]) -> None:
        """Read sessions once for all who wait for them; the callers may come and go."""
        try:
            while len(asked) > 1:
                asked = await self._read_together(asked)
        except (psycopg.Error, msgspec.DecodeError) as error:
            # Reads lock no rows: a lock that is not to be had is the table's, and one by one they would wait for it.
            if isinstance(error, psycopg.Error) and (
                not may_be_one_members(error) or isinstance(error, psycopg.errors.LockNotAvailable)
            ):
                self._give_up(asked, error)
                return
            # Of one of them, that plain SQL has stored: it must not fail the others.
        except BaseException as error:
            self._give_up(asked, error)
            return
        rest = deque(asked)
        try:
            while rest:
                await self._read_alone(rest.popleft())
        except BaseException as error:
            self._give_up(rest, error)

    async def _read_together(self, asked: list[_Asked]) -> list[_Asked]:
        """Return those for which there was no room in the answer."""
        keys = list(dict.fromkeys(one.fill.key for one in asked))  # one that is read anew may be there twice
        some, incarnation, now, xmax = await self._store.read_many(keys, max(one.deadline for one in asked))
        unread = {keys[number] for number in some.unread}
        answers = [
            Answered(
                one.fill, some.found.get(one.fill.key), one.min_version, absent=one.fill.key not in some.found
            )
            for one in asked
            if one.fill.key not in unread
        ]
        async with self._section:
            self._settle(answers, incarnation, now, xmax)
        return [one for one in asked if one.fill.key in unread]

    async def _read_alone(self, asked: _Asked) -> None:
        try:
            record, incarnation, now, xmax, absent = await self._store.read(asked.fill.key, asked.deadline)
            async with self._section:
                self._settle(
                    [Answered(asked.fill, record, asked.min_version, absent)], incarnation, now, xmax
                )
        except BaseException as error:
            self._give_up([asked], error)

    def _settle(self, answers: list[Answered], incarnation: str | None, now: int, xmax: int) -> None:
        verdicts = self._coherence.close_fills(answers, incarnation, now, xmax)
        if self._cache.many_evicted_accesses:
            self._on_evicted_accesses()
        if any(verdict.reconnect for verdict in verdicts):
            self._on_wrong_server()
        for answer, verdict in zip(answers, verdicts, strict=True):
            answer.fill.future.set_result(_AGAIN if verdict.again else answer.record)

    def _refuse_rest(self) -> None:
        rest = self.take()
        while rest:
            self._give_up(rest, ManagerClosedError("the manager is closed"))
            rest = self.take()

    def _give_up(self, asked: Iterable[_Asked], error: BaseException) -> None:
        for one in asked:
            self._coherence.fail_fill(one.fill)
            one.fill.future.set_error(
                error if isinstance(error, Exception) else ManagerClosedError("the manager is closed")
            )
        if not isinstance(error, Exception):
            raise error


def _begun_future() -> AsyncSharedFuture[_Result]:
    """Return the future of a fill that no lane takes."""
    future: AsyncSharedFuture[_Result] = AsyncSharedFuture()
    future.handed_over = True
    return future
