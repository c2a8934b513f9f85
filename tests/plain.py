"""Has the decisions run as they are written: `pytest -p tests.plain`. Otherwise what was compiled of them runs."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.machinery import (
    EXTENSION_SUFFIXES,
    SOURCE_SUFFIXES,
    ExtensionFileLoader,
    FileFinder,
    SourceFileLoader,
)
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
OPTION = ("-p", "tests.plain")
LONGEST = 120  # seconds for one run


def sources_first() -> None:
    """Have Python import the source of a module where there is the compiled one beside it."""
    source, compiled = (SourceFileLoader, SOURCE_SUFFIXES), (ExtensionFileLoader, EXTENSION_SUFFIXES)
    sys.path_hooks.insert(0, FileFinder.path_hook(source, compiled))
    sys.path_importer_cache.clear()


def passes(*tests: str, dsn: str = "") -> None:
    """Run tests with the plain decisions, in a process of their own; fail with what it says where they do."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", *OPTION, *tests]
    given = {"PGSESSION_TEST_DSN": dsn} if dsn else {}
    done = subprocess.run(
        command, cwd=ROOT, env={**os.environ, **given}, timeout=LONGEST,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout


if OPTION[1] in sys.argv:
    assert "pgsession" not in sys.modules
    sources_first()
