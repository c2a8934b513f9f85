"""A process has one manager for Django's sessions, which is opened when the first of them is used."""

from __future__ import annotations

from typing import NamedTuple

from django.core import mail
from django.core.exceptions import ImproperlyConfigured
from django.core.signals import setting_changed
from django.db.backends.base.base import NO_DB_ALIAS, BaseDatabaseWrapper
from django.db.backends.signals import connection_created

from pgsession import SchemaError, SessionManager
from pgsession.contrib import _databases
from pgsession.contrib._process import OncePerProcess, open_or_close
from pgsession.contrib.django import configuration
from pgsession.contrib.django.configuration import Configuration

_SETTINGS = ("DATABASES", "PGSESSION", "SECRET_KEY", "SECRET_KEY_FALLBACKS")


class Opened(NamedTuple):
    """Holds the manager, and the settings that it was made from."""

    manager: SessionManager
    configuration: Configuration


def session_manager() -> SessionManager:
    """Return the manager of this process, opened: for lists of a user's sessions, locks, statistics and so on.

    Nobody has to close it. Ending a session by it ends the session of Django, whose id is `request.session.session_id`.

    Raises:
        ImproperlyConfigured: The settings are wrong, or there are no tables yet; the message says what to do.
        psycopg.Error: The database cannot be reached.
    """
    return open_manager().manager


def opened() -> Opened | None:
    """Return what is open, or None, without waiting."""
    return _process.opened


def open_manager() -> Opened:
    """Return what is open, or open it; this waits for the database."""
    if hasattr(mail, "outbox"):  # which there is in tests only
        configuration.check_that_tests_may()
    return _process.get()


def _open() -> Opened:
    settings = configuration.read()
    manager = _databases.manager(settings.database, settings.config, configuration.signer())
    try:
        open_or_close(manager)
    except SchemaError as error:
        raise ImproperlyConfigured(f"{configuration.how_to_migrate()}: {error}") from error
    return Opened(manager, settings)


def close_manager(timeout: float | None = 30) -> None:
    """Close the manager, where one is open; the next session opens another."""
    _process.close(timeout)


def _on_setting(*, setting: str, **_: object) -> None:
    """Start anew where tests override settings."""
    if setting in _SETTINGS:
        close_manager()


def _on_connection(*, connection: BaseDatabaseWrapper, **_: object) -> None:
    """Let go of the database before one is made, copied or dropped: the test runner connects to none for that."""
    if connection.alias == NO_DB_ALIAS:
        close_manager()


_process = OncePerProcess(_open, lambda opened, timeout: opened.manager.close(timeout))
setting_changed.connect(_on_setting, dispatch_uid=__name__)
connection_created.connect(_on_connection, dispatch_uid=__name__)
