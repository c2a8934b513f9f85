"""What a read must have gone through for memory to say that there is no session, and what ends that."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol.coherence import Coherence, Fill

SECOND = 1_000_000
NOW = 1_700_000_000 * SECOND
KEY, ANOTHER = bytes([7]) * 16, bytes([8]) * 16
NODE = "1" * 16


class Node:
    """A node in sync."""

    def __init__(self) -> None:
        self.clock = Clock(manual=NOW)
        self.cache = Cache(
            10,
            self.clock,
            access_interval=SECOND,
            lifetime=0,
            max_attribute_length=100,
        )
        self.coherence = Coherence(
            self.cache, self.clock, max_staleness=10 * SECOND, logger=logging.getLogger("pgsession.test")
        )
        self.listen()

    def listen(self) -> None:
        assert self.coherence.on_listening("one") is not None
        assert self.coherence.resynced(self.coherence.resync_started(), [])
        self.prove()

    def prove(self) -> None:
        self.coherence.answered(self.coherence.asked(), "one", 7)
        self.hear()
        assert self.coherence.in_sync

    def hear(self, *items: str) -> None:
        self.coherence.on_event(" ".join([NODE, "9", *items]))

    def begin(self, *, refresh: bool = True) -> Fill:
        return self.coherence.open_fill(KEY, refresh=refresh, new_future=lambda: Any)[0]

    def end(
        self, fill: Fill, *, record: Record | None = None, min_version: int = 0, absent: bool = True
    ) -> None:
        xmax = 20  # nothing that was heard proves it
        self.coherence.close_fill(fill, record, "one", NOW, xmax, min_version=min_version, absent=absent)

    def read(self, **answer: Any) -> None:
        self.end(self.begin(), **answer)

    @property
    def absent(self) -> bool:
        return self.cache.is_absent(KEY)


@pytest.fixture
def node() -> Node:
    return Node()


def record(version: int = 5) -> Record:
    return Record(KEY, version, "u", "g", NOW, NOW, NOW, NOW + 3600 * SECOND, None, [])


def test_what_the_database_does_not_have_is_remembered(node: Node) -> None:
    assert not node.absent
    node.read()
    assert node.absent and not node.cache.is_absent(ANOTHER)


def test_what_is_there_and_not_live_is_not(node: Node) -> None:
    """Another node's access makes an inactive one live, with no event."""
    node.read(absent=False)
    assert not node.absent


def test_the_highest_version_that_was_asked_for_is(node: Node) -> None:
    node.read(min_version=3)
    node.read()
    assert node.cache.is_absent(KEY, 3) and not node.cache.is_absent(KEY, 4)


def test_it_is_as_old_as_its_read(node: Node) -> None:
    fill = node.begin()
    node.clock.advance(4 * SECOND)
    node.end(fill)
    node.clock.advance(6 * SECOND - 1)
    node.prove()
    assert node.absent
    node.clock.advance(1)
    assert node.coherence.in_sync and not node.absent


def test_it_ends_with_the_proof_of_sync(node: Node) -> None:
    node.clock.advance(9 * SECOND)
    node.read()
    assert node.absent
    node.clock.advance(9 * SECOND)
    assert not node.coherence.in_sync and not node.absent


Change = Callable[[Node], object]

ENDS: dict[str, Change] = {
    "an event": lambda node: node.hear(f"u{KEY.hex()}:5"),
    "everything": lambda node: node.hear("A"),
    "what cannot be read": lambda node: node.hear("?"),
    "a listener that is lost": lambda node: node.coherence.on_lost(),
    "another epoch": lambda node: (node.coherence.on_lost(), node.listen()),
    "an own create": lambda node: node.coherence.open_write(KEY, creates=True),
    "an own create that ended": lambda node: created(node),
    "a list that shows it": lambda node: node.coherence.observed([(KEY, 5)], "one"),
    "a write of unknown outcome": lambda node: node.coherence.write_unknown(node.coherence.open_write(KEY)),
    "a write that has met it": lambda node: node.coherence.write_conflicted(node.coherence.open_write(KEY)),
    "a read that finds it": lambda node: node.read(record=record()),
    "the child of a fork": lambda node: node.coherence.forked(),
}


def created(node: Node) -> None:
    """What another read has found meanwhile does not outlive the creation."""
    lease = node.coherence.open_write(KEY, creates=True)
    node.read()
    assert node.absent
    node.coherence.write_saved(lease, record(), "one")


@pytest.mark.parametrize("what", ENDS)
def test_what_ends_it(node: Node, what: str) -> None:
    node.read()
    ENDS[what](node)
    node.cache.in_sync_until = NOW + 100 * SECOND
    assert not node.absent


@pytest.mark.parametrize("item", ["U75", "G67", f"u{ANOTHER.hex()}:5", f"d{ANOTHER.hex()}", "l75"])
def test_what_does_not(node: Node, item: str) -> None:
    node.read()
    node.hear(item)
    assert node.absent


KEEPS_OUT = ENDS | {
    "a deletion": lambda node: node.hear(f"d{KEY.hex()}"),
    "a change of a user": lambda node: node.hear("U75"),
    "a change of a group": lambda node: node.hear("G67"),
}
del KEEPS_OUT["a write that has met it"], KEEPS_OUT["the child of a fork"]


@pytest.mark.parametrize("what", KEEPS_OUT)
def test_what_keeps_a_read_from_being_remembered(node: Node, what: str) -> None:
    """It may have been made before that."""
    fill = node.begin()
    KEEPS_OUT[what](node)
    node.end(fill)
    node.cache.in_sync_until = NOW + 100 * SECOND
    assert not node.absent


def test_nothing_is_remembered_of_what_is_in_memory(node: Node) -> None:
    node.read(record=record())
    node.read()
    assert node.cache.version(KEY) == 0 and not node.absent
    node.read()
    assert node.absent


def test_nothing_outlives_the_connection_of_a_listener(node: Node) -> None:
    node.coherence.on_lost()
    node.read()
    node.listen()
    assert not node.absent
