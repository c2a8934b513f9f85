"""Django's sessions in PostgreSQL, read from memory: an app, and the session engine of it.

    INSTALLED_APPS += ["pgsession.contrib.django"]
    SESSION_ENGINE = "pgsession.contrib.django"
    PGSESSION = {"database": "default"}  # an alias of DATABASES, or a conninfo such as "postgresql://..."

`manage.py migrate` makes the tables. All else is Django's own: `request.session`, `login()`, the `SESSION_COOKIE_...`
settings, and `SECRET_KEY` with its fallbacks, from which the keys that sign are derived.
"""

from __future__ import annotations

from pgsession.contrib.django.manager import session_manager
from pgsession.contrib.django.store import SessionStore

__all__ = ["SessionStore", "session_manager"]
