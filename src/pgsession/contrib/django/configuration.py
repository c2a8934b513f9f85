"""The setting `PGSESSION` of a Django project is read here, and where its database is found out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, cast

from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from pgsession import Config, ConfigError, Signer
from pgsession.web import CookiePolicy, OnConflict, SessionRules, derive_key

APP = "pgsession.contrib.django"
Database = str | Callable[[], str]

# Of the options of a database in Django's settings the others are psycopg's or Django's own.
_FOR_LIBPQ = frozenset(option.keyword.decode() for option in Conninfo.get_defaults())
_LOCAL = ("", "localhost", "127.0.0.1", "::1")

_names_before_tests: dict[str, str] = {}


class Configuration(NamedTuple):
    """Holds what the settings of a project say.

    Attributes:
        database: Where the sessions are.
        config: How the manager works.
        on_conflict: What becomes of the changes of requests that overlap.
        serial_timeout: With "serial", for how long a request waits for those before it.
        include_inactivity: True where sessions also end by inactivity, since the project says after how long.
        moved_from: The name of the cookie of Django's own engine, for browsers whose sessions were moved here.
    """

    database: Database
    config: Config
    on_conflict: OnConflict
    serial_timeout: timedelta | float
    include_inactivity: bool
    moved_from: str | None


def read() -> Configuration:
    """Return what the settings say.

    Raises:
        ImproperlyConfigured: A setting is missing or breaks its rule; the message names it.
    """
    fields = dict(_given())
    on_conflict = fields.pop("on_conflict", "merge")
    database = fields.pop("database", None)
    serial_timeout = fields.pop("serial_timeout", 30)
    moved_from = fields.pop("moved_from", None)
    try:
        cookie = CookiePolicy(moved_from=moved_from)
        SessionRules(cookie, on_conflict=on_conflict, serial_timeout=serial_timeout)
        config = Config(**fields)
    except ConfigError as error:
        raise ImproperlyConfigured(f"PGSESSION: {error}") from None
    return Configuration(
        conninfo_of(database),
        config,
        on_conflict,
        serial_timeout,
        "inactivity_duration" in fields,
        moved_from,
    )


def given_database() -> object:
    """Return `PGSESSION["database"]` as it was given.

    Raises:
        ImproperlyConfigured: There is no such setting.
    """
    return _given().get("database")


def _given() -> Mapping[str, Any]:
    given = getattr(settings, "PGSESSION", None)
    if not isinstance(given, Mapping):
        raise ImproperlyConfigured('PGSESSION: a dict is needed, such as {"database": "postgresql://..."}')
    return given


def signer() -> Signer:
    """Return the signer of tokens, whose keys are derived from those of Django.

    Raises:
        ImproperlyConfigured: A key is empty, or no text; the message names its setting.
    """
    name = "SECRET_KEY"
    try:
        keys = [derive_key(settings.SECRET_KEY)]
        name = "SECRET_KEY_FALLBACKS"
        keys += [derive_key(key) for key in settings.SECRET_KEY_FALLBACKS]
    except (ConfigError, TypeError) as error:
        raise ImproperlyConfigured(f"{name}: {error}") from None
    return Signer(keys)


def conninfo_of(database: object) -> Database:
    """Return the conninfo that `PGSESSION["database"]` stands for: an alias of `DATABASES`, or a conninfo itself.

    While Django's test runner has put a test database in the place of one of `DATABASES`, it is in the place of this
    one too, also where that is named by a conninfo.
    """
    if callable(database):
        return cast("Callable[[], str]", database)
    if not isinstance(database, str):
        raise ImproperlyConfigured(
            'PGSESSION["database"]: an alias of DATABASES, a conninfo, or a function that returns one is needed,'
            f" not {type(database).__name__}"
        )
    if database in connections.settings:
        return _conninfo_of_alias(database)
    alias = alias_of(database)
    if alias is None or alias not in _names_before_tests:
        return database
    return make_conninfo(database, dbname=connections.settings[alias]["NAME"])


def alias_of(database: object) -> str | None:
    """Return the alias of `DATABASES` that is the same database; None where there is none."""
    if not isinstance(database, str) or database in connections.settings:
        return database if isinstance(database, str) else None
    try:
        ours = _place(conninfo_to_dict(database))
    except ProgrammingError:  # whose text may have a password in it
        raise ImproperlyConfigured(
            f'PGSESSION["database"]: neither an alias of DATABASES ({", ".join(connections)}) nor a conninfo'
        ) from None
    for alias in connections:
        if connections[alias].vendor == "postgresql":
            theirs = conninfo_to_dict(_conninfo_of_alias(alias))
            theirs["dbname"] = _names_before_tests.get(alias, str(theirs.get("dbname")))
            if _place(theirs) == ours:
                return alias
    return None


def how_to_migrate() -> str:
    """Return the command that makes the tables, for messages, and what it needs."""
    alias = alias_of(given_database()) or DEFAULT_DB_ALIAS
    command = "python manage.py migrate" + f" --database={alias}" * (alias != DEFAULT_DB_ALIAS)
    if apps.is_installed(APP):
        return f"run `{command}`"
    return f"add {APP!r} to INSTALLED_APPS, and run `{command}`"


def check_that_tests_may() -> None:
    """Refuse what a test may not use: a database that it does not name, and one that no test does.

    That one is the project's own, while those that tests name are replaced by test databases.

    Raises:
        AssertionError: The test does not name it, as Django says it.
        ImproperlyConfigured: No test that runs does.
    """
    alias = alias_of(given_database())
    if alias is None:
        return
    if hasattr(connections[alias].connect, "wrapped"):  # by one that raises
        connections[alias].connect()
    replaced = [
        other
        for other, given in connections.settings.items()
        if _names_before_tests.get(other) != str(given["NAME"])
    ]
    if replaced and alias not in replaced:
        raise ImproperlyConfigured(
            f'PGSESSION["database"]: {alias!r} has no test database, for no test names it: add it to `databases` of'
            " those that use sessions"
        )


def remember_names() -> None:
    """Note what the databases are called, before a test runner puts others in their place."""
    for alias, given in connections.settings.items():
        _names_before_tests[alias] = str(given["NAME"])


def _place(parameters: Mapping[str, object]) -> tuple[str, str, str]:
    host = str(parameters.get("host") or "")
    return (
        "" if host in _LOCAL else host,
        str(parameters.get("port") or 5432),
        str(parameters.get("dbname") or ""),
    )


def _conninfo_of_alias(alias: str) -> str:
    vendor = connections[alias].vendor
    if vendor != "postgresql":
        raise ImproperlyConfigured(
            f'PGSESSION["database"]: must be PostgreSQL; DATABASES[{alias!r}] is {vendor}'
        )
    given = connections.settings[alias]
    parameters = {name: value for name, value in given["OPTIONS"].items() if name in _FOR_LIBPQ}
    names = {"NAME": "dbname", "USER": "user", "PASSWORD": "password", "HOST": "host", "PORT": "port"}
    parameters.update({ours: given[name] for name, ours in names.items() if given[name]})
    if role := given["OPTIONS"].get("assume_role"):
        parameters["options"] = f"{parameters.get('options', '')} -c role={role}".strip()
    return make_conninfo(**parameters)
