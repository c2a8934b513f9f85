"""The fields of the public structs are documented in one place, which `help()` shows."""

from __future__ import annotations

import pydoc
import re
from datetime import timedelta

import msgspec
import pytest

import pgsession


def documented(struct: type[msgspec.Struct]) -> dict[str, tuple[str, str]]:
    section = re.search(
        r"\n    Attributes:\n(.*?)(?:\n\n    \w+:\n|\n    \Z|\Z)", struct.__doc__ or "", re.DOTALL
    )
    assert section is not None, f"{struct.__name__} has no section Attributes"
    entries = re.findall(r"^        (\w+) \(([^)]*)\): (\S.*(?:\n {12}.*)*)", section[1], re.MULTILINE)
    assert section[1].count("\n") + 1 == sum(1 + text.count("\n") for _, _, text in entries)
    return {name: (kind, " ".join(text.split())) for name, kind, text in entries}


@pytest.mark.parametrize(
    "struct",
    [
        pgsession.Config,
        pgsession.Stats,
        pgsession.Health,
        pgsession.Attribute,
        pgsession.SessionInfo,
        pgsession.LockInfo,
        pgsession.NodeInfo,
    ],
    ids=lambda s: s.__name__,
)
def test_every_field_is_documented_and_nothing_else(struct: type[msgspec.Struct]) -> None:
    found = documented(struct)
    assert list(found) == list(struct.__struct_fields__)
    assert all(text.endswith(".") for _, text in found.values())
    shown = pydoc.render_doc(struct, renderer=pydoc.plaintext)
    assert all(f"{name} (" in shown for name in found)


def test_the_documented_defaults_are_the_defaults() -> None:
    units = {"second": 1, "minute": 60, "hour": 3600, "day": 86400}
    for name, (kind, _) in documented(pgsession.Config).items():
        default, said = getattr(pgsession.Config(), name), kind.partition(", default ")[2]
        if isinstance(default, timedelta) and default:
            number, unit = said.split()
            assert timedelta(seconds=int(number) * units[unit.rstrip("s")]) == default, name
        elif isinstance(default, timedelta):
            assert said == "0", name
        else:
            assert said == (f'"{default}"' if isinstance(default, str) else str(default)), name


def test_statistics_are_counters_or_gauges() -> None:
    assert {kind for kind, _ in documented(pgsession.Stats).values()} == {"counter", "gauge"}
