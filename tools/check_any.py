"""`Any` switches the type checker off: where it may stand is counted in `any.toml`. A part of `make check`.

Fails where a file has more of them than are allowed, and where it has fewer, so that the list stays true.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tomllib
from collections import Counter
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LIST = Path(__file__).with_name("any.toml")
EXPLICIT = re.compile(r"^src/pgsession/(?P<file>[^:]+):\d+: error: .*\[explicit-any\]$", re.MULTILINE)


def main() -> int:
    """Print each file that differs from the list."""
    allowed = {
        file: many
        for group in tomllib.loads(LIST.read_text())["allowed"]
        for file, many in group["files"].items()
    }
    found = counts()
    wrong = [
        f"src/pgsession/{file}: {found[file]} lines with an explicit Any, {allowed.get(file, 0)} in tools/{LIST.name}"
        for file in sorted(found | allowed)
        if found[file] != allowed.get(file, 0)
    ]
    print("\n".join(wrong))
    return 1 if wrong else 0


def counts() -> Counter[str]:
    """Return how many errors mypy reports for each file; the generated shells are as their sources."""
    command = [sys.executable, "-m", "mypy", "--disallow-any-explicit", "--cache-dir=.cache/mypy-any", "src"]
    done = subprocess.run(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    files = (match["file"] for match in EXPLICIT.finditer(done.stdout))
    return Counter(file for file in files if not file.startswith("_sync/"))


if __name__ == "__main__":
    sys.exit(main())
