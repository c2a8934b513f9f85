"""`pgsession plan`: what it says, how it ends, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from pgsession.cli import main
from pgsession.cli._capacity import recorded


def said(capsys: pytest.CaptureFixture[str], *arguments: str, status: int = 0) -> Any:
    assert main(["plan", "--json", *arguments]) == status, capsys.readouterr()
    output = capsys.readouterr()
    return json.loads(output.err if status == 2 else output.out)


def test_it_says_what_it_was_computed_with(capsys: pytest.CaptureFixture[str]) -> None:
    found = said(capsys, "--hosts=2", "--workers=3")
    measured = recorded()
    assert found["costs"]["measured"] == measured.date
    assert found["costs"]["machine"] == measured.machine
    assert found["costs"]["provisional"] is measured.provisional
    assert found["nodes"] == 6
    assert found["connections"] == {"at_rest": 12, "at_most": 54, "max_connections": 100}
    assert main(["plan"]) == 0
    assert measured.machine in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "status", "first"),
    [
        (["--hosts=2", "--workers=2"], 0, None),
        (["--hosts=4", "--workers=4"], 3, "connections"),
        (["--hosts=10", "--workers=8"], 1, "connections"),
        (["--server-cores=0.0001"], 1, "server cores"),
        (["--host-memory=0.001"], 1, "host memory"),
    ],
)
def test_its_exit_status_says_whether_there_is_room(
    arguments: list[str], status: int, first: str | None, capsys: pytest.CaptureFixture[str]
) -> None:
    found = said(capsys, *arguments, status=status)
    assert first is None or found["binds_first"] == first
    assert (max(found["part_used"].values()) > 1) == bool(status)


@pytest.mark.parametrize(
    ("argument", "rule"),
    [
        ("--hosts=0", "0 is not in the range 1<=x<=1000000"),
        ("--writes=1.5", "1.5 is not in the range 0<=x<=1"),
        ("--hit-rate=nan", "'nan' is not a number"),
        ("--requests=inf", "inf is not in the range"),
        ("--logins=-1", "-1.0 is not in the range"),
        ("--max-staleness=0", "0.0 is not in the range 0<x"),
        ("--workers=many", "'many' is not a valid integer"),
        ("--active=100001", "must be at most --sessions (100000), not 100001"),
        ("--spread=5", "must be at most --hosts times --workers (4), not 5"),
    ],
)
def test_what_it_refuses_it_names(argument: str, rule: str, capsys: pytest.CaptureFixture[str]) -> None:
    message = said(capsys, argument, status=2)["error"]["message"]
    assert argument.partition("=")[0] in message
    assert rule in message
