"""A cookie carries the session's token: its attributes, its name, and how it is read from a request."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import timedelta
from functools import cached_property
from typing import Literal, TypedDict

import msgspec

from pgsession import ConfigError

__all__ = ["CookiePolicy", "CookieSettings"]

LONGEST = timedelta(days=400)  # browsers keep no cookie for longer (RFC 6265bis, section 5.5)
_SECOND = timedelta(seconds=1)
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")  # a token of RFC 9110
_NAME_RULE = "be letters, digits and !#$%&'*+-.^_`|~"
_DOMAIN = re.compile(r"[0-9A-Za-z-]+(\.[0-9A-Za-z-]+)*")
_PATH = re.compile(r"/[\x20-\x3a\x3c-\x7e]*")
_SAME_SITE = ("lax", "strict", "none")
_GONE = "Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class CookiePolicy(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Says which cookie carries a session's token, and for how long browsers keep it.

    A duration is a `timedelta` or a number of seconds.

    Attributes:
        name (str, default None): The cookie's name. None: `__Host-session` where the other fields allow it, which no
            other host and no plain http page can set, else `session`.
        secure (bool, default True): Browsers send it by https only. False: for plain http, in development.
        httponly (bool, default True): Scripts of a page cannot read it.
        samesite (str, default "lax"): Which requests from other sites it goes with: `"lax"`: links that are followed;
            `"strict"`: none; `"none"`: all.
        path (str, default "/"): Below which path browsers send it.
        domain (str, default None): The domain whose hosts all get it; None: only the host that set it.
        partitioned (bool, default False): Browsers keep one for each site that embeds this one (CHIPS).
        max_age (duration, default None): How long a session lasts that was told nothing else, and for how long browsers
            keep its cookie. None: browsers forget it when they are closed, and the session lasts as `Config` says.
        remember_for (duration, default 30 days): The same for `log_in(remember=True)`.
        renew (bool, default True): A session with a `max_age` begins it anew when it is used after half of it. False:
            it ends when it was going to.
        moved_from (str, default None): The name of another store's cookie: a browser that comes with that, and with no
            token, gets the session that `python -m pgsession move` has brought from there, and a token for it.

    Raises:
        ConfigError: A field breaks its rule or contradicts another one; the message names the field and the rule.
    """

    name: str | None = None
    secure: bool = True
    httponly: bool = True
    samesite: Literal["lax", "strict", "none"] = "lax"
    path: str = "/"
    domain: str | None = None
    partitioned: bool = False
    max_age: timedelta | float | None = None
    remember_for: timedelta | float = timedelta(days=30)
    renew: bool = True
    moved_from: str | None = None

    def __post_init__(self) -> None:
        for field in ("secure", "httponly", "partitioned", "renew"):
            if not isinstance(getattr(self, field), bool):
                raise ConfigError(f"{field}: True or False is needed, not {getattr(self, field)!r}")
        if self.samesite not in _SAME_SITE:
            raise ConfigError(f"samesite: must be 'lax', 'strict' or 'none', not {self.samesite!r}")
        _matching("path", self.path, _PATH, "begin with / and have no ; or control character")
        if self.domain is not None:
            _matching("domain", self.domain, _DOMAIN, "be a host's name, without a dot in front")
        if self.max_age is not None:
            msgspec.structs.force_setattr(self, "max_age", lifetime("max_age", self.max_age))
        msgspec.structs.force_setattr(self, "remember_for", lifetime("remember_for", self.remember_for))
        host = self.secure and self.path == "/" and self.domain is None
        if self.name is None:
            msgspec.structs.force_setattr(self, "name", "__Host-session" if host else "session")
        self._check_name(host)
        self._check_secure()
        if self.moved_from is not None:
            _matching("moved_from", self.moved_from, _NAME, _NAME_RULE)

    def _check_name(self, host: bool) -> None:
        name = _matching("name", self.name, _NAME, _NAME_RULE)
        if name.lower().startswith("__host-") and not host:
            raise ConfigError(
                f"name: {name} needs secure=True, path='/' and no domain, or browsers refuse the cookie; "
                f"it is secure={self.secure}, path={self.path!r}, domain={self.domain!r}"
            )
        if name.lower().startswith("__secure-") and not self.secure:
            raise ConfigError(f"name: {name} needs secure=True, or browsers refuse the cookie")

    def _check_secure(self) -> None:
        if self.samesite == "none" and not self.secure:
            raise ConfigError("samesite: 'none' needs secure=True, or browsers refuse the cookie")
        if self.partitioned and not self.secure:
            raise ConfigError("partitioned: needs secure=True, or browsers refuse the cookie")

    @cached_property
    def max_age_seconds(self) -> int | None:
        """Return `max_age` in seconds, or None."""
        return seconds(self.max_age)

    def set_cookie(self, token: str, max_age: int | None) -> str:
        """Return the value of the Set-Cookie header that gives a browser a token.

        Args:
            token: The token.
            max_age: For how many seconds the browser keeps it; None: until it is closed.
        """
        age = [] if max_age is None else [f"Max-Age={max_age}"]
        return "; ".join([f"{self.name}={token}", *age, *self._attributes()])

    def delete_cookie(self, name: str | None = None) -> str:
        """Return the value of the Set-Cookie header that deletes it: with all attributes, or some browsers keep it.

        Args:
            name: Another cookie's name, which has the same attributes; None: its own.
        """
        return "; ".join([f"{name or self.name}=", _GONE, *self._attributes()])

    def _attributes(self) -> list[str]:
        attributes = [f"Path={self.path}", f"SameSite={self.samesite.capitalize()}"]
        if self.domain is not None:
            attributes.append(f"Domain={self.domain}")
        for flag, name in (
            (self.secure, "Secure"), (self.httponly, "HttpOnly"), (self.partitioned, "Partitioned"),
        ):  # fmt: skip
            if flag:
                attributes.append(name)
        return attributes


class CookieSettings(TypedDict, total=False):
    """Names the fields of a `CookiePolicy`, which every adapter takes by these names, with these meanings."""

    name: str | None
    secure: bool
    httponly: bool
    samesite: Literal["lax", "strict", "none"]
    path: str
    domain: str | None
    partitioned: bool
    max_age: timedelta | float | None
    remember_for: timedelta | float
    renew: bool
    moved_from: str | None


def varies_on_cookie(values: Iterable[str]) -> bool:
    """Return True where the values of a response's Vary headers say that it depends on the cookie."""
    fields = {field.strip().lower() for value in values for field in value.split(",")}
    return not fields.isdisjoint(("*", "cookie"))


def lifetime(name: str, value: object) -> timedelta:
    """Return a duration that a browser can keep a cookie for."""
    if isinstance(value, bool) or not isinstance(value, timedelta | int | float):
        raise ConfigError(f"{name}: a timedelta or seconds are needed, not {type(value).__name__}")
    try:
        duration = value if isinstance(value, timedelta) else timedelta(seconds=value)
    except (ValueError, OverflowError):  # not a number, or more than a timedelta holds
        duration = timedelta.max
    if not _SECOND <= duration <= LONGEST:
        raise ConfigError(f"{name}: must be from 1 second to 400 days, not {value}")
    return duration


def seconds(duration: timedelta | float | None) -> int | None:
    """Return a lifetime in whole seconds, or None for one that the browser decides."""
    return None if duration is None else int(lifetime("duration", duration).total_seconds())


def _matching(name: str, value: object, pattern: re.Pattern[str], rule: str) -> str:
    if not isinstance(value, str):
        raise ConfigError(f"{name}: a str is needed, not {type(value).__name__}")
    if pattern.fullmatch(value) is None:
        raise ConfigError(f"{name}: must {rule}, not {value!r}")
    return value
