"""Django is set up once for all tests, on a database of its own; each test begins without sessions and users."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from tests.roles import Roles, made
from tests.tables import Tables

if find_spec("django") is None:
    collect_ignore_glob = ["*"]
PROJECT = Path(__file__).parent / "project"


@pytest.fixture(scope="session")
def shop_dsn(dsn: str) -> Iterator[str]:
    """A database of a Django project, empty at first."""
    name = f"shop_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_conninfo(dsn, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture(scope="session")
def shop(shop_dsn: str) -> Iterator[str]:
    """The project's conninfo; Django is set up in this process, and has migrated."""
    import django
    from django.core.management import call_command
    from django.db import connections

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SHOP_DSN", shop_dsn)
        patch.setenv("DJANGO_SETTINGS_MODULE", "shop_settings")
        patch.syspath_prepend(str(PROJECT))
        django.setup()
        from django.test.utils import setup_test_environment

        setup_test_environment()
        call_command("migrate", verbosity=0)
        yield shop_dsn
        from pgsession.contrib.django.manager import close_manager

        close_manager()
        connections.close_all()


@pytest.fixture
def tables(shop: str) -> Tables:
    """The tables of the sessions, which begin empty."""
    found = Tables(shop, "public")
    found.run("DELETE FROM {sessions}")
    return found


@pytest.fixture
def roles(dsn: str, schema: str) -> Iterator[Roles]:
    """An owner, a service and others; the schema is the owner's."""
    with made(dsn, schema) as roles:
        yield roles
