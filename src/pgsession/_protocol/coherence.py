"""Coherence decides what an event, a lost listener, a resync and a proof mean for the cache. It does no I/O.

A shell (manager, group commit, synchronizer) tells a `Coherence` what happened, in the order in which it happened, and
does what it is told. Every method is atomic: one plain lock, held for microseconds, so threads and event loops use the
same class. Nothing is logged under it: a handler of the log is the application's, and may ask the manager something.
The invariants C1 to C13 are those of docs/architecture.md.

How a shell reads a session that is not in the cache:

    while True:
        fill, leads = coherence.open_fill(key, refresh=refresh, new_future=Future)
        if not leads:
            record = await fill.future
            if satisfies(record, min_version): return record
            continue                                            # it did not reach far enough: read again
        try: record, incarnation, now, xmax, absent = await read(key)
        except: coherence.fail_fill(fill); raise                # perhaps coherence.stale_if_error(key, ...)
        verdict = coherence.close_fill(fill, record, incarnation, now, xmax, min_version=min_version, absent=absent)
        if verdict.reconnect: listener.reconnect()
        if verdict.again:                                       # of another server, or perhaps over by now
            fill.future.set_result(AGAIN); continue            # its joiners read again as well
        fill.future.set_result(record); return record

and how it connects its listener: LISTEN and commit; read the incarnation, setting it if there is none; register, and
`registered`; `on_listening`; `resync_started`, compare, `resynced`; then a read of the database every `read_interval`,
with a beacon where `wanted_beacon` says so. Whatever else is asked of the database: `asked` before it, and `answered`
after it.

Where the processes of a host share one cache (see docs/host-cache.md), each has a `Coherence`, and one of them leads:
it hears the events for all, and proves for all to be in sync. The others follow: what they know of events, of the
server and of proofs they find in the arena. What changes the cache is done in a *section* then: it has the arena's
lock, which it takes first, and has read what the others have told. So nobody waits for the arena with the lock here,
which event loops wait for.
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple

from pgsession._core.arena import Arena, ArenaError
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._counted import counted
from pgsession._protocol import events
from pgsession._protocol.acknowledgements import SERVES_UNHEARD
from pgsession._protocol.database_clock import Offset
from pgsession._protocol.in_flight_leases import Fill, Lease, Leases
from pgsession._protocol.log_rate import Seldom
from pgsession._protocol.proofs_of_sync import Proofs, Wanted

__all__ = [
    "Answered",
    "Applied",
    "Asked",
    "Coherence",
    "Counters",
    "Fill",
    "Heard",
    "Lease",
    "LockChanges",
    "Resync",
    "Verdict",
    "Wanted",
    "satisfies",
]


class Verdict(enum.Enum):
    """A verdict tells what became of a record that came from the database."""

    CACHED = "cached"
    """It is in the cache now."""
    NOT_CACHED = "not cached"
    """It goes to its callers and is not cached: something happened while it was under way, or there was no record."""
    WRONG_SERVER = "wrong server"
    """It came from another incarnation than the listener's. The node is out of sync: connect the listener again."""
    SERVER_REPLACED = "server replaced"
    """It came from an incarnation that has ended since; the listener is with the new one already."""
    PERHAPS_OVER = "perhaps over"
    """Its session may have ended while the answer was under way (C8): the database knows."""

    @property
    def again(self) -> bool:
        """Return True where a read must be made again: nobody may have its result.

        A write is not repeated: it was done, and its result goes to its caller.
        """
        return self in (Verdict.WRONG_SERVER, Verdict.SERVER_REPLACED, Verdict.PERHAPS_OVER)

    @property
    def reconnect(self) -> bool:
        """Return True where the shell must connect the listener again."""
        return self is Verdict.WRONG_SERVER


class LockChanges(NamedTuple):
    """Holds what an event says about locks; `Coherence` only hands it on.

    Attributes:
        released: The resources whose locks became free.
        ended: The resource and the fencing token of each lock that was ended by force.
    """

    released: tuple[str, ...]
    ended: tuple[tuple[str, int], ...]


class Asked(NamedTuple):
    """Remembers when the database was asked something that has no lease.

    Attributes:
        epoch: The epoch in which it was asked.
        opened: When, in node time.
    """

    epoch: int
    opened: int


class Heard(NamedTuple):
    """Holds what an event says to the shells.

    Attributes:
        locks: What it says about locks.
        moved: True where nothing comes on this channel any more: connect the listener again, which learns the new name.
        asks: True where somebody waits for an acknowledgement: see `Coherence.applied`.
        sent: When a node has sent it, in database time; 0 where it does not say, or tells nothing.
    """

    locks: LockChanges
    moved: bool
    asks: bool = False
    sent: int = 0


class Applied(NamedTuple):
    """Says that all is applied here which was committed before a transaction that asked for that.

    Attributes:
        xid: The transaction.
        incarnation: That of the server which gave it this id.
    """

    xid: int
    incarnation: str


class Resync(NamedTuple):
    """Lists what to compare with the database, in one statement, after LISTEN is active again.

    Attributes:
        epoch: The epoch in which the comparison began; in another one its answer is outdated.
        keys: The keys of the cached sessions.
        versions: Their versions, in the same order.
        generations: The generations of their tokens, likewise: random, so that no other row of an id has the same.
    """

    epoch: int
    keys: list[bytes]
    versions: list[int]
    generations: list[int]


@dataclass(slots=True)
class Counters:
    """Holds the counters that `Stats` takes from here, by the same names."""

    fills: int = 0
    joined_fills: int = 0
    discarded_fills: int = 0
    stale_served: int = 0
    events: int = 0
    malformed_events: int = 0
    invalidations: int = 0
    proofs: int = 0
    listener_losses: int = 0
    resyncs: int = 0


class _State(enum.Enum):
    LOST = "lost"
    """There is no listener: nothing enters the cache, nothing is served from it."""
    LISTENING = "listening"
    """Events arrive, so records may enter; what was cached before is not compared yet."""
    SYNCED = "synced"
    """What is cached was compared: it is served as long as proofs come."""


_STATES = {"lost": _State.LOST, "listening": _State.LISTENING, "synced": _State.SYNCED}
_NOTHING = LockChanges((), ())
_SECOND = 1_000_000
_FOREVER = 2**62
_WORTH_A_WARNING = _SECOND // 10  # of a step of the database's clock


def satisfies(record: Record | None, min_version: int) -> bool:
    """Return True where what a joined fill found is enough for a caller that knows of `min_version`.

    It may have been read before that version, and even before the session, existed. A fill's own leader need not ask:
    its read began after its call.
    """
    return min_version <= 0 or (record is not None and record.version >= min_version)


class Answered(NamedTuple):
    """Holds what the database has said of the session of a fill: see `Coherence.close_fill`."""

    fill: Fill
    record: Record | None
    min_version: int = 0
    absent: bool = False


class _Section:
    """Is the lock of a `Coherence` that shares its cache, and before it the arena's; without `wait` if that is free."""

    def __init__(self, coherence: Coherence, wait: bool) -> None:
        self._coherence = coherence
        self._wait = wait

    def __enter__(self) -> None:
        self._coherence._enter(self._wait)

    def __exit__(self, *_: object) -> None:
        self._coherence._leave()


class _Attention:
    """Is the lock of a `Coherence`, that has heard what the others have told."""

    def __init__(self, coherence: Coherence) -> None:
        self._coherence = coherence

    def __enter__(self) -> None:
        self._coherence._attend()

    def __exit__(self, *_: object) -> None:
        self._coherence._leave()


class Coherence:
    """Decides what enters and leaves the cache of one node, and until when it may be served.

    Args:
        cache: The cache of the node.
        clock: The clock of the node.
        max_staleness: Microseconds from a proof until memory is out of sync (C6).
        stale_if_error: Microseconds after that for which memory may answer where the database fails.
        logger: Takes what an operator should know.
    """

    def __init__(
        self,
        cache: Cache,
        clock: Clock,
        *,
        max_staleness: int,
        stale_if_error: int = 0,
        logger: logging.Logger,
    ) -> None:
        self._cache = cache
        self._clock = clock
        self._max_staleness = max_staleness
        self._stale_if_error = stale_if_error
        self._logger = logger
        self._arena: Arena | None = None
        self._begin_locking()
        self._warnings: deque[tuple[str, str, tuple[object, ...]]] = (
            deque()
        )  # to be logged once the lock is released
        self._leases = Leases()
        self._state = _State.LOST
        self._incarnation: str | None = None
        self._losses = 0
        self._awaited = 0
        self._number = 0  # of this process as the leader of its host; 0: it does not lead
        self._candidate = False
        self._arena_epoch = 0
        self._was_apart = False  # it had an arena that was given up, and answered without one
        self._after = 0  # until then the arena must be in sync before it may be served from
        self._owes_lost = False  # to the others: the listener was lost, and the arena was not free
        self._owes_proof = False  # likewise
        self._start()

    def _begin_locking(self) -> None:
        # Whoever changes the cache, would change it, or has to hear what was told; where it is private these are one.
        self._lock = threading.Lock()
        self._section: AbstractContextManager[object] = self._lock
        self._attempt: AbstractContextManager[object] = self._lock
        self._attention: AbstractContextManager[object] = self._lock
        self._begun = False  # the arena's lock is held, too

    def _start(self) -> None:
        self._proofs = Proofs(self._max_staleness)
        self._offset = Offset()
        self._registered_until = _FOREVER
        self._proved_until = 0
        self._counters = Counters()
        self._malformed_lines = Seldom(self._seconds)
        self._step_lines = Seldom(self._seconds)

    def _seconds(self) -> float:
        return self._clock.now() / _SECOND

    # Reads

    def open_fill(
        self, key: bytes, *, refresh: bool = False, new_future: Callable[[], Any]
    ) -> tuple[Fill, bool]:
        """Join the fill of this session that is under way, or lead a new one; the second value says which.

        A leader reads the database and then calls `close_fill` or `fail_fill`, whatever happens. A joiner waits for the
        leader's record and reads again if it does not satisfy its `min_version` (see `satisfies`). With `refresh` a
        caller never joins.
        """
        with self._attention:
            now = self._clock.now()
            # The age matters when no events arrive: a joiner gets what was current when the fill began (C6).
            fill = None if refresh else self._leases.joinable(key, now - self._max_staleness)
            if fill is not None:
                self._counters.joined_fills += 1
                fill.early = False
                return fill, False
            self._counters.fills += 1
            return self._leases.open_fill(key, now, new_future()), True

    def open_early_fills(self, keys: Iterable[bytes], new_future: Callable[[], object]) -> list[Fill]:
        """Lead fills for which nobody has asked, of those sessions that are neither cached nor being read.

        As long as nobody joins one, its record is the first to leave the cache again, nothing has to leave for it, and
        that there is no session is not remembered.
        """
        fills = []
        with self._attention:
            now = self._clock.now()
            oldest = now - self._max_staleness
            for key in keys:
                if self._cache.version(key) == 0 and self._leases.joinable(key, oldest) is None:
                    fill = self._leases.open_fill(key, now, new_future())
                    fill.early = True
                    fills.append(fill)
            self._counters.fills += len(fills)
        return fills

    def close_fill(
        self,
        fill: Fill,
        record: Record | None,
        incarnation: str | None,
        database_time: int,
        xmax: int,
        *,
        min_version: int = 0,
        absent: bool = False,
    ) -> Verdict:
        """Close the fill of a leader whom the database answered, and put the record into the cache if that is allowed.

        Args:
            fill: The leader's fill.
            record: The database's answer, None if there is no live session.
            incarnation: That of the server which answered.
            database_time: The time there, in microseconds since the Unix epoch.
            xmax: That of the statement's snapshot.
            min_version: The version that the leader asked for.
            absent: True where there is no session, and none can come to be there that no event tells of; it is not
                enough that there is no live one, for an access may be on its way to an inactive one. Memory may say so
                for a while, as it may show a record.
        """
        answer = Answered(fill, record, min_version, absent)
        return self.close_fills([answer], incarnation, database_time, xmax)[0]

    def close_fills(
        self, answers: Sequence[Answered], incarnation: str | None, database_time: int, xmax: int
    ) -> list[Verdict]:
        """Close the fills that one statement has answered, as `close_fill` does; return a verdict on each.

        Where the answer came from is checked once, for the first verdict on another server ends the epoch, and the next
        lease would pass for one of a node that has no listener.
        """
        verdicts: list[Verdict] = []
        elsewhere: Verdict | None = None
        with self._section:
            now = self._clock.now()
            if answers and incarnation == self._incarnation:
                self._sample(min(answer.fill.opened for answer in answers), now, database_time)
            for answer in answers:
                if elsewhere is None:
                    verdict = self._close_answered(answer, incarnation, database_time, now, xmax)
                    if verdict in (Verdict.WRONG_SERVER, Verdict.SERVER_REPLACED):
                        elsewhere = verdict
                else:
                    self._leases.close(answer.fill)
                    self._counters.discarded_fills += 1
                    verdict = elsewhere
                verdicts.append(verdict)
        self._log()
        return verdicts

    def _close_answered(
        self, answer: Answered, incarnation: str | None, database_time: int, now: int, xmax: int
    ) -> Verdict:
        fill, record = answer.fill, answer.record
        if record is not None and self._is_perhaps_over(record, fill, incarnation, database_time, now):
            verdict = Verdict.PERHAPS_OVER
            self._leases.close(fill)
        else:
            verdict = self._close_fill(answer, incarnation, xmax)
        if verdict is not Verdict.CACHED:
            self._counters.discarded_fills += 1
        return verdict

    def _close_fill(self, answer: Answered, incarnation: str | None, xmax: int) -> Verdict:
        fill, record, min_version, absent = answer
        if not self._leases.close(fill):
            return Verdict.NOT_CACHED
        elsewhere = self._check_origin(fill, incarnation, xmax)
        if elsewhere is not None:
            return elsewhere
        if record is None:
            if absent and not fill.early and self._may_be_absent(fill):
                self._leases.void(fill.key)
                if self._arena is not None:
                    self._cache.discard(fill.key)  # what others of the host have of it
                self._cache.put_absence(fill.key, min_version, fill.opened + self._max_staleness)
            else:
                self._gone(fill.key)
            return Verdict.NOT_CACHED
        verdict = self._keep(fill, record, incarnation, fill.early)
        if verdict is Verdict.CACHED and min_version > record.version:
            # The server has lost that version. Without a floor such a token would make every read a miss.
            self._cache.set_floor(fill.key, min_version)
        return verdict

    def _may_be_absent(self, fill: Fill) -> bool:
        """Return True where memory may say for a while what a fill has found: that there is no session."""
        return self._leases.undisturbed(fill) and self._cache.version(fill.key) == 0

    def _is_perhaps_over(
        self, record: Record, fill: Fill, incarnation: str | None, database_time: int, now: int
    ) -> bool:
        """Return True for a record whose session may have ended while the answer was under way (C8)."""
        bounds = self._offset.bounds(now) if incarnation == self._incarnation else None
        # Else by the clock of the server that answered, whichever that is.
        latest = database_time - fill.opened if bounds is None else bounds[1]
        return record.expires_at <= now + latest

    def withdraw_fill(self, key: bytes, future: Any) -> None:
        """Whoever called `open_fill` with this future was interrupted, perhaps before it knew its fill."""
        with self._lock:
            self._leases.withdraw(key, future)

    @property
    def fills_under_way(self) -> int:
        """Return for how many sessions a fill, or an own write, is under way."""
        return self._leases.sessions

    def fills(self) -> list[Fill]:
        """Return all fills that are under way."""
        with self._lock:
            return self._leases.fills()

    def fail_fill(self, fill: Fill) -> None:
        """Close a fill whose leader got no answer from the database."""
        with self._lock:
            self._leases.close(fill)

    def stale_if_error(self, key: bytes, *, min_version: int = 0) -> Record | None:
        """Return a cached record to answer with although the database failed; None where the caller must raise.

        None means that `stale_if_error` does not allow it, or that nothing recent enough is cached. A caller that asked
        for a refresh does not call this.
        """
        with self._lock:
            now = self._clock.now()
            if now >= self._stale_until:
                return None
            self._set_clock(now)
            record: Record | None = self._cache.get(key, False)
            if record is None or record.version < min_version:
                return None
            self._counters.stale_served += 1
            return record

    def observed(self, versions: Iterable[tuple[bytes, int]], incarnation: str | None) -> None:
        """Note versions that callers are about to get by another way than a fill (a list): serve nothing older (C2)."""
        with self._section:
            for key, version in versions:
                self._outdate(key, version, incarnation)

    # Writes

    def open_write(self, key: bytes, *, creates: bool = False) -> Lease:
        """Open the lease of an own create, update or delete of this session, before it is sent.

        Its end is told by one of the `write_*` methods. One that creates the session ends what is known of its absence,
        and keeps what is being read from saying so.
        """
        with self._section:
            if creates:
                self._outdate(key, 1, self._incarnation)
            return self._leases.open_write(key, self._clock.now())

    def write_saved(self, lease: Lease, record: Record, incarnation: str | None) -> Verdict:
        """Close the lease of a write that is committed and durable; `record` is what the database now holds (C9)."""
        with self._section:
            return self._close_saved(lease, record, incarnation)

    def _close_saved(self, lease: Lease, record: Record, incarnation: str | None) -> Verdict:
        if not self._leases.close(lease):
            return Verdict.NOT_CACHED
        elsewhere = self._check_origin(lease, incarnation)
        if elsewhere is not None:
            self._gone(lease.key)
            return elsewhere
        return self._keep(lease, record, incarnation)

    def write_gone(self, lease: Lease) -> None:
        """Close the lease of a write that deleted the session, or found that there is no live one (C7)."""
        with self._section:
            self._leases.close(lease)
            self._gone(lease.key)

    def write_conflicted(self, lease: Lease) -> None:
        """Close the lease of a write that was refused for its version, and drop what is cached: it is outdated.

        No event may ever say so: after somebody's `notify=False`, get and conflict would repeat for ever.
        """
        with self._section:
            self._leases.close(lease)
            self._gone(lease.key)

    def write_unknown(self, lease: Lease) -> None:
        """Close the lease of a write of unknown outcome, and drop what is cached.

        It may have been done, or may be done later: the connection was lost, or the call was cancelled.
        """
        with self._section:
            self._leases.close(lease)
            self._gone(lease.key)

    def write_failed(self, lease: Lease) -> None:
        """Close the lease of a write that is known not to have been done."""
        with self._lock:
            self._leases.close(lease)

    def drop(
        self, *items: events.Deleted | events.UserChanged | events.GroupChanged | events.Everything
    ) -> None:
        """Drop what an own statement concerns, once it returned or its outcome is unknown, before its event is back.

        Such statements are deletions, the eviction of sessions by a new one, `delete_attribute_from_user_sessions`,
        `evict_user_sessions` and `clear_cache`. What was cached or is under way is not served any more.
        """
        with self._section:
            for item in items:
                self._apply(item)

    # Events

    def on_event(self, payload: str) -> Heard:
        """Apply a notification on the events channel; return what is left to the shells.

        This node's own are applied too: a write whose outcome is unknown may be done yet. One may be given twice. But
        none out of its order, and none of a former connection once `on_listening` was called for the next: each proves
        that all before it were given.
        """
        event = events.parse(payload)
        with self._section:
            self._counters.events += bool(event.items)
            if event.malformed:
                self._counters.malformed_events += 1
                self._complain()
            changes = _NOTHING
            moved = asks = False
            for item in event.items:
                if isinstance(item, events.LockReleased):
                    changes = changes._replace(released=(*changes.released, item.resource))
                elif isinstance(item, events.LockEnded):
                    changes = changes._replace(ended=(*changes.ended, (item.resource, item.token)))
                elif isinstance(item, events.Moved):
                    self._lose()
                    moved = True
                elif isinstance(item, events.Awaited):
                    self._awaited = max(self._awaited, event.xid)
                    asks = True
                else:
                    self._apply(item)
            if self._arena is not None and (changes.released or changes.ended):
                self._share_locks(changes)
            if self._proofs.heard(event.xid):
                self._prove()
        self._log()
        return Heard(changes, moved, asks, event.sent if event.items else 0)

    def _complain(self) -> None:
        """Warn of unreadable events, now and then."""
        if self._malformed_lines.admit() is not None:
            self._warn(
                "events_unreadable",
                "%s so far, from a newer version of pgsession perhaps: each empties the cache, but those about "
                "locks",
                counted(self._counters.malformed_events, "unreadable notification"),
            )

    def _apply(self, item: events.Item) -> None:
        if isinstance(item, events.Changed):
            self._leases.stamp(item.key, item.version)
            self._counters.invalidations += self._cache.discard_older(item.key, item.version)
        elif isinstance(item, events.Deleted):
            self._leases.void(item.key)
            self._counters.invalidations += self._cache.discard(item.key)
        else:
            self._leases.void_all()
            if isinstance(item, events.UserChanged):
                self._counters.invalidations += self._cache.discard_user(item.user_id)
            elif isinstance(item, events.GroupChanged):
                self._counters.invalidations += self._cache.discard_group(item.group_id)
            else:
                self._counters.invalidations += self._cache.clear()

    # Reconnect and resync

    def on_lost(self) -> int:
        """Note that the listener is lost, or not trusted any more: nothing is served, nothing enters the cache (C6).

        Call it as soon as LISTEN is active again, too: a second call does no harm.

        Returns:
            A number for `on_listening`.
        """
        with self._attempt:
            self._lose()
            return self._losses

    def on_listening(self, incarnation: str, *, since: int | None = None) -> int | None:
        """Note that LISTEN has committed, and begin a new epoch.

        Args:
            incarnation: That of the server where LISTEN committed.
            since: The number that `on_lost` returned when LISTEN became active.

        Returns:
            The new epoch; None, with nothing changed, if the connection was lost again while the incarnation was being
            asked for, which another thread may have noticed.
        """
        with self._section:
            epoch = self._begin_listening(incarnation, since)
        self._log()
        return epoch

    def resync_started(self) -> Resync:
        """Return what to compare. The database must be read after this returned."""
        if self._arena is None:
            with self._lock:
                return Resync(self._leases.epoch, *self._cache.identities())
        epoch = self._leases.epoch
        return Resync(epoch, *self._cache.identities())  # not with the lock: it waits for the arena

    def resynced(self, resync: Resync, differing: Iterable[bytes]) -> bool:
        """Drop the sessions that have another version in the database, or are gone there (C5).

        Returns:
            False where this comparison is outdated: make another one once the listener listens again.
        """
        with self._section:
            if resync.epoch != self._leases.epoch or self._state is _State.LOST:
                return False
            for key in differing:
                self._cache.discard(key)
            self._counters.resyncs += 1
            self._state = _State.SYNCED
            self._extend_sync()
            return True

    # Proofs of sync

    @property
    def read_interval(self) -> int:
        """Return the microseconds from one read of the database to the next.

        It is a quarter of `max_staleness`, or a tenth of that while there is no proof in this epoch.
        """
        with self._lock:
            proved = self._proofs.age(self._clock.now()) is not None
            return self._proofs.interval if proved else self._proofs.interval // 10

    def asked(self) -> Asked:
        """Return what `answered` takes; the time is taken here, so ask the database after that."""
        with self._attention:
            return Asked(self._leases.epoch, self._clock.now())

    def answered(self, asked: Asked | Lease, incarnation: str | None, xmax: int) -> Verdict | None:
        """Note which server answered what has no fill: that is a read too, which an event may prove.

        Of a batch of writes any lease stands for all. Its `xmax` is that of a snapshot of before it wrote, so that its
        own event proves it.

        Returns:
            None if it is the listener's server, as far as that is known, else the verdict on it.
        """
        with self._attempt:
            return self._check_origin(asked, incarnation, xmax)

    def wanted_beacon(self) -> Wanted | None:
        """Return what a beacon that is to be asked for now has to prove; None: none is wanted."""
        with self._lock:
            return self._proofs.wanted(self._clock.now()) if self._state is not _State.LOST else None

    def beacon_began(self, asked: Asked, wanted: Wanted) -> None:
        """Note the database's answer that a beacon which proves what was wanted is committed."""
        with self._lock:
            if asked.epoch == self._leases.epoch:
                self._proofs.began(wanted, self._clock.now())

    @property
    def listener_silent(self) -> bool:
        """Return True where the listener must be dead without having said so: connect it again."""
        with self._lock:
            return self._state is not _State.LOST and self._proofs.silent(self._clock.now())

    def clock_sample(self, asked: int, answered: int, database_time: int) -> None:
        """Learn what the database said the time is; its incarnation must have been the listener's.

        Args:
            asked: When the question was sent, in node time.
            answered: When the answer was here, in node time.
            database_time: The answer, in microseconds since the Unix epoch.
        """
        with self._lock:
            self._sample(asked, answered, database_time)
        self._log()

    def still_serves(self, record: Record, epoch: int, xmax: int) -> bool | None:
        """Return True where memory has this very record, after all was heard that a read of the epoch has seen.

        None: not all was heard yet, or an own write of the session is under way.
        """
        with self._lock:
            if epoch != self._leases.epoch or self._cache.get(record.key, False) is not record:
                return False
            if not self._proofs.has_heard(xmax) or self._leases.any_of(record.key):
                return None
            return self._state is _State.SYNCED

    # The other nodes

    def registered(self, at: int) -> bool:
        """Note that this node is registered, as it asked to be at this moment; it was registered before it listened.

        Returns:
            False where it cannot be sure to have been so without a break: others may have ended what it has not heard
            of, without waiting for it. The epoch is over: connect the listener again.
        """
        with self._section:
            lapsed = self._clock.now() >= self._registered_until and self._state is not _State.LOST
            self._registered_until = at + SERVES_UNHEARD * _SECOND
            if lapsed:
                self._lose()
            self._extend_sync()
            return not lapsed

    @property
    def applied(self) -> Applied | None:
        """Return the newest transaction that somebody waits for, where all before it is applied here; None: none.

        What was cached before LISTEN was active has to be compared first.
        """
        with self._lock:
            if not self._awaited or self._state is not _State.SYNCED or self._incarnation is None:
                return None
            return Applied(self._awaited, self._incarnation)

    # One cache a host

    def share(self, arena: Arena, serves_for: int) -> None:
        """Share the cache with the other processes of the host from here on; this one follows.

        Nothing is served before a read of its own has come from the server that the arena is about, nor, where this
        process had another arena, before a read is proved that was sent from here on (S8): what it has returned in
        between nobody has told the new arena of (C2).

        Args:
            arena: What they share.
            serves_for: For how many microseconds after a proof this process may serve, which the leader has to say of
                the host (C13).
        """
        if self._section is self._lock:  # the manager is being opened: nobody else has its lock
            self._section, self._attempt = _Section(self, True), _Section(self, False)
            self._attention = _Attention(self)
        with self._lock:
            self._be_private()
            arena.raise_longest(serves_for)
            self._after = self._clock.now() + self._max_staleness if self._was_apart else 0
            self._cache.share(arena, self._after)
            self._arena = arena
            self._arena_epoch = -1

    def unshare(self) -> None:
        """Have a cache of its own again, which is empty and out of sync; nothing happens where it has."""
        with self._lock:
            if self._arena is not None:
                self._be_private()

    def begin(self, *, wait: bool) -> bool:
        """Hold the arena's lock until `end`, so that several calls are one step; where there is no arena, nothing.

        Args:
            wait: False: only where nobody else has it.

        Returns:
            False where somebody has.
        """
        if self._arena is None:
            return True
        try:
            return self._cache.begin(wait)
        except ArenaError:
            return True  # whoever comes next finds the cache private

    def end(self) -> None:
        """Give back what `begin` has taken."""
        if self._section is not self._lock:
            self._cache.end()

    def hear(self) -> None:
        """Learn what the others have told; call it whenever their bell has rung, and now and then."""
        with self._attention:
            pass

    def lead(self, number: int) -> None:
        """Be the leader of that number: what it hears and proves is true of all processes of the host."""
        with self._section:
            if self._arena is not None:
                was_candidate, self._candidate = self._candidate, False
                self._number = number
                if was_candidate and self._arena.incarnation == self._incarnation:
                    self._extend_sync()
                else:
                    self._lose()

    def stand(self) -> None:
        """Be a candidate: hear, compare and prove what the leader does too, and tell nobody of proofs."""
        with self._section:
            if self._arena is not None:
                self._candidate = True
                self._lose()

    def follow(self) -> None:
        """Lead no longer, and be no candidate."""
        with self._section:
            self._be_follower()

    @property
    def number(self) -> int:
        """Return the number by which this process leads its host, 0 where it does not."""
        return self._number

    @property
    def shared(self) -> bool:
        """Return True while the cache is shared."""
        return self._arena is not None

    # State and counters

    @property
    def epoch(self) -> int:
        """Return the epoch, which rises when the listener is lost, and again when it listens."""
        return self._leases.epoch

    @property
    def listening(self) -> bool:
        """Return True while the listener listens."""
        arena = self._arena
        if arena is not None and not self._number:
            return bool(self._cache.tied) and arena.state != "lost"
        return self._state is not _State.LOST

    @property
    def in_sync(self) -> bool:
        """Return True while reads are answered from memory."""
        return self._clock.now() < self._cache.in_sync_until

    @property
    def proved(self) -> bool:
        """Return True while what this process itself has heard and read proves to be in sync what is cached."""
        return self._clock.now() < self._proved_until

    @property
    def may_serve_stale(self) -> bool:
        """Return True while `stale_if_error` lets memory answer where the database fails."""
        return self._stale_if_error > 0 and self._clock.now() < self._stale_until

    @property
    def proof_age(self) -> int | None:
        """Return the microseconds since the newest proved read of this epoch was sent, None before the first."""
        with self._lock:
            if self._arena is not None and not self._number:
                proved = self._arena.proved_until - self._max_staleness
                return self._clock.now() - proved if proved > 0 and self._state is _State.SYNCED else None
            return self._proofs.age(self._clock.now())

    @property
    def clock_error(self) -> int | None:
        """Return by how many microseconds the database's clock may differ from what is believed of it at the most."""
        with self._lock:
            bounds = self._offset.bounds(self._clock.now())
        return None if bounds is None else (bounds[1] - bounds[0] + 1) // 2

    @property
    def counters(self) -> Counters:
        """Return what was counted since the start; do not change it."""
        return self._counters

    def forked(self) -> None:
        """Start over in the child of a fork: another node, with nothing cached, nothing under way and no listener."""
        self._begin_locking()
        self._number, self._candidate, self._owes_lost, self._owes_proof = 0, False, False, False
        if self._arena is not None:
            self._arena.forked()
            self._arena = None
            self._was_apart = False
            self._cache.forked()
            self._cache.unshare()
        self._leases.clear()
        self._lose()
        self._cache.clear()
        self._incarnation = None
        self._start()

    def _log(self) -> None:
        """Log what was to be said; the lock is not held."""
        while self._warnings:
            try:
                event, text, values = self._warnings.popleft()
            except IndexError:
                return  # another thread was faster
            self._logger.warning(text, *values, extra={"pgsession_event": event})

    # Sections: the arena's lock, then the one here

    def _enter(self, wait: bool) -> None:
        while True:
            arena = self._arena
            begun = False
            if arena is not None:
                try:
                    begun = self._cache.begin(wait)
                except ArenaError:
                    pass  # it is given up, and the cache is private
            self._lock.acquire()
            if arena is self._arena:
                break
            self._lock.release()  # it has just come, or gone
            if begun:
                self._cache.end()
        self._begun = begun
        self._hear()

    def _attend(self) -> None:
        self._lock.acquire()
        self._hear()

    def _leave(self) -> None:
        begun, self._begun = self._begun, False
        self._lock.release()
        if begun:
            self._cache.end()

    # Below, the lock is held.

    def _hear(self) -> None:
        """Learn what the others have told since the last time."""
        arena = self._arena
        if arena is None:
            return
        if self._cache.shared is not arena:
            self._be_private()
            return
        everything, news = self._cache.news(self._leases.opened)
        if everything:
            self._leases.void_all()
        for key, version in news:
            self._leases.stamp(key, version)
        if self._number:
            if arena.number != self._number:
                self._be_follower()
            elif self._begun:
                self._pay()
        if not (self._number or self._candidate):
            self._follow()

    def _pay(self) -> None:
        """Tell the others what could not be told at once, for the arena was not free."""
        if self._owes_lost:
            self._owes_lost = False
            self._cache.new_epoch(self._number, True)
        if self._owes_proof:
            self._extend_sync()

    def _be_follower(self) -> None:
        self._number, self._candidate, self._owes_lost, self._owes_proof = 0, False, False, False
        self._awaited = 0
        self._arena_epoch = -1

    def _follow(self) -> None:
        """Take over what the leader says of the server."""
        arena = self._arena
        assert arena is not None
        if arena.epoch != self._arena_epoch:
            self._arena_epoch = arena.epoch
            self._leases.epoch += 1
            self._cache.clear_absences()
        incarnation = arena.incarnation
        if incarnation != self._incarnation:
            self._untie()
            self._offset.start(self._clock.now())
            self._incarnation = incarnation
        self._state = _STATES[arena.state] if self._cache.tied else _State.LOST

    def _be_private(self) -> None:
        if self._arena is not None:
            self._arena = None
            self._was_apart = True
            self._cache.unshare()
        self._number, self._candidate, self._owes_lost, self._owes_proof = 0, False, False, False
        self._incarnation = None
        self._lose()

    def _share_locks(self, changes: LockChanges) -> None:
        for resource in changes.released:
            self._cache.share_lock(resource)
        for resource, token in changes.ended:
            self._cache.share_lock(resource, token)

    @property
    def _stale_until(self) -> int:
        """Return until when `stale_if_error` lets memory answer; no longer than others have been told (C13)."""
        arena = self._arena
        if arena is None:
            return self._proofs.proved_until + self._stale_if_error
        if arena.proved_until <= self._after:
            return 0
        said = arena.registered - self._max_staleness
        return arena.proved_until + max(0, min(self._stale_if_error, said))

    def _warn(self, event: str, text: str, *values: object) -> None:
        self._warnings.append((event, text, values))

    def _begin_listening(self, incarnation: str, since: int | None) -> int | None:
        if since is not None and since != self._losses:
            return None
        if self._arena is not None and not (self._number or self._candidate):
            return None  # another process leads by now
        known = self._incarnation if self._arena is None else self._arena.incarnation
        if known != incarnation:
            self._offset.start(self._clock.now())
            if known is not None:
                self._warn("server_replaced", "the server has restarted or failed over: the cache is emptied")
                self._cache.clear()
            if self._number and self._arena is not None:
                # Nobody serves by the clock of the one before.
                self._cache.prove(self._number, 0, self._proofs.proved_until)
                self._arena.set_incarnation(self._number, incarnation)
        self._new_epoch(_State.LISTENING)
        self._incarnation = incarnation
        if self._arena is not None:
            self._cache.tie()
        return self._leases.epoch

    def _keep(self, lease: Lease, record: Record, incarnation: str | None, behind: bool = False) -> Verdict:
        """Put a record into the cache, or make sure that nothing older is served after its callers got it (C2, C3)."""
        self._outdate(lease.key, record.version, incarnation)
        if self._state is _State.LOST or not self._leases.allow(lease, record.version):
            return Verdict.NOT_CACHED
        if self._arena is not None and incarnation != self._arena.incarnation:
            return Verdict.NOT_CACHED  # this process reads another server than the host serves
        return Verdict.CACHED if self._cache.put(record, behind) else Verdict.NOT_CACHED

    def _outdate(self, key: bytes, version: int, incarnation: str | None) -> None:
        if incarnation == self._incarnation:
            self._leases.stamp(key, version)
            self._cache.discard_older(key, version)
        else:
            # Versions of two incarnations cannot be compared: one may have been given out twice.
            self._gone(key)

    def _gone(self, key: bytes) -> None:
        self._leases.void(key)
        self._cache.discard(key)

    def _check_origin(
        self, asked: Lease | Asked, incarnation: str | None, xmax: int | None = None
    ) -> Verdict | None:
        """Return None if a result comes from the listener's server, as far as that is known, else the verdict on it."""
        if self._arena is not None and not (self._number or self._candidate):
            return self._check_tie(asked, incarnation)
        if self._state is _State.LOST:
            return None
        of_today = asked.epoch == self._leases.epoch
        if incarnation == self._incarnation:
            if of_today and self._arena is not None:
                self._cache.tie()
            if of_today and xmax is not None and self._proofs.read(asked.opened, xmax):
                self._prove()
            return None
        if not of_today:
            return Verdict.SERVER_REPLACED
        self._lose()
        if self._arena is not None:
            self._cache.untie()  # the others go on until a result of their own says so, too
        return Verdict.WRONG_SERVER

    def _check_tie(self, asked: Lease | Asked, incarnation: str | None) -> Verdict | None:
        """Do what `_check_origin` does for one that follows: it serves what others read only if it reads there (S8)."""
        if self._incarnation is None:
            return None
        if incarnation == self._incarnation:
            if not self._cache.tied and asked.epoch == self._leases.epoch:
                self._cache.tie()
                self._follow()
            return None
        if not self._cache.tied:
            return None
        if asked.epoch != self._leases.epoch:
            return Verdict.SERVER_REPLACED
        self._untie()
        return Verdict.WRONG_SERVER

    def _untie(self) -> None:
        self._cache.untie()
        self._cache.clear_absences()
        self._leases.epoch += 1
        self._state = _State.LOST

    def _lose(self) -> None:
        if self._arena is not None and not (self._number or self._candidate):
            self._losses += 1
            self._leases.epoch += 1
            return  # the listener that counts is another process's
        if self._state is not _State.LOST:
            self._counters.listener_losses += 1
        self._losses += 1
        self._new_epoch(_State.LOST)

    def _new_epoch(self, state: _State) -> None:
        self._state = state
        self._leases.epoch += 1
        self._awaited = 0
        self._proofs.start()
        self._proved_until = 0
        self._owes_proof = False
        if self._arena is None:
            self._cache.in_sync_until = 0
        elif self._number and self._begun:
            self._owes_lost = False
            if not self._cache.new_epoch(self._number, state is _State.LOST):
                self._be_follower()
        elif self._number:
            self._owes_lost = True
        # The host's time in sync ends by itself: an outage empties nothing that `stale_if_error` may serve.
        self._cache.clear_absences()

    def _prove(self) -> None:
        self._counters.proofs += 1
        self._extend_sync()

    def _extend_sync(self) -> None:
        if self._state is not _State.SYNCED:
            return
        until = self._proved_until = self._proofs.in_sync_until(self._registered_until)
        if self._arena is None:
            self._cache.in_sync_until = until
        self._set_clock(until)
        if until and self._number and not self._begun:
            self._owes_proof = True
        elif until and self._number:
            self._owes_proof = False
            proved_until = max(self._proofs.proved_until, self._arena.proved_until)  # type: ignore[union-attr]
            if not self._cache.prove(self._number, until, proved_until):
                self._be_follower()

    def _sample(self, asked: int, answered: int, database_time: int) -> None:
        step = self._offset.sample(asked, answered, database_time)
        self._set_clock(max(answered, self._cache.in_sync_until))
        if abs(step) >= _WORTH_A_WARNING and (others := self._step_lines.admit()) is not None:
            self._warn(
                "clock_stepped", "the database's clock was stepped by %+.1f s%s", step / _SECOND, others
            )

    def _set_clock(self, until: int) -> None:
        """Let memory be compared with the latest that it can be, until this moment, by the database's clock (C8)."""
        bounds = self._offset.bounds(until)
        if bounds is not None:
            lowest, highest = bounds
            error = (highest - lowest + 1) // 2
            self._clock.set_offset(highest - error, error)
