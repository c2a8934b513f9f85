"""What `manage.py` does: it migrates, checks, clears, and runs a project's tests on databases of their own."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
import unittest
from collections.abc import Callable, Iterator
from pathlib import Path

import psycopg
import pytest
from django.core import checks
from django.test import SimpleTestCase, modify_settings, override_settings
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsession.contrib.django import SessionStore as OurStore
from pgsession.schema import latest_version

PROJECT = Path(__file__).parent / "project"
PATIENCE = 120
Manage = Callable[..., str]


@pytest.fixture
def empty(dsn: str) -> Iterator[str]:
    """A database with nothing in it."""
    name = f"shop_{secrets.token_hex(6)}"
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield make_conninfo(dsn, dbname=name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def manage(empty: str) -> Manage:
    """`manage("migrate", PGSESSION={...})`: what it prints; every warning is an error."""

    def run(*arguments: str, fails: bool = False, **settings: object) -> str:
        environment = {
            **os.environ,
            "SHOP_DSN": empty,
            "SHOP_SETTINGS": json.dumps(settings),
            "DJANGO_SETTINGS_MODULE": "shop_settings",
            "PYTHONPATH": os.pathsep.join([str(PROJECT), os.environ.get("PYTHONPATH", "")]),
        }
        command = [sys.executable, "-W", "error", "-m", "django", *arguments]
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=PATIENCE, cwd=PROJECT
        )
        assert (done.returncode != 0) is fails, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


def tables_in(dsn: str) -> int:
    with psycopg.connect(dsn) as connection:
        found = connection.execute(
            "SELECT count(*) FROM pg_class WHERE relname = 'session_attributes'"
        ).fetchone()
    assert found is not None
    return int(found[0])


def databases(dsn: str) -> set[str]:
    with psycopg.connect(dsn) as connection:
        return {name for (name,) in connection.execute("SELECT datname FROM pg_database")}


def test_migrate_makes_the_tables_and_says_what_is_missing_before(manage: Manage, empty: str) -> None:
    assert "python manage.py migrate" in manage("clearsessions", fails=True)
    manage("makemigrations", "pgsession", "--check", "--dry-run")
    manage("migrate", "-v0")
    assert tables_in(empty) == 1
    manage("migrate", "-v0")
    manage("clearsessions")
    # What goes through all models looks for no table of ours.
    assert "pgsession.livesession" not in manage("dumpdata") + manage("dumpdata", "--all", "pgsession")
    manage("migrate", "pgsession", "zero", "-v0")
    assert tables_in(empty) == 1


@pytest.mark.usefixtures("shop")
def test_the_newest_schema_version_has_a_migration_of_django() -> None:
    """Else a project that upgrades this library finds nothing to migrate, and its nodes open no more."""
    from django.db.migrations.loader import MigrationLoader

    migrations = MigrationLoader(None).disk_migrations
    brought = [found.schema_version for (app, _), found in migrations.items() if app == "pgsession"]
    assert max(brought) == latest_version()


@pytest.mark.usefixtures("shop")
def test_the_command_that_is_missing_is_named_with_its_database(empty: str) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    from pgsession.contrib.django import session_manager

    name = conninfo_to_dict(empty)["dbname"]
    connections.settings["more"] = {**connections.settings["default"], "NAME": name}
    try:
        with override_settings(PGSESSION={"database": "more"}):
            with pytest.raises(
                ImproperlyConfigured, match=r"^run `python manage.py migrate --database=more`: "
            ):
                session_manager()
            with (
                modify_settings(INSTALLED_APPS={"remove": "pgsession.contrib.django"}),
                pytest.raises(
                    ImproperlyConfigured, match=r"^add 'pgsession.contrib.django' to INSTALLED_APPS"
                ),
            ):
                session_manager()
    finally:
        del connections.settings["more"]


def test_migrate_goes_where_the_conninfo_points(manage: Manage, empty: str, dsn: str, schema: str) -> None:
    """To the alias that is the same database; to another one while the default is migrated."""
    manage("migrate", "-v0", PGSESSION={"database": empty})
    assert tables_in(empty) == 1
    manage("migrate", "pgsession", "zero", "-v0")
    manage("migrate", "pgsession", "-v0", PGSESSION={"database": dsn, "schema_name": schema})
    with psycopg.connect(dsn) as connection:
        assert connection.execute(
            "SELECT to_regclass(%s) IS NOT NULL", (f"{schema}.sessions",)
        ).fetchone() == (True,)


@pytest.mark.parametrize(
    ("named_by", "parallel"),
    [("alias", ("--parallel=2",)), ("conninfo", ())],
    ids=["an alias, in parallel", "a conninfo"],
)
def test_the_test_runner_gives_sessions_a_database_of_their_own(
    manage: Manage, empty: str, named_by: str, parallel: tuple[str, ...]
) -> None:
    database = "default" if named_by == "alias" else empty
    before = databases(empty)
    told = manage("test", "shop", *parallel, PGSESSION={"database": database})
    assert "OK" in told and "Ran 4 tests" in told
    assert tables_in(empty) == 0, "the tests have used the project's own database"
    assert databases(empty) == before, "the test database is still there"


@pytest.mark.usefixtures("shop")
def test_a_test_uses_no_database_that_it_does_not_name() -> None:
    from pgsession.contrib.django import session_manager

    class Case(SimpleTestCase):
        def runTest(self) -> None:
            session_manager()

    session_manager()
    result = Case().defaultTestResult()
    unittest.TestSuite([Case()]).run(result)
    [(_, told)] = result.failures
    assert "add 'default' to" in told
    session_manager()


@pytest.mark.usefixtures("shop")
def test_a_database_that_no_test_names_is_the_projects_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    from pgsession.contrib.django import configuration, session_manager

    monkeypatch.setitem(connections.settings, "more", dict(connections.settings["default"]))
    configuration.remember_names()
    monkeypatch.setitem(configuration._names_before_tests, "default", "before the runner")
    with (
        override_settings(PGSESSION={"database": "more"}),
        pytest.raises(ImproperlyConfigured, match="'more' has no test database"),
    ):
        session_manager()
    session_manager()


# ---- checks ----


def messages(**settings: object) -> set[str | None]:
    with override_settings(**settings):
        found = checks.run_checks(include_deployment_checks=True)
    return {message.id for message in found if (message.id or "").startswith(("pgsession", "security.W01"))}


class SessionStore(OurStore):
    """The engine of a project that builds on ours."""


SAFE = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_HTTPONLY": True, "SESSION_COOKIE_SAMESITE": "Lax"}


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize(
    ("settings", "found"),
    [
        ({}, set()),
        ({"PGSESSION": None}, {"pgsession.E001"}),
        ({"PGSESSION": {}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": 7}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "neither an alias nor a conninfo"}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "default", "max_session": 1}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "default", "max_sessions": -1}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "default", "on_conflict": "win"}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "default", "serial_timeout": 0}}, {"pgsession.E001"}),
        ({"PGSESSION": {"database": "default", "session_expiration": 60}}, {"pgsession.W002"}),
        ({"PGSESSION": {"database": "default", "max_sessions_policy": "reject"}}, {"pgsession.W003"}),
        ({"SECRET_KEY_FALLBACKS": [""]}, {"pgsession.E001"}),  # as "".split(",") makes it
        ({"SESSION_ENGINE": "django.contrib.sessions.backends.db"}, {"pgsession.W001"}),
        ({"SESSION_ENGINE": "no.such.module"}, {"pgsession.W001"}),
        ({"SESSION_ENGINE": __name__}, set()),
        ({"PGSESSION": {"database": "default", "moved_from": "sessionid"}}, {"pgsession.W005"}),
        ({"PGSESSION": {"database": "default", "moved_from": "a b"}}, {"pgsession.E001"}),
        ({"SESSION_COOKIE_NAME": "__Host-session"}, set()),
        ({"SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_PATH": "/shop"}, {"pgsession.E002"}),
        ({"SESSION_COOKIE_NAME": "__Host-session", "SESSION_COOKIE_DOMAIN": "a.org"}, {"pgsession.E002"}),
        ({"SESSION_COOKIE_SAMESITE": "None"}, {"pgsession.W004"}),
        ({"SESSION_COOKIE_SAMESITE": False}, {"pgsession.W004"}),
        (
            {"SESSION_COOKIE_NAME": "__Secure-session", "SESSION_COOKIE_SECURE": False},
            {"pgsession.E002", "security.W011"},
        ),
        (
            {"SESSION_COOKIE_SAMESITE": "none", "SESSION_COOKIE_SECURE": False},
            {"pgsession.E003", "pgsession.W004", "security.W011"},
        ),
        ({"SESSION_COOKIE_HTTPONLY": False}, {"security.W014"}),
    ],
    ids=lambda value: repr(sorted(value) if isinstance(value, set) else value),  # the same in each process
)
def test_settings_are_checked(settings: dict[str, object], found: set[str]) -> None:
    assert messages(**{**SAFE, **settings}) == found


@pytest.mark.usefixtures("shop")
@pytest.mark.parametrize("conninfo", ["postgres//app:hidden@db/app", "postgresql://app:hid%zzden@db/app"])
def test_no_password_is_in_what_a_check_says(conninfo: str) -> None:
    with override_settings(PGSESSION={"database": conninfo}):
        said = [message.msg for message in checks.run_checks() if message.id == "pgsession.E001"]
    assert said == ['PGSESSION["database"]: neither an alias of DATABASES (default) nor a conninfo']


@pytest.mark.usefixtures("shop")
def test_a_database_that_is_not_postgresql_is_refused() -> None:
    from django.core.exceptions import ImproperlyConfigured
    from django.db import connections

    from pgsession.contrib.django import configuration

    connections.settings["lite"] = {**connections.settings["default"], "ENGINE": "django.db.backends.sqlite3"}
    try:
        with pytest.raises(ImproperlyConfigured, match="must be PostgreSQL; DATABASES\\['lite'\\] is sqlite"):
            configuration.conninfo_of("lite")
    finally:
        del connections.settings["lite"]


@pytest.mark.usefixtures("shop")
def test_an_alias_gives_its_options(shop: str) -> None:
    from django.db import connections

    from pgsession.contrib.django import configuration

    options = {
        "sslmode": "prefer",
        "pool": True,
        "isolation_level": 2,
        "assume_role": "app",
        "server_side_binding": True,
        "prepare_threshold": 5,
        "autocommit": True,
    }
    connections.settings["more"] = {**connections.settings["default"], "PORT": 5555, "OPTIONS": options}
    try:
        found = configuration.conninfo_of("more")
    finally:
        del connections.settings["more"]
    assert isinstance(found, str)
    expected = {**conninfo_to_dict(shop), "sslmode": "prefer", "options": "-c role=app", "port": "5555"}
    assert conninfo_to_dict(found) == expected
