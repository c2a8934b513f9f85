"""docs/security.md says for each item what there is and which test shows it, or that it is the application's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", PAGE)))
ITEMS = [
    [cell.strip() for cell in line.split("|")[1:-1]]
    for line in PAGE.splitlines()
    if line.startswith("| ") and not line.startswith("| item ")
]


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file: str, name: str) -> None:
    text = (ROOT / file).read_text(encoding="utf-8")
    assert re.search(rf"^(async )?def {name}\(", text, re.MULTILINE)


def test_every_item_has_a_test_or_is_the_applications() -> None:
    assert len(ITEMS) > 60 and len(NAMED) > 20
    for item in ITEMS:
        assert len(item) == 3 and item[0], item
        assert re.match(r"`tests/[\w/]+\.py::\w+`$|the application's", item[2]), item
        assert item[1] or item[2].startswith("the application's"), item


def test_no_item_of_asvs_is_left_out() -> None:
    chapters = {"7.1": 3, "7.2": 4, "7.3": 2, "7.4": 5, "7.5": 3, "7.6": 2}
    wanted = [f"{chapter}.{number + 1}" for chapter, count in chapters.items() for number in range(count)]
    assert [item[0].split()[0] for item in ITEMS if re.match(r"7\.\d\.\d", item[0])] == wanted
