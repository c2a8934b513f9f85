"""One history: nodes, the model database, a virtual clock, and what bytes make of them.

A history is a byte string. Its first five bytes choose the configuration and the kinds of trouble; each further four
are one action and its three arguments. So a seed, a failing history cut down to what matters, and what hypothesis
draws are all the same thing, and every one can be replayed.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pgsession._protocol import coherence, events
from pgsession._protocol.operations import Rotation
from tests.simulation.model import EPOCH, Commit, Identity, Server
from tests.simulation.node import (
    Accesses,
    Compare,
    Listing,
    Look,
    Node,
    Read,
    Save,
    Wide,
    Write,
    expect,
)
from tests.simulation.oracle import SECOND, Oracle, Token

if TYPE_CHECKING:
    from pgsession._core.session import Session

MAX_STALENESS: Final = 10 * SECOND
HEADER: Final = 5
STEP: Final = 4

_KEYS: Final = tuple(bytes([0] * 15 + [number]) for number in range(1, 10))
_USERS: Final = ("ann", "bob")
_GROUPS: Final = (None, "red", "blue")
_TIMES: Final = (0.001, 0.05, 0.3, 1, 2, 3.3, 3.4, 5, 9, 10.1, 12, 21)
_STEPS: Final = tuple(seconds * SECOND for seconds in (0, 0, 0, 0, 1, -1, 30, -30))
_PLAIN: Final = events.PLAIN_SQL


class World:
    """Everything there is, and what can happen to it: the actions are the methods of `_ACTIONS`."""

    make_node = Node
    make_oracle = Oracle
    counts = (1, 2, 2, 3)
    option = ""
    """What `python -m tests.simulation` needs to be told of it."""

    def __init__(
        self, history: bytes, *, module: Any = coherence, server: type[Server] = Server, trace: bool = False
    ) -> None:
        header = history[:HEADER].ljust(HEADER, b"\0")
        self.history = history
        self.trace: list[str] | None = [] if trace else None
        self.capacity = (1, 2, 4, 16)[header[0] & 3]
        self.stale_if_error = (0, 0, 20 * SECOND, 60 * SECOND)[header[0] >> 2 & 3]
        self.max_staleness = MAX_STALENESS
        self.keys = _KEYS[: 2 + (header[0] >> 4 & 3)]
        self.hot = header[0] >> 6
        self.rotation_grace = (0, 2, 6, 40)[header[4] >> 6] * SECOND
        mask = header[1] | header[2] << 8 | (header[4] & 63) << 16
        self.choice = mask, (header[3] >> 2) % 13
        self.actions = actions(*self.choice)
        self.oracle = self.make_oracle(self.max_staleness, self.stale_if_error, self.rotation_grace)
        self.now = 0
        self.down = self.pooler = self.astray = self.garbled = False
        self.make_server = server
        self.server = server({}, {})
        self.server.identify()
        self.elsewhere = server({}, {})
        self.xid: int | None = None
        self.slow: list[tuple[Server, int]] = []
        self.orphans: list[Write] = []
        self.seen: list[Commit] = []
        self.tokens: list[Token] = []
        self.chance = 0
        self.drawn = 0
        self.nodes = [self.make_node(self, number, module) for number in range(self.counts[header[3] & 3])]
        for key in self.keys[:2]:
            self.transaction(None, functools.partial(self.create, key, origin=_PLAIN))
        self.server.flush()
        for node in self.nodes:
            for _ in range(4):
                node.tend_listener()
                while node.operations:
                    node.operations[0].step()

    def run(self) -> None:
        """Live through the history, then let all trouble end and see that everything is well."""
        history = self.history
        for at in range(HEADER, len(history) - STEP + 1, STEP):
            number, a, b, c = history[at : at + STEP]
            node = self.nodes[a % len(self.nodes)]
            action = self.actions[number]
            self.chance = c
            if self.trace is not None:
                self._note(f"{action.__name__} {node.name[-1]} {b} {c}")
            action(self, node, b, c)
            self._advance(1)  # no two things happen in the same moment
            self.oracle.check_cache(node)
        self.settle()

    def _note(self, what: str) -> None:
        assert self.trace is not None
        self.trace.append(f"{self.now / SECOND:8.3f}  {what}")

    def coin(self) -> bool:
        self.chance = self.chance * 5 + 113 & 255
        return self.chance & 64 != 0

    def saw(self, commit: Commit) -> None:
        """A caller has seen this version, and may carry it to any node."""
        if not self.seen or self.seen[-1] is not commit:
            self.seen.append(commit)

    def give(self, token: Token) -> None:
        """A browser has this token, and may show it to any node."""
        if not self.tokens or self.tokens[-1] != token:
            self.tokens.append(token)

    def listener_server(self) -> Server:
        return self.elsewhere if self.astray else self.server

    # The database's side

    def read(self, key: bytes) -> tuple[Any, int]:
        row = self.server.live(key, self.now)
        if row is None:
            last = self.server.rows.get(key)
            return None, last.serial if last else 0
        record = row.record(self.server.accessed.get(key, EPOCH), self.server.incarnation)
        return record, row.serial

    def _commit(
        self,
        key: bytes,
        version: int,
        user: str | None,
        group: str | None,
        identity: Identity,
        *,
        expires: int | None = None,
        **more: Any,
    ) -> Commit:
        before = self.server.rows.get(key)
        if expires is None:
            expires = before.expires_at if before else self._in(4000)
        serial = len(self.oracle.commits)
        commit = Commit(serial, self.now, key, version, user, group, expires, identity, before, **more)
        self.oracle.committed(commit)
        return self.server.commit(commit)

    def transaction(self, begun: tuple[Server, int] | None, change: Callable[[], Any]) -> Any:
        """Make a change in a transaction of its own, which had its id before if it was begun."""
        at_once = begun is None or begun[0] is not self.server
        self.xid = self.server.begin() if at_once else begun[1]  # type: ignore[index]
        try:
            return change()
        finally:
            self.server.complete(self.xid)
            self.xid = None

    def _announce(self, origin: str, item: events.Item, *effects: Commit) -> None:
        assert self.xid is not None
        text = events.encode(item)
        if self.garbled:
            text = f"n{text[1:]}"
        self.server.notify(origin, self.xid, text, effects)

    def create(self, key: bytes, *, origin: str, replaces: bool = False) -> Commit:
        row = self.server.rows.get(key)
        if row is not None and not replaces and not (row.deleted and origin == _PLAIN):
            return row  # Ids are random: only plain SQL, and who chooses them, inserts one again.
        version, user, more = EPOCH + self.now, str(_USERS[key[-1] % 2]), {}
        if row is not None:
            version = self.server.version_again(row, version)
        if replaces:
            more["expires"] = self._in(4000)
            user = user if row is None else row.user  # that of another user is not replaced
        serial = len(self.oracle.commits)
        identity = Identity(self.server.generation(row, self.draw()), serial, version, serial)
        commit = self._commit(key, version, user, _GROUPS[key[-1] % 3], identity, **more)
        self._announce(origin, events.Changed(key, commit.version), commit)
        return commit

    def draw(self) -> int:
        """A generation that nobody else has."""
        self.drawn += 1
        return self.drawn

    def update(
        self,
        row: Commit,
        *,
        origin: str,
        announced: bool = True,
        regroup: bool = False,
        expires: int | None = None,
        rotation: Rotation | None = None,
        base: int = 0,
    ) -> Commit:
        """`base` is the generation that a rotation is based on: another one than the row's is not rotated."""
        group = _GROUPS[(_GROUPS.index(row.group) + 1) % 3] if regroup else row.group
        announced = announced or regroup
        version, user, identity = row.version + 1, row.user, row.identity
        if rotation is not None and self.server.rotates(row, base):
            version = self.server.version_rotated(row, EPOCH + self.now)
            if rotation.user is not None:
                user, expires = rotation.user[0], self._in(4000)
            identity = self._rotated(row, version, rotation, changes_hands=user != row.user)
        commit = self._commit(row.key, version, user, group, identity, announced=announced, expires=expires)
        if announced:
            self._announce(origin, events.Changed(row.key, commit.version), commit)
        return commit

    def _rotated(self, row: Commit, version: int, rotation: Rotation, *, changes_hands: bool) -> Identity:
        before, serial, moment = row.identity, len(self.oracle.commits), self._in(0)
        identity = Identity(
            self.server.generation(row, rotation.generation),
            serial,
            version if changes_hands else before.owner_since,
            serial if changes_hands else before.tenure,
            rotated_at=moment,
        )
        if not rotation.grace:
            return identity
        return identity._replace(
            previous=before.generation, previous_drawn=before.drawn, previous_until=moment + rotation.grace
        )

    def _bury(self, row: Commit) -> Commit:
        return self._commit(row.key, row.version, row.user, row.group, row.identity, deleted=True)

    def delete(self, row: Commit, *, origin: str) -> Commit:
        commit = self._bury(row)
        self._announce(origin, events.Deleted(row.key), commit)
        return commit

    def wide(self, kind: str, item: events.Item, *, origin: str) -> list[Commit]:
        rows = [row for row in self.server.rows.values() if not row.deleted and _matches(item, row)]
        effects = rows
        if kind == "delete":
            effects = [self._bury(row) for row in rows]
        elif kind == "attribute":
            effects = [
                self._commit(row.key, row.version + 1, row.user, row.group, row.identity) for row in rows
            ]
        self._announce(origin, item, *effects)
        return effects

    # Time, and what moves on

    def pass_time(self, node: Node, b: int, c: int) -> None:
        self._advance(int(_TIMES[b % len(_TIMES)] * SECOND))

    def pass_long(self, node: Node, b: int, c: int) -> None:
        self._advance((10 + b % 80) * SECOND)

    def pass_moment(self, node: Node, b: int, c: int) -> None:
        self._advance(1000 * (1 + b))

    def _advance(self, amount: int) -> None:
        self.now += amount
        self.oracle.now = self.now
        for node in self.nodes:
            node.clock.advance(amount)

    def step(self, node: Node, b: int, c: int) -> None:
        """One operation of the node moves on; a stopped process takes no answers, but the server goes on."""
        if node.operations:
            operation = node.operations[b % len(node.operations)]
            last = operation.broken or operation.stage == operation.stages - 1
            if not node.paused or not (last or self.down):
                operation.step()

    def finish(self, node: Node, b: int, c: int) -> None:
        """One operation of the node comes to its end."""
        if node.operations and not node.paused:
            operation = node.operations[b % len(node.operations)]
            while operation in node.operations:
                operation.step()

    def tend(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.tend_listener()

    def keep_in_sync(self, node: Node, b: int, c: int) -> None:
        """What a healthy listener does without being noticed."""
        for _ in range(0 if node.paused else 6):
            node.tend_listener()
            for operation in [o for o in node.operations if isinstance(o, Look | Compare)]:
                while operation in node.operations:
                    operation.step()
        self.deliver_all(node, b, c)

    def deliver(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.deliver(1 + b % 3)

    def deliver_all(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.deliver(1000)

    # What callers do

    def _key(self, b: int) -> bytes:
        """Mostly the same one: troubles of different sessions seldom meet."""
        return self.keys[0 if b & 3 < self.hot else (b >> 2) % len(self.keys)]

    def get(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.get(self._key(b))

    def get_at_once(self, node: Node, b: int, c: int) -> None:
        """As most reads are: with nothing else meanwhile."""
        self._at_once(node, self.get, b, c)

    def update_at_once(self, node: Node, b: int, c: int) -> None:
        self._at_once(node, self.update_session, b, c)

    def _at_once(self, node: Node, action: Callable[[Node, int, int], None], b: int, c: int) -> None:
        count = len(node.operations)
        action(node, b, c)
        while len(node.operations) > count:
            node.operations[-1].step()

    def get_slowly(self, node: Node, b: int, c: int) -> None:
        """The answer is under way for seconds, and outdated when it comes."""
        self.get(node, b, c)
        if node.operations and isinstance(node.operations[-1], Read) and node.operations[-1].stage == 0:
            node.operations[-1].step()
            self._advance(1)
            self.plain_sql(node, b, 2)
            self._advance((1 + c % 16) * SECOND)

    def refresh(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.get(self._key(b), refresh=True)

    def get_at_least(self, node: Node, b: int, c: int) -> None:
        """A version that some caller has seen."""
        if not node.paused and self.seen:
            seen = self.seen[-1 - b % min(len(self.seen), 6)]
            node.get(seen.key, seen=seen)

    def get_by_token(self, node: Node, b: int, c: int) -> None:
        """One of the latest that browsers were given; now and then as nothing but the database says."""
        if not node.paused and self.tokens:
            node.open(self.tokens[-1 - b % min(len(self.tokens), 6)], refresh=c < 16)

    def get_by_old_token(self, node: Node, b: int, c: int) -> None:
        """One that a rotation has ended, or that is about to end."""
        tokens = [token for token in self.tokens if self._is_old(token)]
        if tokens and not node.paused:
            node.open(tokens[-1 - b % min(len(tokens), 4)])

    def _is_old(self, token: Token) -> bool:
        row = self.server.rows.get(token.key)
        return row is not None and row.identity.drawn != token.commit.identity.drawn

    def get_by_token_at_once(self, node: Node, b: int, c: int) -> None:
        self._at_once(node, self.get_by_old_token if c & 1 else self.get_by_token, b, c)

    # What callers do with what they hold

    def _held(self, node: Node, b: int) -> Session | None:
        sessions = node.sessions.get(self._key(b), ())
        return sessions[-1 - (b >> 5) % len(sessions)] if sessions and not node.paused else None

    def save(self, node: Node, b: int, c: int) -> None:
        """A session that is held, perhaps since it was another user's."""
        session = self._held(node, b)
        if session is not None:
            node.operations.append(Save(node, session, checked=c & 7 == 0))

    def rotate(self, node: Node, b: int, c: int) -> None:
        session = self._held(node, b)
        if session is not None:
            grace = (0, self.rotation_grace, self.rotation_grace, 3 * SECOND, 15 * SECOND)[c % 5]
            node.operations.append(Save(node, session, Rotation(self.draw(), grace)))

    def bind(self, node: Node, b: int, c: int) -> None:
        """A login, also of the user who has it, or a logout that keeps the session."""
        session = self._held(node, b)
        if session is not None and not session._by_older_token:
            user = (*_USERS, None)[c % 3]
            node.operations.append(Save(node, session, Rotation(self.draw(), 0, (user,))))

    def rotate_at_once(self, node: Node, b: int, c: int) -> None:
        self._at_once(node, self.bind if c & 64 else self.rotate, b, c)

    def save_at_once(self, node: Node, b: int, c: int) -> None:
        self._at_once(node, self.save, b, c)

    def replace_session(self, node: Node, b: int, c: int) -> None:
        """A session with a chosen id takes the place of another one of it."""
        self._write(node, self._key(b), "replace")

    def _write(self, node: Node, key: bytes, kind: str, base: int = 0, *, notify: bool = True) -> None:
        if not node.paused:
            node.operations.append(Write(node, key, kind, base, notify=notify))

    def create_session(self, node: Node, b: int, c: int) -> None:
        key = self._key(b)
        if key not in self.server.rows and not any(
            isinstance(o, Write) and o.key == key for o in _under_way(self)
        ):
            self._write(node, key, "create")

    def update_session(self, node: Node, b: int, c: int) -> None:
        self._write(node, self._key(b), "update")

    def update_checked(self, node: Node, b: int, c: int) -> None:
        key = self._key(b)
        self._write(node, key, "update", node.held.get(key, 0))

    def update_quietly(self, node: Node, b: int, c: int) -> None:
        self._write(node, self._key(b), "update", notify=False)

    def regroup(self, node: Node, b: int, c: int) -> None:
        self._write(node, self._key(b), "regroup", notify=False)

    def delete_session(self, node: Node, b: int, c: int) -> None:
        self._write(node, self._key(b), "delete")

    def wide_statement(self, node: Node, b: int, c: int) -> None:
        """delete_user, delete_group, delete_all, delete_attribute_from_user, evict_user, clear_cache."""
        user, group = events.UserChanged(_USERS[b % 2]), events.GroupChanged(str(_GROUPS[1 + b % 2]))
        kind, item = (
            ("delete", user),
            ("delete", group),
            ("delete", events.Everything()),
            ("attribute", user),
            ("attribute", user),
            ("evict", user),
            ("evict", events.Everything()),
        )[c % 7]
        if not node.paused:
            node.operations.append(Wide(node, kind, item))

    def end_what_was_moved(self, node: Node, b: int, c: int) -> None:
        """Another node moves a session into a group, which this one ends before it has heard of that."""
        row = self.server.live(self._key(b), self.now)
        if row is None or node.paused or self.down:
            return
        self._advance(1)
        self._at_once(node, self.get, b, c)
        moved = self.transaction(None, lambda: self.update(row, origin=_PLAIN, regroup=True))
        group = moved.group
        if group is not None:
            ending = Wide(node, "delete" if c & 1 else "attribute", events.GroupChanged(group))
            node.operations.append(ending)
            while ending in node.operations:
                ending.step()
        self._at_once(node, self.get, b, c)

    def list_user(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.operations.append(Listing(node, _USERS[b % 2]))

    def write_accesses(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.operations.append(Accesses(node))

    def plain_sql(self, node: Node, b: int, c: int, *, begun: tuple[Server, int] | None = None) -> None:
        """An operator with psql: another session of the database, and no node at all."""
        row = self.server.live(self._key(b), self.now)
        if row is None:
            return
        if c & 16 and self.slow:
            begun = self.slow.pop(c % len(self.slow))
        if c % 4 == 0:
            self.transaction(begun, lambda: self.delete(row, origin=_PLAIN))
            if c & 4:  # and insert it again
                self._advance(1)
                self.transaction(None, lambda: self.create(row.key, origin=_PLAIN))
        elif c % 4 == 1:
            expires = self._in(1 + c)
            self.transaction(begun, lambda: self.update(row, origin=_PLAIN, expires=expires))
        else:
            self.transaction(begun, lambda: self.update(row, origin=_PLAIN))

    def begin_transaction(self, node: Node, b: int, c: int) -> None:
        """Somebody has a transaction id, and commits long after; a node, or an operator."""
        writes = [o for o in node.operations if isinstance(o, Write)]
        if writes and c & 1:
            writes[b % len(writes)].begin()
        elif len(self.slow) < 4:
            self.slow.append((self.server, self.server.begin()))

    def other_transaction(self, node: Node, b: int, c: int) -> None:
        """One that is not about sessions ends, or one that was to be aborts."""
        if c & 1 and self.slow:
            server, xid = self.slow.pop(b % len(self.slow))
            server.complete(xid)
        else:
            self.server.complete(self.server.begin())

    def _in(self, quarters: int) -> int:
        """The server's time in so many quarters of a second."""
        return EPOCH + self.now + self.server.ahead + quarters * SECOND // 4

    # Trouble

    def flush_log(self, node: Node, b: int, c: int) -> None:
        self.server.flush()

    def break_operation(self, node: Node, b: int, c: int) -> None:
        if node.operations:
            operation = node.operations[b % len(node.operations)]
            operation.broken = True
            if c % 2 and not node.paused:
                operation.step()

    def run_orphan(self, node: Node, b: int, c: int) -> None:
        if self.orphans:
            self.orphans.pop(b % len(self.orphans)).execute()

    def end_listener(self, node: Node, b: int, c: int) -> None:
        """Noticed at once, or by the next look at the connection."""
        if node.listener is not None:
            if b % 2 and not node.paused:
                node.drop_listener()
            else:
                node.listener.dead = True
                if node.listener in node.listener.server.connections:
                    node.listener.server.connections.remove(node.listener)

    def freeze_listener(self, node: Node, b: int, c: int) -> None:
        if node.listener is not None:
            node.listener.frozen = not node.listener.frozen

    def rotate_secret(self, node: Node, b: int, c: int) -> None:
        self.server.move(_PLAIN)

    def spoil_marker(self, node: Node, b: int, c: int) -> None:
        """Somebody writes into the table that a beacon began which nobody has sent."""
        self.server.marker = self.server.next_xid + 1000

    def deliver_late(self, node: Node, b: int, c: int) -> None:
        if not node.paused:
            node.deliver_late()

    def stop_or_continue(self, node: Node, b: int, c: int) -> None:
        node.paused = not node.paused

    def toggle_pooler(self, node: Node, b: int, c: int) -> None:
        self.pooler = not self.pooler

    def toggle_astray(self, node: Node, b: int, c: int) -> None:
        self.astray = not self.astray

    def toggle_down(self, node: Node, b: int, c: int) -> None:
        self.down = not self.down

    def toggle_garbled(self, node: Node, b: int, c: int) -> None:
        """Nodes of a newer version announce changes in items that the others cannot read."""
        self.garbled = not self.garbled

    def crash(self, node: Node, b: int, c: int) -> None:
        """The server crashes and recovers; it may have lost what was not flushed."""
        lost = self.server.crash(b % 4, (0, 2, 20, 1000)[c % 4])
        self._break_all(lost)

    def seen_and_lost(self, node: Node, b: int, c: int) -> None:
        """A node shows a change that is then lost, and a caller keeps its token."""
        row = self.server.live(self._key(b), self.now)
        if row is not None and not node.paused and not self.down:
            self.plain_sql(node, b, 2)
            node.deliver(1000)
            self._at_once(node, self.get, b, c)
            (self.fail_over if c & 3 == 0 else self.crash)(node, 1, c)
            row = self.server.live(row.key, self.now)
            if c & 4 and row is not None:
                self.plain_sql(node, b, 2)  # the lost version number is given out again

    def rotated_and_lost(self, node: Node, b: int, c: int) -> None:
        """A node shows a rotation that is then lost; another one takes its place, and whoever saw the first comes."""
        row = self.server.live(self._key(b), self.now)
        if row is None or node.paused or self.down:
            return
        lost = self._rotate_elsewhere(row, c)
        node.deliver(1000)
        self._at_once(node, self.get, b, c)
        (self.fail_over if c & 16 else self.crash)(node, 1, c)
        if c & 32:  # the version that was lost is asked for before it is given out again
            self.keep_in_sync(node, b, c)
            self._at_once(node, self._open(lost), b, c)
        row = self.server.live(row.key, self.now)
        if row is not None:
            again = self._rotate_elsewhere(row, c >> 2)
            self._at_once(node, self._open(again), b, c)
            self._at_once(node, self.save, b, c)

    def _rotate_elsewhere(self, row: Commit, c: int) -> Token:
        """A node that is no part of this rotates a session, or gives it to somebody."""
        user = ((_USERS[c >> 1 & 1],), None)[c & 1]
        rotation = Rotation(self.draw(), 0 if user else self.rotation_grace, user)
        base = row.identity.generation
        self._advance(1)
        commit = self.transaction(None, lambda: self.update(row, origin=_PLAIN, rotation=rotation, base=base))
        self.give(Token(commit))
        return self.tokens[-1]

    def _open(self, token: Token) -> Callable[[Node, int, int], None]:
        return lambda node, b, c: node.open(token)

    def blink(self, node: Node, b: int, c: int) -> None:
        """The listener is away for a moment, in which something changes."""
        if not node.paused:
            node.drop_listener()
            self.plain_sql(node, b, 2)
            node.tend_listener()
            node.tend_listener()
            if c & 1:  # answers from before may be read after
                while node.operations:
                    node.operations[0].step()
            if c & 2:  # and a comparison may be made that is answered after the next time
                node.tend_listener()
                if node.operations and node.operations[-1].stage == 0:
                    node.operations[-1].step()

    def look(self, node: Node, b: int, c: int) -> None:
        """A read at once, and a beacon that is on its way back."""
        if node.identified and not node.paused:
            node.deliver(1000)
            node.look()
            for _ in range(2):
                if node.operations[-1].stage < 2 and not self.down:
                    node.operations[-1].step()
            if c & 1:  # a change right behind it, and the beacon alone comes back, late
                self._advance(1)
                self.plain_sql(node, b, 2)
                self._advance((b >> 2 & 7) * SECOND)
                node.deliver(1)

    def overtake(self, node: Node, b: int, c: int) -> None:
        """A transaction commits after one that began later; of the two events only the first arrives for a while."""
        if node.identified and not node.paused and not self.down:
            node.deliver(1000)
            begun = self.server, self.server.begin()
            self.plain_sql(node, b + 4, 2)
            self._advance(1)
            self.plain_sql(node, b, 2, begun=begun)
            self._advance((1 + c % 4) * SECOND)
            node.look()
            while node.operations and isinstance(node.operations[-1], Look):
                node.operations[-1].step()
            node.deliver(1)
            self._advance(self.max_staleness - SECOND)
            self._at_once(node, self.get, b, c)

    def fail_over(self, node: Node, b: int, c: int) -> None:
        """Another server takes over; listeners stay with the old one, which is alive and alone."""
        rows, accessed = self.server.rows, self.server.accessed
        lost = self.server.lose(b % 4)
        ahead = self.server.ahead
        self.server = self.make_server(rows, accessed, max(self.server.next_xid - (0, 3, 50, 1000)[c % 4], 1))
        self._set_clock(ahead + _STEPS[c % len(_STEPS)])
        self._break_all(lost)

    def step_clock(self, node: Node, b: int, c: int) -> None:
        """The server's clock is set, by a minute, once."""
        if not self.oracle.stepped:
            self._set_clock(self.server.ahead + (60 if b & 1 else -60) * SECOND, stepped=True)

    def _set_clock(self, ahead: int, *, stepped: bool = False) -> None:
        self.server.ahead = ahead
        self.oracle.clock_changed(ahead, stepped=stepped)

    def _break_all(self, lost: list[Commit]) -> None:
        self.oracle.crashed(lost, self.nodes)
        self.orphans.clear()
        self.slow.clear()
        for node in self.nodes:
            for operation in node.operations:
                if operation.stage < operation.stages - 1 or self.coin():
                    operation.broken = True

    # The end

    def settle(self) -> None:
        """All trouble ends. Every node must find its way back, and hold nothing but what the rows say (C5, C11)."""
        self.down = self.pooler = self.astray = self.garbled = False
        if self.trace is not None:
            self._note("settle")
        while self.orphans:
            self.orphans.pop().execute()
        for node in self.nodes:
            node.paused = False
            if node.listener is not None:
                node.listener.frozen = False
        for _ in range(8):  # long enough for the last proof before the trouble to wear off
            for node in self.nodes:
                self._work_off(node)
            self._advance(self.max_staleness // 3)
        for node in self.nodes:
            self._work_off(node)
            node.deliver(1000)
            expect(node.coherence.in_sync, f"C5: {node.name} does not get in sync again")
        for node in self.nodes:
            self._check_settled(node)

    def _work_off(self, node: Node) -> None:
        for _ in range(3):
            # Perhaps twice: then what was under way is answered when the node listens again.
            for _ in range(1 + self.coin()):
                node.tend_listener()
            while node.operations:
                node.operations[0].step()
            # Where many read, some have always read since the beacon that is about to arrive.
            self.server.complete(self.server.begin())
            self._at_once(node, self.refresh, 0, 0)
            self.oracle.check_cache(node)

    def _check_settled(self, node: Node) -> None:
        self._check_records(node)
        while batch := node.cache.take_accesses(100):
            for key, at in batch:
                self.server.accessed[key] = max(at, self.server.accessed.get(key, 0))
            node.cache.confirm_accesses(batch)
        for key, at in node.accesses.items():
            row = self.server.live(key, self.now)
            if row is not None:
                expect(
                    self.server.accessed.get(key, EPOCH) >= at - self.max_staleness // 2,
                    f"C11: {node.name} lost an access to {key[-1]}",
                )
        for key in self.keys:
            node.get(key)
        for token in self.tokens[-8:]:
            node.open(token)
        self._work_off(node)

    def _check_records(self, node: Node) -> None:
        keys, _ = node.cache.versions()
        for key in keys:
            self._check_record(node, key, node.inserted[key])

    def _check_record(self, node: Node, key: bytes, held: int) -> None:
        rows = self.oracle.timeline[key]
        announced = next((row.serial for row in reversed(rows) if row.announced), 0)
        expect(held >= announced, f"C5: {node.name} holds #{held}, the row is {rows[-1]}")
        expect(
            not self.oracle.commits[held].lost and not rows[-1].deleted,  # type: ignore[union-attr]
            f"C5: {node.name} holds #{held}, which is no more",
        )


def _under_way(world: World) -> list[Any]:
    return [*world.orphans, *(operation for node in world.nodes for operation in node.operations)]


def _matches(item: events.Item, row: Commit) -> bool:
    if isinstance(item, events.UserChanged):
        return row.user == item.user_id
    if isinstance(item, events.GroupChanged):
        return row.group == item.group_id
    return True


Action = Callable[[World, Node, int, int], None]

_ALWAYS: Final[tuple[tuple[int, Action], ...]] = (
    (8, World.pass_time),
    (6, World.pass_moment),
    (28, World.step),
    (14, World.finish),
    (8, World.tend),
    (18, World.keep_in_sync),
    (10, World.deliver),
    (8, World.deliver_all),
    (24, World.get),
    (8, World.get_at_once),
    (6, World.update_session),
    (4, World.update_at_once),
    (3, World.create_session),
    (4, World.begin_transaction),
    (3, World.other_transaction),
)
"""What every history is made of, by weight."""

_SOMETIMES: Final[tuple[tuple[tuple[int, Action], ...], ...]] = (
    ((10, World.refresh), (6, World.get_at_least)),
    ((6, World.update_checked), (6, World.update_quietly)),
    ((3, World.delete_session), (4, World.plain_sql), (1, World.step_clock)),
    ((6, World.wide_statement), (5, World.regroup), (2, World.end_what_was_moved)),
    ((6, World.list_user), (3, World.write_accesses)),
    ((6, World.break_operation), (4, World.run_orphan)),
    ((4, World.end_listener), (2, World.blink), (4, World.deliver_late)),
    ((4, World.freeze_listener), (3, World.get_slowly), (2, World.rotate_secret), (2, World.spoil_marker)),
    ((5, World.stop_or_continue),),
    ((3, World.toggle_pooler), (3, World.end_listener)),
    ((3, World.toggle_astray), (3, World.end_listener)),
    ((3, World.toggle_down), (2, World.toggle_garbled)),
    ((4, World.crash), (2, World.seen_and_lost), (2, World.flush_log)),
    ((4, World.fail_over), (2, World.flush_log)),
    ((6, World.get_at_least), (6, World.plain_sql)),
    ((12, World.get), (12, World.update_session)),
    ((12, World.get_by_token), (4, World.get_by_old_token), (6, World.rotate_at_once)),
    ((6, World.rotate), (4, World.bind), (8, World.save)),
    ((4, World.rotated_and_lost), (6, World.get_by_token)),
    ((8, World.get_by_old_token), (3, World.replace_session), (6, World.save_at_once)),
)
"""What a history may be made of as well: each has some of these, so that every two meet without all others about."""


_THEMES: Final[tuple[tuple[tuple[int, Action], ...], ...]] = (
    (  # one node, few slots: fills, writes and evictions of one session
        (30, World.step),
        (10, World.finish),
        (16, World.get),
        (8, World.refresh),
        (8, World.update_session),
        (8, World.update_quietly),
        (3, World.update_checked),
        (6, World.list_user),
        (4, World.plain_sql),
        (2, World.delete_session),
        (3, World.wide_statement),
        (6, World.deliver_all),
    ),
    (  # deletions of every kind
        (30, World.step),
        (10, World.finish),
        (16, World.get),
        (6, World.refresh),
        (6, World.delete_session),
        (8, World.wide_statement),
        (3, World.end_what_was_moved),
        (6, World.create_session),
        (4, World.plain_sql),
        (4, World.break_operation),
        (6, World.deliver_all),
        (3, World.keep_in_sync),
    ),
    (  # listeners come and go
        (30, World.step),
        (24, World.tend),
        (6, World.deliver_all),
        (6, World.end_listener),
        (6, World.blink),
        (8, World.get),
        (4, World.get_slowly),
        (8, World.plain_sql),
        (4, World.update_session),
        (4, World.deliver_late),
        (4, World.pass_time),
    ),
    (  # servers come and go
        (16, World.keep_in_sync),
        (10, World.finish),
        (10, World.step),
        (8, World.get),
        (16, World.get_at_once),
        (6, World.get_at_least),
        (5, World.update_session),
        (5, World.update_at_once),
        (8, World.plain_sql),
        (6, World.pass_time),
        (4, World.fail_over),
        (3, World.crash),
        (6, World.seen_and_lost),
        (2, World.list_user),
        (2, World.deliver_late),
    ),
    (  # versions carried from node to node
        (24, World.step),
        (8, World.finish),
        (14, World.get),
        (14, World.get_at_least),
        (4, World.refresh),
        (8, World.update_at_once),
        (6, World.update_checked),
        (4, World.update_quietly),
        (3, World.deliver),
        (2, World.keep_in_sync),
        (2, World.seen_and_lost),
    ),
    (  # the database does not answer, memory may
        (10, World.keep_in_sync),
        (10, World.finish),
        (10, World.get),
        (20, World.get_at_once),
        (12, World.plain_sql),
        (4, World.update_session),
        (4, World.pass_time),
        (4, World.pass_long),
        (8, World.toggle_down),
        (4, World.end_listener),
        (3, World.fail_over),
        (4, World.seen_and_lost),
    ),
    (  # proofs late, lost, and sent by a stopped process
        (12, World.step),
        (8, World.tend),
        (8, World.look),
        (4, World.overtake),
        (6, World.begin_transaction),
        (4, World.other_transaction),
        (8, World.keep_in_sync),
        (8, World.deliver),
        (4, World.deliver_all),
        (10, World.get),
        (16, World.get_at_once),
        (10, World.plain_sql),
        (14, World.pass_time),
        (4, World.freeze_listener),
        (3, World.stop_or_continue),
    ),
    (  # tokens that are rotated, and shown to every node
        (16, World.step),
        (6, World.finish),
        (8, World.get_at_once),
        (16, World.get_by_token_at_once),
        (8, World.get_by_token),
        (14, World.rotate_at_once),
        (6, World.rotate),
        (3, World.bind),
        (4, World.save_at_once),
        (4, World.update_at_once),
        (8, World.keep_in_sync),
        (6, World.deliver),
        (8, World.pass_time),
        (2, World.end_listener),
        (2, World.replace_session),
        (2, World.freeze_listener),
    ),
    (  # sessions that change hands, of which others hold what they were
        (24, World.step),
        (8, World.finish),
        (12, World.get_at_once),
        (12, World.get_by_token_at_once),
        (14, World.save),
        (8, World.bind),
        (4, World.rotate),
        (4, World.replace_session),
        (2, World.plain_sql),
        (2, World.delete_session),
        (6, World.deliver),
        (3, World.keep_in_sync),
        (2, World.break_operation),
        (3, World.rotated_and_lost),
        (1, World.crash),
        (1, World.fail_over),
    ),
)
"""Other histories are about one thing, and about nothing else."""


@functools.cache
def actions(mask: int, theme: int) -> tuple[Action, ...]:
    """What each value of an action's byte means in a history of this theme, or with these kinds of trouble."""
    chosen = [*_ALWAYS]
    if 0 <= theme < len(_THEMES):
        chosen = [*_THEMES[theme]]
    else:
        for number, group in enumerate(_SOMETIMES):
            if mask >> number & 1:
                chosen.extend(group)
    weighted = [action for weight, action in chosen for _ in range(weight)]
    return tuple(weighted[number * len(weighted) // 256] for number in range(256))
