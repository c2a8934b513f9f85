"""Which calls are judged, and what is said where something has to be installed; without a cluster."""

from __future__ import annotations

import os
import shutil
from typing import Any

import pytest

from tests.chaos.history import Call, Fault
from tests.ha.cluster import Missing, check_programs, unprivileged
from tests.ha.run import promised


def call(kind: str, began: int, **fields: Any) -> Call:
    return Call(kind=kind, node=2, began=began, ended=began + 2, **fields)


def test_what_an_unfenced_node_does_at_a_former_primary_is_not_judged() -> None:
    both = Fault(kind="two primaries", began=10, ended=20, unfenced=[2, 3])
    before, read, after = call("get", 8), call("get", 15), call("get", 20)
    overlapping = call("get", 19, outcome="none")
    failed, acknowledged = call("update", 15, outcome="unknown"), call("update", 15)
    elsewhere = call("get", 15)
    elsewhere.node = 0
    calls = [before, overlapping, read, failed, acknowledged, elsewhere, after]
    kept = list(promised(calls, [both]))
    assert [kept.index(one) for one in (before, acknowledged, elsewhere, after)] == [0, 1, 2, 3]
    assert len(kept) == 4
    assert list(promised(calls, [Fault(kind="switchover", began=0, ended=99)])) == calls


def test_without_etcd_it_says_what_to_install() -> None:
    with pytest.raises(Missing, match=r"apt-get install.*etcd-server"):
        check_programs(None)


def test_as_root_it_needs_setpriv_and_an_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 0, raising=False)
    monkeypatch.setattr(shutil, "which", lambda _: None)
    with pytest.raises(Missing, match="setpriv"):
        check_programs("/usr/bin/etcd")
    assert unprivileged()[0] == "setpriv"
    monkeypatch.setattr(os, "geteuid", lambda: 1000, raising=False)
    check_programs("/usr/bin/etcd")
    assert unprivileged() == []
