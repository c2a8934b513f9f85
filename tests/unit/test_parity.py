"""docs/parity.md names tests that exist, and leaves out no field and no method of ours."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import pgsession

ROOT = Path(__file__).parents[2]
TABLE = (ROOT / "docs" / "parity.md").read_text(encoding="utf-8")
NAMED = sorted(set(re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", TABLE)))


def has_test(path: Path, name: str) -> bool:
    return re.search(rf"^(async )?def {name}\(", path.read_text(encoding="utf-8"), re.MULTILINE) is not None


def test_every_row_names_a_test() -> None:
    rows = [
        line for line in TABLE.splitlines() if line.startswith("| ") and not line.startswith("| reference")
    ]
    assert len(rows) > 80
    assert [row for row in rows if not re.search(r"`tests/[\w/]+\.py::\w+` *\|$", row)] == []


@pytest.mark.parametrize(("file", "name"), NAMED, ids=[name for _, name in NAMED])
def test_the_named_test_exists(file: str, name: str) -> None:
    assert has_test(ROOT / file, name)
    if file.startswith("tests/aio/"):
        assert has_test(ROOT / file.replace("tests/aio/", "tests/sync/"), name), "for threads too"


@pytest.mark.parametrize("name", re.findall(r"`(examples/\w+\.py)`", TABLE))
def test_the_named_example_exists(name: str) -> None:
    assert (ROOT / name).is_file()


@pytest.mark.parametrize(
    "kind", [pgsession.SessionManager, pgsession.Session, pgsession.Lock, pgsession.Listener]
)
def test_every_public_method_is_in_the_table(kind: type) -> None:
    # what belongs to psycopg's and Python's ways rather than to the reference's
    of_ours = {
        "resource",
        "locked",
        "execute",
        "reconnect",
        "connected",
        "pid",
        "add_lost_hook",
        "remove_lost_hook",
    }
    of_mappings = {"clear", "items", "keys", "pop", "popitem", "setdefault", "update", "values"}
    public = {name for name in dir(kind) if not name.startswith("_")} - of_ours - of_mappings
    assert [name for name in sorted(public) if not re.search(rf"\b{name}\b", TABLE)] == []


@pytest.mark.parametrize("kind", ["SessionManager", "Lock", "Listener"])
def test_both_managers_have_the_same_surface(kind: str) -> None:
    threads, asyncio = getattr(pgsession, kind), getattr(pgsession, f"Async{kind}")
    assert {name for name in dir(threads) if not name.startswith("_")} == {
        name for name in dir(asyncio) if not name.startswith("_")
    }


def test_every_field_of_the_configuration_is_in_the_table() -> None:
    fields = pgsession.Config.__struct_fields__
    assert [name for name in fields if not re.search(rf"`{name}\b", TABLE)] == []
