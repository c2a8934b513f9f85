"""The setting `PGSESSION` of a Django project is read here, and where its database is found out."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any, NamedTuple, cast

import msgspec
from django.apps import apps
from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.db import DEFAULT_DB_ALIAS, connections
from psycopg import ProgrammingError
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import Conninfo

from pgsession import Config, ConfigError, Shard, Signer
from pgsession.contrib._databases import Database
from pgsession.shard import complete
from pgsession.web import CookiePolicy, OnConflict, SessionRules, derive_key

APP = "pgsession.contrib.django"
One = str | Callable[[], str]

# Of the options of a database in Django's settings the others are psycopg's or Django's own.
_FOR_LIBPQ = frozenset(option.keyword.decode() for option in Conninfo.get_defaults())
_LOCAL = ("", "localhost", "127.0.0.1", "::1")

_names_before_tests: dict[str, str] = {}


class Configuration(NamedTuple):
    """Holds what the settings of a project say.

    Attributes:
        database: Where the sessions are: a conninfo, a function that returns one, or shards.
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
        shards = complete(database, config.schema_name) if isinstance(database, list | tuple) else None
    except (ConfigError, TypeError) as error:
        raise ImproperlyConfigured(f"PGSESSION: {error}") from None
    return Configuration(
        conninfo_of(database)
        if shards is None
        else [msgspec.structs.replace(shard, database=conninfo_of(shard.database)) for shard in shards],
        config,
        on_conflict,
        serial_timeout,
        "inactivity_duration" in fields,
        moved_from,
    )


class Place(NamedTuple):
    """Says where tables are.

    Attributes:
        alias: The alias of `DATABASES` that is the same database, None where there is none.
        database: What leads there.
        schema_name: Their schema.
        shard: The number of the shard that they are, and of how many; None: they are no shard.
    """

    alias: str | None
    database: One
    schema_name: str
    shard: tuple[int, int] | None


def places() -> Iterator[Place]:
    """Yield where the tables are: in one place, or one for each shard.

    Raises:
        ImproperlyConfigured: A setting is missing or breaks its rule; the message names it.
    """
    settings, given = read(), _given().get("database")
    if isinstance(settings.database, str) or callable(settings.database):
        yield Place(alias_of(given), settings.database, settings.config.schema_name, None)
        return
    assert isinstance(given, list | tuple)
    for number, (shard, of_given) in enumerate(zip(settings.database, given, strict=True)):
        assert isinstance(shard, Shard)
        alias = alias_of(of_given.database if isinstance(of_given, Shard) else of_given)
        yield Place(alias, cast("One", shard.database), str(shard.schema_name), (number, len(given)))


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


def conninfo_of(database: object) -> One:
    """Return the conninfo that `PGSESSION["database"]` stands for: an alias of `DATABASES`, or a conninfo itself.

    While Django's test runner has put a test database in the place of one of `DATABASES`, it is in the place of this
    one too, also where that is named by a conninfo.
    """
    if callable(database):
        return cast("Callable[[], str]", database)
    if not isinstance(database, str):
        raise ImproperlyConfigured(
            'PGSESSION["database"]: an alias of DATABASES, a conninfo, a function that returns one, or a list of shards'
            f" is needed, not {type(database).__name__}"
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
    aliases = dict.fromkeys(place.alias or DEFAULT_DB_ALIAS for place in places())
    commands = " and ".join(
        "`python manage.py migrate" + f" --database={alias}" * (alias != DEFAULT_DB_ALIAS) + "`"
        for alias in aliases
    )
    return (
        f"run {commands}" if apps.is_installed(APP) else f"add {APP!r} to INSTALLED_APPS, and run {commands}"
    )


def check_that_tests_may() -> None:
    """Refuse what a test may not use: a database that it does not name, and one that no test does.

    That one is the project's own, while those that tests name are replaced by test databases.

    Raises:
        AssertionError: The test does not name it, as Django says it.
        ImproperlyConfigured: No test that runs does.
    """
    for alias in {place.alias for place in places()}:
        if alias is not None:
            _check_that_tests_may(alias)


def _check_that_tests_may(alias: str) -> None:
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
