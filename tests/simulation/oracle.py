"""The check: C1 to C13, and whose a session is, as statements about what happened, however it was brought about.

It compares by serial numbers of commits, never by versions, and by the true time, never by a node's clock.

    C1 C7 C12  `arrived`, `check_cache`: nothing below what an event brought to this node stays in its cache
    C2 C3      `begin`, `finish`, `returned`: nothing below what an earlier call on this node gave, or a token promised
    C4 C9      `commit_of`: a record is one commit, unchanged, that has happened
    C5         `World.settle`: when all is quiet, every cached record is the row
    C6         `_check_age`: what memory gave was current less than `max_staleness` before the call
    C8         `_check_age`: nothing is given past its expiry, by its server's clock; after a step, by that of before
    C10        `check_lead`: nobody reads the database while an undisturbed fill could be joined
    C11        `World.settle`: each access that was noted reaches the row

and of tokens and owners, which are told apart by the commits that drew a generation and began a tenure:

    current    `refused`: a request with the current token, or within its grace the one before, is never refused
    ended      `opened`: an ended token opens nothing later than grace, `max_staleness` and the clock's error allow
    previous   `opened`: what the one before opens knows it, and gives no token
    superseded `refused`: an ended token is superseded for `rotation_grace` after the rotation, and no longer
    owners     `saved`: what is held of another owner's session never reaches the row
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final, NamedTuple

from tests.simulation.model import EPOCH, Commit

if TYPE_CHECKING:
    from pgsession._core.record import Record
    from tests.simulation.node import Node

SECOND: Final = 1_000_000
PROMPT: Final = SECOND
"""An answer that takes less is prompt: a step of the server's clock is seen by it, and it is wrong by less."""


CLOCK_ERROR: Final = 3 * SECOND
"""What a node believes of the database's clock is wrong by less, where it has had a prompt answer."""


class Token(NamedTuple):
    """What a browser holds: it was given for this commit."""

    commit: Commit

    @property
    def key(self) -> bytes:
        return self.commit.key

    @property
    def generation(self) -> int:
        return self.commit.identity.generation

    @property
    def version(self) -> int:
        return self.commit.version

    @property
    def text(self) -> str:
        return f"{self.key.hex()} {self.generation} {self.version}"


class Violation(AssertionError):
    """An invariant does not hold."""


class Call:
    """One caller's read."""

    __slots__ = ("began", "floor", "key", "min_version", "node", "refresh", "seen", "token")

    def __init__(self, node: Node, key: bytes, began: int, floor: int) -> None:
        self.node = node
        self.key = key
        self.began = began
        self.floor = floor
        self.refresh = False
        self.min_version = 0
        self.seen: Commit | None = None
        self.token: Token | None = None


class Oracle:
    """What has happened, and what may follow from it."""

    def __init__(self, max_staleness: int, stale_if_error: int, rotation_grace: int) -> None:
        self.max_staleness = max_staleness
        self.stale_if_error = stale_if_error
        self.rotation_grace = rotation_grace
        self.tried: Counter[str] = Counter()
        """What of the tokens and the owners was put to the test, and how often."""
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
        if not commit.shown_by(record):
            raise Violation(f"C4: {record} is not what {commit} committed")
        return commit

    def finish(self, call: Call, record: Record | None, serial: int, source: str) -> Commit | None:
        """A read returns, this commit. `serial` is that of the row which the database showed, also of a deleted one."""
        commit = None if record is None else self.commit_of(record)
        serial = serial if commit is None else commit.serial
        shown = f"{source} gave {call.node.name} {self.commits[serial] or 'nothing'}"
        if serial < self._surviving(call.floor):
            raise Violation(f"C2: {shown}, after {self.commits[call.floor]}")
        if source == "memory" and not call.node.may_answer:
            raise Violation(f"C6: {shown}, with no listener in sync")
        self._check_seen(call, record, serial, shown)
        self._check_age(call, record, serial, source, shown)
        self.returned(call.node, call.key, serial)
        return commit

    def returned(self, node: Node, key: bytes, serial: int) -> None:
        """Calls on this node that begin from now on must not see less."""
        if serial and not self._commit(serial).lost:
            serials = node.returned.setdefault(key, [])
            if serial > _last(serials):
                serials.append(serial)

    def _surviving(self, serial: int) -> int:
        """A floor that was lost while the call was under way counts no more."""
        return 0 if serial and self._commit(serial).lost else serial

    def _check_seen(self, call: Call, record: Record | None, serial: int, shown: str) -> None:
        if call.seen is None or call.seen.lost:
            return
        if self.lost.get(call.key, 0) >= call.min_version:
            return  # The version was lost once and given out again; see docs/coherence-testing.md.
        if serial < call.seen.serial:
            raise Violation(f"C3: {shown}, though the caller knew of {call.seen}")

    def _check_age(self, call: Call, record: Record | None, serial: int, source: str, shown: str) -> None:
        fresh = _is_fresh(call, source)
        allowed = self._allowed(call, source)
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

    def _allowed(self, call: Call, source: str) -> int:
        """By how much what is given may be outdated when the call begins."""
        if _is_fresh(call, source):
            return 0
        return self.max_staleness + (self.stale_if_error if source == "degraded" else 0)

    # Tokens and owners

    def opened(self, call: Call, state: str, commit: Commit, older: bool, source: str) -> None:
        """A token has opened a session, as this commit has it."""
        assert call.token is not None
        drawn = call.token.commit.identity.drawn
        self.tried[state] += 1
        shown = (
            f"{source} opened {commit} on {call.node.name} with a token of {call.token.commit}, as {state}"
        )
        identity = commit.identity
        if older != (state == "previous"):
            raise Violation(f"previous: {shown}, and it gives {'no' if older else 'a'} token")
        if drawn != (identity.previous_drawn if older else identity.drawn):
            raise Violation(f"ended: {shown}, which is another generation's")
        now = EPOCH + self.now + self.least_ahead(call) - CLOCK_ERROR
        if older and now >= identity.previous_until and call.node.heard_of is not None:
            raise Violation(f"ended: {shown}, long after its grace")
        over = self._ended(call.key, drawn)
        if over is None:
            return
        self.tried["ended, opened within the bound"] += 1
        allowed = self._allowed(call, source)
        if call.began - allowed > over.at:
            raise Violation(f"ended: {shown}, {allowed / SECOND:g} s after {over}")

    def _ended(self, key: bytes, drawn: int) -> Commit | None:
        """The commit that has ended this generation for good, whatever grace it had before."""
        ended = None
        for commit in reversed(self.timeline[key]):
            if commit.identity.drawn == drawn or commit.identity.previous_drawn == drawn:
                return ended
            ended = commit
        return None  # none of it is left: it was lost

    def refused(self, call: Call, state: str, serial: int, source: str) -> None:
        """A token was refused for what this commit says of it."""
        assert call.token is not None
        self.tried[state] += 1
        commit = self._commit(serial)
        shown = f"{source} refused a token of {call.token.commit} on {call.node.name}, as {state} of {commit}"
        good = self._is_good(call)
        if good and not commit.lost:
            raise Violation(f"{good}: {shown}")
        until = commit.identity.rotated_at + self.rotation_grace
        if state == "ended" and EPOCH + self.now + self.most_ahead(call) + CLOCK_ERROR < until:
            raise Violation(f"superseded: {shown}")
        late = EPOCH + self.now + self.least_ahead(call) - CLOCK_ERROR >= until
        if state == "superseded" and late and call.node.heard_of is not None:
            raise Violation(f"superseded: {shown}, long after the rotation")

    def _is_good(self, call: Call) -> str:
        """Why a token had to open the session all the time while the call lasted; empty: it had not."""
        assert call.token is not None
        drawn = call.token.commit.identity.drawn
        rows = self.timeline[call.key]
        since = next((row for row in reversed(rows) if row.at <= call.began), None)
        if since is None or since.deleted or rows[-1].deleted:
            return ""
        latest = EPOCH + self.now + self.most_ahead(call) + CLOCK_ERROR
        first, last = since.identity, rows[-1].identity
        if rows[-1].expires_at <= latest:
            return ""
        if drawn == first.drawn == last.drawn:
            return "current"
        if last.previous_drawn == drawn in (first.drawn, first.previous_drawn):
            return "previous" if latest < last.previous_until else ""
        return ""

    def saved(self, held: Commit, row: Commit, *, rotates: bool) -> None:
        """An update of what was read as `held` is about to change this row, and perhaps its tokens."""
        self.tried["saved what was held"] += 1
        if held.identity.tenure != row.identity.tenure:
            raise Violation(f"owners: what was held of {held} is written into {row}")
        if rotates and held.identity.drawn != row.identity.drawn:
            raise Violation(f"current: {row} is rotated by who holds {held}, of another generation")

    def kept_out(self, held: Commit, row: Commit) -> None:
        """An update was refused because the session was another owner's when it was read."""
        self.tried["not another owner's"] += 1
        if held.identity.tenure == row.identity.tenure:
            raise Violation(f"owners: what was held of {held} is refused by {row}, of the same owner")

    def changed_hands(self, key: bytes) -> bool:
        """Return True where a session has had more than one user."""
        return len({commit.user for commit in self.timeline[key]}) > 1

    # What time it is

    def clock_changed(self, ahead: int, *, stepped: bool = False) -> None:
        """The clock of the server that nodes read from is ahead of the true time by so much now."""
        self.clocks.append((self.now, ahead))
        self.stepped |= stepped

    def least_ahead(self, call: Call) -> int:
        """By how much it was ahead at least, since the node had a prompt answer and this call's fill can have begun."""
        return min(self._ahead(call))

    def most_ahead(self, call: Call) -> int:
        """By how much it was ahead at most, likewise."""
        return max(self._ahead(call))

    def _ahead(self, call: Call) -> list[int]:
        since = min(call.node.heard, call.began - self.max_staleness - self.stale_if_error)
        before = [ahead for at, ahead in self.clocks if at <= since][-1:]
        return before + [ahead for at, ahead in self.clocks if at > since]

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


def _is_fresh(call: Call, source: str) -> bool:
    """Return True where the call's own read has seen what there was when it began."""
    return call.refresh or source == "database"


def _last(serials: list[int] | None) -> int:
    return serials[-1] if serials else 0
