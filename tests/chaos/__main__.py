"""`python -m tests.chaos --seconds 60 --seed 1`: see the package. Ends with 0 only if the promise held."""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

from tests.chaos.report import failures, summary
from tests.chaos.run import Options, Outcome
from tests.chaos.runs import run, run_shards

KEPT = Path(".cache/chaos")
"""Where the report of a failed run stays."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="make chaos", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--max-staleness", type=float, default=2)
    parser.add_argument("--operation-timeout", type=float, default=1)
    parser.add_argument("--callers", type=int, default=3, help="a process")
    parser.add_argument("--only", nargs="*", default=[], metavar="FAULT", help="parts of the faults' names")
    parser.add_argument("--shared", action="store_true", help="the processes of a host share one cache")
    parser.add_argument("--shards", action="store_true", help="on four shards of two servers")
    given = parser.parse_args()
    seed = random.SystemRandom().getrandbits(32) if given.seed is None else given.seed
    kind = " SHARED=1" if given.shared else " SHARDS=1" if given.shards else ""
    options = Options(
        seconds=given.seconds,
        seed=seed,
        max_staleness=given.max_staleness,
        operation_timeout=given.operation_timeout,
        callers=given.callers,
        kinds=tuple(given.only),
        shared=given.shared,
        again=f"make chaos{kind} SECONDS={{seconds:g}} ARGS='--seed {{seed}}'",
    )
    signal.signal(signal.SIGTERM, _interrupted)
    print(f"seed {seed}", flush=True)
    outcome = (run_shards if given.shards else run)(
        options, programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None
    )
    print(summary(outcome), flush=True)
    return keep(outcome) if outcome.verdict.violations else 0


def keep(outcome: Outcome) -> int:
    """Print what went wrong, and leave it in a file with all calls and logs."""
    text = failures(outcome)
    print(text, flush=True)
    KEPT.mkdir(parents=True, exist_ok=True)
    kept = KEPT / f"{outcome.options.seed}.txt"
    calls = "\n".join(str(call) for call in sorted(outcome.calls, key=lambda call: call.began))
    kept.write_text("\n".join([summary(outcome), text, outcome.trouble, calls]))
    print(f"\nwith all calls and the logs: {kept}", flush=True)
    return 1


def _interrupted(*_: Any) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
