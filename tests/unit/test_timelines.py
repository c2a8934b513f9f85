"""A former primary is told from its successor by the timeline; without a server."""

from __future__ import annotations

from pgsession._database.timelines import Timelines


def test_one_that_was_promoted_is_followed() -> None:
    known = Timelines()
    assert [known.learn(b"a", timeline) for timeline in (1, 1, 2, 7)] == [True] * 4


def test_a_former_one_is_refused_for_good() -> None:
    known = Timelines()
    assert known.learn(b"a", 3)
    assert not known.learn(b"a", 2)
    assert not known.learn(b"a", 2)
    assert known.learn(b"a", 3)


def test_systems_have_nothing_to_do_with_each_other() -> None:
    known = Timelines()
    assert known.learn(b"a", 3)
    assert known.learn(b"b", 1)
    assert not known.learn(b"a", 2)


def test_a_connection_of_which_nothing_is_known_is_not_superseded() -> None:
    assert not Timelines().superseded(object())
