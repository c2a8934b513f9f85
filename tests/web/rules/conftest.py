"""A site of each adapter, for all tests of the module, and what the tests look at behind it."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator

import pytest

import pgsession
from tests.web.rules.adapters import ADAPTERS, MATRIX
from tests.web.rules.contract import Browser, Meeting, Place, Site

SITES = MATRIX if os.environ.get("PGSESSION_WEB_MATRIX") else ADAPTERS


@pytest.fixture(scope="module", params=list(SITES))
def site(
    request: pytest.FixtureRequest, dsn: str, config: pgsession.Config, manager: pgsession.SessionManager
) -> Iterator[Site]:
    """The manager has made the tables."""
    adapter = SITES[request.param]()
    with adapter(Place(dsn, config.schema_name)) as running:
        yield running


@pytest.fixture
def browser(site: Site) -> Callable[..., Browser]:
    """`browser("serial")`: one without a cookie."""

    def make(setting: str = "merge") -> Browser:
        return Browser(site, setting)

    return make


@pytest.fixture
def meeting() -> Iterator[Meeting]:
    with Meeting() as place:
        yield place


@pytest.fixture
def needs(site: Site) -> Callable[..., None]:
    """`needs("rotate")`: skips the test where the site does not offer that."""

    def check(*actions: str) -> None:
        missing = site.lacks.intersection(actions)
        if missing:
            pytest.skip(f"the framework has no {', '.join(sorted(missing))}")

    return check
