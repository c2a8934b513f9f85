"""Counts the instructions of the hot path under callgrind, and compares them with those that are recorded.

Two figures a call are checked: the instructions in the compiled core, and how often it calls out of itself, into the
interpreter or a library. Both are the same for every build of one Python version by one kind of compiler. The
instructions of everything together depend on how the interpreter was built: they are compared with those of the
same build only.
"""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

RECORDED = Path(__file__).with_name("instructions.json")
ALLOWED = 0.10
LESS = "less: record it"  # else nobody would notice when it grows back
UNKNOWN = "NOT RECORDED, or not any more"
FEW, MANY = 100, 600  # calls in the two runs of each workload: the difference is free of what happens once
OURS = re.compile(r"/pgsession/_\w+/\w+\.[^/]*so$")


class Counts(NamedTuple):
    """Of one call."""

    core: float
    """Instructions in the compiled modules themselves, of which reads use the core alone."""
    calls: float
    """Calls from these to what is outside of them."""
    everything: float
    """Instructions, those of the interpreter and the libraries included."""


def key() -> str:
    """What the counts of the core depend on."""
    version, compiler = sys.version_info, platform.python_compiler().split()[0].lower()
    return f"{version.major}.{version.minor} {compiler} {platform.machine()}"


def build() -> str:
    """What the counts of the interpreter depend on."""
    return sys.version


def count() -> dict[str, Counts]:
    """The counts of every workload, by its name."""
    if shutil.which("valgrind") is None:
        sys.exit("make check-hot needs valgrind (apt-get install valgrind), which is not in the PATH")
    with tempfile.TemporaryDirectory(prefix="pgsession-check-hot-") as folder:
        names, dumps = run(Path(folder))
    return {
        name: Counts(*((more - less) / (MANY - FEW) for less, more in zip(few, many, strict=True)))
        for name, few, many in zip(names, dumps[::2], dumps[1::2], strict=True)
    }


def run(folder: Path) -> tuple[list[str], list[Counts]]:
    """The names of the workloads, and what was counted in FEW and in MANY calls of each."""
    command = [
        *("valgrind", "--tool=callgrind", "--quiet", "--dump-before=getppid", "--compress-strings=no"),
        *("--compress-pos=no", f"--callgrind-out-file={folder}/out"),
        *(sys.executable, "-m", "hot.workloads", str(FEW), str(MANY)),
    ]
    tools = Path(__file__).resolve().parent.parent
    environment = {**os.environ, "PYTHONHASHSEED": "0", "PYTHONPATH": str(tools)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"valgrind failed:\n{done.stdout}{done.stderr}")
    parts = sorted(folder.glob("out.*"), key=lambda path: int(path.suffix[1:]))
    counted = [read(part.read_text()) for part in parts[1::2]]  # the others are of what lies between
    return done.stdout.splitlines(), counted


def read(dump: str) -> Counts:
    """One dump in the format of callgrind: lines of costs, each of the function whose header came last."""
    core = calls = everything = 0
    ours = theirs = inclusive = False
    for line in dump.splitlines():
        if line.startswith("ob="):
            ours = theirs = OURS.search(line) is not None
        elif line.startswith("fn="):
            theirs = ours
        elif line.startswith("cob="):
            theirs = OURS.search(line) is not None
        elif line.startswith("calls="):
            if ours and not theirs:
                calls += int(line.removeprefix("calls=").split()[0])
            inclusive, theirs = True, ours
        elif line[:1].isdigit() or line[:1] in "+-*":
            if not inclusive:
                cost = sum(map(int, line.split()[1:]))
                everything += cost
                core += cost if ours else 0
            inclusive = False
    return Counts(core, calls, everything)


def load() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(RECORDED.read_text()) if RECORDED.exists() else {}
    return found


def record(counts: dict[str, Counts]) -> None:
    """Takes these counts as those to compare with from now on."""
    known = load()
    known[key()] = {"build": build(), "counts": {name: list(each) for name, each in counts.items()}}
    RECORDED.write_text(laid_out(known))


def laid_out(known: dict[str, Any]) -> str:
    """JSON with a line for each workload, which a reader of a change can compare."""
    entries = [
        f"{json.dumps(name)}: {{\n"
        f'  "build": {json.dumps(entry["build"])},\n  "counts": {{\n'
        + ",\n".join(
            f"    {json.dumps(what)}: {[round(figure, 1) for figure in each]}"
            for what, each in entry["counts"].items()
        )
        + "\n  }\n}"
        for name, entry in sorted(known.items())
    ]
    return "{\n" + ",\n".join(entries) + "\n}\n"


def recorded() -> tuple[dict[str, Counts], bool]:
    """The recorded counts, and whether they are of this very build of Python."""
    entry = load().get(key())
    if entry is None:
        sys.exit(
            f"{RECORDED.name} has no counts for {key()!r}: record those of a good state with"
            " `make check-hot ARGS=--record`, and commit the file"
        )
    return {name: Counts(*each) for name, each in entry["counts"].items()}, entry["build"] == build()


def verdicts(before: dict[str, Counts], now: dict[str, Counts], same_build: bool) -> dict[str, str]:
    """What is to be said of each workload; nothing of those that are as they were."""
    found = dict.fromkeys(before.keys() ^ now.keys(), UNKNOWN)
    figures = Counts._fields if same_build else ("core", "calls")
    for name in before.keys() & now.keys():
        changes = {
            figure: change(getattr(before[name], figure), getattr(now[name], figure)) for figure in figures
        }
        grown = [figure for figure in figures if changes[figure] > ALLOWED]
        if grown:
            found[name] = f"GROWN: {', '.join(grown)}"
        elif min(changes.values()) < -ALLOWED:
            found[name] = LESS
    return found


def change(before: float, now: float) -> float:
    """By which part of it a figure has grown."""
    return (now - before) / before if before else float(now >= 0.5)
