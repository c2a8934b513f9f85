"""When no node serves any more what was ended, by what the database answers."""

from __future__ import annotations

import logging

import pytest

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._protocol import events
from pgsession._protocol.acknowledgements import SERVES_UNHEARD, SILENCE, Acknowledgements, Asked
from pgsession._protocol.coherence import Coherence

SECOND = 1_000_000
OLD = 10**15


def asked(acknowledgements: Acknowledgements, *, now: int = 0, age: int = OLD, **serving: int) -> None:
    serving = {node: seconds * SECOND for node, seconds in serving.items()}
    acknowledgements.asked(now, Asked("i", 7, age, serving))


def test_nothing_is_certain_before_the_nodes_were_asked_for() -> None:
    waiting = Acknowledgements(0, 10 * SECOND)
    assert waiting.waited_for is None and not waiting.confirmed(100 * SECOND)
    assert waiting.certain_at == 10.01 * SECOND
    asked(waiting, now=100 * SECOND)
    assert waiting.confirmed(100 * SECOND), "there are none"


def test_who_has_acknowledged_is_waited_for_no_more() -> None:
    waiting = Acknowledgements(0, 10 * SECOND)
    asked(waiting, a=10, b=20)
    assert waiting.waited_for == (["a", "b"], 7) and waiting.certain_at == 20.02 * SECOND
    waiting.looked("i", ["a"])
    assert waiting.waited_for == (["a"], 7) and waiting.certain_at == 10.01 * SECOND
    waiting.looked("i", [])
    assert waiting.confirmed(0)


def test_a_silent_node_counts_until_it_can_serve_no_more() -> None:
    """By its own clock, which may be slower."""
    waiting = Acknowledgements(5 * SECOND, 0)
    asked(waiting, now=6 * SECOND, a=10)
    assert not waiting.confirmed(15.005 * SECOND)  # type: ignore[arg-type]
    assert waiting.confirmed(15.01 * SECOND)  # type: ignore[arg-type]


def test_a_table_that_was_emptied_says_nothing() -> None:
    waiting = Acknowledgements(0, 0)
    asked(waiting, a=10)
    waiting.looked("another", [])
    waiting.looked(None, [])
    assert waiting.waited_for == (["a"], 7) and not waiting.confirmed(0)


def test_only_the_first_answer_counts() -> None:
    waiting = Acknowledgements(0, 0)
    asked(waiting, a=10)
    asked(waiting, b=10)
    assert waiting.waited_for == (["a"], 7)


@pytest.mark.parametrize(("age", "until"), [(0, 10), (5, 10), (12, 8), (20, 0), (30, 0)])
def test_who_was_there_before_a_failover_is_in_no_table(age: int, until: int) -> None:
    """Nor who reads from the new server and is not there yet, for which it has that time."""
    waiting = Acknowledgements(0, 10 * SECOND)
    asked(waiting, age=age * SECOND)
    assert (max(waiting.certain_at, 0) + 5000) // SECOND == until


def test_a_node_serves_for_less_than_its_row_is_kept() -> None:
    """A minute less: the clocks of the database and of the node are two."""
    assert SERVES_UNHEARD + 60 <= SILENCE


# ---- the node's side ----


@pytest.fixture
def clock() -> Clock:
    return Clock(manual=SECOND)


@pytest.fixture
def coherence(clock: Clock) -> Coherence:
    cache = Cache(10, clock, access_interval=0, lifetime=0, max_attribute_length=10)
    return Coherence(cache, clock, max_staleness=10 * SECOND, logger=logging.getLogger("tests"))


def listen(coherence: Coherence) -> None:
    coherence.on_lost()
    coherence.on_listening("i")


def compare(coherence: Coherence) -> None:
    coherence.resynced(coherence.resync_started(), [])


def ask(coherence: Coherence, xid: int) -> None:
    assert coherence.on_event(events.payload("1" * 16, xid, events.encode(events.Awaited()))).asks


def prove(coherence: Coherence, xid: int) -> None:
    coherence.answered(coherence.asked(), "i", xid)
    coherence.on_event(events.payload("1" * 16, xid))


def test_a_node_acknowledges_once_it_has_compared_what_it_had(coherence: Coherence) -> None:
    listen(coherence)
    ask(coherence, 9)
    assert coherence.applied is None
    compare(coherence)
    assert coherence.applied == (9, "i")
    ask(coherence, 12)
    ask(coherence, 11)
    assert coherence.applied == (12, "i")


def test_what_was_asked_for_on_another_connection_is_not_acknowledged_on_this_one(
    coherence: Coherence,
) -> None:
    """It may be of another server; and who waits asks again."""
    listen(coherence)
    ask(coherence, 9)
    listen(coherence)
    compare(coherence)
    assert coherence.applied is None


def test_serving_ends_in_time_after_the_last_sign_of_life(coherence: Coherence, clock: Clock) -> None:
    assert coherence.registered(clock.now())
    listen(coherence)
    compare(coherence)
    clock.advance((SERVES_UNHEARD - 5) * SECOND)
    prove(coherence, 20)
    assert coherence.in_sync
    clock.advance(5 * SECOND)
    assert not coherence.in_sync
    prove(coherence, 21)
    assert not coherence.in_sync and not coherence.may_serve_stale


def test_after_a_silence_that_was_too_long_the_epoch_is_over(coherence: Coherence, clock: Clock) -> None:
    """Others may have ended what is cached without having waited for this node."""
    coherence.registered(clock.now())
    listen(coherence)
    compare(coherence)
    clock.advance(SERVES_UNHEARD * SECOND - 1)
    prove(coherence, 20)
    assert coherence.registered(clock.now()) and coherence.in_sync
    clock.advance(SERVES_UNHEARD * SECOND)
    prove(coherence, 21)
    assert not coherence.registered(clock.now())
    assert not coherence.listening and not coherence.in_sync
    assert coherence.registered(clock.now())
