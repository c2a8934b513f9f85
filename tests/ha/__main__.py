"""`python -m tests.ha --seed 1`: see the package. Ends with 0 only if the promise held."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from typing import Any

from tests.chaos.__main__ import keep
from tests.chaos.report import summary
from tests.chaos.run import Options
from tests.ha.cluster import Missing
from tests.ha.run import run

LONGEST = 590
"""Seconds after which a run gives up, whatever it waits for."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make ha", description=__doc__)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--max-staleness", type=float, default=2)
    parser.add_argument("--operation-timeout", type=float, default=1)
    parser.add_argument("--callers", type=int, default=3, help="a process")
    parser.add_argument("--only", nargs="*", default=[], metavar="FAULT", help="parts of the faults' names")
    given = parser.parse_args()
    options = Options(
        seconds=420,
        seed=random.SystemRandom().getrandbits(32) if given.seed is None else given.seed,
        max_staleness=given.max_staleness,
        operation_timeout=given.operation_timeout,
        callers=given.callers,
        kinds=tuple(given.only),
        again="make ha ARGS='--seed {seed}'",
    )
    signal.signal(signal.SIGTERM, _interrupted)
    signal.signal(signal.SIGALRM, _too_long)
    signal.alarm(LONGEST)
    print(f"seed {options.seed}", flush=True)
    try:
        outcome = run(options, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None)
    except Missing as error:
        print(error, file=sys.stderr)
        return 2
    print(summary(outcome), flush=True)
    return keep(outcome) if outcome.verdict.violations else 0


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


def _too_long(*_: Any) -> None:
    raise TimeoutError(f"the run is not over after {LONGEST} s")


if __name__ == "__main__":
    sys.exit(main())
