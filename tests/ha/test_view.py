"""What is read from Patroni's answers; without a cluster."""

from __future__ import annotations

from typing import Any

from tests.ha.view import View


def answer(*members: tuple[str, str, str, int]) -> View:
    names = ("name", "role", "state", "timeline")
    told: list[dict[str, Any]] = [dict(zip(names, member, strict=True)) for member in members]
    return View.of({"members": told, "scope": "sessions"})


LEADER = ("pg1", "leader", "running", 2)
SYNCHRONOUS = ("pg2", "sync_standby", "streaming", 2)
OTHER = ("pg3", "replica", "streaming", 2)


def test_a_whole_cluster() -> None:
    view = answer(OTHER, LEADER, SYNCHRONOUS)
    assert view.whole(3) and not view.whole(4)
    assert view.leader is not None and view.leader.name == "pg1"
    assert view.synchronous == "pg2"


def test_a_cluster_without_a_leader() -> None:
    for state in ("stopped", "starting", "stopping"):
        view = answer(("pg1", "leader", state, 2), SYNCHRONOUS, OTHER)
        assert view.leader is None and view.synchronous == "" and not view.whole(3)
    assert View.of({}) == View(()) and not View(()).whole(0)


def test_a_standby_that_has_not_come_along() -> None:
    """It follows the leader of before, or is started: no switchover to it, and the cluster is not whole."""
    for standby in (("pg2", "sync_standby", "streaming", 1), ("pg2", "sync_standby", "starting", 2)):
        view = answer(LEADER, standby, OTHER)
        assert view.synchronous == "" and not view.whole(3)
    assert not answer(LEADER, SYNCHRONOUS, ("pg3", "replica", "running", 1)).whole(3)
    assert not answer(LEADER, SYNCHRONOUS, ("pg3", "replica", "streaming", 1)).whole(3)


def test_a_timeline_that_is_not_known_yet() -> None:
    told = {"name": "pg1", "role": "leader", "state": "running"}
    assert View.of({"members": [told]}).members[0].timeline == 0
