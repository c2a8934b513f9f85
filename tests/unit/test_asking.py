"""A function of the user's is asked, and given up where it does not answer."""

from __future__ import annotations

import threading

import pytest

from pgsession._concurrency import Question


def test_a_function_that_never_returns_keeps_one_thread() -> None:
    goes_on = threading.Event()
    before = threading.active_count()
    question = Question(goes_on.wait)
    for _ in range(3):
        with pytest.raises(TimeoutError):
            question.ask(0.01)
    assert threading.active_count() == before + 1
    goes_on.set()
    assert question.ask(20) is True


def test_each_question_is_a_new_one() -> None:
    answers = iter(range(3))
    question = Question(lambda: next(answers))
    assert [question.ask(20) for _ in range(3)] == [0, 1, 2]
    with pytest.raises(StopIteration):
        question.ask(20)
