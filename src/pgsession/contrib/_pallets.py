"""Flask and Quart have this in common: their settings, their values, and what they know a session by."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol, TypeVar, cast
from uuid import UUID

import msgspec
from flask.json.tag import TaggedJSONSerializer
from flask.sessions import SessionMixin
from werkzeug.exceptions import Conflict

from pgsession import Codec, Config, ConfigError, Signer
from pgsession.contrib._databases import Database
from pgsession.web import CookiePolicy, OnConflict, SessionConflict, SessionRules, WebSession, derive_key

if TYPE_CHECKING:
    from flask.sansio.app import App
    from werkzeug.sansio.response import Response

_App = TypeVar("_App", contravariant=True)
PREFIX = "PGSESSION_"
FAILED = 500  # what is answered with this status or a higher one saves nothing
_OURS = ("database", "on_conflict", "serial_timeout", "remember_for", "moved_from")
_logger = logging.getLogger("pgsession")


class RequestConflict(SessionConflict, Conflict):
    """The request is answered with 409, as the application's handler for that says."""

    def __init__(self, message: str) -> None:
        Conflict.__init__(self, message)


class PalletsSession(WebSession, SessionMixin):  # type: ignore[override]  # of both, the former's `new`
    """The session of a request, which has what `pgsession.web.WebSession` has, and what Flask says of sessions."""

    _conflict = RequestConflict
    _rules: SessionRules
    _lasts: Callable[[], timedelta]  # where it is permanent
    _touched = False
    _told: bool | None = None  # that it is modified, or is not

    @property
    def permanent(self) -> bool:
        """Return True where it lasts longer than the browser runs."""
        self._look()
        return self._max_age() is not None

    @permanent.setter
    def permanent(self, value: bool) -> None:
        """Have it last for `PERMANENT_SESSION_LIFETIME`, or as long as the browser runs."""
        if bool(value) != self.permanent:
            self.expire(self._lasts() if value else None)

    @property
    def accessed(self) -> bool:
        """Return True once the handler has asked for it: the response depends on the cookie then."""
        return self._touched or self._accessed

    @accessed.setter
    def accessed(self, value: bool) -> None:
        """Say that it was asked for; Flask does so where it hands it out."""
        self._touched = value

    @property
    def modified(self) -> bool:
        """Return True while there is something to save; nested changes are found too."""
        return super().modified if self._told is None else self._told

    @modified.setter
    def modified(self, value: bool) -> None:
        """Say that its cookie is to be set; or that what was done so far is not to be saved."""
        self._told = value

    def _has_changes(self) -> bool:
        return super().modified

    def __setitem__(self, key: str, value: Any) -> None:
        super().__setitem__(key, value)
        self._told = self._told or None

    def __delitem__(self, key: str) -> None:
        super().__delitem__(key)
        self._told = self._told or None

    def log_in(self, user_id: str | int | UUID, *, remember: timedelta | float | bool = False) -> None:
        """Give the session to a user: see `pgsession.web.WebSession.log_in`. One that is permanent stays so.

        Args:
            user_id: Who has proved to be that user.
            remember: True: for `PGSESSION_REMEMBER_FOR`; a timedelta or seconds: for so long.

        Raises:
            SessionConflict: The request came with an older token. It is answered with 409.
            RuntimeError: The response has begun.
            TypeError, ValueError: An argument is not usable; the message names it.
        """
        permanent = self.permanent
        super().log_in(user_id, remember=remember)
        if remember is False:
            self.permanent = permanent


class TaggedCodec(Codec):
    """Has values that JSON has not come back as they were put in: tuples, bytes, Markup, UUIDs, datetimes.

    Args:
        serializer: The serializer whose tags are used, with those that the application has added.
        inner: What plain values go through afterwards.
    """

    def __init__(self, serializer: TaggedJSONSerializer, inner: Codec) -> None:
        self._serializer = serializer
        self._inner = inner

    def to_plain(self, value: object) -> object:
        """Return the value with its tags."""
        return self._inner.to_plain(self._serializer.tag(value))

    def from_plain(self, value: object) -> object:
        """Return what the tags stand for."""
        return self._untagged(self._inner.from_plain(value))

    def _untagged(self, value: object) -> object:
        if isinstance(value, dict):
            return self._serializer.untag({key: self._untagged(each) for key, each in value.items()})
        if isinstance(value, list):
            return [self._untagged(each) for each in value]
        return value


class SealedTaggedCodec(TaggedCodec):
    """Does the same where the other codec seals."""

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        """Return the other codec's bytes."""
        return self._inner.seal(session_id, key, data)

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        """Return what the other codec makes of them."""
        return self._inner.open(session_id, key, data)


class Settings(NamedTuple):
    """Holds what an application's `PGSESSION_...` say."""

    database: Database
    config: Config
    on_conflict: OnConflict = "merge"
    serial_timeout: timedelta | float = 30
    remember_for: timedelta | float = timedelta(days=30)
    moved_from: str | None = None


def read_settings(given: Mapping[str, Any], serializer: TaggedJSONSerializer) -> Settings:
    """Return what the configuration of an application says.

    Args:
        given: The configuration.
        serializer: What tags the values.

    Raises:
        ConfigError: A setting is missing, not known, or breaks its rule; the message names it.
    """
    fields = {
        name.removeprefix(PREFIX).lower(): value for name, value in given.items() if name.startswith(PREFIX)
    }
    database = fields.get("database")
    if not isinstance(database, str | list | tuple) and not callable(database):
        raise ConfigError(
            "PGSESSION_DATABASE: a conninfo is needed, or a function that returns one, or a list of shards"
        )
    for name in fields:
        if name not in (*_OURS, *Config.__struct_fields__):
            raise ConfigError(f"{PREFIX}{name.upper()}: there is no such setting")
    inner: Codec | None = fields.get("codec")
    kind = TaggedCodec if inner is None or type(inner).seal is Codec.seal else SealedTaggedCodec
    ours = {name: fields.pop(name) for name in _OURS if name in fields}
    try:
        config = msgspec.structs.replace(Config(**fields), codec=kind(serializer, inner or Codec()))
        settings = Settings(config=config, **ours)
        Rules(settings).of("session")
    except ConfigError as error:
        field = str(error).partition(":")[0]
        raise ConfigError(str(error).replace(field, f"{PREFIX}{field.upper()}", 1)) from None
    return settings


def secrets_of(app: App) -> tuple[str | bytes, ...]:
    """Return the application's secret, and those of before; none, where it has no secret.

    Raises:
        ConfigError: Those of before are no list.
    """
    secret, before = app.secret_key, app.config.get("SECRET_KEY_FALLBACKS") or ()
    if isinstance(before, str | bytes):  # each of its characters would be a secret
        raise ConfigError("SECRET_KEY_FALLBACKS: a list of secrets is needed, not one")
    return (secret, *before) if secret else ()


def signer(secrets: tuple[str | bytes, ...]) -> Signer:
    """Return the signer, whose keys are derived from an application's secrets."""
    return Signer([derive_key(secret) for secret in secrets])


class Rules:
    """Holds the rules for each name of the cookie: an application may choose one for each request.

    Args:
        settings: The settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._by_name: dict[str, SessionRules] = {}

    def of(self, name: str) -> SessionRules:
        """Return the rules of the cookie of that name."""
        rules = self._by_name.get(name)
        if rules is None:
            settings = self._settings
            cookie = CookiePolicy(
                name=name, remember_for=settings.remember_for, moved_from=settings.moved_from
            )
            self._by_name[name] = rules = SessionRules(
                cookie, on_conflict=settings.on_conflict, serial_timeout=settings.serial_timeout
            )
        return rules


class Interface(Protocol[_App]):
    """Says what the session interfaces of both frameworks say of the cookie."""

    def get_cookie_name(self, app: _App) -> str:
        """Return its name."""

    def get_cookie_domain(self, app: _App) -> str | None:
        """Return its domain."""

    def get_cookie_path(self, app: _App) -> str:
        """Return its path."""

    def get_cookie_httponly(self, app: _App) -> bool:
        """Return True where scripts do not see it."""

    def get_cookie_secure(self, app: _App) -> bool:
        """Return True where it is sent by https only."""

    def get_cookie_samesite(self, app: _App) -> str | None:
        """Return which requests from other sites it goes with."""

    def get_cookie_partitioned(self, app: _App) -> bool:
        """Return True where there is one for each site that embeds this one."""

    def get_expiration_time(self, app: _App, session: SessionMixin) -> datetime | None:
        """Return when it ends; None: with the browser."""


def end_of(session: SessionMixin) -> datetime | None:
    """Return when the cookie of a session ends; None: with the browser."""
    if not isinstance(session, PalletsSession) or not session.permanent:
        return None
    if session._stored is not None:
        return session._stored.expires_at
    return datetime.now(UTC) + timedelta(seconds=session._max_age() or 0)


def set_cookie(interface: Interface[_App], app: _App, session: PalletsSession, response: Response) -> None:
    """Have a response set or delete the session's cookie, where it has to, and say that it depends on it.

    Args:
        interface: The application's session interface.
        app: The application.
        session: The session, saved.
        response: The response.
    """
    token = session._rules.token_for_cookie(session)
    if token is None and not session.accessed:
        return
    response.vary.add("Cookie")
    if token is None:
        return
    name = interface.get_cookie_name(app)
    attributes: dict[str, Any] = {
        "domain": interface.get_cookie_domain(app),
        "path": interface.get_cookie_path(app),
        "secure": interface.get_cookie_secure(app),
        "httponly": interface.get_cookie_httponly(app),
        "samesite": interface.get_cookie_samesite(app),
        "partitioned": interface.get_cookie_partitioned(app),
    }
    for old in session._rules.old_cookies_to_delete(session):
        response.delete_cookie(old, **attributes)
    if not token:
        response.delete_cookie(name, **attributes)
        return
    ends = interface.get_expiration_time(app, session)
    left = None if ends is None else max(0, math.ceil((ends - datetime.now(UTC)).total_seconds()))
    response.set_cookie(name, token, max_age=left, expires=ends, **attributes)


def is_to_be_looked_at(app: App, session: PalletsSession) -> bool:
    """Return True where a session was used, or its cookie may have to be set with each response all the same."""
    if session._accessed or session.modified:
        return True
    return bool(app.config["SESSION_REFRESH_EACH_REQUEST"]) and session._max_age() is not None


class _WithBody(Protocol):
    def set_data(self, value: bytes) -> None:
        """Be the body."""


def become(response: Response, other: Response, body: bytes) -> None:
    """Turn a response into another one.

    Args:
        response: The response that was going to be sent.
        other: What is to be sent.
        body: Its body.
    """
    close = getattr(getattr(response, "response", None), "close", None)
    if callable(close):
        close()
    response.status, response.headers = other.status, other.headers
    cast("_WithBody", response).set_data(body)


def check_cookie(app: App) -> None:
    """Refuse settings of the cookie that contradict each other, and warn of those that are unsafe.

    Args:
        app: The application.

    Raises:
        ConfigError: Browsers would refuse the cookie; the message names the setting.
    """
    config = app.config
    same_site = config["SESSION_COOKIE_SAMESITE"]
    domain = config["SESSION_COOKIE_DOMAIN"]
    try:
        CookiePolicy(
            name=config["SESSION_COOKIE_NAME"],
            secure=bool(config["SESSION_COOKIE_SECURE"]),
            httponly=bool(config["SESSION_COOKIE_HTTPONLY"]),
            samesite="lax" if same_site is None else same_site.lower(),
            path=config["SESSION_COOKIE_PATH"] or config["APPLICATION_ROOT"],
            domain=domain.lstrip(".") if domain else None,
            partitioned=bool(config.get("SESSION_COOKIE_PARTITIONED")),
            max_age=app.permanent_session_lifetime,
        )
    except ConfigError as error:
        field = str(error).partition(":")[0]
        setting = "PERMANENT_SESSION_LIFETIME" if field == "max_age" else f"SESSION_COOKIE_{field.upper()}"
        raise ConfigError(str(error).replace(field, setting, 1)) from None
    if app.debug or app.testing:
        return
    for name, is_unsafe, why in (
        ("SECURE", not config["SESSION_COOKIE_SECURE"], "browsers send the cookie by plain http too"),
        ("HTTPONLY", not config["SESSION_COOKIE_HTTPONLY"], "scripts of a page can read the cookie"),
        ("SAMESITE", same_site not in ("Lax", "Strict"), "other sites' requests may bring the cookie along"),
    ):
        if is_unsafe:
            _logger.warning("SESSION_COOKIE_%s is %r: %s", name, config[f"SESSION_COOKIE_{name}"], why)
