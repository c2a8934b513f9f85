"""Compiles kill.c and steps.c, with a smaller ring and less patience, and wrong in one place if that is asked for."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ARENA = HERE.parents[1] / "cython" / "pgsession" / "_core" / "arena.h"
SETTINGS = {  # so that overruns and arenas that are given up happen often
    "PGS_RING = 16384": "PGS_RING = 256",
    "SLICE = 100000": "SLICE = 6000",
}
WARNINGS = ["-Wall", "-Wextra", "-Werror", "-Wno-unused-function"]


def compiler() -> str | None:
    """Return the C compiler; None where there is none, or where there are no arenas."""
    return shutil.which(os.environ.get("CC", "cc")) if sys.platform == "linux" else None


@dataclass(frozen=True)
class Wrong:
    """One place in which a program is made wrong: `old` occurs once in the file."""

    rule: str
    harm: str
    file: str
    old: str
    new: str
    settings: tuple[tuple[str, str], ...] = ()  # of kill.c, without which it is rarely seen

    def applied_to(self, file: str, text: str) -> str:
        if file != self.file:
            return text
        assert text.count(self.old) == 1, f"{file} has {text.count(self.old)} times {self.old!r}"
        for old, new in ((self.old, self.new), *self.settings):
            text = text.replace(old, new)
        return text


def compiled(
    program: str,
    folder: Path,
    wrong: Wrong | None = None,
    options: tuple[str, ...] = ("-O2",),
    command: tuple[str, ...] = (),
) -> Path:
    """Compile a program in a folder, by this system's compiler or another one; return the path of what can be run."""
    if not command:
        found = compiler()
        assert found is not None
        command = (found,)
    arena = ARENA.read_text(encoding="utf-8")
    for old, new in SETTINGS.items():
        assert arena.count(old) == 1, old
        arena = arena.replace(old, new)
    for name, text in (("arena.h", arena), (program, (HERE / program).read_text(encoding="utf-8"))):
        (folder / name).write_text(wrong.applied_to(name, text) if wrong else text, encoding="utf-8")
    output = folder / program.removesuffix(".c")
    warnings = [] if wrong else WARNINGS  # a wrong one has things that are not used
    subprocess.run(
        [*command, "-std=c11", *warnings, *options, "-I", folder, folder / program, "-o", output, "-pthread"],
        check=True,
    )
    return output


@dataclass(frozen=True)
class Outcome:
    """What a run of kill.c has told."""

    figures: dict[str, Any]
    said: str

    @property
    def violations(self) -> int:
        """The number of violations that it has counted."""
        return int(self.figures["bad"])


def kill_run(
    program: Path,
    *,
    seconds: float,
    seed: int,
    processes: int = 4,
    crashes_one_in: int = 5000,
    under: tuple[str, ...] = (),
    **environment: str,
) -> Outcome:
    """Run kill.c for so many seconds, in a folder of its own in memory; `under` is a command that runs it."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(prefix="pgsession-kill-", dir=memory) as folder:
        arguments = [str(seconds), str(processes), str(seed), str(crashes_one_in), folder]
        run = subprocess.run(
            [*under, program, *arguments],
            capture_output=True,
            text=True,
            timeout=seconds * 3 + 60,
            env={**os.environ, **environment},
        )
    if not re.match(r"\{.*\}$", run.stdout):
        raise AssertionError(f"seed {seed}: status {run.returncode}\n{run.stdout}\n{run.stderr[-4000:]}")
    return Outcome(json.loads(run.stdout), run.stderr)
