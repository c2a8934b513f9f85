"""The examples as modules, as their own folder's scripts see each other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pgsession

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[str], ModuleType]]:
    """`example("roles")`: the module, imported for this test only."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(EXAMPLES)
    yield importlib.import_module
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", "")).startswith(str(EXAMPLES)):
            del sys.modules[name]


@pytest.fixture
def config(schema: str) -> pgsession.Config:
    return pgsession.Config(schema_name=schema, create_schema_if_missing=True)


@pytest.fixture
def sessions(dsn: str, config: pgsession.Config) -> Iterator[pgsession.SessionManager]:
    with pgsession.SessionManager(dsn, config) as manager:
        yield manager
