"""How calls end: in time, without paying for what concerns others, and in an error only if nothing was done.

**In time.** `operation_timeout` bounds every call, whatever the server, the network or holders of rows do, and second
tries share it; a bulk operation has two passes of one step each. A call is late after three times as long. Only a
process that is frozen can end nothing: its calls are excused.

**Bystanders.** While somebody with psql holds rows, or callers are interrupted, and all nodes were well before, no call
fails but those that need these rows, or were interrupted themselves.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from tests.chaos.history import Call, Fault
from tests.chaos.verdict import Limits, Row, Violation

GUARD = 3
"""Times its bound that a call may take, for the machine has other things to do."""

CLASSES = {
    "read": frozenset({"get", "list", "open", "use", "count", "load"}),
    "write": frozenset(
        {
            "create",
            "update",
            "delete",
            "begin",
            "rotate",
            "replace",
            "save",
            "claim",
            "start",
            "lock",
            "unlock",
        }
    ),
    "move": frozenset({"move"}),
    "bulk": frozenset({"delete_user", "delete_group", "drop"}),
    "notify": frozenset({"evict", "clear"}),
}
"""The kinds of calls that have the same bound."""

STEPS = 4
"""Calls of which a move consists: it reads, creates the new session, ends the old one, and removes it."""

_CLASS_OF = {kind: name for name, kinds in CLASSES.items() for kind in kinds}
NOT_DONE = ("error", "refused")
"""Outcomes of a create of which nothing may ever be seen."""


def bounds(limits: Limits) -> dict[str, int]:
    """Microseconds after which a call of each class is to have ended."""
    call = limits.operation_timeout
    return {"read": call, "write": call, "move": STEPS * call, "bulk": 2 * call, "notify": call}


def bound_of(limits: Limits, call: Call) -> int:
    """Microseconds after which this call is to have ended; 0: it has no bound."""
    return bounds(limits).get(_CLASS_OF.get(call.kind, ""), 0)


class Endings:
    """Looks at the calls of all processes, whatever their sessions."""

    def __init__(
        self, calls: list[Call], faults: Iterable[Fault], rows: dict[str, Row], limits: Limits
    ) -> None:
        self._calls = calls
        self._faults = sorted(faults, key=lambda fault: fault.began)
        self._rows = rows
        self._limits = limits
        self._bounds = bounds(limits)

    def longest(self) -> dict[str, int]:
        """The longest calls that are not excused, by class."""
        longest = dict.fromkeys(CLASSES, 0)
        for call in self._calls:
            name = _CLASS_OF.get(call.kind)
            if name is not None and not self._frozen(call):
                longest[name] = max(longest[name], call.ended - call.began - call.wait)
        return longest

    def violations(self) -> Iterator[Violation]:
        yield from self._late()
        yield from self._bystanders()
        yield from self._undone_creates()
        yield from self._crowds()
        for fault in self._faults:
            if fault.astray:
                yield Violation("astray", f"{fault.astray} connections after {fault}", [])

    def _late(self) -> Iterator[Violation]:
        for call in self._calls:
            name = _CLASS_OF.get(call.kind)
            took = call.ended - call.began - call.wait
            if name is not None and took > GUARD * self._bounds[name] and not self._frozen(call):
                bound = GUARD * self._bounds[name] / 1e6
                text = f"{call.kind} took {took / 1e6:.3f} s, where {bound:g} s are thrice the bound"
                yield Violation("late", text, [call])

    def _frozen(self, call: Call) -> bool:
        return any(
            fault.frozen == call.node and fault.began < call.ended and call.began < fault.ended
            for fault in self._faults
        )

    def _bystanders(self) -> Iterator[Violation]:
        for number, fault in enumerate(self._faults):
            if not fault.alone:
                continue
            following = self._faults[number + 1].began if number + 1 < len(self._faults) else 1 << 62
            for call in self._calls:
                during = fault.began < call.began and call.began < fault.ended and call.ended < following
                if during and call.outcome in ("error", "unknown") and needs_nothing_of(fault, call):
                    concerned = " ".join(fault.sessions + fault.users)
                    text = f"{call.outcome} during {fault.kind!r}, which concerned {concerned or 'others'}"
                    yield Violation("bystander", text, [call])

    def _undone_creates(self) -> Iterator[Violation]:
        """A caller writes every number once, so one that its failed create wrote is evidence."""
        failed = {
            (call.who, call.wrote.get(call.who)): call
            for call in self._calls
            if call.kind == "create" and call.outcome in NOT_DONE and call.wrote
        }
        if not failed:
            return
        for shown, content in self._contents():
            for item in content.items():
                call = failed.get(item) if isinstance(item[1], int) else None
                if call is not None:
                    text = f"a create that ended in {call.outcome}, and its session is there"
                    yield Violation("undone", text, [call, *shown])
                    del failed[item]

    def _contents(self) -> Iterator[tuple[list[Call], dict[str, Any]]]:
        for call in self._calls:
            if call.content:
                yield [call], call.content
        for row in self._rows.values():
            yield [], row.content

    def _crowds(self) -> Iterator[Violation]:
        """Nowhere are more sessions of a user than allowed: in no list, to nobody who counts, and not in the end."""
        most = self._limits.max_sessions
        if not most:
            return
        lists: dict[tuple[str, int, str], list[Call]] = defaultdict(list)
        for call in self._calls:
            if call.kind == "sql_count" and call.wrote and call.wrote["sessions"] > most:
                text = f"{call.user} has {call.wrote['sessions']} sessions, {most} are allowed"
                yield Violation("crowd", text, [call])
            if call.kind == "list" and call.session:
                lists[call.who, call.began, call.user].append(call)
        for (_, _, user), listed in lists.items():
            if len(listed) > most:
                yield Violation("crowd", f"{user} has {len(listed)} sessions, {most} are allowed", listed[:1])
        living: dict[str, int] = defaultdict(int)
        for row in self._rows.values():
            living[row.user] += row.live
        for user, count in living.items():
            if user and count > most:
                yield Violation("crowd", f"{user} has {count} sessions in the end, {most} are allowed", [])


def needs_nothing_of(fault: Fault, call: Call) -> bool:
    """Return True for a call that is surely not held up by rows that the fault holds, or a server that it hits."""
    if fault.shards:
        return bool(call.shards) and set(fault.shards).isdisjoint(call.shards)
    if _CLASS_OF.get(call.kind) not in ("read", "write"):
        return False
    if call.kind == "create":
        return call.user not in fault.users
    if call.kind in ("begin", "rotate", "replace", "claim", "start") and call.user and fault.users:
        return False  # of so many users one may share a bucket with those
    return call.session not in fault.sessions
