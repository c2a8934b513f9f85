"""`make faults`: shows that each test of `tests/faults.toml` fails on the commit before the fault was mended.

A fault's `before` is that commit. It is checked out into a folder of its own, today's tests are put in place of its
own, and the tests named for the fault are run, each in a process of its own: it has to fail, by what it finds or
because it never ends or crashes, and not because it cannot be collected.

Where a commit has something in another place than today's tests look for it, `[layout]` in the table says which files
are put there for it.

    python tools/prove_faults.py [ROW ...]
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "faults.toml"
PATIENCE = 120  # seconds for one test


class Fault(NamedTuple):
    """One row of the table."""

    row: int
    what: str
    before: str
    tests: list[str]


def main() -> int:
    """Prove the rows that are asked for, or all; print a line for each."""
    wanted = set(map(int, sys.argv[1:]))
    faults = [fault for fault in table() if not wanted or fault.row in wanted]
    good = True
    for before in dict.fromkeys(fault.before for fault in faults):
        with checkout(before) as folder:
            for fault in faults:
                if fault.before == before:
                    good = prove(fault, folder) and good
    return 0 if good else 1


def table() -> list[Fault]:
    """Return the rows of the table, in its order."""
    return [Fault(**row) for row in tomllib.loads(TABLE.read_text(encoding="utf-8"))["fault"]]


def layout(commit: str) -> dict[str, str]:
    """Return the files that today's tests need on a commit, by their paths."""
    found: dict[str, str] = tomllib.loads(TABLE.read_text(encoding="utf-8"))["layout"].get(commit, {})
    return found


@contextmanager
def checkout(commit: str) -> Iterator[Path]:
    """Yield a built checkout of a commit with today's tests in it."""
    with tempfile.TemporaryDirectory(prefix="pgsession-faults-") as name:
        folder = Path(name) / "tree"
        subprocess.run(
            ["git", "worktree", "add", "--quiet", "--detach", folder, commit], cwd=ROOT, check=True
        )
        try:
            shutil.rmtree(folder / "tests")
            shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("__pycache__"))
            shutil.copy(ROOT / "pyproject.toml", folder)
            for path, text in layout(commit).items():
                (folder / path).write_text(text, encoding="utf-8")
            command = [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"]
            subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
            yield folder
        finally:
            subprocess.run(["git", "worktree", "remove", "--force", folder], cwd=ROOT, check=True)


def prove(fault: Fault, folder: Path) -> bool:
    """Return True where every test of the fault fails in this folder; print what each did."""
    outcomes = {test: outcome(test, folder) for test in fault.tests}
    failed = all(value in ("failed", "never ended", "crashed") for value in outcomes.values())
    print(f"row {fault.row:2}  {'fails as it should' if failed else 'NOT PROVEN'}  {fault.what}", flush=True)
    for test, value in outcomes.items():
        print(f"        {value}: {test}", flush=True)
    return failed


def outcome(test: str, folder: Path) -> str:
    """Run a test, with all its parameters, and return what it did."""
    report = folder / "report.xml"
    report.unlink(missing_ok=True)
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--no-header", f"--junitxml={report}", test]
    environment = {**os.environ, "PYTHONPATH": str(folder / "src"), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, timeout=PATIENCE)
    except subprocess.TimeoutExpired:
        return "never ended"
    if done.returncode < 0:  # by a signal
        return "crashed"
    cases = list(ElementTree.parse(report).getroot().iter("testcase")) if report.exists() else []
    if not cases or not all(case.get("classname") for case in cases):
        return "not collected"
    wrong = (case for case in cases if case.find("failure") is not None or case.find("error") is not None)
    return "failed" if any(wrong) else "passed"


if __name__ == "__main__":
    sys.exit(main())
