"""A node: a real `Coherence` and a real cache in a model of the manager, its calls cut where a real one may wait.

Whatever a node has under way is an `Operation`, which the world moves on: the server executes it, the node takes the
answer, or the connection breaks at any of these moments. Decisions are all in `Coherence`; what is here is what the
shells do.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, NamedTuple

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.reader import Reader
from pgsession._protocol import events
from pgsession._protocol.operations import Flag, Rotation, Update
from pgsession.opened import Opened
from tests.simulation.absences import Absences
from tests.simulation.model import EPOCH, Commit, Connection, Server
from tests.simulation.oracle import PROMPT, Call, Token, Violation

if TYPE_CHECKING:
    from collections.abc import Sequence

    from pgsession._core.record import Record
    from pgsession._core.session import Session
    from tests.simulation.world import World

LOGGER = logging.getLogger("pgsession.simulation")
LOGGER.addHandler(logging.NullHandler())
LOGGER.propagate = False
LOGGER.disabled = True

_MISS: Any = object()


def _logger(node: str) -> logging.Logger:
    """A logger by which the protocol could know its node, as one of the mutations does."""
    logger = LOGGER.getChild(node)
    logger.disabled = True
    return logger


class _Hits(Reader):
    """The compiled read path, with a miss told from an answer."""

    _opened = Opened

    def _load(self, key: bytes, touch: bool, refresh: bool, min_version: int) -> Any:
        return _MISS

    def _load_by_token(
        self, key: bytes, generation: int, touch: bool, refresh: bool, min_version: int
    ) -> Any:
        return _MISS

    def _verify_token(self, token: str) -> tuple[bytes, int, int]:
        key, generation, version = token.split()
        return bytes.fromhex(key), int(generation), int(version)

    def _write_access_soon(self, key: bytes) -> None:
        pass


class SharedFuture:
    """What the callers of one fill wait on, and what the oracle knows of it."""

    __slots__ = ("began", "disturbed", "waiting")

    def __init__(self, began: int) -> None:
        self.began = began
        self.disturbed = False
        self.waiting: list[Call] = []


class Operation:
    """Something that a node asked the database for."""

    stages = 2
    """Execute, answer; a write is flushed in between."""

    def __init__(self, node: Node) -> None:
        self.node = node
        self.stage = 0
        self.broken = False
        self.began = node.world.now
        self.asked = self.ask()
        self.incarnation: str | None = None
        self.xmax = 0
        self.server = node.world.server

    def ask(self) -> Any:
        """Return what the answer is compared by; what has a lease is compared by that."""
        return self.node.coherence.asked()

    def step(self) -> None:
        """Move on by one stage."""
        world = self.node.world
        if self.broken or (self.stage == 0 and world.down):
            self.node.operations.remove(self)
            self.fail(executed=self.stage > 0)
        elif self.stage == 0:
            self.server = world.server
            self.incarnation = world.server.incarnation
            self.xmax = self.xmax or world.server.xmax()
            self.execute()
            self.stage = 1
        elif self.stage < self.stages - 1:
            self.go_on()
            self.stage += 1
        else:
            self.node.operations.remove(self)
            self.answer()

    def execute(self) -> None:
        raise NotImplementedError

    def go_on(self) -> None:
        self.node.world.server.flush()

    def answer(self) -> None:
        raise NotImplementedError

    def is_elsewhere(self, asked: Any) -> bool:
        """Which server has answered is compared, whatever was asked; True: another than the listener's."""
        verdict = self.node.coherence.answered(asked, self.incarnation, self.xmax)
        if verdict is not None and verdict.reconnect:
            self.node.drop_listener()
        return verdict is not None

    def fail(self, executed: bool) -> None:
        """The connection broke, or the database is down."""


class Read(Operation):
    """A fill."""

    def __init__(self, node: Node, call: Call) -> None:
        super().__init__(node)
        self.call = call
        self.key = call.key
        self.fill, self.leads = node.coherence.open_fill(
            call.key, refresh=call.refresh, new_future=lambda: SharedFuture(node.world.now)
        )

    def ask(self) -> Any:
        return None

    def execute(self) -> None:
        world = self.node.world
        self.record, self.serial = world.read(self.call.key)
        self.executed, self.database_time = world.now, EPOCH + world.now + world.server.ahead

    def answer(self) -> None:
        node, fill = self.node, self.fill
        node.heard_from(self.server, self.began, self.executed)
        verdict = node.coherence.close_fill(
            fill,
            self.record,
            self.incarnation,
            self.database_time,
            self.xmax,
            min_version=self.call.min_version,
            absent=self.record is None,
        )
        node.closed(fill)
        if verdict.reconnect:
            node.drop_listener()
        if verdict.again:
            for call in (self.call, *fill.future.waiting):
                node.load(call)
            if verdict is node.verdicts.PERHAPS_OVER:
                node.read_again += 1
                expect(node.read_again < 10, f"C8: {node.name} reads {fill.key[-1]} again and again")
                node.world.pass_moment(node, 0, 0)
            return
        node.read_again = 0
        if self.record is None:
            node.absences.read(fill.key, self.serial)
        if verdict is node.verdicts.CACHED:
            node.entered(self, self.serial)
            if self.record.expires_at > node.clock.database_now() + node.world.max_staleness:
                node.expect_hit(self.call)
        record = self.record
        node.finish(self.call, record, self.serial, "database")
        for call in fill.future.waiting:
            if node.module.satisfies(record, call.min_version):
                node.finish(call, record, self.serial, "joined")
            else:
                node.load(call)

    def fail(self, executed: bool) -> None:
        node = self.node
        node.coherence.fail_fill(self.fill)
        node.fills[self.call.key].remove(self.fill)
        for call in (self.call, *self.fill.future.waiting):
            if not call.refresh:
                record = node.coherence.stale_if_error(call.key, min_version=call.min_version)
                if record is not None:
                    node.finish(call, record, 0, "degraded")


class Write(Operation):
    """One create, update or delete of one session, as it goes through a batch."""

    stages = 3

    def __init__(self, node: Node, key: bytes, kind: str, base: int = 0, *, notify: bool = True) -> None:
        super().__init__(node)
        self.key = key
        self.kind = kind
        self.base = base
        self.notify = notify
        self.result = ""
        self.commit: Commit | None = None
        self.record: Record | None = None
        creates = kind in ("create", "replace")
        if creates:
            node.disturb(key)
        self.lease = node.coherence.open_write(key, creates=creates)
        self.begun: tuple[Server, int] | None = None

    def begin(self) -> None:
        """Have a transaction id, long before the commit."""
        if self.stage == 0 and self.begun is None:
            self.xmax = self.node.world.server.xmax()
            self.begun = self.node.world.server, self.node.world.server.begin()

    def execute(self) -> None:
        world = self.node.world
        world.transaction(self.begun, self.change)

    def change(self) -> None:
        world = self.node.world
        row = world.server.live(self.key, world.now)
        if self.kind in ("create", "replace"):
            self.result = "saved"
            self.commit = world.create(self.key, origin=self.node.name, replaces=self.kind == "replace")
        elif row is None:
            self.result = "gone"
            self.commit = world.server.rows.get(self.key)
        elif self.kind == "delete":
            self.result = "gone"
            self.commit = world.delete(row, origin=self.node.name)
        elif self.base not in (0, row.version):
            self.result = "conflict"
            self.commit = row
        else:
            self.result = "saved"
            self.commit = world.update(
                row, origin=self.node.name, announced=self.notify, regroup=self.kind == "regroup"
            )
        if self.result == "saved" and self.commit is not None:
            accessed = world.server.accessed
            accessed[self.key] = max(EPOCH + world.now, accessed.get(self.key, 0))
            self.record = self.saved(self.commit, accessed[self.key])

    def saved(self, commit: Commit, accessed: int) -> Record:
        """What the caller's record is now."""
        return commit.record(accessed, self.incarnation)

    def answer(self) -> None:
        node, coherence, lease = self.node, self.node.coherence, self.lease
        node.disturb(self.key)
        self.is_elsewhere(lease)
        if self.result == "saved":
            assert self.commit is not None
            verdict = coherence.write_saved(lease, self.record, self.incarnation)
            if verdict is node.verdicts.CACHED:
                node.entered(self, self.commit.serial)
            node.held[self.key] = self.commit.version
            self.tell(self.record)
        elif self.result == "conflict":
            coherence.write_conflicted(lease)
            node.held.pop(self.key, None)
        else:
            coherence.write_gone(lease)
        self._returned()

    def tell(self, record: Record) -> None:
        """Give the caller the session."""
        commit = self.node.world.oracle.commit_of(record)
        self.node.hold(session_of(self.node.cache, record, from_cache=False), commit)

    def fail(self, executed: bool) -> None:
        self.node.disturb(self.key)
        if executed or self.node.world.coin():
            self.node.coherence.write_unknown(self.lease)
            if not executed and self.node.world.coin():
                # The server has it all in its buffer and will do it later.
                self.node.world.orphans.append(self)
        else:
            self.node.coherence.write_failed(self.lease)
            if self.begun is not None:
                server, xid = self.begun
                server.complete(xid)
        self._returned()

    def _returned(self) -> None:
        """C2 and C3 also after a conflict, or where the outcome is unknown and the change was made before."""
        if self.commit is not None:
            self.node.world.oracle.returned(self.node, self.key, self.commit.serial)


class Asked(NamedTuple):
    """What an update asks the server for, as `Update.row` says it."""

    id: str
    base: int
    owner_since: int
    flags: int
    expires_at: int | None
    group: str | None
    sets: list[Any]
    deletes: list[Any]
    incarnation: str | None
    rotation: tuple[int, int, int, str | None] | None
    inactivity: int | None


class Save(Write):
    """An update of what a caller holds, a session that was read before, perhaps long ago; it may rotate it."""

    def __init__(
        self, node: Node, session: Session, rotation: Rotation | None = None, *, checked: bool = False
    ) -> None:
        self.session = session
        self.held_from = node.world.oracle.commit_of(session._record)
        # Who has come by an older token does not earn the current one.
        self.rotation = None if session._by_older_token else rotation
        self.update = Update(
            session._record,
            check="session" if checked else None,
            sets=[],
            deletes=[],
            expires_at=None,
            inactivity=None,
            group=None,
            notify=True,
            notify_on_conflict=False,
            rotation=self.rotation,
        )
        super().__init__(node, self.update.key, "save")

    def change(self) -> None:
        world = self.node.world
        server, asked = world.server, Asked(*self.update.row())
        row = server.live(self.key, world.now)
        self.commit = row or server.rows.get(self.key)
        if row is None:
            self.result = "gone"
        elif not server.saves(row, asked.base, asked.owner_since):
            self.result = "gone"
            world.oracle.kept_out(self.held_from, row)
        elif self._is_refused(row, asked):
            self.result = "conflict"
        else:
            self.result = "saved"
            self.behind = asked.rotation is not None or not self._is_current(row, asked)
            base = self._base(asked)
            rotates = asked.rotation is not None and server.rotates(row, base)
            world.oracle.saved(self.held_from, row, rotates=rotates)
            self.commit = world.update(row, origin=self.node.name, rotation=self.rotation, base=base)
            accessed = server.accessed
            accessed[self.key] = max(EPOCH + world.now, accessed.get(self.key, 0))
            self.record = self.saved(self.commit, accessed[self.key])

    def _is_refused(self, row: Commit, asked: Asked) -> bool:
        """Return True for a check that fails; whoever binds a user has to know the current generation."""
        binds = asked.rotation is not None and asked.flags & Flag.CHANGE_USER
        if binds and not self.node.world.server.rotates(row, self._base(asked)):
            return True
        return bool(asked.flags & Flag.CHECK_SESSION) and not self._is_current(row, asked)

    def _base(self, asked: Asked) -> int:
        return asked.rotation[1] if asked.rotation is not None else 0

    def _is_current(self, row: Commit, asked: Asked) -> bool:
        known = self.incarnation is not None and self.incarnation == asked.incarnation
        return known and row.version == asked.base

    def saved(self, commit: Commit, accessed: int) -> Record:
        """Return what the answer makes of the record, or the database's where somebody else has changed it."""
        if self.behind:
            return super().saved(commit, accessed)
        self.update.sets = [("serial", b"%d" % commit.serial, None, 0)]
        return self.update.saved(commit.version, EPOCH + commit.at)

    def tell(self, record: Record) -> None:
        """Make the caller's session the saved one; the token is for whoever has rotated it."""
        node, session = self.node, self.session
        before, older = session._record.generation, session._by_older_token
        rotated = self.rotation is not None and record.generation == self.rotation.generation
        session._saved(None, record, 0, rotated)
        if not rotated and (older or session._record.generation != before):
            expect(session._by_older_token, f"{node.name} gives a token to who did not rotate {self.commit}")
        if rotated and session._record is record:
            expect(not session._by_older_token, f"{node.name} gives no token to who rotated {self.commit}")
        node.hold(session, node.world.oracle.commit_of(session._record))


class Wide(Operation):
    """A statement about a user, a group or everything."""

    stages = 3

    def __init__(self, node: Node, kind: str, item: events.Item) -> None:
        super().__init__(node)
        self.kind = kind
        self.item = item
        self.effects: Sequence[Commit] = ()

    def execute(self) -> None:
        world = self.node.world
        self.effects = world.transaction(
            None, lambda: world.wide(self.kind, self.item, origin=self.node.name)
        )

    def answer(self) -> None:
        self.is_elsewhere(self.asked)
        self.over()

    def over(self) -> None:
        node = self.node
        if self.kind != "evict":
            node.coherence.drop(*(events.Deleted(commit.key) for commit in self.effects))
        node.coherence.drop(self.item)
        node.disturb(None)
        for commit in self.effects:
            # To drop a user's sessions from memory says nothing of whom it takes for absent, nor of a session that
            # another node has just given to this user.
            told = not (node.cache.is_absent(commit.key) or node.world.oracle.changed_hands(commit.key))
            if self.kind != "evict" or told:
                node.world.oracle.returned(node, commit.key, commit.serial)

    def fail(self, executed: bool) -> None:
        """Nobody can say which sessions it was about."""
        self.node.coherence.drop(events.Everything())
        self.over()


class Listing(Operation):
    """list_user_sessions: returns versions and fills nothing."""

    def __init__(self, node: Node, user: str) -> None:
        super().__init__(node)
        self.user = user

    def execute(self) -> None:
        world = self.node.world
        rows = [world.server.live(key, world.now) for key in world.keys]
        self.rows = [row for row in rows if row is not None and row.user == self.user]

    def answer(self) -> None:
        node = self.node
        self.is_elsewhere(self.asked)
        node.coherence.observed([(row.key, row.version) for row in self.rows], self.incarnation)
        for row in self.rows:
            node.disturb(row.key)
            node.world.oracle.returned(node, row.key, row.serial)


class Look(Operation):
    """A read that nobody asked for, with a beacon where one is wanted."""

    stages = 3

    def __init__(self, node: Node) -> None:
        self.wanted = node.coherence.wanted_beacon()
        super().__init__(node)
        self.comes = False
        self.xid = 0
        self.locks = False

    def execute(self) -> None:
        world = self.node.world
        self.executed, self.database_time = world.now, EPOCH + world.now + self.server.ahead
        if self.wanted is not None:
            self.comes, self.xid = self.server.begin_beacon(self.wanted.since, insists=self.wanted.insists)
            if self.xid and not self.server.marker_is_locked:
                self.locks = self.server.marker_is_locked = True

    def go_on(self) -> None:
        """It commits."""
        if self.xid:
            self.server.send_beacon(self.node.name, self.xid)
        self._unlock()

    def _unlock(self) -> None:
        if self.locks:
            self.server.marker_is_locked = self.locks = False

    def answer(self) -> None:
        node = self.node
        if self.is_elsewhere(self.asked):
            return
        if self.wanted is not None and self.comes:
            node.coherence.beacon_began(self.asked, self.wanted)
        if node.hears(self.server):
            node.heard_from(self.server, self.began, self.executed)
            node.coherence.clock_sample(self.asked.opened, node.clock.now(), self.database_time)

    def fail(self, executed: bool) -> None:
        if self.locks:  # aborted
            self.server.complete(self.xid)
            self._unlock()


class Compare(Operation):
    """The resync."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.resync = node.coherence.resync_started()

    def execute(self) -> None:
        world, differing = self.node.world, []
        resync, server = self.resync, world.server
        for key, version, generation in zip(resync.keys, resync.versions, resync.generations, strict=True):
            if server.differs(server.live(key, world.now), version, generation):
                differing.append(key)
        self.differing = differing

    def answer(self) -> None:
        self.node.comparing = False
        if self.is_elsewhere(self.asked):
            return
        if self.node.coherence.resynced(self.resync, self.differing):
            self.node.compared = True
            self.node.look()

    def fail(self, executed: bool) -> None:
        self.node.comparing = False


class Accesses(Operation):
    """A batch of noted accesses."""

    def __init__(self, node: Node) -> None:
        super().__init__(node)
        self.batch = node.cache.take_accesses(100)

    def execute(self) -> None:
        accessed = self.node.world.server.accessed
        for key, at in self.batch:
            accessed[key] = max(accessed.get(key, 0), at)

    def answer(self) -> None:
        self.is_elsewhere(self.asked)
        self.node.cache.confirm_accesses(self.batch)

    def fail(self, executed: bool) -> None:
        self.node.cache.restore_accesses(self.batch)


class Node:
    """One manager in one process."""

    def __init__(self, world: World, number: int, module: Any) -> None:
        self.world = world
        self.name = f"{number + 1:016x}"
        self.module = module
        self.verdicts = module.Verdict
        start = self.start_of_time(number)
        self.clock = Clock(manual=start)
        # The machine's wall clock is wrong by seconds, until the database was asked.
        self.clock.offset = EPOCH - start + (number - 1) * 2_000_000
        self.cache = Cache(
            world.capacity,
            self.clock,
            access_interval=10**12,
            lifetime=0,
            max_attribute_length=16384,
            rotation_grace=world.rotation_grace,
        )
        self.coherence = module.Coherence(
            self.cache,
            self.clock,
            max_staleness=world.max_staleness,
            stale_if_error=world.stale_if_error,
            logger=_logger(self.name),
        )
        self.hits = _Hits(self.cache)
        self.paused = False
        self.operations: list[Operation] = []
        self.listener: Connection | None = None
        self.old_listener: Connection | None = None
        self.identified = self.compared = self.comparing = False
        self.looked_at = self.listening_since = 0
        self.heard = 0
        """The true time of the newest prompt answer of the server whose events arrive here."""
        self.heard_of: str | None = None
        """The incarnation of that server, if it was heard of since the node has listened to it."""
        self.read_again = 0
        """How often in a row what was read was perhaps over."""
        # What the oracle knows of this node.
        self.fills: dict[bytes, list[Any]] = {}
        self.inserted: dict[bytes, int] = {}
        self.returned: dict[bytes, list[int]] = {}
        self.arrived: dict[bytes, list[int]] = {}
        self.held: dict[bytes, int] = {}
        self.sessions: dict[bytes, list[Session]] = {}
        """What callers hold: the latest few of each id."""
        self.accesses: dict[bytes, int] = {}
        self.absences = Absences(self)

    def start_of_time(self, number: int) -> int:
        """Node time when it starts: each machine's is its own."""
        return (number + 1) * 10**9

    @property
    def may_answer(self) -> bool:
        """Return True while memory may answer, as far as a listener and a comparison are needed for that."""
        return self.compared

    # Reads

    def get(self, key: bytes, *, refresh: bool = False, seen: Commit | None = None) -> None:
        """Read by id; with `seen`, at least the version of that commit."""
        call = self.world.oracle.begin(self, key)
        call.refresh = refresh
        if seen is not None:
            call.seen, call.min_version = seen, seen.version
        session = self.hits.get_session(key, refresh=refresh, min_version=call.min_version)
        if session is _MISS:
            self.load(call)
        elif session is None:
            self.finish(call, None, self.absences.serial(key), "memory")
        else:
            self._accessed(call)
            self.finish(call, session._record, 0, "memory", session=session)

    def open(self, token: Token, *, refresh: bool = False) -> None:
        """Read by a token."""
        call = self.world.oracle.begin(self, token.key)
        call.refresh = refresh
        call.token, call.seen, call.min_version = token, token.commit, token.version
        opened = self.hits.open_token(token.text, refresh=refresh)
        if opened is _MISS:
            self.load(call)
        elif opened.session is not None:
            self._accessed(call)
            record = opened.session._record
            self.finish(call, record, 0, "memory", session=opened.session, state=opened.state)
        elif self.cache.version(token.key):
            self.world.oracle.refused(call, opened.state, self.held_serial(token.key), "memory")
        else:
            self.finish(call, None, self.absences.serial(token.key), "memory")

    def held_serial(self, key: bytes) -> int:
        """The serial number of the commit that the cached record shows."""
        return self.inserted[key]

    def _accessed(self, call: Call) -> None:
        self.accesses[call.key] = EPOCH + self.world.now + self.world.oracle.least_ahead(call)

    def load(self, call: Call) -> None:
        read = Read(self, call)
        if read.leads:
            if not call.refresh:
                self.world.oracle.check_lead(self, call.key)
            self.fills.setdefault(call.key, []).append(read.fill)
            self.operations.append(read)
        else:
            read.fill.future.waiting.append(call)

    def finish(
        self,
        call: Call,
        record: Record | None,
        serial: int,
        source: str,
        *,
        session: Session | None = None,
        state: str | None = None,
    ) -> None:
        if record is not None and call.token is not None and state is None:
            state = record.standing(
                call.token.generation, self.clock.earliest_database_now(), self.cache.rotation_grace
            )
        if state in ("superseded", "ended"):
            assert record is not None and state is not None
            commit = self.world.oracle.commit_of(record)
            self.world.oracle.refused(call, state, commit.serial, source)
            return
        commit = self.world.oracle.finish(call, record, serial, source)
        if record is None or commit is None:
            return
        if session is None:
            older = state == "previous"
            session = session_of(self.cache, record, from_cache=source != "database", by_older_token=older)
        if call.token is not None:
            self.world.oracle.opened(call, str(state), commit, session._by_older_token, source)
        self.held[call.key] = commit.version
        self.hold(session, commit)

    def hold(self, session: Session, commit: Commit) -> None:
        """A caller has this session now, and a browser the token that it gives, if it gives one."""
        sessions = self.sessions.setdefault(commit.key, [])
        if session not in sessions:
            sessions.append(session)
            del sessions[:-4]
        self.world.saw(commit)
        if not session._by_older_token:
            self.world.give(Token(commit))

    def entered(self, operation: Read | Write, serial: int) -> None:
        """A record is in the cache now: it must be from the server whose events arrive here (C6)."""
        listener = self.listener
        heard = listener is not None and listener.server is operation.server
        expect(heard, f"C6: {self.name} keeps #{serial} of a server that it does not hear")
        self.inserted[operation.key] = serial

    def expect_hit(self, call: Call) -> None:
        """What has just entered the cache is served, also to a token whose version was lost (floors)."""
        if self.coherence.in_sync:
            if call.token is None:
                again = self.hits.get_session(call.key, touch=False, min_version=call.min_version)
            else:
                again = self.hits.open_token(call.token.text, touch=False)
            expect(again is not _MISS, f"{self.name} would read {call.key[-1]} again and again")

    def closed(self, fill: Any) -> None:
        self.fills[fill.key].remove(fill)
        self.disturb(fill.key)

    def disturb(self, key: bytes | None) -> None:
        """From now on the fills of this session (None: all) may lack something that is known here."""
        for fills in (self.fills.get(key, ()),) if key is not None else self.fills.values():
            for fill in fills:
                fill.future.disturbed = True

    def hears(self, server: Server) -> bool:
        """Return True where the node knows this server to be the one whose events arrive here."""
        return self.identified and self.listener is not None and self.listener.server is server

    def heard_from(self, server: Server, asked: int, executed: int) -> None:
        """An answer is here, from which the node may learn what time it is."""
        if self.hears(server) and self.world.now - asked < PROMPT:
            self.heard = max(self.heard, executed)
            self.heard_of = server.incarnation

    # The listener

    def tend_listener(self) -> None:
        """The next thing a listener has to do."""
        if self.listener is None:
            self.listener = Connection(self.world.listener_server(), self.name)
            self.listener.deaf = self.world.pooler
            self.listening_since = self.coherence.on_lost()
            self.disturb(None)
            self.listener.server.connections.append(self.listener)
        elif self.listener.dead or self.coherence.listener_silent:
            self.drop_listener()
        elif not self.identified:
            self.disturb(None)
            incarnation = self.listener.server.identify()
            if incarnation != self.heard_of:  # nothing is known of its clock
                self.heard_of = None
            if self.coherence.on_listening(incarnation, since=self.listening_since) is None:
                self.refused()
                return
            self.identified = True
            self.look()
        elif not self.compared and not self.comparing:
            self.comparing = True
            self.operations.append(Compare(self))
        elif self.world.now - self.looked_at >= self.coherence.read_interval:
            self.look()
        else:
            self.deliver(len(self.listener.queue))

    def refused(self) -> None:
        """The listener is not accepted, though it was not lost."""
        raise Violation("nothing was lost, yet the listener is refused")

    def look(self) -> None:
        self.looked_at = self.world.now
        self.operations.append(Look(self))

    def drop_listener(self) -> None:
        """Its connection is gone, or is given up."""
        if self.listener is not None:
            if self.listener in self.listener.server.connections:
                self.listener.server.connections.remove(self.listener)
            self.old_listener, self.listener = self.listener, None
        self.identified = self.compared = self.comparing = False
        self.disturb(None)
        self.coherence.on_lost()
        stale = self.coherence.on_listening("i0", since=self.listening_since)
        expect(stale is None, "a listener that was lost meanwhile is believed to listen")

    def deliver(self, count: int) -> None:
        """Hand on the next notifications, once the listener is set up."""
        listener = self.listener
        if listener is None or not self.identified or listener.frozen:
            return
        for _ in range(min(count, len(listener.queue))):
            self._hear(listener, again=False)

    def deliver_late(self) -> None:
        """A notification of the connection before this one, or one that is heard twice."""
        if self.old_listener is not None and self.old_listener.queue and not self.identified:
            self._hear(self.old_listener, again=False)
        elif (
            self.listener is not None and self.listener.queue and self.identified and not self.listener.frozen
        ):
            self._hear(self.listener, again=True)

    def _hear(self, listener: Connection, *, again: bool) -> None:
        notice = listener.queue[0] if again else listener.queue.popleft()
        if self.coherence.on_event(notice.payload).moved:
            self.drop_listener()
        for commit in notice.effects:
            self.disturb(commit.key)
        if not _all_by_id(notice.payload):
            self.disturb(None)
        self.world.oracle.arrived(self, notice.effects)


def _all_by_id(payload: str) -> bool:
    return all(item[0] in "ud" for item in payload.split(" ")[2:])


def expect(condition: bool, message: str) -> None:
    """One of the final checks."""
    if not condition:
        raise Violation(message)
