"""python -m tests.kill [--seconds N] [--seed N]: kills, stops and crashes, then each rule broken on purpose."""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
import tempfile
from pathlib import Path

from tests.kill.programs import compiled, compiler, kill_run
from tests.kill.wrong import RUNS

ROUND = 20  # seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the first round")
    parser.add_argument("--crashes-one-in", type=int, default=400, help="crash points that are passed")
    parser.add_argument("--no-wrong", action="store_true", help="only the kills, no rule broken on purpose")
    arguments = parser.parse_args()
    if compiler() is None:
        print("there is no C compiler, or this system has no arenas")
        return 0
    with tempfile.TemporaryDirectory(prefix="pgsession-kill-build-") as folder:
        program = compiled("steps.c", Path(folder))
        failed = subprocess.run([program]).returncode != 0
        failed = kills(Path(folder), arguments.seconds, arguments.seed, arguments.crashes_one_in) or failed
        if not arguments.no_wrong:
            failed = not all([is_noticed(name, Path(folder), arguments.seed) for name in RUNS]) or failed
    return int(failed)


def kills(folder: Path, seconds: float, seed: int, crashes_one_in: int) -> bool:
    """Run rounds of kill.c, with one seed after the other; return True if a rule was broken."""
    program = compiled("kill.c", folder)
    total: dict[str, int] = {}
    left = seconds
    while left > 0:
        length = min(left, ROUND)
        outcome = kill_run(program, seconds=length, seed=seed, processes=6, crashes_one_in=crashes_one_in)
        for name, value in outcome.figures.items():
            if isinstance(value, int):
                total[name] = total.get(name, 0) + value
        inside, reads = outcome.figures["killed inside"], outcome.figures["reads"]
        print(f"seed {seed}: {inside} killed inside, {inside / length:.0f}/s, {reads} reads", flush=True)
        if outcome.violations:
            print(outcome.said, outcome.figures)
            return True
        left -= length
        seed += 1
    print(", ".join(f"{name}: {value}" for name, value in total.items()))
    return False


def is_noticed(name: str, folder: Path, seed: int) -> bool:
    """Break a rule; return True if kill.c counts a violation, or dies of it, within four times 5 s."""
    wrong = RUNS[name]
    program = compiled("kill.c", folder, wrong)
    for attempt in range(4):
        try:
            violations = kill_run(program, seconds=5, seed=seed + attempt).violations
        except AssertionError:
            violations = 1
        if violations:
            print(f"{wrong.rule}, {name}: noticed after at most {5 * (attempt + 1)} s", flush=True)
            return True
    print(f"{wrong.rule}, {name}: NOT NOTICED with the seeds from {seed}: {wrong.harm}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
