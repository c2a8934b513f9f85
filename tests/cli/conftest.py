"""The command, called in this process as a terminal would: what it says, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import pytest

from pgsession.cli import main
from tests.roles import Roles, made


class Said(NamedTuple):
    status: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Run = Callable[..., Said]


@pytest.fixture(autouse=True)
def _environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("PGSESSION_DATABASE", "PGSESSION_DSN", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)


@pytest.fixture
def run(dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """`run("sessions", "list", status=0, database=...)`: on the test's own tables."""

    def call(*arguments: str, database: str | None = dsn, status: int | None = 0) -> Said:
        monkeypatch.setenv("PGSESSION_SCHEMA_NAME", schema)
        if database is None:
            monkeypatch.delenv("PGSESSION_DATABASE", raising=False)
        else:
            monkeypatch.setenv("PGSESSION_DATABASE", database)
        capsys.readouterr()
        said = Said(main(arguments), *capsys.readouterr())
        assert status in (None, said.status), said
        return said

    return call


@pytest.fixture
def roles(dsn: str, schema: str) -> Iterator[Roles]:
    with made(dsn, schema) as roles:
        yield roles
