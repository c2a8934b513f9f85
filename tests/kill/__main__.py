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

ROUND = 10  # seconds
CRASHES_ONE_IN = (5000, 200, 300, 300)  # crash points that are passed: many deaths, and many reads
ATTEMPTS = 24  # the rarest, a deposed leader that vouches, is noticed in one of three


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.kill", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the first round")
    parser.add_argument("--no-wrong", action="store_true", help="only the kills, no rule broken on purpose")
    arguments = parser.parse_args()
    if compiler() is None:
        print("there is no C compiler, or this system has no arenas")
        return 0
    with tempfile.TemporaryDirectory(prefix="pgsession-kill-build-") as folder:
        program = compiled("steps.c", Path(folder))
        failed = subprocess.run([program]).returncode != 0
        failed = races(Path(folder), arguments.seed) or failed
        failed = kills(Path(folder), arguments.seconds, arguments.seed) or failed
        if not arguments.no_wrong:
            failed = sum(not is_noticed(name, Path(folder), arguments.seed) for name in RUNS) > 0 or failed
    return int(failed)


def races(folder: Path, seed: int) -> bool:
    """Run one process under ThreadSanitizer, which nobody kills; return True if it tells of a race.

    It takes no notice of others. The copy of a record's bytes is a race on purpose: its turn is checked afterwards.
    """
    suppressed = folder / "suppressed"
    suppressed.write_text("race:pgs_arena_read\n", encoding="utf-8")
    try:
        program = compiled("kill.c", folder, None, ("-O1", "-g", "-fsanitize=thread", "-Wno-tsan"))
    except subprocess.CalledProcessError:
        print("there is no ThreadSanitizer")
        return False
    options = f"suppressions={suppressed} halt_on_error=1 exitcode=66"
    outcome = kill_run(program, seconds=5, seed=seed, processes=1, crashes_one_in=0, TSAN_OPTIONS=options)
    print(f"ThreadSanitizer: {outcome.figures['reads']} reads, {outcome.said or 'no race'}", flush=True)
    return bool(outcome.said)


def kills(folder: Path, seconds: float, seed: int) -> bool:
    """Run rounds of kill.c, with one seed after the other; return True if a rule was broken."""
    program = compiled("kill.c", folder)
    total: dict[str, int] = {}
    left = seconds
    while left > 0:
        length = min(left, ROUND)
        one_in = CRASHES_ONE_IN[seed % 4]
        outcome = kill_run(program, seconds=length, seed=seed, processes=6, crashes_one_in=one_in)
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
    """Break a rule; return True if kill.c counts a violation, or dies of it, within `ATTEMPTS` times 5 s."""
    wrong = RUNS[name]
    program = compiled("kill.c", folder, wrong)
    for attempt in range(ATTEMPTS):
        try:
            violations = kill_run(program, seconds=5, seed=seed + attempt).violations
        except (AssertionError, subprocess.TimeoutExpired):
            violations = 1
        if violations:
            print(f"{wrong.rule}, {name}: noticed after at most {5 * (attempt + 1)} s", flush=True)
            return True
    print(f"{wrong.rule}, {name}: NOT NOTICED with the seeds from {seed}: {wrong.harm}", flush=True)
    return False


if __name__ == "__main__":
    sys.exit(main())
