"""Sessions that Django's engines `db` and `cached_db` keep in its table."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime

import django
from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER
from django.core import signing
from django.db import DatabaseError, connections
from django.utils import timezone
from django.utils.module_loading import import_string

from pgsession.contrib.django import configuration
from pgsession.contrib.django.values import Values, name_of
from pgsession.contrib.moving.mover import Contents, LeftBehind, MoveError, OldSession

__all__ = ["DjangoTable"]

_BATCH = 500


class DjangoTable:
    """Reads the table of the project that `DJANGO_SETTINGS_MODULE` names.

    Args:
        unpickle: True: values may be decoded by a serializer that is not Django's own for JSON.

    Attributes:
        database: Where the sessions go, as `PGSESSION` says.
        config: The same of the manager.

    Raises:
        ImproperlyConfigured: The settings are wrong.
        MoveError: `django.contrib.sessions` is not installed in the project.
    """

    errors: tuple[type[Exception], ...] = (DatabaseError,)

    def __init__(self, *, unpickle: bool) -> None:
        django.setup()
        if "django.contrib.sessions" not in settings.INSTALLED_APPS:
            raise MoveError(
                "INSTALLED_APPS: django.contrib.sessions, whose table is read, has to be there still"
            )
        from django.contrib.sessions.backends.db import SessionStore

        self._model = SessionStore.get_model_class()
        self._salt = SessionStore().key_salt
        self._serializer = import_string(settings.SESSION_SERIALIZER)
        self._values = Values(self._serializer)
        self._unpickle = unpickle
        read = configuration.read()
        self.database, self.config = read.database, read.config

    def batches(self) -> Iterator[list[OldSession]]:
        """Yield the live sessions."""
        last = ""
        while True:
            live = self._model.objects.filter(session_key__gt=last, expire_date__gt=timezone.now())
            rows = list(
                live.order_by("session_key").values_list("session_key", "session_data", "expire_date")[
                    :_BATCH
                ]
            )
            if not rows:
                return
            yield [self._old(*row) for row in rows]
            last = rows[-1][0]

    def _old(self, key: str, data: str, expires_at: datetime) -> OldSession:
        aware = timezone.make_aware(expires_at) if timezone.is_naive(expires_at) else expires_at
        return OldSession(key, data.encode(), aware)

    def contents(self, old: OldSession) -> Contents:
        """Return what is in a session."""
        if not (self._values.are_json or self._unpickle):
            raise LeftBehind("SESSION_SERIALIZER is not Django's for JSON: --unpickle decodes by it")
        try:
            values = signing.loads(old.raw.decode(), salt=self._salt, serializer=self._serializer)
        except signing.BadSignature:
            raise LeftBehind("it was signed by none of SECRET_KEY and SECRET_KEY_FALLBACKS") from None
        except Exception as error:
            raise LeftBehind(f"it cannot be decoded: {type(error).__name__}") from None
        user = values.get(USER)
        stored = {name_of(key): self._values.to_stored(value) for key, value in values.items()}
        return Contents(None if user is None else str(user), stored)

    def close(self) -> None:
        """Disconnect."""
        connections.close_all()
