"""Notifications: what is not understood empties the cache; nothing raises, and nothing is half applied."""

from __future__ import annotations

import logging

from hypothesis import example, given
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record
from pgsession._protocol import events
from pgsession._protocol.coherence import Coherence

from . import fuzz, mutated

NODE, OTHER = "0123456789abcdef", "fedcba9876543210"
KEYS = [bytes([number]) * 16 for number in range(4)]
LOG = logging.getLogger("tests.fuzz")
LOG.addHandler(logging.NullHandler())
LOG.propagate = False

names = st.sampled_from(["ann", "bob", "", "é", "\U0001f600"])
numbers = st.integers(0, 2**63 - 1) | st.sampled_from([0, 1, 2, 2**63 - 1])
items = st.one_of(
    st.builds(events.Changed, st.sampled_from(KEYS), numbers),
    st.builds(events.Deleted, st.sampled_from(KEYS)),
    st.builds(events.UserChanged, names),
    st.builds(events.GroupChanged, names),
    st.just(events.Everything()),
    st.builds(events.LockReleased, names),
    st.builds(events.LockEnded, names, numbers),
)
sent = st.builds(
    lambda origin, xid, some: events.payload(origin, xid, " ".join(map(events.encode, some))),
    st.sampled_from([NODE, OTHER, events.PLAIN_SQL]),
    numbers,
    st.lists(items, max_size=6),
)
payloads = mutated(sent, "0123456789abcdefABCDEFudUGAlLMxz :-+_") | st.text(max_size=60)
HUGE = f"{OTHER} 7 u{KEYS[0].hex()}:{2**63} d{KEYS[1].hex()}"


def listening() -> tuple[Coherence, Cache]:
    """A node with four sessions in memory, in sync."""
    clock = Clock(manual=1_000_000)
    cache = Cache(8, clock, access_interval=0, lifetime=0, max_attribute_length=100)
    coherence = Coherence(cache, clock, max_staleness=30_000_000, stale_if_error=0, logger=LOG)
    coherence.on_listening("one")
    assert coherence.resynced(coherence.resync_started(), [])
    for number, key in enumerate(KEYS):
        user, group = ("ann", "bob") if number % 2 else ("bob", None)
        cache.put(Record(key, 5, user, group, 0, 0, 0, 1 << 60, None))
    return coherence, cache


@fuzz
@given(payloads)
@example(HUGE)
def test_a_payload_says_what_it_says_or_everything(payload: str) -> None:
    event = events.parse(payload)
    if event.malformed:
        assert events.Everything() in event.items or " l" in payload.lower()
        return
    again = events.payload(event.origin, event.xid, " ".join(map(events.encode, event.items)))
    assert events.parse(again) == event
    # Only the case of hexadecimal digits and zeros in front of a number may differ.
    assert again.replace("0", "").lower() == payload.replace("0", "").lower()


@fuzz
@given(payloads)
@example(HUGE)
def test_the_cache_keeps_nothing_that_a_payload_takes_from_it(payload: str) -> None:
    coherence, cache = listening()
    news = coherence.on_event(payload)
    event = events.parse(payload)
    assert coherence.counters.malformed_events == event.malformed
    assert news.moved == (events.Moved() in event.items) == (not coherence.listening)
    gone = {key for key in KEYS if any(touches(item, key) for item in event.items)}
    assert {key for key in KEYS if cache.version(key) == 0} == gone
    assert len(news.locks.released) == sum(isinstance(item, events.LockReleased) for item in event.items)
    assert len(news.locks.ended) == sum(isinstance(item, events.LockEnded) for item in event.items)


def touches(item: events.Item, key: bytes) -> bool:
    """Whether it ends what is in memory of this session, all of which are at version 5."""
    odd = KEYS.index(key) % 2 == 1
    match item:
        case events.Changed(changed, version):
            return changed == key and version > 5
        case events.Deleted(deleted):
            return deleted == key
        case events.UserChanged(user):
            return user == ("ann" if odd else "bob")
        case events.GroupChanged(group):
            return odd and group == "bob"
    return isinstance(item, events.Everything)


@fuzz
@given(payloads | st.builds(events.payload, st.just(OTHER), st.integers(0, 200)))
def test_only_what_began_after_a_read_proves_it(payload: str) -> None:
    coherence, _ = listening()
    assert coherence.answered(coherence.asked(), "one", 100) is None
    coherence.on_event(payload)
    proved = coherence.listening and events.parse(payload).xid >= 100
    assert coherence.in_sync == proved == coherence.counters.proofs
