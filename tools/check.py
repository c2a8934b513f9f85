"""`make check`: everything that can be found wrong without running the library. Reports all of it, then fails."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
BIN = Path(sys.executable).parent


class Step(NamedTuple):
    name: str
    command: list[str]


def steps() -> Iterator[Step]:
    """What there is to check."""
    yield Step("lint", [str(BIN / "ruff"), "check", "--quiet", "--output-format=concise", "."])
    yield Step("format", [str(BIN / "ruff"), "format", "--check", "--quiet", "."])
    yield Step("generated code", [sys.executable, "tools/async_to_sync.py", "--check"])
    yield Step("types", [str(BIN / "mypy")])


def run(step: Step) -> bool:
    began = time.monotonic()
    done = subprocess.run(step.command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    print(
        f"{step.name:<24}{'ok' if done.returncode == 0 else 'FAILED':<8}{time.monotonic() - began:5.1f} s",
        flush=True,
    )
    if done.returncode:
        print(done.stdout, flush=True)
    return done.returncode == 0


def main() -> int:
    failed = [step.name for step in steps() if not run(step)]
    if failed:
        print(f"make check: failed: {', '.join(failed)}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
