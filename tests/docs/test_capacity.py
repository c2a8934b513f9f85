"""What docs/capacity.md shows is what the command prints."""

from __future__ import annotations

from tools import capacity_page


def test_the_examples_are_what_the_command_prints() -> None:
    page = capacity_page.PAGE.read_text(encoding="utf-8")
    assert page.count("$ pgsession plan ") == 2
    assert capacity_page.page() == page, "run `python -m tools.capacity_page`"
