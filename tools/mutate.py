"""Do the tests notice when the source is wrong? Breaks one thing at a time and asks those that should.

The lists are `tools/mutations/*.toml`, a table `[[mutation]]` for each:

    name    what to call it
    file    the source to change
    old     a text that is there exactly once
    new     what stands there instead
    harm    what goes wrong then
    tests   ids of tests of which at least one fails then; or
    same    why no test can tell the difference

It works on a copy of the checkout in `build/mutants`, with a server that all tests share, and fails where the tests
pass although the source is wrong, where they fail although it is not, and where a mutation no longer applies. One that
hangs is noticed, too.

    python tools/mutate.py [NAME | LIST ...] [--show]
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parent.parent
LISTS = ROOT / "tools" / "mutations"
COPY = ROOT / "build" / "mutants"
CORE = "src/pgsession/_core"
# What a build goes on from, beside the compiled modules.
BUILT = ("build/cython", "build/temp.*", "build/lib.*")
LONGEST = 180  # seconds for the tests of one mutation


class NotOnce(Exception):
    """The text to change does not occur exactly once: the mutation must follow the source."""


class Mutation(NamedTuple):
    """One thing that is wrong: `old` occurs once in the file, and becomes `new`."""

    name: str
    file: str
    old: str
    new: str
    harm: str = ""
    tests: tuple[str, ...] = ()
    same: str = ""
    list: str = ""


def mutations() -> list[Mutation]:
    """All mutations, in the order of the lists."""
    found = []
    for path in sorted(LISTS.glob("*.toml")):
        for table in tomllib.loads(path.read_text(encoding="utf-8"))["mutation"]:
            tests = tuple(table.pop("tests", ()))
            found.append(Mutation(**table, tests=tests, list=path.stem))
    return found


def mutated(mutation: Mutation) -> str:
    """The text of the file with the mutation in it."""
    text = (ROOT / mutation.file).read_text(encoding="utf-8")
    if text.count(mutation.old) != 1:
        raise NotOnce(f"{mutation.name}: found {text.count(mutation.old)} times in {mutation.file}")
    return text.replace(mutation.old, mutation.new)


def test_exists(test: str) -> bool:
    """True where there is such a test."""
    file, _, name = test.partition("::")
    path = ROOT / file
    if not name:
        return path.exists()
    function = re.escape(name.partition("[")[0])
    return (
        path.is_file()
        and re.search(rf"^(async )?def {function}\(", path.read_text("utf-8"), re.M) is not None
    )


def copied() -> set[Path]:
    """What the copy is made of: what git knows or would, and what was built of the core.

    What has no `.pxd` is not compiled: of the decisions the sources run there, as they are then.
    """
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    paths = {ROOT / line for line in listed.stdout.splitlines()}
    paths -= set((ROOT / "src").glob("**/*.pxd"))
    paths |= set((ROOT / CORE).glob("*.so"))
    for pattern in BUILT:
        paths |= {path for folder in ROOT.glob(pattern) for path in folder.rglob("*")}
    return {path for path in paths if path.is_file()}


def copy_checkout() -> None:
    """Make the copy anew."""
    shutil.rmtree(COPY, ignore_errors=True)
    for path in copied():
        to = COPY / path.relative_to(ROOT)
        to.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(path, to)


def environment(dsn: str) -> dict[str, str]:
    """What the tests of the copy run with."""
    return {
        **os.environ,
        "PYTHONPATH": f"{COPY / 'src'}{os.pathsep}{COPY}",
        "PYTHONDONTWRITEBYTECODE": "1",
        "PGSESSION_TEST_DSN": dsn,
        "CFLAGS": "-O0",
    }


class Outcome(NamedTuple):
    """How a run of tests ended."""

    passed: bool
    output: str


def run_tests(tests: Iterable[str], dsn: str, *options: str, longest: float = LONGEST) -> Outcome:
    """Run some tests in the copy.

    Raises:
        RuntimeError: They could not be run.
    """
    command = [sys.executable, "-m", "pytest", "-q", *options, *tests]
    try:
        done = subprocess.run(
            command, cwd=COPY, env=environment(dsn), timeout=longest,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return Outcome(False, f"{error}")
    if done.returncode not in (0, 1) and done.returncode > 0:
        raise RuntimeError(done.stdout)
    return Outcome(done.returncode == 0, done.stdout)


def build(file: str) -> None:
    """Compile what depends on this source: one module, or all where it is shared."""
    now = time.time()
    os.utime(COPY / file, (now, now))
    for module in [*COPY.glob(f"{CORE}/*.so"), *COPY.glob("build/lib.*/**/*.so")]:
        concerned = not file.endswith(".pyx") or module.name.startswith(Path(file).stem + ".")
        os.utime(module, (0, 0) if concerned else (now, now))
    subprocess.run(
        [sys.executable, "setup.py", "--quiet", "build_ext", "--inplace"],
        cwd=COPY, env=environment(""), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def restore(file: str) -> None:
    """Undo a mutation."""
    shutil.copy2(ROOT / file, COPY / file)
    for module in (ROOT / CORE).glob("*.so"):
        shutil.copy2(module, COPY / CORE / module.name)


def noticed(mutation: Mutation, dsn: str) -> Outcome:
    """Run the tests of a mutation on the copy, with the mutation in it."""
    (COPY / mutation.file).write_text(mutated(mutation), encoding="utf-8")
    try:
        if mutation.file.startswith("cython/"):
            build(mutation.file)
        return run_tests(mutation.tests, dsn, "-x")
    finally:
        restore(mutation.file)


def main() -> int:
    """Print a line for each mutation; exit 1 if one was not noticed, or no longer applies."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("names", nargs="*", metavar="NAME | LIST", help="these alone; else all")
    parser.add_argument("--show", action="store_true", help="print what the tests said")
    arguments = parser.parse_args()
    chosen = [m for m in mutations() if not arguments.names or {m.name, m.list} & set(arguments.names)]
    tried = [mutation for mutation in chosen if mutation.tests]
    copy_checkout()
    sys.path[:0] = [str(ROOT)]
    from tests.conftest import start_server

    with start_server(settings={"max_connections": 300}) as server:
        before = run_tests(sorted({test for m in tried for test in m.tests}), server.conninfo, longest=3600)
        if not before.passed:
            print(before.output, "\nThese tests fail although nothing is wrong.")
            return 1
        missed = sum(not report(mutation, server.conninfo, show=arguments.show) for mutation in tried)
    same = len(chosen) - len(tried)
    print(f"{len(tried)} mutations, {missed} not noticed; {same} more make no difference")
    return 1 if missed else 0


def report(mutation: Mutation, dsn: str, *, show: bool) -> bool:
    """Try a mutation and say what came of it; True where it was noticed."""
    began = time.monotonic()
    try:
        outcome = noticed(mutation, dsn)
    except (NotOnce, RuntimeError, subprocess.CalledProcessError) as error:
        print(f"{mutation.name:40} CANNOT BE TRIED: {str(error)[-2000:]}", flush=True)
        return False
    result = f"NOT NOTICED: {mutation.harm}" if outcome.passed else _first_failure(outcome.output)
    print(f"{mutation.name:40}{time.monotonic() - began:6.1f} s  {result}", flush=True)
    if show:
        print(outcome.output)
    return not outcome.passed


def _first_failure(output: str) -> str:
    failed = re.search(r"^(?:FAILED|ERROR) (tests/\S+)", output, re.MULTILINE)
    return failed[1] if failed else "never ended, or ended the process"


if __name__ == "__main__":
    sys.exit(main())
