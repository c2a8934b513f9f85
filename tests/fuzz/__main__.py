"""python -m tests.fuzz [--seconds N] [--seed N]: rounds of the fuzz tests, with one seed after the other."""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
EXAMPLES = "2000"


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--seed", type=int, default=random.randrange(2**32), help="of the first round")
    arguments = parser.parse_args()
    began, seed = time.monotonic(), arguments.seed
    while True:
        print(f"{EXAMPLES} examples of each test, --seed {seed}", flush=True)
        command = [sys.executable, "-m", "pytest", "-q", str(HERE), f"--hypothesis-seed={seed}"]
        failed = subprocess.run(command, env={**os.environ, "PGSESSION_FUZZ_EXAMPLES": EXAMPLES}).returncode
        if failed or time.monotonic() - began > arguments.seconds:
            return failed
        seed += 1


if __name__ == "__main__":
    sys.exit(main())
