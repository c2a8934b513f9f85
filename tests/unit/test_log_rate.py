"""Which lines come into the log, by a clock of the test's."""

from __future__ import annotations

import random

from pgsession._protocol.log_rate import A_MINUTE, AT_ONCE, Change, Seldom, States, times


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_one_line_a_minute_which_counts_the_others() -> None:
    clock = Clock()
    seldom = Seldom(clock)
    assert seldom.admit() == ""
    for _ in range(1234):
        clock.now += A_MINUTE / 2000
        assert seldom.admit() is None
    clock.now += A_MINUTE
    assert seldom.admit() == " (and 1,234 such since the last line)"
    clock.now += A_MINUTE
    assert seldom.admit() == ""


def test_a_state_that_is_lost_and_comes_back_is_told_once_each() -> None:
    clock = Clock()
    states = States(clock)
    assert states.note(True) is None and states.quiet
    assert states.note(False) == Change(False, 0, 0) and not states.quiet
    clock.now += 3
    assert states.note(False) is None
    assert states.note(True) == Change(True, 3, 0) and states.quiet
    assert states.note(True) is None


def test_who_flaps_is_told_at_a_bounded_rate_and_the_last_state_at_last() -> None:
    clock = Clock()
    states = States(clock)
    told = []
    for _ in range(100):
        told += [change for well in (False, True) if (change := states.note(well))]
    assert told == [Change(False, 0, 0), Change(True, 0, 0)] * AT_ONCE
    assert states.note(False) is None and not states.quiet
    clock.now += A_MINUTE
    assert states.note(False) == Change(False, 0, 100 - AT_ONCE)
    assert times(95) == "; that happened 95 more times since the last such line" and times(0) == ""
    assert states.note(True) == Change(True, A_MINUTE, 0)


def test_lines_alternate_whatever_happens() -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    clock = Clock()
    states = States(clock)
    last, lines, losses, heard, before = True, 0, 0, 0, True
    began = clock.now
    for _ in range(5000):
        clock.now += chance.expovariate(1)
        well = chance.random() < 0.5
        losses += before and not well
        before = well
        change = states.note(well)
        if change is not None:
            assert change.well is not last
            last = change.well
            lines += 1
            heard += change.unheard + (not change.well)
    assert lines <= 2 * (AT_ONCE + (clock.now - began) / A_MINUTE) + 1
    assert heard <= losses
    clock.now += A_MINUTE
    states.note(well)
    assert states._told is well
