"""What stands in the pages to be copied is whole: Python imports what it uses, SQL ends its statements."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))]
BLOCK = re.compile(r"^```(python|sql)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
RUFF = Path(sys.executable).parent / "ruff"
# What the reader has: a conninfo, a key, an application, an open manager, Django's settings, and functions of his own.
GIVEN = [
    "database",
    "sessions",
    "manager",
    "token",
    "build",
    "app",
    "key",
    "right",
    "old_id",
    "INSTALLED_APPS",
    "route_handlers",
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_snippets_are_whole(page: Path, tmp_path: Path) -> None:
    known = ""  # of the page's snippets before
    for number, (language, text) in enumerate(BLOCK.findall(page.read_text(encoding="utf-8"))):
        if language == "sql":
            assert text.rstrip().endswith(";"), text
            continue
        known += text + "\n"
        (tmp_path / f"{number}.py").write_text(known, encoding="utf-8")
        command = [RUFF, "check", "--isolated", "--select=F821", f"--config=builtins={GIVEN}", tmp_path]
        done = subprocess.run(command, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout
