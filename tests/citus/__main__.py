"""`python -m tests.citus --seconds 60 --seed 1`: see the package. Ends with 0 only if the promise held."""

from __future__ import annotations

import argparse
import random
import signal
import sys
from typing import Any

from tests.chaos.__main__ import keep
from tests.chaos.report import summary
from tests.chaos.run import Options
from tests.citus.cluster import DSN, WHY_NOT
from tests.citus.run import run


def main() -> int:
    parser = argparse.ArgumentParser(prog="make citus", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--max-staleness", type=float, default=2)
    parser.add_argument("--operation-timeout", type=float, default=2)
    parser.add_argument("--callers", type=int, default=2, help="a process")
    parser.add_argument("--only", nargs="*", default=[], metavar="MOVE", help="parts of the moves' names")
    given = parser.parse_args()
    if not DSN:
        print(WHY_NOT, file=sys.stderr)
        return 2
    options = Options(
        seconds=given.seconds,
        seed=random.SystemRandom().getrandbits(32) if given.seed is None else given.seed,
        max_staleness=given.max_staleness,
        operation_timeout=given.operation_timeout,
        callers=given.callers,
        kinds=tuple(given.only),
        again="make citus SECONDS={seconds:g} ARGS='--seed {seed}'",
    )
    signal.signal(signal.SIGTERM, _interrupted)
    print(f"seed {options.seed}", flush=True)
    outcome, moves = run(options, DSN)
    print(summary(outcome), flush=True)
    print(f"{moves} shards moved", flush=True)
    return keep(outcome) if outcome.verdict.violations else 0


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
