"""One shop and one browser for the tests of a module. Playwright's event loop is only there meanwhile."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from tests.browser.shop import launch_options, open_shop
from tests.programs import needs_program
from tests.tables import Tables

# A guard: a page, or what is looked for in it, is there in milliseconds.
PATIENCE_MS = 30_000


@pytest.fixture(scope="module")
def program() -> str:
    pytest.importorskip("playwright")
    pytest.importorskip("starlette")
    return needs_program("chromium")


@pytest.fixture(scope="module")
def shop_schema(program: str, dsn: str) -> Iterator[str]:
    name = f"t_{secrets.token_hex(6)}"
    yield name
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def nodes(dsn: str, shop_schema: str) -> Iterator[tuple[str, str]]:
    with open_shop(dsn, shop_schema) as urls:
        yield urls


@pytest.fixture(scope="module")
def chromium(program: str) -> Iterator[Any]:
    """Playwright's Chromium, to launch browsers with."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        yield playwright.chromium


@pytest.fixture(scope="module")
def _process(program: str, chromium: Any) -> Iterator[Any]:
    running = chromium.launch(**launch_options(program))
    yield running
    running.close()


@pytest.fixture
def browser(
    _process: Any, dsn: str, shop_schema: str, nodes: tuple[str, str]
) -> Iterator[Callable[..., Any]]:
    """`browser(user_agent=...)`: one with cookies of its own. No session is there yet."""
    Tables(dsn, shop_schema).run("DELETE FROM {sessions}")
    opened = []

    def make(**options: Any) -> Any:
        opened.append(_process.new_context(**options))
        opened[-1].set_default_timeout(PATIENCE_MS)
        return opened[-1]

    yield make
    for each in opened:
        each.close()
