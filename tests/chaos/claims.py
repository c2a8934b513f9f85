"""Ids that many callers choose at once: what they do, and what the oracle says of it.

Within a while all choose the same id, whatever their process, so nobody has to tell another of it. Each says in the
attribute "by" who it is, so whose creation was done shows to all.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterable, Iterator
from typing import Any
from uuid import NAMESPACE_OID, uuid5

from tests.chaos.history import Call, now
from tests.chaos.verdict import Row, Violation

KINDS = frozenset({"claim"})
TRIED = {"claims": "claims of an id that others claimed, too"}
WHILE = 500_000
"""Microseconds for which an id is the one to choose."""


class Claims:
    """The calls of one process. `finish` waits for the end of a call and notes it."""

    def __init__(
        self, process: Any, manager: Any, finish: Callable[[Call, Awaitable[Any], Callable[..., None]], Any]
    ) -> None:
        self._process = process
        self._manager = manager
        self._finish = finish

    async def claim(self, who: str) -> None:
        """Create the session, or be told that it is there, or get it."""
        user = f"claimant {now() // WHILE}"
        key = uuid5(NAMESPACE_OID, user)
        if self._process.task.shards:
            key = self._manager.id_for(key, user)
        wrote = {"by": f"{who}:{self._process.number()}"}
        if_exists = self._process.random.choice(["error", "return"])
        call = self._process.begin("claim", who, session=str(key), user=user, wrote=wrote, state=if_exists)
        work = self._manager.create_session(user, wrote, session_id=key, if_exists=if_exists)
        await self._finish(call, work, self._claimed)

    def _claimed(self, call: Call, session: Any) -> None:
        self._process.end(call, version=session.version, content={"by": session["by"]})


def violations(calls: Iterable[Call], rows: dict[str, Row], tried: dict[str, int]) -> Iterator[Violation]:
    """One claim of an id creates it; all others find that; and nobody finds what nobody created."""
    ids: dict[str, list[Call]] = defaultdict(list)
    for call in calls:
        if call.kind == "claim":
            ids[call.session].append(call)
    for key, claims in ids.items():
        tried["claims"] += len(claims) if len(claims) > 1 else 0
        made = [call for call in claims if call.outcome == "ok" and call.content == call.wrote]
        if len(made) > 1:
            yield Violation("claimed", "created twice", made)
        for call in claims:
            yield from _found(call, claims, made)
        row = rows.get(key)
        if made and (row is None or row.content != made[0].wrote):
            yield Violation("claimed", f"created, and in the database is {row}", made)


def _found(call: Call, claims: list[Call], made: list[Call]) -> Iterator[Violation]:
    if call.outcome == "ok" and call.content != call.wrote:
        if call.state == "error":
            yield Violation("claimed", "it was there, and the caller was not told so", [call])
        elif made and call.content != made[0].wrote and made[0].ended < call.began:
            yield Violation("claimed", "another one than was created", [made[0], call])
    others = [
        other for other in claims if other is not call and other.outcome in ("ok", "unknown", "interrupted")
    ]
    if call.outcome == "exists" and not any(other.began < call.ended for other in others):
        yield Violation("claimed", "nobody else can have created it", [call])
