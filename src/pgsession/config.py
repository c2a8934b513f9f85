"""The configuration of a manager: one frozen object, checked when it is made."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from datetime import timedelta
from typing import Any, Literal, get_args

import msgspec

from pgsession.errors import ConfigError

__all__ = ["Config"]

Duration = timedelta | float
"""A length of time: a `timedelta`, or a number of seconds."""

_IDENTIFIER_BYTES = 63  # what PostgreSQL keeps of a name
_LONGEST_SUFFIX = len("session_attributes_expires_at_idx")
_MAX_DURATION = timedelta(days=36500)


class _CheckedMeta(msgspec.StructMeta):
    """Turns an unknown field into a ConfigError that names it (msgspec's own error is a TypeError)."""

    def __call__(cls, *args: Any, **fields: Any) -> Any:
        known = cls.__struct_fields__
        for name in fields:
            if name not in known:
                raise ConfigError(
                    f"{name}: there is no such configuration field; there are {', '.join(known)}"
                )
        return super().__call__(*args, **fields)


class Config(msgspec.Struct, frozen=True, kw_only=True, metaclass=_CheckedMeta):
    """How a `SessionManager` or an `AsyncSessionManager` works. Durations are `timedelta` or seconds.

    Reading a duration field gives a `timedelta` whichever was passed. `msgspec.structs.replace` makes a changed
    copy, checked again.

    Raises:
        ConfigError: a field is unknown, of the wrong type, out of its range, or contradicts another one; the message
            names the field and the rule.
    """

    max_sessions: int = 5
    """Live sessions a user may have; a login beyond it evicts or is rejected. 0: no limit."""

    max_sessions_policy: Literal["evict", "reject"] = "evict"
    """`"evict"` ends the user's least recently used session, `"reject"` raises `TooManySessionsError`."""

    max_attribute_length: int = 16384
    """The most bytes that one attribute value may take when encoded as JSON."""

    session_expiration: Duration = timedelta(days=30)
    """Absolute life of a session whose `create_session` names none."""

    inactivity_duration: Duration = timedelta(hours=48)
    """A session with `include_inactivity` that was not accessed for so long is no longer live."""

    cleanup_interval: Duration = timedelta(hours=1)
    """How often expired sessions, attributes and locks are deleted (by one node at a time). 0: never by this node."""

    cache_size: int = 10000
    """Sessions kept in this process; beyond it the least recently used leaves memory."""

    max_session_lifetime_in_cache: Duration = timedelta(hours=48)
    """A cached session is read from the database again after so long, used or not. 0: no limit."""

    max_staleness: Duration = timedelta(seconds=10)
    """The longest that this node may serve from memory without fresh proof that it hears every change (C6)."""

    stale_if_error: Duration = timedelta(0)
    """With the database unreachable, serve cached sessions for so much longer than `max_staleness`. 0: never."""

    last_access_update_interval: Duration = timedelta(minutes=10)
    """How often noted accesses are written, in batches; at most half of `inactivity_duration`."""

    last_access_update_batch_size: int = 5000
    """The most accesses that one statement writes."""

    schema_name: str = "public"
    """The PostgreSQL schema of the tables."""

    table_prefix: str = ""
    """Put before the name of each table, function and trigger."""

    create_schema_if_missing: bool = False
    """Create or upgrade the tables in `open()`, instead of raising `SchemaError`."""

    notify_on_updates: bool = True
    """Tell the other nodes of updates; `update_session(notify=)` overrides it downwards for one call."""

    notify_on_failed_updates: bool = False
    """Tell the other nodes to drop a session whose optimistic update failed here."""

    synchronous_commit: bool = True
    """Acknowledge a write only once it is durable. False: a crash of the server may lose acknowledged writes."""

    notify_before_flush: bool = True
    """Keep PostgreSQL's cluster-wide notification lock out of the flush to disk: commit with the notification first,
    then wait until the commit is durable. False: one plain commit, which holds that lock while it flushes."""

    listener_conninfo: str | None = None
    """Where to LISTEN, if not where the sessions are read: past a transaction pooler, straight to the same database."""

    logger: logging.Logger | None = None
    """Where to report; by default the logger named "pgsession"."""

    def __post_init__(self) -> None:
        for name in _DURATIONS:
            msgspec.structs.force_setattr(self, name, _duration(name, getattr(self, name)))
        _check_types(self)
        _check_ranges(self)
        _check_names(self)
        _check_combinations(self)

    @classmethod
    def from_env(cls, prefix: str = "PGSESSION_", environ: Mapping[str, str] | None = None) -> Config:
        """A configuration from environment variables: `PGSESSION_MAX_SESSIONS=3` sets `max_sessions`.

        Durations are seconds or ISO 8601 (`PT10M`), booleans `true`/`false`, `1`/`0`, `yes`/`no` or `on`/`off`.
        Variables of the prefix that name no field are left alone: other tools have theirs.

        Raises:
            ConfigError: a value cannot be read as what its field is, or breaks the field's rule; names the variable.
        """
        environ = os.environ if environ is None else environ
        fields = {}
        for name in cls.__struct_fields__:
            text = environ.get(prefix + name.upper())
            if text is not None and name != "logger":
                fields[name] = _from_text(prefix + name.upper(), name, text)
        return cls(**fields)


_DURATIONS = (
    "session_expiration",
    "inactivity_duration",
    "cleanup_interval",
    "max_session_lifetime_in_cache",
    "max_staleness",
    "stale_if_error",
    "last_access_update_interval",
)
_MAY_BE_ZERO = frozenset({"cleanup_interval", "max_session_lifetime_in_cache", "stale_if_error"})
_COUNTS = {"max_sessions": 0, "max_attribute_length": 1, "cache_size": 1, "last_access_update_batch_size": 1}
_MOST = {
    "cache_size": 2**30,
    "max_attribute_length": 2**28,
    "max_sessions": 2**31 - 1,
    "last_access_update_batch_size": 10**6,
}
_BOOLEANS = (
    "create_schema_if_missing",
    "notify_on_updates",
    "notify_on_failed_updates",
    "synchronous_commit",
    "notify_before_flush",
)
_POLICIES = get_args(Literal["evict", "reject"])


def _duration(name: str, value: object) -> timedelta:
    if isinstance(value, timedelta):
        duration = value
    elif isinstance(value, int | float) and not isinstance(value, bool):
        try:
            duration = timedelta(seconds=value)
        except (ValueError, OverflowError):
            raise ConfigError(f"{name}: {value!r} is not a usable number of seconds") from None
    else:
        raise ConfigError(f"{name}: a timedelta or a number of seconds is needed, not {value!r}")
    if duration < timedelta(0) or (not duration and name not in _MAY_BE_ZERO):
        raise ConfigError(
            f"{name}: must be {'at least' if name in _MAY_BE_ZERO else 'more than'} 0, not {duration}"
        )
    if duration > _MAX_DURATION:
        raise ConfigError(f"{name}: must be at most 100 years, not {duration}")
    return duration


def _check_types(config: Config) -> None:
    for name in _COUNTS:
        value = getattr(config, name)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"{name}: an integer is needed, not {value!r}")
    for name in _BOOLEANS:
        if not isinstance(getattr(config, name), bool):
            raise ConfigError(f"{name}: True or False is needed, not {getattr(config, name)!r}")
    for name in ("schema_name", "table_prefix"):
        if not isinstance(getattr(config, name), str):
            raise ConfigError(f"{name}: a str is needed, not {getattr(config, name)!r}")
    if config.listener_conninfo is not None and not isinstance(config.listener_conninfo, str):
        raise ConfigError(
            f"listener_conninfo: a str or None is needed, not a {type(config.listener_conninfo).__name__}"
        )
    if config.logger is not None and not isinstance(config.logger, logging.Logger):
        raise ConfigError(f"logger: a logging.Logger or None is needed, not {config.logger!r}")
    if config.max_sessions_policy not in _POLICIES:
        raise ConfigError(
            f'max_sessions_policy: "evict" or "reject" is needed, not {config.max_sessions_policy!r}'
        )


def _check_ranges(config: Config) -> None:
    for name, least in _COUNTS.items():
        value = getattr(config, name)
        if not least <= value <= _MOST[name]:
            raise ConfigError(f"{name}: must be from {least} to {_MOST[name]}, not {value}")


def _check_names(config: Config) -> None:
    if not config.schema_name:
        raise ConfigError("schema_name: must not be empty")
    for name, room in (
        ("schema_name", _IDENTIFIER_BYTES),
        ("table_prefix", _IDENTIFIER_BYTES - _LONGEST_SUFFIX),
    ):
        value: str = getattr(config, name)
        if "\0" in value:
            raise ConfigError(f"{name}: must not contain NUL")
        try:
            length = len(value.encode())
        except UnicodeEncodeError:
            raise ConfigError(f"{name}: must not contain lone surrogates") from None
        if length > room:
            raise ConfigError(f"{name}: must be at most {room} bytes, not {length}")


def _check_combinations(config: Config) -> None:
    interval, inactivity = config.last_access_update_interval, config.inactivity_duration
    assert isinstance(interval, timedelta)
    if interval * 2 > inactivity:  # type: ignore[operator]
        raise ConfigError(
            "last_access_update_interval: must be at most half of inactivity_duration "
            f"({inactivity}), or active sessions would look inactive; it is {interval}"
        )


def _from_text(variable: str, field: str, text: str) -> Any:
    try:
        if field in _DURATIONS:
            return (
                float(text)
                if not text.upper().startswith(("P", "+P", "-P"))
                else msgspec.convert(text, timedelta)
            )
        if field in _COUNTS:
            return int(text)
        if field in _BOOLEANS:
            return {
                "true": True,
                "1": True,
                "yes": True,
                "on": True,
                "false": False,
                "0": False,
                "no": False,
                "off": False,
            }[text.strip().lower()]
    except (ValueError, KeyError, msgspec.ValidationError):
        raise ConfigError(f"{variable}: {text!r} cannot be read as {_kind(field)}") from None
    return text


def _kind(field: str) -> str:
    if field in _DURATIONS:
        return "a duration (seconds, or ISO 8601 such as PT10M)"
    return "an integer" if field in _COUNTS else "a boolean (true or false)"
