"""Checks of the settings tell `manage.py check` what is wrong or unsafe in them."""

from __future__ import annotations

from importlib import import_module

from django.conf import settings
from django.core.checks import CheckMessage, Error, Tags, Warning, register
from django.core.exceptions import ImproperlyConfigured

from pgsession.contrib.django import configuration
from pgsession.contrib.django.store import SessionStore

_MOVING = "pgsession.contrib.django.moving.SessionMiddleware"


@register(Tags.security)
def check_settings(app_configs: object, **_: object) -> list[CheckMessage]:
    """Check `PGSESSION`, the keys that sign, and what has to fit them."""
    try:
        read = configuration.read()
        configuration.signer()
    except ImproperlyConfigured as error:
        return [Error(str(error), id="pgsession.E001")]
    found: list[CheckMessage] = []
    if not _is_ours(settings.SESSION_ENGINE):
        found.append(
            Warning(
                f"SESSION_ENGINE is {settings.SESSION_ENGINE!r}: sessions are not in pgsession.",
                hint=f"Set SESSION_ENGINE = {configuration.APP!r}, or take the app out of INSTALLED_APPS.",
                id="pgsession.W001",
            )
        )
    if "session_expiration" in settings.PGSESSION:
        found.append(
            Warning(
                'PGSESSION["session_expiration"] has no say: sessions last for SESSION_COOKIE_AGE, or as long as'
                " set_expiry() says.",
                id="pgsession.W002",
            )
        )
    if read.moved_from is not None and _MOVING not in settings.MIDDLEWARE:
        found.append(
            Warning(
                'PGSESSION["moved_from"] has no effect: nobody looks for that cookie.',
                hint=f"In MIDDLEWARE, put {_MOVING!r} in the place of Django's SessionMiddleware.",
                id="pgsession.W005",
            )
        )
    if read.config.max_sessions_policy == "reject":
        found.append(
            Warning(
                'PGSESSION["max_sessions_policy"] is "reject": who has too many sessions and logs in again is answered'
                " with status 400, after the password was accepted.",
                hint='With "evict" the user\'s least recently used session ends.',
                id="pgsession.W003",
            )
        )
    return found


@register(Tags.security)
def check_cookie(app_configs: object, **_: object) -> list[CheckMessage]:
    """Check that browsers accept the cookie."""
    name, secure = settings.SESSION_COOKIE_NAME, settings.SESSION_COOKIE_SECURE
    found: list[CheckMessage] = []
    host = settings.SESSION_COOKIE_DOMAIN or settings.SESSION_COOKIE_PATH != "/"
    if (name.startswith("__Host-") and (host or not secure)) or (name.startswith("__Secure-") and not secure):
        found.append(
            Error(
                f"Browsers refuse a cookie called {name!r} as the settings make it.",
                hint="Its prefix needs SESSION_COOKIE_SECURE = True; __Host- also SESSION_COOKIE_PATH = '/' and no"
                " SESSION_COOKIE_DOMAIN.",
                id="pgsession.E002",
            )
        )
    if str(settings.SESSION_COOKIE_SAMESITE).lower() == "none" and not secure:
        found.append(
            Error(
                'Browsers refuse a cookie with SESSION_COOKIE_SAMESITE = "None" without SESSION_COOKIE_SECURE = True.',
                id="pgsession.E003",
            )
        )
    return found


@register(Tags.security, deploy=True)
def check_deployment(app_configs: object, **_: object) -> list[CheckMessage]:
    """Check what is unsafe in production. SECURE and HTTPONLY are checked by Django itself."""
    if settings.SESSION_COOKIE_SAMESITE in ("Lax", "Strict"):
        return []
    return [
        Warning(
            f"SESSION_COOKIE_SAMESITE is {settings.SESSION_COOKIE_SAMESITE!r}: other sites' requests bring the cookie"
            " along.",
            hint='Set it to "Lax" or "Strict".',
            id="pgsession.W004",
        )
    ]


def _is_ours(engine: str) -> bool:
    """Return True for the module of our engine, and for one of a project's own that builds on it."""
    try:
        store = import_module(engine).SessionStore
    except (ImportError, AttributeError):
        return False
    return isinstance(store, type) and issubclass(store, SessionStore)
