"""The oracle: what the history of all processes says about the promise. Knows nothing of how it is kept.

It uses what the callers saw, and the order of their calls by one clock. A call that ended before another began came
before it; calls that overlap may have happened in either order, and the oracle believes the better one.

One exception is in the promise (C2): when the server lost commits that it had acknowledged to nobody, in a crash or a
failover, what was read of them may be gone. An *era* is the time between two such faults. What was seen in one era
binds a later one only as far as it was acknowledged by then.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

from tests.chaos import claims, identity, idle, locks, moving
from tests.chaos.endings import NOT_DONE, Endings
from tests.chaos.history import Call, Fault
from tests.chaos.verdict import Limits, Row, Verdict, Violation

TRIED = {
    **identity.TRIED,
    "ended everywhere": "sessions asked for after a wait for all",
    **claims.TRIED,
    **idle.TRIED,
    **locks.TRIED,
}
"""What was put to the test, and what the report calls it."""

_NO_STORY = identity.KINDS | claims.KINDS | idle.KINDS
"""Calls on sessions that other oracles look at."""

MOST_OVERDUE = 1_000_000
"""How wrong, in microseconds, a node's idea of the database's clock may be after slow round trips."""


class Eras:
    """The times between the faults in which commits may have been lost."""

    def __init__(self, faults: Iterable[Fault]) -> None:
        lossy = sorted((fault for fault in faults if fault.lossy), key=lambda fault: fault.began)
        self.began = [fault.began for fault in lossy]
        self.ended = [fault.ended for fault in lossy]

    def seen(self, call: Call) -> int:
        """The era in which the call saw what it saw, at the earliest."""
        return bisect_right(self.ended, call.began)

    def binds(self, call: Call) -> int:
        """The first era that is not excused towards this call: no loss came after it, and before the call's end."""
        return bisect_right(self.began, call.ended)

    def __len__(self) -> int:
        return len(self.began) + 1


class Floor:
    """The highest version of one session that earlier calls have shown, by eras."""

    def __init__(self, eras: Eras, durable: list[int]) -> None:
        self._highest: list[Call | None] = [None] * len(eras)
        self._durable = durable

    def raise_to(self, era: int, call: Call) -> None:
        known = self._highest[era]
        if known is None or call.version > known.version:
            self._highest[era] = call

    def above(self, version: int, first_era: int) -> Call | None:
        """A call that binds, and showed more than this version."""
        for era, call in enumerate(self._highest):
            if call is not None:
                # What was seen before a loss counts up to what had been acknowledged by then.
                bound = call.version if era >= first_era else min(call.version, self._durable[era])
                if bound > version:
                    return call
        return None


class Superseded:
    """When versions of one session were first known to exist, by eras."""

    def __init__(self, eras: Eras) -> None:
        self._eras: list[list[tuple[int, int, Call]]] = [[] for _ in range(len(eras))]
        self._acknowledged: list[tuple[int, int, Call]] = []

    def add(self, era: int, call: Call) -> None:
        self._eras[era].append((call.version, call.ended, call))
        if is_acknowledged(call):
            self._acknowledged.append((call.version, call.ended, call))

    def prepare(self) -> None:
        self._tables = [_earliest_above(entries) for entries in self._eras]
        self._table = _earliest_above(self._acknowledged)

    def first(self, version: int, first_era: int) -> Call | None:
        """The earliest call to show that there was more than this version."""
        found = [_look_up(table, version) for table in [*self._tables[first_era:], self._table]]
        return min((call for call in found if call is not None), key=lambda call: call.ended, default=None)


def _earliest_above(entries: list[tuple[int, int, Call]]) -> tuple[list[int], list[Call]]:
    """For each version the call that ended first of those that showed it or a higher one."""
    versions: list[int] = []
    calls: list[Call] = []
    for version, ended, call in sorted(entries, key=lambda entry: (-entry[0], entry[1])):
        best = call if not calls or ended < calls[-1].ended else calls[-1]
        if versions and versions[-1] == version:
            calls[-1] = best
        else:
            versions.append(version)
            calls.append(best)
    return versions[::-1], calls[::-1]


def _look_up(table: tuple[list[int], list[Call]], version: int) -> Call | None:
    versions, calls = table
    place = bisect_right(versions, version)
    return calls[place] if place < len(calls) else None


def _state(call: Call) -> tuple[int, str]:
    """A version and what it was seen to hold."""
    return call.version, repr(sorted((call.content or {}).items()))


NO_WRITES = ("get", "list", "open", "use", "final", "evict", "clear", "count", "load", "sql_count")


def is_wide(call: Call) -> bool:
    """Whether a call may concern sessions that it does not name."""
    ends_others = call.evicts and call.outcome not in NOT_DONE
    return ends_others or call.kind in ("delete_user", "delete_group", "drop")


def is_doubtful(call: Call) -> bool:
    """Whether a call may have been done, or be done later, though nobody was told."""
    return call.outcome in ("unknown", "interrupted")


def is_write(call: Call) -> bool:
    return call.kind in ("update", "create", "sql_set")


def is_read(call: Call) -> bool:
    return call.kind in ("get", "list")


def is_acknowledged(call: Call) -> bool:
    return is_write(call) and call.outcome == "ok"


class Oracle:
    """Checks a whole run. `rows` is the database in the end."""

    def __init__(self, calls: list[Call], faults: list[Fault], rows: dict[str, Row], limits: Limits) -> None:
        self._calls = calls
        self._faults = faults
        self._eras: dict[tuple[int, ...], Eras] = {}
        self._rows = rows
        self._max_staleness = limits.max_staleness
        self._operation_timeout = limits.operation_timeout
        self._endings = Endings(calls, faults, rows, limits)
        self._identity = identity.Identity(calls, rows, limits)
        self._verdict = Verdict()

    def check(self) -> Verdict:
        self._count()
        self._verdict.longest = self._endings.longest()
        self._verdict.violations += self._endings.violations()
        self._verdict.violations += self._identity.violations()
        tried = self._verdict.tried = dict.fromkeys(TRIED, 0) | self._identity.tried
        self._verdict.violations += claims.violations(self._calls, self._rows, tried)
        self._verdict.violations += idle.violations(self._calls, self._operation_timeout, tried)
        self._verdict.violations += locks.violations(self._calls, tried)
        tried |= dict.fromkeys(moving.TRIED, 0)
        self._verdict.violations += moving.violations(self._calls, self._rows, self._max_staleness, tried)
        parts = moving.parts(self._calls)
        wide = [call for call in parts if is_wide(call)]
        sessions: dict[str, list[Call]] = defaultdict(list)
        for call in parts:
            if call.session and call.kind not in _NO_STORY:
                sessions[call.session].append(call)
        for key, calls in sessions.items():
            calls.sort(key=lambda call: call.began)
            story = Story(calls, wide, self._eras_of(calls), self._max_staleness)
            self._verdict.violations += story.violations(self._rows.get(key))
            self._verdict.longest_stale = max(self._verdict.longest_stale, story.longest_stale)
            tried["ended everywhere"] += story.ended_everywhere
        return self._verdict

    def _eras_of(self, calls: list[Call]) -> Eras:
        """Those of the session's server: what others lose excuses nothing."""
        shards = next((tuple(call.shards) for call in calls if len(call.shards) == 1), ())
        if shards not in self._eras:
            self._eras[shards] = Eras(
                fault for fault in self._faults if not shards or not fault.shards or shards[0] in fault.shards
            )
        return self._eras[shards]

    def _count(self) -> None:
        verdict = self._verdict
        for call in self._calls:
            verdict.calls += call.kind != "final"
            verdict.hits += call.from_cache
            verdict.unknown += call.outcome == "unknown"
            verdict.errors += call.outcome == "error"
            verdict.interrupted += call.outcome == "interrupted"
            verdict.conflicts += call.outcome == "conflict"
            verdict.refused += call.outcome == "refused"
            verdict.confirmed += call.confirmed
            verdict.unconfirmed += call.wait > 0 and not call.confirmed and call.outcome in ("ok", "none")
            verdict.writes += call.outcome == "ok" and call.kind not in NO_WRITES
            if call.outcome == "surprise":
                verdict.violations.append(Violation("surprise", call.error, [call]))
            if call.overdue > MOST_OVERDUE:
                text = f"an attribute was served {call.overdue / 1e6:.3f} s after it had expired"
                verdict.violations.append(Violation("expired", text, [call]))


class Story:
    """All that happened to one session, in the order in which the calls began."""

    def __init__(self, calls: list[Call], wide: list[Call], eras: Eras, max_staleness: int) -> None:
        self._calls = calls
        self._eras = eras
        self._max_staleness = max_staleness
        # The creation need not be among the calls: its outcome may have been unknown.
        self._user = next((call.user for call in calls if call.user), "")
        self._wide = list(self._concerning(wide))
        self._acknowledged = [call for call in calls if is_acknowledged(call) and call.version]
        self._durable = [
            max((call.version for call in self._acknowledged if call.ended < began), default=0)
            for began in [*eras.began, 1 << 62]
        ]
        self._seen = [call for call in calls if call.version and call.kind != "final"]
        self._first: dict[tuple[int, str], Call] = {}
        for call in calls:
            if call.content is not None and call.version and call.outcome == "ok":
                self._first.setdefault(_state(call), call)
        self.longest_stale = 0
        self.ended_everywhere = 0
        """How many reads had only a `wait` to say that they find nothing."""

    def _era(self, call: Call) -> int:
        """The era from which what the call saw is: memory may hold it for a while after it was lost."""
        return self._eras.seen(self._first.get(_state(call), call))

    def _may_be_lost(self, call: Call, later: Call) -> bool:
        """Whether what one call saw may have been lost before another one."""
        era, bound = self._era(call), self._eras.binds(later)
        return era < bound and call.version > min(self._durable[era:bound])

    def _concerning(self, wide: list[Call]) -> Iterator[Call]:
        """The bulk operations that may have hit this session, and creates that may have evicted it."""
        session = self._calls[0].session
        for call in wide:
            if call.evicts:
                if call.user == self._user and call.session != session:
                    yield call
            elif call.group or (call.user == self._user and call.keep != session):
                yield call

    def violations(self, row: Row | None) -> Iterator[Violation]:
        yield from self._backwards()
        yield from self._floors()
        yield from self._staleness()
        yield from self._contents()
        yield from self._counters()
        yield from self._lost_effects(row)
        yield from self._deletions(row)
        yield from self._dropped(row)
        yield from self._finals(row)

    # C2, C3

    def _backwards(self) -> Iterator[Violation]:
        """Per process, and per arena that processes share: nothing older than what a call there had returned before."""
        places: dict[int | str, list[Call]] = defaultdict(list)
        for call in self._seen:
            if not call.kind.startswith("sql"):
                for where in call.places:
                    places[where].append(call)
        for calls in places.values():
            floor = Floor(self._eras, self._durable)
            ended = sorted(calls, key=lambda call: call.ended)
            place = 0
            for call in calls:
                while place < len(ended) and ended[place].ended <= call.began:
                    floor.raise_to(self._era(ended[place]), ended[place])
                    place += 1
                earlier = floor.above(call.version, self._eras.binds(call))
                if earlier is not None:
                    kind = "own" if is_write(earlier) and is_read(call) else "backwards"
                    text = f"version {call.version} after {earlier.version} on node {call.node}"
                    yield Violation(kind, text, [earlier, call])

    def _floors(self) -> Iterator[Violation]:
        """C3 across nodes: a version that a token carries was acknowledged, so nobody gets less."""
        best = max((call.version for call in self._acknowledged), default=0)
        for call in self._seen:
            if is_read(call) and call.version < min(call.floor, best):
                acknowledged = [
                    a for a in self._acknowledged if a.version >= call.floor and a.ended < call.began
                ]
                if acknowledged:
                    text = f"version {call.version} where at least {call.floor} was asked for"
                    yield Violation("own", text, [acknowledged[0], call])

    # C6

    def _staleness(self) -> Iterator[Violation]:
        superseded = Superseded(self._eras)
        for call in self._seen:
            superseded.add(self._era(call), call)
        superseded.prepare()
        for call in self._seen:
            if is_read(call):
                newer = superseded.first(call.version, self._eras.binds(call))
                if newer is not None:
                    yield from self._judge_age(call, newer)

    def _judge_age(self, call: Call, newer: Call) -> Iterator[Violation]:
        age = call.began - newer.ended
        self.longest_stale = max(self.longest_stale, age)
        if age > self._max_staleness:
            text = f"version {call.version} served {age / 1e6:.3f} s after {newer.version} was known"
            yield Violation("stale", text, [newer, call])

    # C4

    def _contents(self) -> Iterator[Violation]:
        """A version number means one content; another one only after a loss, and then the older is stale."""
        versions: dict[int, list[Call]] = defaultdict(list)
        for first in self._first.values():
            versions[first.version].append(first)
        for firsts in versions.values():
            for number, earlier in enumerate(firsts):
                for later in firsts[number + 1 :]:
                    yield from self._two_contents(earlier, later)

    def _two_contents(self, earlier: Call, later: Call) -> Iterator[Violation]:
        if not self._may_be_lost(earlier, later):
            yield Violation("torn", f"version {later.version} with two contents", [earlier, later])
            return
        for call in self._seen:  # what was lost is served although the number has been given out again
            if is_read(call) and call.began > later.ended and _state(call) == _state(earlier):
                yield from self._judge_age(call, later)

    def _counters(self) -> Iterator[Violation]:
        """Increments by optimistic locking: no two of them made the same number of it."""
        counted: dict[int, Call] = {}
        for call in self._acknowledged:
            if call.wrote and "count" in call.wrote:
                twin = counted.setdefault(call.wrote["count"], call)
                if twin is not call:
                    yield Violation("lost", "two increments gave the same number", [twin, call])
            if call.floor and call.kind == "update" and call.version != call.floor + 1:
                text = f'check="session" on {call.floor} passed, and gave {call.version}'
                yield Violation("lost", text, [call])

    # Acknowledged writes

    def _lost_effects(self, row: Row | None) -> Iterator[Violation]:
        """What a caller wrote into its own attribute is in every later version, unless it wrote something newer."""
        doubtful: dict[str, dict[Any, Call]] = defaultdict(dict)
        for call in self._calls:
            if call.wrote and call.who in call.wrote and call.outcome != "ok":
                doubtful[call.who][call.wrote[call.who]] = call
        shown = dict(self._first)
        if row is not None:
            end = Call(
                kind="database",
                node=-1,
                began=1 << 61,
                ended=1 << 61,
                version=row.version,
                content=row.content,
            )
            shown[(-1, "")] = end
        newest: dict[str, Call] = {}
        writes = sorted(self._acknowledged, key=lambda call: call.version)
        place = 0
        for call in sorted(shown.values(), key=lambda call: call.version):
            while place < len(writes) and writes[place].version <= call.version:
                write = writes[place]
                if write.wrote and write.who in write.wrote:
                    newest[write.who] = write
                place += 1
            yield from self._missing_effects(call, newest, doubtful)
            yield from self._undone(call, doubtful)

    def _missing_effects(
        self, shown: Call, newest: dict[str, Call], doubtful: dict[str, dict[Any, Call]]
    ) -> Iterator[Violation]:
        assert shown.content is not None
        for who, write in newest.items():
            assert write.wrote is not None
            value = shown.content.get(who)
            late = doubtful[who].get(value)
            if self._may_be_lost(shown, write):
                continue
            if (value is None or value < write.wrote[who]) and not (late and is_doubtful(late)):
                text = f"version {shown.version} has {who}={value}, and {write.version} wrote {write.wrote}"
                yield Violation("lost", text, [write, shown])

    def _undone(self, shown: Call, doubtful: dict[str, dict[Any, Call]]) -> Iterator[Violation]:
        """A write that ended in the driver's error or in a conflict was not done, says the promise."""
        assert shown.content is not None
        for who, values in doubtful.items():
            call = values.get(shown.content.get(who))
            if call is not None and call.outcome in ("error", "conflict", "none"):
                yield Violation("undone", f"{call.outcome}, and yet it is there", [call, shown])

    # C7, and sessions that vanish

    def _deletions(self, row: Row | None) -> Iterator[Violation]:
        ends = [call for call in self._calls if call.kind in ("delete", "sql_delete")]
        # A bulk operation that failed may have done a part.
        wide = [call for call in self._wide if call.kind != "drop"]
        begun = [call.began for call in ends if call.outcome != "error"] + [call.began for call in wide]
        may_be_gone = min(begun, default=None)
        gone = [call for call in ends if call.outcome in ("ok", "none")]
        gone += self._deleted_by_user()
        yield from self._come_back(gone, row)
        yield from self._seen_gone(row)
        for call in self._calls:
            if call.outcome == "none" and (may_be_gone is None or call.ended < may_be_gone):
                yield Violation("lost", "a live session is said to be gone", [call])
        if row is None and may_be_gone is None and self._acknowledged:
            yield Violation("lost", "a session is gone that nobody deleted", self._acknowledged[-1:])
        if row is not None and self._acknowledged:
            best = max(self._acknowledged, key=lambda call: call.version)
            if best.version > row.version:
                yield Violation("lost", f"the database is at version {row.version}", [best])

    def _deleted_by_user(self) -> list[Call]:
        known = min((call.ended for call in self._seen), default=1 << 62)
        return [
            call
            for call in self._wide
            if call.kind == "delete_user" and call.outcome == "ok" and known < call.began
        ]

    def _come_back(self, gone: list[Call], row: Row | None) -> Iterator[Violation]:
        if gone and row is not None:
            yield Violation("resurrected", "deleted, and in the database", gone[:1])
        everywhere = min((call.ended for call in gone), default=None)
        if everywhere is None:
            return
        here: dict[int | str, int] = {}
        for call in gone:
            for where in call.places:
                here[where] = min(here.get(where, call.ended), call.ended)
        known = min((call for call in gone if call.confirmed), key=lambda call: call.ended, default=None)
        if known is not None:
            until = everywhere + self._max_staleness
            self.ended_everywhere += sum(
                is_read(call) and known.ended < call.began <= until and here.keys().isdisjoint(call.places)
                for call in self._calls
            )
        for call in self._seen:
            if call.began > min(here.get(where, 1 << 62) for where in call.places):
                yield Violation("resurrected", "deleted on this node, and returned", [gone[0], call])
            elif known is not None and call.began > known.ended:
                yield Violation("resurrected", "ended on every node, and returned", [known, call])
            elif call.began > everywhere:
                age = call.began - everywhere
                self.longest_stale = max(self.longest_stale, age)
                if age > self._max_staleness or is_write(call):
                    text = f"deleted, and returned {age / 1e6:.3f} s later"
                    yield Violation("resurrected", text, [gone[0], call])

    def _seen_gone(self, row: Row | None) -> Iterator[Violation]:
        """Nothing after a call was told that the session is gone, unless its deletion was lost.

        So it is on the same node at once, on others after `max_staleness`, and in the database for ever.
        """
        eras = len(self._eras)
        here: dict[int | str, list[Call | None]] = defaultdict(lambda: [None] * eras)
        anywhere: list[Call | None] = [None] * eras
        for call in self._calls:
            if is_read(call) and call.outcome == "none":
                for first in (*(here[where] for where in call.places), anywhere):
                    known = first[self._eras.seen(call)]
                    if known is None or call.ended < known.ended:
                        first[self._eras.seen(call)] = call
        for call in self._seen:
            bound = self._eras.binds(call)
            for gone in [gone for where in call.places if where in here for gone in here[where][bound:]]:
                if gone is not None and call.began > gone.ended:
                    yield Violation("resurrected", "gone on this node, and returned", [gone, call])
            for gone in anywhere[bound:]:
                if gone is not None and call.began > gone.ended + self._max_staleness:
                    age = (call.began - gone.ended) / 1e6
                    yield Violation("resurrected", f"gone, and returned {age:.3f} s later", [gone, call])
        if row is not None and (last := anywhere[-1]) is not None:
            yield Violation("resurrected", "gone, and in the database", [last])

    def _dropped(self, row: Row | None) -> Iterator[Violation]:
        """An attribute that was dropped from a user's sessions shows no value that was written before."""
        drops = [call for call in self._wide if call.kind == "drop" and call.outcome == "ok"]
        written: dict[Any, Call] = {}
        for call in self._acknowledged:
            if call.wrote and call.wrote.get("shared") is not None:
                written[call.wrote["shared"]] = call
        shown = [call for call in self._seen if is_read(call) and call.content and "shared" in call.content]
        for drop in drops:
            for call in shown:
                assert call.content is not None
                write = written.get(call.content["shared"])
                patience = 0 if drop.binds(call) else self._max_staleness
                if write is not None and write.ended < drop.began and call.began > drop.ended + patience:
                    yield Violation("resurrected", "a dropped attribute is back", [write, drop, call])
            if (
                row is not None
                and (write := written.get(row.content.get("shared")))
                and write.ended < drop.began
            ):
                yield Violation("resurrected", "a dropped attribute is in the database", [write, drop])

    # C5

    def _finals(self, row: Row | None) -> Iterator[Violation]:
        for call in self._calls:
            if call.kind == "final":
                expected = None if row is None else (row.version, row.content)
                if expected != (call.version, call.content):
                    text = f"cached version {call.version} {call.content}, in the database {expected}"
                    yield Violation("quiescent", text, [call])
