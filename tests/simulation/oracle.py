"""The check: C1 to C11 as statements about what happened, with no idea of how it was brought about.

It compares by serial numbers of commits, never by versions, and by the true time, never by a node's clock.

    C1 C7 C12  `arrived`, `check_cache`: nothing below what an event brought to this node stays in its cache
    C2 C3      `begin`, `finish`, `returned`: nothing below what an earlier call on this node gave, or a token promised
    C4 C9      `commit_of`: a record is one commit, unchanged, that has happened
    C5         `World.settle`: when all is quiet, every cached record is the row
    C6         `_check_age`: what memory gave was current less than `max_staleness` before the call
    C8         `_check_age`: nothing is given past its expiry, by its server's clock; after a step, by that of before
    C10        `check_lead`: nobody reads the database while an undisturbed fill could be joined
    C11        `World.settle`: each access that was noted reaches the row
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from tests.simulation.model import EPOCH, Commit

if TYPE_CHECKING:
    from pgsession._core.record import Record
    from tests.simulation.node import Node

SECOND: Final = 1_000_000
PROMPT: Final = SECOND
"""An answer that takes less is prompt: a step of the server's clock is seen by it, and it is wrong by less."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Call:
    """One caller's read."""

    __slots__ = ("began", "floor", "key", "min_version", "node", "refresh", "token")

    def __init__(self, node: Node, key: bytes, began: int, floor: int) -> None:
        self.node = node
        self.key = key
        self.began = began
        self.floor = floor
        self.refresh = False
        self.min_version = 0
        self.token: Commit | None = None


class Oracle:
    """What has happened, and what may follow from it."""

    def __init__(self, max_staleness: int, stale_if_error: int) -> None:
        self.max_staleness = max_staleness
        self.stale_if_error = stale_if_error
        self.now = 0
        self.commits: list[Commit | None] = [None]
        self.timeline: dict[bytes, list[Commit]] = {}
        """The commits of each session that are not lost, oldest first."""
        self.lost: dict[bytes, int] = {}
        """The highest version of each session that was lost: it may be given out again."""
        self.lost_at: dict[int, int] = {}
        self.clocks = [(0, 0)]
        self.stepped = False

    # What happens in the database

    def committed(self, commit: Commit) -> None:
        self.commits.append(commit)
        self.timeline.setdefault(commit.key, []).append(commit)

    def crashed(self, lost: list[Commit], nodes: list[Node]) -> None:
        """The exception to C2 and C3: what the server lost binds nobody any more."""
        for commit in lost:
            self.timeline[commit.key].remove(commit)
            self.lost_at[commit.serial] = self.now
            self.lost[commit.key] = max(commit.version, self.lost.get(commit.key, 0))
        for node in nodes:
            for known in (node.returned, node.arrived):
                for key, serials in known.items():
                    known[key] = [serial for serial in serials if not self._commit(serial).lost]

    def _commit(self, serial: int) -> Commit:
        commit = self.commits[serial]
        assert commit is not None
        return commit

    # What a node's callers see

    def begin(self, node: Node, key: bytes) -> Call:
        return Call(node, key, self.now, _last(node.returned.get(key)))

    def commit_of(self, record: Record) -> Commit:
        """C4, C9: the one commit that this record shows."""
        commit = self._commit(int(record.attributes()[0][3]))
        shown = (record.key, record.version, record.user_id, record.group_id, record.expires_at)
        if (
            shown != (commit.key, commit.version, commit.user, commit.group, commit.expires_at)
            or commit.deleted
        ):
            raise Violation(f"C4: {record} is not what {commit} committed")
        return commit

    def finish(self, call: Call, record: Record | None, serial: int, source: str) -> None:
        """A read returns. `serial` is that of the row which the database showed, also of a deleted one."""
        if record is not None:
            serial = self.commit_of(record).serial
        shown = f"{source} gave {call.node.name} {self.commits[serial] or 'nothing'}"
        if serial < self._surviving(call.floor):
            raise Violation(f"C2: {shown}, after {self.commits[call.floor]}")
        if source == "memory" and not call.node.compared:
            raise Violation(f"C6: {shown}, with no listener in sync")
        self._check_token(call, record, serial, shown)
        self._check_age(call, record, serial, source, shown)
        self.returned(call.node, call.key, serial)

    def returned(self, node: Node, key: bytes, serial: int) -> None:
        """Calls on this node that begin from now on must not see less."""
        if serial and not self._commit(serial).lost:
            serials = node.returned.setdefault(key, [])
            if serial > _last(serials):
                serials.append(serial)

    def _surviving(self, serial: int) -> int:
        """A floor that was lost while the call was under way counts no more."""
        return 0 if serial and self._commit(serial).lost else serial

    def _check_token(self, call: Call, record: Record | None, serial: int, shown: str) -> None:
        if call.token is None or call.token.lost:
            return
        if self.lost.get(call.key, 0) >= call.min_version:
            return  # The version was lost once and given out again; see docs/coherence-testing.md.
        if serial < call.token.serial:
            raise Violation(f"C3: {shown}, though the caller knew of {call.token}")

    def _check_age(self, call: Call, record: Record | None, serial: int, source: str, shown: str) -> None:
        fresh = call.refresh or source == "database"  # what the call's own read must have seen
        allowed = 0 if fresh else self.max_staleness + (self.stale_if_error if source == "degraded" else 0)
        oldest = call.began - allowed
        for commit in reversed(self.timeline.get(call.key, ())):
            if commit.at < oldest and (fresh or commit.announced):
                if serial < commit.serial:
                    raise Violation(f"C6: {shown}, {allowed / SECOND:g} s after {commit}")
                break
        if not fresh and self.lost_at.get(serial, oldest) < oldest:
            raise Violation(f"C6: {shown}, {allowed / SECOND:g} s after it was lost")
        if record is not None:
            late = EPOCH + self.now + self.least_ahead(call) - record.expires_at
            if late >= (PROMPT if self.stepped else 0):
                raise Violation(f"C8: {shown}, expired {late / SECOND:g} s ago")

    # What time it is

    def clock_changed(self, ahead: int, *, stepped: bool = False) -> None:
        """The clock of the server that nodes read from is ahead of the true time by so much now."""
        self.clocks.append((self.now, ahead))
        self.stepped |= stepped

    def least_ahead(self, call: Call) -> int:
        """By how much it was ahead at least, since the node had a prompt answer and this call's fill can have begun."""
        since = min(call.node.heard, call.began - self.max_staleness - self.stale_if_error)
        before = [ahead for at, ahead in self.clocks if at <= since][-1:]
        return min(before + [ahead for at, ahead in self.clocks if at > since])

    # What a node knows and holds

    def arrived(self, node: Node, effects: tuple[Commit, ...]) -> None:
        for commit in effects:
            if not commit.lost:
                serials = node.arrived.setdefault(commit.key, [])
                if commit.serial > _last(serials):
                    serials.append(commit.serial)

    def check_cache(self, node: Node) -> None:
        node.absences.check()
        keys, versions = node.cache.versions()
        for key, version in zip(keys, versions, strict=True):
            commit = self._commit(node.inserted[key])
            if commit.version != version:
                raise Violation(f"C4: {node.name} holds version {version} of {commit}")
            if commit.serial < _last(node.arrived.get(key)):
                raise Violation(f"C1: {node.name} holds {commit}, though it heard of {node.arrived[key][-1]}")

    def check_lead(self, node: Node, key: bytes) -> None:
        for fill in node.fills.get(key, ()):
            if not fill.future.disturbed and self.now - fill.future.began < self.max_staleness:
                raise Violation(f"C10: {node.name} reads {key[-1]} twice at once")


def _last(serials: list[int] | None) -> int:
    return serials[-1] if serials else 0
