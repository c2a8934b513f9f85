"""Sessions with a short idle timeout: what callers do with them, and what the oracle says of it.

Some are used all the time, by all nodes. The others are used while they are young, and then left alone for so long
that they must have ended. Each use is an access, so that nothing else may be done with these sessions.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from uuid import UUID

from tests.chaos.history import Call, dump, now
from tests.chaos.verdict import Violation

KINDS = frozenset({"start", "use"})
TRIED = {
    "in use": "sessions that only their use kept alive",
    "left alone": "sessions asked for when left alone too long",
}
INACTIVITY = 15_000_000
"""Microseconds: more than faults keep accesses from being written, or a session's use could be told to nobody."""

OFTEN = 2_000_000
"""Microseconds after which a session that is in use is used again."""

SETTLED = 5_000_000
"""Microseconds of such use in which an access is written, after it was not so often: for a fault perhaps."""

CLOCK_ERROR = 1_000_000
"""How wrong, in microseconds, a node's idea of the database's clock may be after slow round trips."""

YOUNG = 1_000_000
OLD = 35_000_000
MOST = 6
"""Sessions that all processes look at, unless they begin some at the same moment."""


class Idle:
    """The calls of one process. `finish` waits for the end of a call and notes it."""

    MARK = "idle"
    """What a message to the other processes begins with that tells of such a session."""

    def __init__(
        self, process: Any, manager: Any, finish: Callable[[Call, Awaitable[Any], Callable[..., None]], Any]
    ) -> None:
        self._process = process
        self._manager = manager
        self._finish = finish
        self._lock = threading.Lock()
        self._born: dict[str, int] = {}

    def hear(self, message: list[Any]) -> None:
        """Another process tells of a session."""
        with self._lock:
            self._born[message[1]] = message[2]

    async def use(self, who: str) -> None:
        """Use a session, unless that is one to be left alone now."""
        with self._lock:
            self._born = {key: born for key, born in self._born.items() if now() - born < OLD}
            known = list(self._born.items())
        if len(known) < MOST and self._process.random.random() < 0.1:
            await self._start(who)
        if not known:
            return
        key, born = self._process.random.choice(known)
        is_left = UUID(key).int % 2
        if is_left and YOUNG < now() - born < YOUNG + INACTIVITY + 2 * CLOCK_ERROR:
            return
        call = self._process.begin("use", who, session=key)
        await self._finish(call, self._manager.get_session(key), self._used)

    def _used(self, call: Call, session: Any) -> None:
        if session is None:
            self._process.end(call, "none")
            if self._process.random.random() < 0.2:
                with self._lock:
                    self._born.pop(call.session, None)
        else:
            self._process.end(call, version=session.version, from_cache=session.from_cache)

    async def _start(self, who: str) -> None:
        user = f"idler {who} {self._process.number()}"
        call = self._process.begin("start", who, user=user)
        await self._finish(
            call, self._manager.create_session(user, inactivity=INACTIVITY / 1e6), self._started
        )

    def _started(self, call: Call, session: Any) -> None:
        call.session = str(session.id)
        self._process.end(call, version=session.version)
        message = [self.MARK, call.session, call.began]
        self.hear(message)
        self._process.peers.tell(dump(message))


def violations(calls: Iterable[Call], operation_timeout: int, tried: dict[str, int]) -> Iterator[Violation]:
    """Whoever is in use is there, and whoever was left alone for too long is not, on any node."""
    sessions: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind in KINDS and call.session:
            sessions[call.session].append(call)
    for uses in sessions.values():
        uses.sort(key=lambda call: call.began)
        yield from _in_use(uses, tried)
        yield from _left_alone(uses, operation_timeout, tried)


def _in_use(uses: list[Call], tried: dict[str, int]) -> Iterator[Violation]:
    last = uses[0]
    settled = 0
    for call in uses[1:]:
        often = call.ended - last.began <= OFTEN
        if call.outcome == "none" and often and call.began > settled:
            yield Violation("idle", "in use, and said to be gone", [last, call])
        if call.outcome == "ok":
            settled = settled if often else call.ended + SETTLED
            tried["in use"] += call.began > max(settled, uses[0].ended + INACTIVITY)
            last = call


def _left_alone(uses: list[Call], operation_timeout: int, tried: dict[str, int]) -> Iterator[Violation]:
    last = 0
    for call in uses:
        if last and call.began > last + INACTIVITY + CLOCK_ERROR:
            tried["left alone"] += 1
            if call.outcome == "ok":
                late = (call.began - last - INACTIVITY) / 1e6
                yield Violation("idle", f"left alone, and there {late:.3f} s after its end", [call])
        if call.outcome != "none":
            # What failed for its caller may yet be read, and be an access.
            last = max(last, call.ended + (operation_timeout if call.outcome != "ok" else 0))
