"""python -m benchmarks.eviction [SEED]: hit rates of the shared cache against LRU; on Linux, with a C compiler."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_suffix(".c")


def compiled(folder: str) -> str:
    """Return the program."""
    program = str(Path(folder) / "eviction")
    compiler = os.environ.get("CC", "cc")
    subprocess.run([compiler, "-std=c11", "-O2", SOURCE, "-o", program, "-pthread", "-lm"], check=True)
    return program


def traces() -> list[str]:
    """Return the names of the traces that it makes."""
    (table,) = re.findall(r"TRACES\[\] = \{(.*?)\};", SOURCE.read_text(), re.DOTALL)
    return re.findall(r'\{"([^"]+)"', table)


def main() -> int:
    with tempfile.TemporaryDirectory(prefix="pgsession-eviction-") as folder:
        return subprocess.run([compiled(folder), *sys.argv[1:]]).returncode


if __name__ == "__main__":
    sys.exit(main())
