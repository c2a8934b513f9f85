"""What the page about the shop shows is the shop."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_the_snippets_are_those_of_the_example() -> None:
    page = (ROOT / "docs" / "shop.md").read_text(encoding="utf-8")
    app = (ROOT / "examples" / "shop" / "app.py").read_text(encoding="utf-8")
    snippets = re.findall(r"^```py\n(.*?)^```$", page, re.DOTALL | re.MULTILINE)
    functions = [function.strip() for snippet in snippets for function in snippet.split("\n\n\n")]
    assert len(functions) == 5
    assert not [function for function in functions if f"\n\n{function}\n" not in app]
