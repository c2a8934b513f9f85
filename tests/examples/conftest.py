"""The examples as modules, as their own folder's scripts see each other."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType

import pytest

import pgsession
from tests.testing.conftest import _some_postgres

__all__ = ["_some_postgres"]

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


# What the examples are given is what users' own tests are given: the plugin's.


@pytest.fixture
def dsn(pgsession_conninfo: str) -> str:
    return pgsession_conninfo


@pytest.fixture
def schema(pgsession_config: pgsession.Config) -> str:
    return pgsession_config.schema_name


@pytest.fixture
def config(pgsession_config: pgsession.Config) -> pgsession.Config:
    return pgsession_config


@pytest.fixture
def sessions(pgsession_manager: pgsession.SessionManager) -> pgsession.SessionManager:
    return pgsession_manager
