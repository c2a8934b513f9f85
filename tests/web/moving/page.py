"""The snippets of docs/moving.md: the sites are made of them, and the tests run its commands."""

from __future__ import annotations

import re
from pathlib import Path

PAGE = (Path(__file__).resolve().parents[3] / "docs" / "moving.md").read_text(encoding="utf-8")


def snippet(heading: str, language: str = "python") -> str:
    """The first snippet below a heading."""
    part = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    found = re.search(rf"^```{language}\n(.*?)^```$", part, re.DOTALL | re.MULTILINE)
    assert found, heading
    return found[1]
