"""Locks that all want: what callers do with them, and what the oracle says of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from itertools import pairwise
from typing import Any

import pgsession
from tests.chaos.history import Call, now
from tests.chaos.verdict import Violation

TRIED = {"locks": "locks taken that others had had before"}
RESOURCES = 8
LEASE = 1.5
"""Seconds, less than faults last: some holders lose what they hold."""
HEARTBEAT = 0.4
LONGEST = 3.0
"""Seconds that one is held, where it is not lost."""
LOOK = 0.05
"""Seconds between two looks at whether it is still held."""


class Locks:
    """The calls of one process. `finish` waits for the end of a call and notes it."""

    def __init__(
        self,
        process: Any,
        manager: Any,
        finish: Callable[[Call, Awaitable[Any], Callable[..., None]], Any],
        pause: Callable[[float], Awaitable[None]],
    ) -> None:
        self._process = process
        self._manager = manager
        self._finish = finish
        self._pause = pause

    async def hold(self, who: str) -> None:
        """Take one, unless somebody has it; hold it, briefly mostly, and give it back."""
        chance = self._process.random
        resource = f"resource {chance.randrange(RESOURCES)}"
        lock = self._manager.lock(resource, lease_time=LEASE, heartbeat_interval=HEARTBEAT)
        call = self._process.begin("lock", who, user=resource)
        if not await self._finish(call, lock.acquire(blocking=False), self._acquired):
            return
        asked, since, token = call.began, call.ended, lock.token or 0
        end, held = now() + 1e6 * LONGEST * chance.random() ** 6, since
        while (looked := now()) < end and lock.locked:
            held = looked
            await self._pause(LOOK)
        call = self._process.begin("unlock", who, user=resource, gave=token)
        # As far as its holder could know.
        call.wrote = {"asked": asked, "from": since, "to": call.began if lock.locked else held}
        await self._finish(call, _given_back(lock), self._released)

    def _acquired(self, call: Call, is_held: bool) -> None:
        self._process.end(call, "ok" if is_held else "conflict")

    def _released(self, call: Call, _: object) -> None:
        self._process.end(call)


async def _given_back(lock: Any) -> None:
    try:
        await lock.release()
    except pgsession.LockError:
        pass  # it was lost


def violations(calls: Iterable[Call], tried: dict[str, int]) -> Iterator[Violation]:
    """No two hold one at the same moment, as they know it, and tokens grow from holder to holder."""
    by_resource: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind == "unlock":
            by_resource[call.user].append(call)
    for resource, holders in by_resource.items():
        tried["locks"] += len(holders) - 1
        for earlier, later in pairwise(sorted(holders, key=lambda call: _known(call, "from"))):
            over = _known(earlier, "to") - _known(later, "from")
            if over > 0 and _known(later, "to") > _known(later, "from"):
                yield Violation("held", f"{resource} by two, for {over / 1e6:.3f} s", [earlier, later])
        for earlier, later in pairwise(sorted(holders, key=lambda call: call.gave)):
            if later.gave == earlier.gave or _known(later, "from") < _known(earlier, "asked"):
                text = f"{resource}: token {later.gave} was given before {earlier.gave}"
                yield Violation("held", text, [earlier, later])


def _known(call: Call, moment: str) -> int:
    """When its caller asked for the lock, and from when to when it knew that it held it."""
    assert call.wrote is not None
    known: int = call.wrote[moment]
    return known
