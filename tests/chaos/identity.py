"""The oracle of tokens and owners: who was refused, what opened a session, and what was written into whose.

A generation ends only by a rotation that was based on it, or where its session is replaced, so no other call can make
its token anything but current.
What was acknowledged is never lost. A call that ended without an answer may have been done, or be done later.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator

from tests.chaos.history import Call
from tests.chaos.verdict import Limits, Row, Violation

KINDS = frozenset({"begin", "open", "rotate", "replace", "save"})
"""The calls of `hands.Hands`: on sessions that no other call is about."""

CLOCK_ERROR = 1_000_000
"""How wrong, in microseconds, a node's idea of the database's clock may be after slow round trips."""

TRIED = {
    "current": "current tokens shown, surely good",
    "previous": "tokens of before, shown within their grace",
    "older": "sessions opened by a token of before",
    "ended here": "tokens shown where they were ended",
    "ended": "tokens shown long after their end",
    "replaced": "tokens of a session that was replaced",
    "confirmed": "tokens shown after a wait for all nodes",
    "former": "saves of what former owners held",
}
"""What was put to the test, and what the report calls it."""


class Identity:
    """Looks at all calls on sessions that change hands."""

    def __init__(self, calls: Iterable[Call], rows: dict[str, Row], limits: Limits) -> None:
        self._limits = limits
        self._rows = rows
        self._sessions: dict[str, list[Call]] = defaultdict(list)
        for call in calls:
            if call.kind in KINDS and call.session:
                self._sessions[call.session].append(call)
        self.tried: Counter[str] = Counter(dict.fromkeys(TRIED, 0))

    def violations(self) -> Iterator[Violation]:
        for key, calls in self._sessions.items():
            rotations = [call for call in calls if call.kind == "rotate" and _may_be_done(call)]
            based: dict[int, list[Call]] = defaultdict(list)
            for call in rotations:
                based[call.generation].append(call)
            yield from self._earned(based)
            self._given = {call.gave: call for call in calls if call.gave}
            replacements = [call for call in calls if call.kind == "replace" and _may_be_done(call)]
            for generation in {call.generation for call in calls} | set(self._given):
                giver = self._given.get(generation)
                based[generation] += [call for call in replacements if _may_end(call, giver)]
            for call in calls:
                if call.kind == "open" and call.outcome in ("ok", "none"):
                    yield from self._shown(call, based)
            yield from self._owners(calls, self._rows.get(key))

    def _shown(self, call: Call, based: dict[int, list[Call]]) -> Iterator[Violation]:
        """A token was shown to a node, which opened a session or refused it."""
        ended_by = based[call.generation]
        refused = call.outcome == "none"
        if not any(other.began < call.ended for other in ended_by):
            self.tried["current"] += 1
            if refused:
                yield Violation("refused", f"the current token, as {call.state}", [call])
        elif self._is_within_grace(call, ended_by, based):
            self.tried["previous"] += 1
            if refused:
                yield Violation("refused", f"a token within its grace, as {call.state}", [*ended_by, call])
        if not refused:
            self.tried["older"] += call.state == "previous"
            if call.gives != (call.state == "current"):
                yield Violation("earned", f"{call.state}, and a token: {call.gives}", [call])
        for other in ended_by:
            # Which of the two was first is unknown where nobody was told who gave the token.
            known = other.kind == "rotate" or call.generation in self._given
            if other.outcome == "ok" and other.gave and known:
                yield from self._outlived(call, other, based)

    def _is_within_grace(self, call: Call, ended_by: list[Call], based: dict[int, list[Call]]) -> bool:
        """Return True where whichever of these rotations was done, none has ended the token by then."""
        for other in ended_by:
            if other.began >= call.ended:
                continue
            # Its new generation is unknown where it was not acknowledged: another one may be based on that.
            if other.outcome != "ok" or call.ended >= other.began + other.grace:
                return False
            if other.gave and any(later.began < call.ended for later in based[other.gave]):
                return False
        return True

    def _outlived(self, call: Call, ended_by: Call, based: dict[int, list[Call]]) -> Iterator[Violation]:
        over = ended_by.ended + ended_by.grace
        over = min(
            [over, *(later.ended for later in based[ended_by.gave] if later.outcome == "ok" and later.gave)]
        )
        here = ended_by.binds(call) and not ended_by.grace
        allowed = 0 if here else self._limits.max_staleness + (CLOCK_ERROR if ended_by.grace else 0)
        if ended_by.confirmed and ended_by.ended < call.began <= ended_by.ended + self._limits.max_staleness:
            self.tried["confirmed"] += 1
            if call.state == "current":
                yield Violation("outlived", "on a node that was to know", [ended_by, call])
        if call.began > over + allowed:
            self.tried["replaced"] += ended_by.kind == "replace"
            self.tried["ended here" if here else "ended"] += 1
            if call.outcome == "ok":
                late = (call.began - over) / 1e6
                yield Violation("outlived", f"{call.state}, {late:.3f} s after its end", [ended_by, call])

    def _earned(self, based: dict[int, list[Call]]) -> Iterator[Violation]:
        """Of two rotations of one generation one is done."""
        for rotations in based.values():
            earned = [call for call in rotations if call.outcome == "ok" and call.gave]
            if len(earned) > 1:
                yield Violation("earned", "two rotations of one generation", earned)

    def _owners(self, calls: list[Call], row: Row | None) -> Iterator[Violation]:
        """What says whose it is was written by who had it then."""
        for call in calls:
            if call.content is not None and call.content["owner"] != call.content["user"]:
                yield Violation("crossed", "what another owner wrote", [call])
        if row is not None and row.content.get("owner") != row.user:
            yield Violation("crossed", f"{row.content.get('owner')!r} in the row of {row.user!r}", calls[-1:])
        given = [call for call in calls if call.kind in ("rotate", "replace")]
        binds = [call for call in given if call.user and call.outcome == "ok"]
        for save in calls:
            if save.kind == "save" and any(_took(bind, save) for bind in binds):
                self.tried["former"] += 1
                if save.outcome == "ok":
                    yield Violation("crossed", "what a former owner held is saved", [*binds, save])


def _may_end(replacement: Call, giver: Call | None) -> bool:
    """Return True where the replacement may have ended what this call, if it is known, has given."""
    if giver is None or replacement.outcome != "ok":
        return True
    return replacement.version > giver.version


def _took(bind: Call, save: Call) -> bool:
    """Return True where the session was surely given to another user before this save of what one had held.

    Each login is of a user of its own, so nobody gets a session back.
    """
    return bind.user != save.user and bind.ended < save.began and bind.version > save.floor


def _may_be_done(call: Call) -> bool:
    return call.outcome in ("ok", "unknown", "interrupted")
