"""The wire format of notifications: what is built is read back, what is not ours is never trusted."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsession._protocol import events
from pgsession._protocol.events import (
    MAX_PAYLOAD,
    PLAIN_SQL,
    Changed,
    Deleted,
    Everything,
    GroupChanged,
    LockEnded,
    LockReleased,
    Moved,
    UserChanged,
    batches,
    encode,
    parse,
    payload,
)

NODE = "0123456789abcdef"
LARGEST = 2**63 - 1
keys = st.binary(min_size=16, max_size=16)
versions = st.integers(0, 2**63 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=512).filter(
    lambda t: len(t.encode()) <= 512
)
items = st.one_of(
    st.builds(Changed, keys, versions),
    st.builds(Deleted, keys),
    st.builds(UserChanged, texts),
    st.builds(GroupChanged, texts),
    st.just(Everything()),
    st.builds(LockReleased, texts),
    st.builds(LockEnded, texts, versions),
    st.just(Moved()),
)


@given(st.lists(items, max_size=200))
def test_what_is_built_is_read_back(written: list[events.Item]) -> None:
    sent = [payload(NODE, LARGEST, items) for items in batches(written)]
    assert all(len(one.encode("ascii")) <= MAX_PAYLOAD for one in sent)
    events = [parse(one) for one in sent]
    assert [item for event in events for item in event.items] == written
    assert all(event[:2] == (NODE, LARGEST) for event in map(_fields, events))
    assert not any(event.malformed for event in events)


def _fields(event: events.Event) -> tuple[object, ...]:
    return event.origin, event.xid, event.items


def test_a_beacon_is_an_event_without_items() -> None:
    assert _fields(parse(payload(NODE, 7))) == (NODE, 7, ()) and not parse(payload(NODE, 7)).malformed


@pytest.mark.parametrize("count", [1, 2, 145, 146, 147, 1000, 100_000])
def test_payloads_are_full_but_never_too_long(count: int) -> None:
    many = (Changed(number.to_bytes(16, "big"), LARGEST) for number in range(count))
    sent = [payload(NODE, LARGEST, items) for items in batches(many)]
    assert max(map(len, sent)) <= MAX_PAYLOAD
    assert all(len(one) > MAX_PAYLOAD - 60 for one in sent[:-1])
    assert sum(len(parse(one).items) for one in sent) == count


@given(st.text(max_size=300))
def test_garbage_is_reported_and_never_raises(payload: str) -> None:
    event = parse(payload)
    if event.malformed:
        assert Everything() in event.items or " l" in payload.lower()
    else:
        assert (
            " ".join([event.origin, str(event.xid), *map(encode, event.items)]) == payload.lower()
            or payload != payload.lower()
        )


@pytest.mark.parametrize(
    "payload",
    [
        "",
        " ",
        NODE,
        f"{NODE} 7 ",
        f"{NODE} 7  A",
        f"{NODE} 7 A ",
        f"{NODE} 7 B",
        f"{NODE} 7 AA",
        f"{NODE} 7 u{'0' * 32}",
        f"{NODE} 7 u{'0' * 32}:",
        f"{NODE} 7 u{'0' * 32}:-1",
        f"{NODE} 7 u{'0' * 32}:1_0",
        f"{NODE} 7 u{'0' * 32}:\u0661",
        f"{NODE} 7 u{'0' * 32}:{'9' * 20}",
        f"{NODE} 7 u{'0' * 32}:{2**63}",
        f"{NODE} 7 u{'0' * 31}:1",
        f"{NODE} 7 u{'g' * 32}:1",
        f"{NODE} 7 d{'0' * 30}",
        f"{NODE} 7 d{'0' * 15}\t{'0' * 16}",
        f"{NODE} 7 Uff",
        f"{NODE} 7 U0",
        f"{NODE[:-1]} 7 A",
        f"{'x' * 16} 7 A",
        f"{NODE} 7 d{'0' * 30}\t\t",
        f"{NODE} 7 U61\t61",
        "A",
        f"{NODE} A",
        f"{NODE} -1",
        f"{NODE} 1_0 A",
        f"{NODE} {2**63}",
    ],
)
def test_every_way_of_being_malformed_means_everything(payload: str) -> None:
    event = parse(payload)
    assert event.malformed and event.origin == PLAIN_SQL and set(event.items) == {Everything()}


@pytest.mark.parametrize(
    "item", ["L61", "L61:", f"L61:{2**63}", "L6:1", "lff", "l6", "L", "Lgg:1", "L61:1:1", "L61:-1"]
)
def test_what_cannot_be_read_of_a_lock_empties_no_cache(item: str) -> None:
    """Nothing of locks is cached, and a lock ends at its time whatever is heard."""
    key = "0" * 32
    readable = (Deleted(bytes(16)), UserChanged("a"))
    assert parse(f"{NODE} 7 d{key} {item} U61") == events.Event(PLAIN_SQL, 7, readable, malformed=True)
    assert parse(f"{NODE} 7 {item}") == events.Event(PLAIN_SQL, 7, (), malformed=True)
    assert parse(f"{NODE} 7 d{key} x {item}").items == (Deleted(bytes(16)), Everything())


def test_a_user_and_a_group_of_one_name_are_two_things() -> None:
    assert len({UserChanged("x"), GroupChanged("x"), LockReleased("x")}) == 3
