"""The code map says what happens: its functions exist where it says, and are called in its order."""

from __future__ import annotations

import sys
import tomllib
from typing import Any

import pytest

from tests import plain
from tests.aio.conftest import OpenAsyncManager
from tests.docs.code_map import ROOT, Step, first_calls, found, trips
from tools.hot import calls

TRIPS = trips()
QUIET: dict[str, Any] = {"max_staleness": 3600}  # no proofs meanwhile, which the listener would deliver too


def test_there_are_five_trips_of_five_to_eight_functions() -> None:
    assert list(TRIPS) == ["A hit", "A miss", "A write", "An event", "A lock"]
    assert all(5 <= len(steps) <= 8 for steps in TRIPS.values()), TRIPS


@pytest.mark.parametrize("step", [step for trip, steps in TRIPS.items() if trip != "A hit" for step in steps])
def test_functions_are_where_the_map_says(step: Step) -> None:
    assert found(step) is not None


def test_a_function_that_is_gone_or_elsewhere_is_missed() -> None:
    _, step, *_ = TRIPS["A miss"]
    with pytest.raises(LookupError, match="no AsyncSessionManager"):
        found(step._replace(function="AsyncSessionManager.no_such_method"))
    with pytest.raises(LookupError, match="is in"):
        found(Step("record_of", ROOT / "src" / "pgsession" / "_protocol" / "answers.py"))


def test_a_hit_in_the_generated_code() -> None:
    bodies = calls.functions()
    steps = [compiled_name(step, bodies) for step in TRIPS["A hit"]]
    beyond = set(tomllib.loads(calls.LIST.read_text())["beyond"])

    def calls_of(body: str) -> list[str]:
        return [name for callee in calls.called(body) for name in calls.resolved(bodies, callee)]

    reached = first_calls(steps[0], bodies, beyond, calls_of)
    assert [name for name in reached if name in steps] == steps


def compiled_name(step: Step, bodies: dict[str, str]) -> str:
    """The name of a compiled function in the generated C, where a function of a header keeps its own."""
    source = step.file.read_text(encoding="utf-8")
    name = step.function if step.file.suffix == ".h" else f"{step.file.stem}.{step.function}"
    assert name in bodies, f"there is no {name} in the generated C"
    assert f" {step.function.rpartition('.')[2]}(" in source or f"*{step.function}(" in source, step
    return name


async def test_a_hit_runs_no_python_of_ours(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(**QUIET)
    session = await manager.create_session("alice")
    session_id = session.id
    hits = manager.stats().hits
    seen: list[Any] = []
    sys.setprofile(lambda frame, event, argument: seen.append((event, argument)))
    awaitable = manager.get_session(session_id)
    sys.setprofile(None)
    await awaitable
    assert [argument.__name__ for event, argument in seen if event == "c_call"] == [
        "get_session",
        "setprofile",
    ]
    assert not [frame for event, frame in seen if event == "call"]
    assert manager.stats().hits == hits + 1


def test_the_other_trips(dsn: str) -> None:
    """The profiler sees no function that was compiled of Python."""
    plain.passes("tests/docs/trips.py", dsn=dsn)
