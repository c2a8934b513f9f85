"""Processes of one host that share a cache: real arenas, to which each attaches a real `Coherence` and cache.

Who leads is decided by the real `Watch`, looked at when the history says so, by a virtual clock; what the shell of a
host does about it (`_async/host.py`) is modelled here, one step at a time, so that whoever leads, follows, stands or
goes over to another arena may die between any two of them.

Processes that share an arena are one node (C2): what one has returned while it was in there binds every call of the
others that is in there from its begin to its end. A process is bound by what it has returned wherever it was.
"""

from __future__ import annotations

import functools
import os
import threading
from pathlib import Path
from typing import Any, Final

from pgsession._core.arena import Arena
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._host.place import Opened
from pgsession._host.watch import BEAT, Watch
from pgsession._protocol import coherence
from tests.simulation.model import EPOCH, Commit
from tests.simulation.node import LOGGER, Look, Node, Operation, Read, Wide, Write
from tests.simulation.oracle import SECOND, Call, Oracle, Violation
from tests.simulation.world import World, actions

RING: Final = 16_384  # events
_START: Final = 10**9
_BEAT: Final = int(BEAT * SECOND)


class Memory:
    """One arena in a file of its own, and what the oracle knows of those who share it."""

    def __init__(self) -> None:
        self._file = os.memfd_create("arena")
        os.posix_fallocate(self._file, 0, Arena.smallest())
        self.arena = Arena.create(self._file, Arena.smallest())
        """Nobody's view of it."""
        self.cache = Cache(1, Clock(manual=0), access_interval=1, lifetime=SECOND, max_attribute_length=1)
        """That of somebody who only has the lock, or has and tells what concerns nobody."""
        self.cache.share(self.arena)
        self.cache.tie()
        self.offices: dict[int, HostNode] = {}
        """Who has the office of a leader's number: a dead process has none."""
        self.returned: dict[bytes, list[int]] = {}
        self.arrived: dict[bytes, list[int]] = {}
        self.compared = False

    def __del__(self) -> None:
        os.close(self._file)

    def attach(self) -> Arena:
        return Arena.attach(self._file)

    def crowd_out(self, keys: set[bytes]) -> None:
        """Have sessions leave the arena for want of room, of which nobody is told: who has one keeps it."""
        strangers = []
        self.cache.begin()
        while keys & set(self.cache.identities()[0]):
            strangers.append(len(strangers).to_bytes(16, "big"))
            if not self.cache.put(Record(strangers[-1], 1, None, None, 0, 0, 0, EPOCH + 10**15, None)):
                break  # nothing enters: there is no leader who hears
        for stranger in strangers:
            self.cache.discard(stranger)
        self.cache.end()


class _Offices:
    """What one process has of the offices."""

    def __init__(self, node: HostNode, memory: Memory) -> None:
        self._node = node
        self._memory = memory

    def take_lead(self, number: int) -> bool:
        return self._memory.offices.setdefault(number, self._node) is self._node

    def has_leader(self, number: int) -> bool:
        return number in self._memory.offices

    def give_up_lead(self, number: int) -> None:
        self._memory.offices.pop(number, None)


class _View:
    """A process's arena, in which the beat is of the virtual clock."""

    def __init__(self, arena: Arena, clock: Clock) -> None:
        self._arena = arena
        self._clock = clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._arena, name)

    def take(self, expected: int, lost: bool) -> int:
        number = self._arena.take(expected, lost)
        if number:
            self._arena.beat(number, self._clock.now())
        return number

    def beat(self, number: int) -> bool:
        return self._arena.beat(number, self._clock.now())


class Tie(Operation):
    """A read by which a process learns whether it reads the server that the arena is about (S8)."""

    def execute(self) -> None:
        pass

    def answer(self) -> None:
        if not self.is_elsewhere(self.asked):
            self.node.disturb(None)  # an epoch may begin with it, which no other one is told of


class HostNode(Node):
    """One process of a host."""

    world: HostWorld
    memory: Memory

    def __init__(self, world: HostWorld, number: int, module: Any) -> None:
        self.own_returned: dict[bytes, list[int]] = {}
        self.own_arrived: dict[bytes, list[int]] = {}
        super().__init__(world, number, module)
        self.clock.offset = EPOCH - _START + (number % 3 - 1) * 2_000_000
        self.dead = self.leaving = False
        self.join()

    def start_of_time(self, number: int) -> int:
        """The processes of a host have one."""
        return _START + self.world.now

    # What the oracle knows of it

    @property
    def place(self) -> Memory | None:
        """What it shares at the moment."""
        return self.memory if self.cache.shared is not None else None

    @property
    def may_answer(self) -> bool:
        return self.place is not None and self.memory.compared

    @property
    def arrived(self) -> dict[bytes, list[int]]:  # type: ignore[override]
        return self.own_arrived if self.place is None else self.memory.arrived

    @arrived.setter
    def arrived(self, value: dict[bytes, list[int]]) -> None:
        self.own_arrived = value

    @property
    def heard(self) -> int:  # type: ignore[override]
        """It may go by what a leader knew of the clock long ago."""
        return 0

    @heard.setter
    def heard(self, value: int) -> None:
        pass

    @property
    def compared(self) -> bool:  # type: ignore[override]
        return self._compared

    @compared.setter
    def compared(self, value: bool) -> None:
        self._compared = value
        if value and self.place is not None:
            self.memory.compared = True
            self.disturb(None)  # what differed is told in the ring

    def records(self) -> list[Record]:
        return self.cache.sample(1000)

    def held_serial(self, key: bytes) -> int:
        return next(self.serial_of(record) for record in self.records() if record.key == key)

    def serial_of(self, record: Record) -> int:
        return self.world.oracle.commit_of(record).serial

    def heard_from(self, server: Any, asked: int, executed: int) -> None:
        pass

    def disturb(self, key: bytes | None) -> None:
        """What one process of a host knows the others know, too."""
        Node.disturb(self, key)
        for node in self.world.others(self):
            Node.disturb(node, key)

    def entered(self, operation: Read | Write, serial: int) -> None:
        place = self.place
        heard = place is not None and place.arena.incarnation == operation.incarnation
        if not heard:
            raise Violation(f"C6: {self.name} keeps #{serial} of a server that its host does not hear")

    epoch = 0
    """When it last began to read."""
    placed: Memory | None = None
    """Where it was when it last read."""

    def load(self, call: Call) -> None:
        if self.place is not self.placed:  # it has noticed that its arena was given up
            self.placed = self.place
            Node.disturb(self, None)
        super().load(call)

    # The part in the host

    def join(self) -> None:
        """Share the arena that the host has now."""
        self.memory = self.world.memory
        self.arena = self.memory.attach()
        self.disturb(None)
        self.coherence.share(self.arena, self.world.max_staleness + self.world.stale_if_error)
        view: Any = _View(self.arena, self.clock)
        offices: Any = _Offices(self, self.memory)
        self.watch = Watch(
            Opened(view, offices, Path()),
            self.cache,
            now=self.clock.now,
            on_news=int,
            hear=self.coherence.hear,
            on_locks=len,
            logger=LOGGER,
        )

    def tend_listener(self) -> None:
        """The next thing that the shell of a host has to do; what a leader's does, too."""
        watch = self.watch
        if self.arena.poisoned:
            self.go_over()
            return
        watch._beat()
        self.coherence.hear()
        if watch.number:
            if self.coherence.number != watch.number:
                self.stop_listening()
                self.coherence.lead(watch.number)
                self.disturb(None)
            if self.leaving and self.leave():
                return
            self.listen()
        elif watch.candidate:
            if not self.stands:
                self.stop_listening()
                self.coherence.stand()
                self.disturb(None)
                self.stands = True
            self.listen()
            if self.coherence.proved and watch.candidate and watch.succeed():
                self.coherence.lead(watch.number)
                self.disturb(None)
                self.stands = False
        else:
            if self.listener is not None or self.stands:
                self.coherence.follow()
                self.disturb(None)
                self.stop_listening()
            elif self.leaving:
                self.end()
            elif not self.cache.tied and not any(isinstance(o, Tie) for o in self.operations):
                self.operations.append(Tie(self))

    def listen(self) -> None:
        """What the synchronizer does of a process that leads or stands."""
        if self.identified and self.coherence.epoch != self.listened_in:
            self.drop_listener()  # something else ended the epoch
            return
        identified = self.identified
        super().tend_listener()
        if self.identified and not identified:
            self.listened_in = self.coherence.epoch

    listened_in = 0
    stands = False
    """Whether it is a candidate, or was one until just now."""

    def go_over(self) -> None:
        """Have no part any more in an arena that was given up, and then in the next one."""
        if self.coherence.shared and self.world.coin():
            self.coherence.unshare()
            return
        self.watch.resign()
        self.coherence.unshare()
        if self.world.memory.arena.poisoned:
            self.world.memory = Memory()
        self.join()

    def leave(self) -> bool:
        """End in order: another process is ready first; True: it was, and this one has ended."""
        self.arena.leave_lead(self.watch.number)
        return False

    def end(self) -> None:
        """Have no part any more, in order."""
        self.stop_listening()
        self.watch.resign()
        self.coherence.unshare()
        self.world.replace(self)

    def stop_listening(self) -> None:
        if self.listener is not None:
            Node.drop_listener(self)
        self.stands = False

    def drop_listener(self) -> None:
        """Another process's listener is not this one's to connect again."""
        if self.listener is not None or self.coherence.number or self.stands:
            super().drop_listener()
        else:
            Node.disturb(self, None)

    def refused(self) -> None:
        self.drop_listener()

    def die(self) -> None:
        """End at once; the server goes on with what it has."""
        self.dead = True
        for number in [number for number, node in self.memory.offices.items() if node is self]:
            del self.memory.offices[number]
        for operation in self.operations:
            if isinstance(operation, Look):
                if operation.xid and operation.stage == 1:
                    operation.server.complete(operation.xid)
                operation._unlock()
            elif isinstance(operation, Write) and operation.stage == 0:
                if self.world.coin():
                    self.world.orphans.append(operation)
                elif operation.begun is not None:
                    server, xid = operation.begun
                    server.complete(xid)
        if self.listener is not None and self.listener in self.listener.server.connections:
            self.listener.server.connections.remove(self.listener)
        self.world.replace(self)


class HostOracle(Oracle):
    """Knows that processes which share an arena are one node."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.memories: list[Memory] = []
        self.checked = 0
        """How many calls were held to what another process had returned."""

    def begin(self, node: Node, key: bytes) -> Call:
        assert isinstance(node, HostNode)
        call = HostCall(node, key, self.now, super().begin(node, key).floor)
        place = call.place = node.place
        if place is not None:
            call.floor_there = max(place.returned.get(key, ()), default=0)
        return call

    def finish(self, call: Call, record: Record | None, serial: int, source: str) -> Commit | None:
        assert isinstance(call, HostCall) and isinstance(call.node, HostNode)
        commit = super().finish(call, record, serial, source)
        serial = serial if commit is None else commit.serial
        if call.place is not None and call.place is call.node.place:
            self.checked += call.floor_there > call.floor
            if serial < self._surviving(call.floor_there):
                shown = f"{source} gave {call.node.name} {self.commits[serial] or 'nothing'}"
                raise Violation(f"C2: {shown}, after its host {self.commits[call.floor_there]}")
        return commit

    def returned(self, node: Node, key: bytes, serial: int) -> None:
        assert isinstance(node, HostNode)
        super().returned(node, key, serial)
        place = node.place
        if place is not None and serial and not self._commit(serial).lost:
            serials = place.returned.setdefault(key, [])
            if not serials or serial > serials[-1]:
                serials.append(serial)

    def crashed(self, lost: list[Commit], nodes: list[Any]) -> None:
        super().crashed(lost, [*nodes, *self.memories])

    def check_cache(self, node: Node) -> None:
        assert isinstance(node, HostNode)
        if node.dead:
            return
        assert node.cache.in_sync_until >= 0  # it reads the ring
        node.absences.check()
        for record in node.records():
            self._check_held(node, record.key, self.commit_of(record).serial)
        for key, serial in self.in_arena(node):
            self._check_held(node, key, serial)

    def in_arena(self, node: HostNode) -> list[tuple[bytes, int]]:
        """Return what the arena of a process holds, as keys and serial numbers of commits."""
        if node.place is None:
            return []
        shown: dict[tuple[bytes, int, int], int] = {}
        for row in sorted(filter(None, self.commits), key=lambda row: not row.lost):
            if not row.deleted:
                shown[row.key, row.version, row.identity.generation] = row.serial
        return [(each[0], shown[each]) for each in zip(*node.cache.identities(), strict=True)]

    def check_lead(self, node: Node, key: bytes) -> None:
        assert isinstance(node, HostNode)
        if node.epoch != node.coherence.epoch:  # it has just heard that what it had under way is outdated
            node.epoch = node.coherence.epoch
            Node.disturb(node, None)
        super().check_lead(node, key)

    def _check_held(self, node: HostNode, key: bytes, serial: int) -> None:
        known = node.arrived.get(key)
        if known and serial < known[-1]:
            raise Violation(f"C1: {node.name} holds {self.commits[serial]}, though it heard of {known[-1]}")


class HostCall(Call):
    """A read, and where its process was when it began."""

    __slots__ = ("floor_there", "place")

    def __init__(self, node: Node, key: bytes, began: int, floor: int) -> None:
        super().__init__(node, key, began, floor)
        self.place: Memory | None = None
        self.floor_there = 0


class HostWorld(World):
    """A host, and a database that others change."""

    make_node = HostNode
    make_oracle = HostOracle
    counts = (2, 2, 3, 4)
    option = " --hosts"
    oracle: HostOracle
    nodes: list[HostNode]  # type: ignore[assignment]

    def __init__(self, history: bytes, *, module: Any = coherence, trace: bool = False, **more: Any) -> None:
        self._memory: Memory | None = None
        self.nodes = []
        self.module = module
        self.born = 8
        self.happened: dict[str, int] = {}
        super().__init__(history, module=module, trace=trace, **more)
        self.actions = host_actions(*self.choice)

    @property
    def memory(self) -> Memory:
        """What the host shares now."""
        if self._memory is None:
            self.memory = Memory()
        assert self._memory is not None
        return self._memory

    @memory.setter
    def memory(self, memory: Memory) -> None:
        self._memory = memory
        longest = self.max_staleness + self.stale_if_error
        memory.arena.set_registered(longest, longest, 1)
        self.oracle.memories.append(memory)

    def replace(self, node: HostNode) -> None:
        """Another process comes for one that is gone."""
        if node in self.nodes:
            node.dead = True
            self.born += 1
            self.nodes[self.nodes.index(node)] = HostNode(self, self.born, self.module)

    def others(self, node: HostNode) -> list[HostNode]:
        """Return those who share an arena with this process."""
        place = node.place
        return [each for each in self.nodes if each is not node and place is not None and each.place is place]

    def _advance(self, amount: int) -> None:
        super()._advance(amount)
        if amount >= _BEAT:  # the watch of a leader that is not stopped
            for node in self.nodes:
                number = node.watch.number
                if number and not node.paused:
                    node.arena.beat(number, node.clock.now())

    def _note_happened(self, what: str) -> None:
        self.happened[what] = self.happened.get(what, 0) + 1

    # What happens to hosts

    def tend_all(self, node: HostNode, b: int, c: int) -> None:
        """Every process does the next thing."""
        for each in list(self.nodes):
            if not each.paused:
                each.tend_listener()

    def tend_one(self, node: HostNode, b: int, c: int) -> None:
        """One does one thing, and its operations come to their end, mostly."""
        if not node.paused:
            node.tend_listener()
            if c & 1:
                self._finish(node, Tie)

    def _finish(self, node: HostNode, *kinds: type[Operation]) -> None:
        for operation in [o for o in node.operations if isinstance(o, kinds)]:
            while operation in node.operations:
                operation.step()

    def read_everywhere(self, node: HostNode, b: int, c: int) -> None:
        """One session, by one process after the other."""
        for each in list(self.nodes):
            if not each.paused:
                self._at_once(each, self.get, b, c)
                self._advance(1)

    def read_twice(self, node: HostNode, b: int, c: int) -> None:
        """A process reads what another one has just read from the database, or written."""
        other = self.nodes[(c >> 1) % len(self.nodes)]
        if not (node.paused or other.paused):
            self._at_once(node, self.refresh if c & 1 else self.update_session, b, c)
            self._advance(1)
            self._at_once(other, self.get, b, c)

    def kill(self, node: HostNode, b: int, c: int) -> None:
        self._note_happened("killed")
        node.die()

    def kill_leader(self, node: HostNode, b: int, c: int) -> None:
        """A leader dies; what it has in its connection nobody has heard."""
        for leader in [each for each in self.nodes if each.watch.number]:
            self._note_happened("leaders killed")
            if c & 1:
                self.plain_sql(leader, b, 2)
            if c & 6:
                leader.deliver(c >> 3 & 3)
            leader.die()
        if c & 8:
            for each in list(self.nodes):
                self._at_once(each, self.get, b, c)
                self._advance(1)

    def succession(self, node: HostNode, b: int, c: int) -> None:
        """The leader has not heard of a change when another one follows, who hears and reads, and compares late."""
        leaders = [
            each for each in self.nodes if each.watch.number and each.listener is not None and not each.paused
        ]
        if self.down or not leaders:
            return
        self._note_happened("succession")
        leader = leaders[0]
        self.read_everywhere(node, b, c)
        if c & 2:
            self.crowd_out()
        if c & 1 and leader.listener is not None:
            leader.listener.frozen = leader.leaving = True
            leader.tend_listener()
            self.plain_sql(leader, b, 2)
        elif not leader.dead:
            self.plain_sql(leader, b, 2)
            leader.die()
        for _ in range(4):
            for each in [each for each in self.nodes if not each.paused]:
                for _ in range(3):
                    each.tend_listener()
                    self._finish(each, Look, Tie)
                each.deliver(1000)
            self._advance(3 * SECOND)
        self.read_everywhere(node, b, c)

    def kill_inside(self, node: HostNode, b: int, c: int) -> None:
        """A process dies with the lock of the arena: all of it is emptied, and every place in the ring overrun."""
        if node.place is not None and not node.arena.poisoned:
            self._note_happened("killed inside")
            thread = threading.Thread(target=node.cache.begin)
            thread.start()
            thread.join()
            node.memory.cache.begin()
            node.memory.cache.end()
            node.disturb(None)
            node.die()

    def leave(self, node: HostNode, b: int, c: int) -> None:
        """A process ends in order; a leader once another one is ready."""
        if not node.paused:
            self._note_happened("left")
            node.leaving = True
            for _ in range(b & 7):
                self.tend_all(node, b, c)
                for each in list(self.nodes):
                    self._work_beside(each)
                    each.deliver(1000)

    def _work_beside(self, node: HostNode) -> None:
        for operation in list(node.operations):
            if not isinstance(operation, Read | Write | Wide):
                while operation in node.operations:
                    operation.step()

    def stop_leader(self, node: HostNode, b: int, c: int) -> None:
        """A leader stands still for so long that another one leads, and goes on later."""
        for leader in [each for each in self.nodes if each.watch.number and not each.paused]:
            self._note_happened("leaders stopped")
            leader.paused = True
            self._advance((2 + b % 3) * SECOND)
            for each in list(self.nodes):
                if not each.paused:
                    for _ in range(c % 7):
                        self.keep_in_sync(each, b, c)
            leader.paused = c & 8 != 0
            leader.deliver(3)

    def give_up(self, node: HostNode, b: int, c: int) -> None:
        """A process was stopped in the arena: all go over to another one, each at its own time."""
        self._note_happened("given up")
        self.memory.arena.poison()
        if c & 1:
            for each in list(self.nodes)[: 1 + b % 3]:
                if not each.paused:
                    each.tend_listener()
                    each.tend_listener()

    def apart(self, node: HostNode, b: int, c: int) -> None:
        """An arena is given up; one process reads what the next arena has not heard of, and then takes part in it."""
        if node.paused or self.down or len(self.nodes) < 2:
            return
        self._note_happened("apart")
        self.memory.arena.poison()
        for each in self.nodes:
            if each is not node and not each.paused:
                for _ in range(4):
                    self.keep_in_sync(each, b, c)
                self._at_once(each, self.get, b, c)
        self.plain_sql(node, b, 2)
        self._advance(1)
        self._at_once(node, self.get, b, c)
        self._advance(1)
        for _ in range(3 + (c & 3)):
            node.tend_listener()
            self._finish(node, Tie)
        self.down = c & 8 != 0
        self._at_once(node, self.get, b, c)
        self.down = False

    def overlap(self, node: HostNode, b: int, c: int) -> None:
        """What one process reads is outdated by another before the answer is here, and perhaps waited for since."""
        other = self.nodes[(c >> 3) % len(self.nodes)]
        if node.paused or other.paused or self.down:
            return
        kind = (c >> 1) % 5
        if kind == 4:
            self.crowd_out()
        self.refresh(node, b, c)
        read = node.operations[-1]
        read.step()
        self._advance(1)
        if kind == 0:
            self._at_once(other, self.update_session, b, c)
        elif kind == 1:
            self._at_once(other, self.wide_statement, b >> 2, b)
        elif kind == 4:
            self._change_unheard(node, b)
        elif kind == 2:
            self.plain_sql(other, b, c >> 2)
            for each in self.nodes:
                if not each.paused:
                    each.deliver(1000)
        else:
            self._at_once(other, self.delete_session, b, c)
        self._advance(1)
        if c & 1:
            node.get(self._key(b))
        while read in node.operations:
            read.step()
        self.read_everywhere(node, b, c)
        if kind == 4:
            self._go_on_in_sync()
            self.read_everywhere(node, b, c)

    def crowd_out(self) -> None:
        """What is in the arena leaves it; what processes have of their own stays."""
        if not self.memory.arena.poisoned:
            self._note_happened("crowded out")
            self.memory.crowd_out(set(self.keys))

    def _go_on_in_sync(self) -> None:
        """So long that what nobody has heard of is outdated everywhere."""
        for _ in range(4):
            self._advance(3 * SECOND)
            for each in [each for each in self.nodes if not each.paused]:
                self.keep_in_sync(each, 0, 0)

    def _change_unheard(self, node: HostNode, b: int) -> None:
        """The leader's listener is away for a moment, in which something changes; then it has compared and proved."""
        for leader in [
            each for each in self.nodes if each.watch.number and each.listener is not None and not each.paused
        ]:
            leader.drop_listener()
            self.plain_sql(node, b, 2)
            for _ in range(3):
                self.keep_in_sync(leader, b, 0)

    def flood(self, node: HostNode, b: int, c: int) -> None:
        """One process is too slow for the ring: what it has missed the end of is replaced."""
        if node.place is None or node.arena.poisoned:
            return
        self._note_happened("overrun")
        self._at_once(node, self.get, b, c)
        if c & 1:  # or while it reads
            self.refresh(node, b, c)
            if node.operations and not self.down:
                node.operations[-1].step()
            self._advance(1)
        self.plain_sql(node, b, 2)
        for each in self.nodes:
            if not each.paused and each is not node:
                each.deliver(1000)
        cache = node.memory.cache
        if not self.memory.arena.poisoned:
            cache.begin()
            for _ in range(RING):
                cache.share_lock("x")
            cache.end()
            node.disturb(None)
        if node.operations and not node.paused:
            node.operations[-1].step()
        self._at_once(node, self.get, b, c)

    def look_while_busy(self, node: HostNode, b: int, c: int) -> None:
        """An answer comes, or the listener is lost, while another process has the lock of the arena."""
        if node.paused or node.place is None or node.arena.poisoned:
            return
        looks = [o for o in node.operations if isinstance(o, Look | Tie) and o.stage == o.stages - 1]
        self._note_happened("busy")
        node.memory.cache.begin()
        try:
            if looks and not looks[0].broken and looks[0].incarnation == node.memory.arena.incarnation:
                looks[0].step()
            elif node.listener is not None:
                node.coherence.on_lost()
        finally:
            node.memory.cache.end()
        if not looks and node.listener is not None:
            node.drop_listener()

    # The end

    def settle(self) -> None:
        for node in self.nodes:
            node.leaving = False
        super().settle()

    def _work_off(self, node: Any) -> None:
        for each in list(self.nodes):
            each.tend_listener()
            while each.operations:
                each.operations[0].step()
            each.deliver(1000)
        if not node.dead:
            super()._work_off(node)

    def _check_records(self, node: Any) -> None:
        for record in node.records():
            self._check_record(node, record.key, node.serial_of(record))
        for key, serial in self.oracle.in_arena(node):
            self._check_record(node, key, serial)


_HOSTS: Final = (
    (14, HostWorld.tend_all),
    (10, HostWorld.tend_one),
    (12, HostWorld.read_everywhere),
    (16, HostWorld.read_twice),
    (8, HostWorld.overlap),
    (3, HostWorld.kill),
    (3, HostWorld.kill_leader),
    (2, HostWorld.kill_inside),
    (3, HostWorld.leave),
    (3, HostWorld.stop_leader),
    (3, HostWorld.succession),
    (2, HostWorld.give_up),
    (2, HostWorld.apart),
    (1, HostWorld.flood),
    (4, HostWorld.look_while_busy),
)


@functools.cache
def host_actions(mask: int, theme: int) -> tuple[Any, ...]:
    """What the other worlds have, and a third of it what is of hosts alone."""
    weighted = [action for weight, action in _HOSTS for _ in range(weight)]
    own = [weighted[number * len(weighted) // 86] for number in range(86)]
    inherited = [getattr(HostWorld, action.__name__) for action in actions(mask, theme)]
    return (*own, *(inherited[number * 256 // 170] for number in range(170)))
