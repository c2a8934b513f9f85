"""What is believed of the database's clock, against a model: clocks drift, answers are slow, one clock is stepped."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given
from hypothesis import strategies as st

from pgsession._protocol.database_clock import DRIFT, Offset, drift

SECOND = 1_000_000
START = 1_700_000_000 * SECOND


class Answer(NamedTuple):
    """A question, the moment at which the server looked at its clock, and when the answer was here; in node time."""

    asked: int
    looked: int
    answered: int


delays = st.one_of(st.integers(0, 1000), st.integers(0, 10 * SECOND))


@st.composite
def questions(draw: st.DrawFn) -> list[Answer]:
    """Questions of which several may be under way, in the order of their answers."""
    now, made = 0, []
    for _ in range(draw(st.integers(1, 12))):
        now += draw(st.one_of(st.integers(0, 1000), st.integers(0, 100 * SECOND)))
        looked = now + draw(delays)
        made.append(Answer(now, looked, looked + draw(delays)))
    return sorted(made, key=lambda answer: answer.answered)


rates = st.integers(-SECOND // DRIFT, SECOND // DRIFT)  # microseconds that the clocks part by each second


def drifted(rate: int, at: int) -> int:
    return START + rate * at // SECOND


def bounds(offset: Offset, now: int) -> tuple[int, int]:
    bounds = offset.bounds(now)
    assert bounds is not None
    return bounds


@given(questions(), rates, st.integers(0, 1000 * SECOND))
def test_what_is_believed_holds_the_truth_and_is_as_good_as_the_best_answer(
    answers: list[Answer], rate: int, later: int
) -> None:
    offset, taken = Offset(), []
    for answer in answers:
        assert offset.sample(answer.asked, answer.answered, answer.looked + drifted(rate, answer.looked)) == 0
        taken.append(answer)
        for now in (answer.answered, answer.answered + later):
            lowest, latest = bounds(offset, now)
            assert lowest <= drifted(rate, now) <= latest
            best = min(
                answered - asked + 2 + 4 * (drift(now - asked) + len(answers)) for asked, _, answered in taken
            )
            assert latest - lowest <= best


@given(questions(), st.integers(0, 400 * SECOND), st.sampled_from([-60, 60]))
def test_a_step_is_seen_by_the_first_answer_and_what_is_under_way_does_not_undo_it(
    answers: list[Answer], when: int, by: int
) -> None:
    offset, seen, before = Offset(), False, 0
    for asked, looked, answered in answers:
        stepped = looked >= when
        if stepped and not before:
            return  # nothing was believed before: of two answers that were under way, nobody can tell the later one
        step = offset.sample(asked, answered, START + looked + stepped * by * SECOND)
        if stepped and before and not seen:
            seen = True
            assert step * by > 0 and abs(step) > 19 * SECOND  # 60, less two intervals of 20 at most
        else:
            assert step == 0
        before += not stepped
        lowest, latest = bounds(offset, answered)
        assert lowest <= START + (stepped or seen) * by * SECOND <= latest


@given(questions(), st.integers(0, 400 * SECOND), st.integers(-SECOND, SECOND))
def test_what_is_believed_is_never_worse_than_the_newest_answer(
    answers: list[Answer], when: int, by: int
) -> None:
    """A step that is too small to be seen is smaller than what the answer may be wrong by."""
    offset = Offset()
    for asked, looked, answered in answers:
        since = offset._since
        offset.sample(asked, answered, START + looked + (looked >= when) * by)
        if asked >= since:
            lowest, latest = bounds(offset, max(answered, offset._at or 0))
            error = answered - asked + 2 + 2 * drift(11 * SECOND * 2)
            assert lowest - error <= START + (looked >= when) * by <= latest + error


def test_a_slow_answer_takes_nothing_away_from_a_fast_one() -> None:
    offset = Offset()
    offset.sample(0, 1000, START + 500)
    lowest, highest = bounds(offset, 1000)
    offset.sample(1000, 1000 + 3 * SECOND, START + 1000 + 3 * SECOND // 2)
    more = drift(3 * SECOND)
    assert bounds(offset, 1000 + 3 * SECOND) == (lowest - more, highest + more)
    offset.sample(4 * SECOND, 4 * SECOND + 100, START + 4 * SECOND + 50)
    assert bounds(offset, 4 * SECOND + 100) == (START - 50 - 2, START + 50 + 2)


def test_another_server_has_another_clock() -> None:
    offset = Offset()
    offset.sample(0, 1000, START + 500)
    offset.start(2000)
    assert offset.bounds(2000) is None
    assert offset.sample(1500, 2500, START + 2000) == 0 and offset.bounds(2500) is None
    assert offset.sample(2000, 2500, 5 * START) == 0
    assert bounds(offset, 2500) == (5 * START - 2500 - 2, 5 * START - 2000 + 2)
