"""Asks herd7 which outcomes a litmus test can have, by the model of C11 (RC11) or by that of ARMv8."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.litmus.arm import translated

MODELS = ("C11", "ARM")
MISSING = "herd7 is not installed (opam install herdtools7), so no order was looked at"


def program() -> str | None:
    """Return herd7, of the PATH or of the variable HERD7; None where there is none."""
    return shutil.which(os.environ.get("HERD7", "herd7"))


def is_possible(text: str, model: str) -> bool:
    """Return True where a test in C can have its outcome."""
    command = program()
    assert command is not None
    options = ["-model", "rc11.cat"] if model == "C11" else []
    with tempfile.TemporaryDirectory(prefix="pgsession-litmus-") as folder:
        path = Path(folder) / "test.litmus"
        path.write_text(text if model == "C11" else translated(text), encoding="utf-8")
        run = subprocess.run(
            [command, *options, path], capture_output=True, text=True, timeout=60, check=False
        )
    observed = re.search(r"^Observation \w+ (Never|Sometimes|Always)", run.stdout, re.MULTILINE)
    assert observed and "*undef*" not in run.stdout and not run.stderr, run.stdout + run.stderr
    return observed[1] != "Never"
