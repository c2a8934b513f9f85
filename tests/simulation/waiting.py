"""Who ends something waits for the others (C13): nodes register, acknowledge, and fall silent, in a world like any.

Once a wait is confirmed, no call that begins later, on any node, gives anything older than what had been committed and
announced when the wait began.
"""

from __future__ import annotations

import functools
from typing import Any, Final

from pgsession._protocol import coherence
from pgsession._protocol.acknowledgements import SIGN_OF_LIFE, SILENCE, Acknowledgements, Asked
from tests.simulation.model import Commit, Server
from tests.simulation.node import Compare, Look, Node, Operation
from tests.simulation.oracle import SECOND, Call, Violation
from tests.simulation.world import World, actions

_BEFORE_ALL: Final = 10**12  # microseconds: the age of the incarnation that the tables were made with


class Row:
    """A node's row in `session_nodes`."""

    __slots__ = ("acknowledged", "registered_at", "serves_for")

    def __init__(self, serves_for: int, at: int) -> None:
        self.serves_for = serves_for
        self.registered_at = at
        self.acknowledged = 0


class WaitingServer(Server):
    """A server with the table of the nodes."""

    def __init__(self, world: WaitingWorld, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.world = world
        self.nodes: dict[str, Row] = {}
        self.began = 0

    def identify(self) -> str:
        if self.incarnation is None:
            self.began = self.world.now if self.world.made else -_BEFORE_ALL
        return super().identify()

    def crash(self, count: int, ids: int) -> list[Commit]:
        self.nodes.clear()
        return super().crash(count, ids)


class Registering(Operation):
    """The word of a node that it is there."""

    node: WaitingNode
    server: WaitingServer

    def __init__(self, node: WaitingNode) -> None:
        super().__init__(node)
        self.at = node.clock.now()

    def execute(self) -> None:
        row = self.server.nodes.setdefault(self.node.name, Row(self.node.serves_for, 0))
        row.registered_at = self.node.world.now

    def answer(self) -> None:
        node = self.node
        if self.is_elsewhere(self.asked):
            return
        node.sign_due = self.at + SIGN_OF_LIFE * SECOND
        node.entered_row = True
        if not node.coherence.registered(self.at):
            node.drop_listener()

    def fail(self, executed: bool) -> None:
        self.node.sign_due = self.node.clock.now() + SECOND


class Acknowledging(Operation):
    """The word of a node that it has applied what somebody waits for."""

    node: WaitingNode
    server: WaitingServer

    def __init__(self, node: WaitingNode, applied: Any) -> None:
        super().__init__(node)
        self.applied = applied

    def execute(self) -> None:
        row = self.server.nodes.get(self.node.name)
        if row is not None and self.server.incarnation == self.applied.incarnation:
            row.acknowledged = max(row.acknowledged, self.applied.xid)

    def answer(self) -> None:
        self.is_elsewhere(self.asked)


class WaitingNode(Node):
    """A node that registers and acknowledges."""

    world: WaitingWorld

    def __init__(self, world: WaitingWorld, number: int, module: Any) -> None:
        super().__init__(world, number, module)
        self.serves_for = world.max_staleness + world.stale_if_error
        self.sign_due = 0
        self.entered_row = False
        self.acknowledged: Any = None

    def tend_listener(self) -> None:
        if self.clock.now() >= self.sign_due and not self._under_way(Registering):
            self.operations.append(Registering(self))
        connected = self.listener is not None and not self.listener.dead
        if connected and not self.identified and not self.entered_row:
            return
        super().tend_listener()
        self._acknowledge()

    def drop_listener(self) -> None:
        super().drop_listener()
        self.entered_row = False
        self.sign_due = 0

    def _under_way(self, kind: type[Operation]) -> bool:
        return any(isinstance(operation, kind) for operation in self.operations)

    def _hear(self, listener: Any, *, again: bool) -> None:
        super()._hear(listener, again=again)
        self._acknowledge()

    def _acknowledge(self) -> None:
        applied = self.coherence.applied
        if applied is not None and applied != self.acknowledged:
            self.acknowledged = applied
            self.operations.append(Acknowledging(self, applied))

    def finish(self, call: Call, record: Any, serial: int, source: str, **options: Any) -> None:
        if record is not None:
            self.world.check_confirmed(call, self.world.oracle.commit_of(record).serial, source)
        super().finish(call, record, serial, source, **options)


class Wait:
    """What `AsyncConfirmation` does, cut where it may wait."""

    def __init__(self, world: WaitingWorld, node: WaitingNode) -> None:
        self.world = world
        self.node = node
        self.floors = {
            key: next((commit for commit in reversed(commits) if commit.announced), None)
            for key, commits in world.oracle.timeline.items()
        }
        self.acknowledgements = Acknowledgements(node.clock.now(), node.serves_for)
        self.answer: Any = None

    def step(self) -> None:
        """Ask, look, or take the answer."""
        if self.answer is not None:
            self.answer()
            self.answer = None
        elif self.acknowledgements.waited_for is None or self.world.coin():
            if not self.world.down:
                self._ask()
        elif not self.world.down:
            self._look(*self.acknowledgements.waited_for)
        if self.acknowledgements.confirmed(self.node.clock.now()):
            self.world.waits.remove(self)
            self.world.confirm(self.floors)

    def _ask(self) -> None:
        world, server = self.world, self.world.server
        xid = server.begin()
        incarnation = server.identify()
        server.notify(self.node.name, xid, "W")
        server.complete(xid)
        serving = {
            name: row.serves_for
            for name, row in server.nodes.items()
            if row.registered_at + row.serves_for >= world.now - SILENCE * SECOND
        }
        asked = Asked(incarnation, xid, world.now - server.began, serving)
        self.answer = lambda: self.acknowledgements.asked(self.node.clock.now(), asked)

    def _look(self, nodes: list[str], xid: int) -> None:
        server = self.world.server
        silent = [name for name in nodes if name in server.nodes and server.nodes[name].acknowledged < xid]
        self.answer = functools.partial(self.acknowledgements.looked, server.incarnation, silent)


class WaitingWorld(World):
    """A world in which some wait."""

    make_node = WaitingNode
    nodes: list[WaitingNode]  # type: ignore[assignment]
    server: WaitingServer

    def __init__(self, history: bytes, *, module: Any = coherence, trace: bool = False) -> None:
        self.now = 0
        self.made = False
        self.waits: list[Wait] = []
        self.confirmed: list[tuple[int, dict[bytes, Commit | None]]] = []
        super().__init__(
            history,
            module=module,
            server=functools.partial(WaitingServer, self),  # type: ignore[arg-type]
            trace=trace,
        )
        self.made = True
        for node in self.nodes:
            self.keep_in_sync(node, 0, 0)
        self.actions = waiting_actions(*self.choice)

    def check_confirmed(self, call: Call, serial: int, source: str) -> None:
        """C13."""
        for at, floors in self.confirmed:
            floor = floors.get(call.key)
            if at < call.began and floor is not None and not floor.lost and serial < floor.serial:
                shown = self.oracle.commits[serial]
                raise Violation(f"C13: {source} gave {call.node.name} {shown}, though all know of {floor}")

    def confirm(self, floors: dict[bytes, Commit | None]) -> None:
        self.confirmed.append((self.now, floors))
        del self.confirmed[:-8]

    # What happens here beside all else

    def keep_in_sync(self, node: Node, b: int, c: int) -> None:
        for _ in range(0 if node.paused else 6):
            node.tend_listener()
            self._work(node, Look | Compare | Registering)
        self.deliver_all(node, b, c)
        if c & 3:
            self._work(node, Acknowledging)

    def _work(self, node: Node, kinds: Any) -> None:
        for operation in [o for o in node.operations if isinstance(o, kinds)]:
            while operation in node.operations:
                operation.step()

    def begin_to_wait(self, node: Node, b: int, c: int) -> None:
        if len(self.waits) < 3 and not node.paused:
            assert isinstance(node, WaitingNode)
            self.waits.append(Wait(self, node))

    def end_and_wait(self, node: Node, b: int, c: int) -> None:
        """As it is used: everything is fine, but perhaps one node."""
        self.plain_sql(node, b, 4 * (c & 1) + 2 * (c & 2))
        self.begin_to_wait(node, b, c)
        for _ in range(4 + (c & 4)):
            self.go_on_waiting(node, 0, 0)
            other = self.nodes[(b >> 2) % len(self.nodes)]
            if not other.paused:
                other.deliver(1000)
                self._work(other, Acknowledging)
            self._advance(1)

    def go_on_waiting(self, node: Node, b: int, c: int) -> None:
        for wait in list(self.waits):
            wait.step()

    def read_everywhere(self, node: Node, b: int, c: int) -> None:
        for each in self.nodes:
            if not each.paused:
                self._at_once(each, self.get, b, c)

    def fall_silent(self, node: Node, b: int, c: int) -> None:
        """A node hears and reads, but its words that it is there do not get through; a cleanup comes by."""
        assert isinstance(node, WaitingNode)
        for _ in range(20 + b % 30):
            for operation in [o for o in node.operations if isinstance(o, Registering)]:
                operation.broken = True
                operation.step()
            for each in self.nodes:
                if not each.paused:
                    each.sign_due = each.clock.now() + SECOND if each is node else each.sign_due
                    self.keep_in_sync(each, b, 1)
            self._advance(8 * SECOND)
        self.clean_up(node, b, c)
        if not node.paused:
            self._at_once(node, self.get, b, c)
        if c & 2:
            self._end_unheard_by(node, b, c)
        if c & 1 and not node.paused:
            node.sign_due = 0
            node.operations.append(Registering(node))
            self._work(node, Registering)
            self._at_once(node, self.get, b, c)

    def _end_unheard_by(self, node: Node, b: int, c: int) -> None:
        """Others end something, wait, and are told by all but this node that they know."""
        self.plain_sql(node, b, c & 4)
        self.begin_to_wait(self.nodes[c % len(self.nodes)], b, c)
        for _ in range(4):
            self.go_on_waiting(node, 0, 0)
            for other in self.nodes:
                if other is not node and not other.paused:
                    other.deliver(1000)
                    self._work(other, Acknowledging)
            self._advance(1)

    def end_while_away(self, node: Node, b: int, c: int) -> None:
        """A node's listener is away while something is ended; it listens again, and has compared nothing yet."""
        if node.paused or self.down:
            return
        self._at_once(node, self.get, b, c)
        node.drop_listener()
        self.plain_sql(node, b, c & 4)
        for _ in range(3):
            node.tend_listener()
            self._work(node, Registering)
        self.begin_to_wait(self.nodes[c % len(self.nodes)], b, c)
        for _ in range(4):
            self.go_on_waiting(node, 0, 0)
            for each in self.nodes:
                if not each.paused:
                    each.deliver(1000)
                    self._work(each, Acknowledging)
            self._advance(1)
        if c & 1:
            self.down = True
            for operation in node.operations:
                operation.broken = True
            self._at_once(node, self.get, b, c)
            self.down = False

    def clean_up(self, node: Node, b: int, c: int) -> None:
        for name, row in list(self.server.nodes.items()):
            if row.registered_at + row.serves_for < self.now - SILENCE * SECOND:
                del self.server.nodes[name]


_WAITING: Final = (
    (10, WaitingWorld.begin_to_wait),
    (24, WaitingWorld.end_and_wait),
    (24, WaitingWorld.go_on_waiting),
    (16, WaitingWorld.read_everywhere),
    (6, WaitingWorld.fall_silent),
    (4, WaitingWorld.end_while_away),
    (2, WaitingWorld.clean_up),
)


@functools.cache
def waiting_actions(mask: int, theme: int) -> tuple[Any, ...]:
    """What the other worlds have, and half of the time somebody waits."""
    weighted = [action for weight, action in _WAITING for _ in range(weight)]
    own = [weighted[number * len(weighted) // 128] for number in range(128)]
    inherited = [getattr(WaitingWorld, action.__name__) for action in actions(mask, theme)[::2]]
    return (*own, *inherited)
