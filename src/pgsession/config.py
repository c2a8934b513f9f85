"""The configuration of a manager is one frozen object, checked when it is made."""

from __future__ import annotations

import inspect
import logging
import os
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from functools import partial
from typing import Any, Final, Literal

import msgspec

from pgsession._database.conninfo import check_readable
from pgsession._protocol import rules
from pgsession.audit import AuditEvent
from pgsession.codec import Codec
from pgsession.errors import ConfigError
from pgsession.instrument import Instrument

__all__ = ["Config"]

Duration = timedelta | float
"""A length of time: a `timedelta`, or a number of seconds."""

LEAST_SHARED: Final = 2**22  # bytes of an arena
_MICROSECOND = timedelta(microseconds=1)


def microseconds_of(duration: Duration) -> int:
    """Return the microseconds of a field of a `Config`, where it is a timedelta since it was checked."""
    assert isinstance(duration, timedelta)
    return duration // _MICROSECOND


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
    """Says how a `SessionManager` or an `AsyncSessionManager` works.

    A duration is a `timedelta` or a number of seconds, at most 36500 days; reading one gives a `timedelta` whichever
    was passed. `msgspec.structs.replace` makes a changed copy, checked again.

    Attributes:
        max_sessions (int, default 5): Live sessions that a user may have; a login beyond it evicts or is rejected.
            0: no limit.
        max_sessions_policy (str, default "evict"): `"evict"` ends the user's least recently used session,
            `"reject"` raises `TooManySessionsError`.
        max_attribute_length (int, default 16384): The most bytes that one attribute value may take when encoded as
            JSON.
        max_session_size (int, default 1048576): The most bytes that the keys and encoded values of a session may take
            together. A save beyond it raises `SessionTooLargeError`, before anything is sent. What counts is what this
            node knows of the session; one that is larger already is read as ever, and may shrink, or change without
            growing.
        max_attributes (int, default 1000): The most attributes that a session may have, likewise; a save beyond it
            raises `TooManyAttributesError`.
        rotation_grace (duration, default 30 seconds): For how long after `rotate_session` the token of before is still
            good, so that requests under way are not logged out, unless the call says otherwise; and for how long
            `open_token` tells a token that a rotation has ended from one of long ago.
        session_expiration (duration, default 30 days): The absolute life of a session whose `create_session` names
            none.
        inactivity_duration (duration, default 48 hours): The idle timeout of a session whose `create_session` names
            none, stored with it: when it was not accessed for so long it is no longer live, on any node. At least 1
            second. Another setting is that of sessions created from then on.
        cleanup_interval (duration, default 1 hour): How often expired sessions, attributes and locks are deleted,
            by one node at a time; inactive sessions too, once they have been so for `last_access_update_interval`.
            0: never by this node.
        cache_size (int, default None): Sessions kept in this process; beyond it the least recently used leaves
            memory. None: 10,000, or 2,000 where the processes of the host share a cache. Several shards have equal
            parts of it.
        shared_cache (str, default None): Share one cache among the processes of this host that give the same name, and
            use the same tables: one of them listens for all. A name of letters, digits, `-` and `_`, or the absolute
            path of a folder that is closed to other users. Where that cannot be (Linux only), each process has a
            cache of its own, as with None; a warning and `Stats.shared_fallback_reason` say why.
        shared_cache_size (int, default 134217728): The bytes of shared memory that it takes, all at once; at least 4
            MiB. Whoever makes it decides. Several shards have equal parts of it, each of at least 4 MiB.
        max_session_lifetime_in_cache (duration, default 48 hours): A cached session is read from the database again
            after so long, used or not. 0: no limit.
        max_staleness (duration, default 10 seconds): The longest that this node may serve from memory without fresh
            proof that it hears every change (C6).
        stale_if_error (duration, default 0): With the database unreachable, cached sessions are served for so much
            longer than `max_staleness`. 0: never.
        last_access_update_interval (duration, default 10 minutes): How often noted accesses are written, in
            batches; those of a session within a quarter of its idle timeout, whatever is set here.
        last_access_update_batch_size (int, default 5000): The most accesses that one statement writes.
        schema_name (str, default "public"): The PostgreSQL schema of the tables.
        table_prefix (str, default ""): Put before the name of each table, index and function; at most 30 bytes.
        create_schema_if_missing (bool, default False): Create or upgrade the tables in `open()`, instead of raising
            `SchemaError`.
        notify_on_updates (bool, default True): Tell the other nodes of updates; `update_session(notify=)` overrides
            it downwards for one call.
        notify_on_failed_updates (bool, default False): Tell the other nodes to drop a session whose optimistic
            update failed here.
        synchronous_commit (bool, default True): Acknowledge a write only once it is durable. False: a crash of the
            server may lose acknowledged writes.
        notify_before_flush (bool, default True): Keep PostgreSQL's cluster-wide notification lock out of the flush
            to disk: commit with the notification first, then wait until the commit is durable. False: one plain
            commit, which holds that lock while it flushes.
        operation_timeout (duration, default 10 seconds): The longest that a call takes, whatever the server or the
            network do, but for a wait that the call asks for. It then raises `OperationTimeout`: nothing was done; or
            `WriteOutcomeUnknown`, where a write was sent and nobody answered. A call about many sessions takes this
            long at most for each step of 500, as does each step of a login that moves a session to another shard. The
            server gets a little less, and ends what takes it longer.
        pool_min_size (int, default 1): Connections that the manager's own pool keeps open. A pool that you pass has
            sizes of its own.
        pool_max_size (int, default 8): The most connections of the manager's own pool; the listener has one more. The
            server's `max_connections` must have room for those of all nodes.
        listener_conninfo (str or function, default None): Where to LISTEN, if not where the sessions are read: past
            a transaction pooler, straight to the same database. Or a function that returns this, called at each
            attempt to connect; with asyncio it may be a coroutine function.
        on_audit_event (function, default None): A plain function that is called with each `AuditEvent`: what a security
            log records. It is called in one thread of its own for each manager, also with asyncio, one event after the
            other in the order in which they happened on this node, at most once each. It delays no call, and may call
            the manager. 10,000 events wait for it at most, and 100 about refused tokens, of which 10 a second pass in
            the long run; `close` gives it 5 seconds for what waits. What is lost is counted in
            `Stats.lost_audit_events`, and told by a warning at the close. An error that it raises is logged, once a
            minute at most.
        warm (str, default None): The path of a file in which `close` leaves the ids of the cached sessions, 16 bytes
            each, for the `open` that comes next to read these sessions into memory; also a path object. None: there is
            no such file, and each session is read when it is asked for first. It belongs to one service on one host,
            whose processes may share it. A file that cannot be read or written is a warning, and no more.
        warm_mode (str, default "before_ready"): When `open` reads those sessions: `"before_ready"` before it returns,
            `"background"` while the manager serves already. Where a child of a fork opens by itself it is always the
            latter.
        audit_sample (int, default 0): Cached sessions, taken at random, that are compared with the database once a
            minute; then it is also looked whether tables, triggers and rights still are as `open()` requires. What
            differs is logged as an error, counted in `Stats.failed_audits`, and an audit event. 0: there is no auditor.
        instrument (Instrument, default None): Is told how long reads from the database, writes, locks and events take:
            see `pgsession.telemetry`.
        codec (Codec, default None): What attribute values go through on their way to the database and back, for
            types that JSON has not, and for encryption. All nodes need one that understands the others'.
        logger (logging.Logger, default None): Where to report; None: the logger named "pgsession".

    Raises:
        ConfigError: A field is unknown, of the wrong type, out of its range, or contradicts another one; the message
            names the field and the rule.
    """

    max_sessions: int = 5
    max_sessions_policy: Literal["evict", "reject"] = "evict"
    max_attribute_length: int = 16384
    max_session_size: int = 2**20
    max_attributes: int = 1000
    rotation_grace: Duration = timedelta(seconds=30)
    session_expiration: Duration = timedelta(days=30)
    inactivity_duration: Duration = timedelta(hours=48)
    cleanup_interval: Duration = timedelta(hours=1)
    cache_size: int | None = None
    shared_cache: str | None = None
    shared_cache_size: int = 2**27
    max_session_lifetime_in_cache: Duration = timedelta(hours=48)
    max_staleness: Duration = timedelta(seconds=10)
    stale_if_error: Duration = timedelta(0)
    last_access_update_interval: Duration = timedelta(minutes=10)
    last_access_update_batch_size: int = 5000
    schema_name: str = "public"
    table_prefix: str = ""
    create_schema_if_missing: bool = False
    notify_on_updates: bool = True
    notify_on_failed_updates: bool = False
    synchronous_commit: bool = True
    notify_before_flush: bool = True
    operation_timeout: Duration = timedelta(seconds=10)
    pool_min_size: int = 1
    pool_max_size: int = 8
    listener_conninfo: str | Callable[[], str | Awaitable[str]] | None = None
    on_audit_event: Callable[[AuditEvent], object] | None = None
    warm: str | os.PathLike[str] | None = None
    warm_mode: Literal["before_ready", "background"] = "before_ready"
    audit_sample: int = 0
    instrument: Instrument | None = None
    codec: Codec | None = None
    logger: logging.Logger | None = None

    def __post_init__(self) -> None:
        for name, rule in _RULES.items():
            msgspec.structs.force_setattr(self, name, _checked(rule, name, getattr(self, name)))
        _check_combinations(self)

    @classmethod
    def from_env(cls, prefix: str = "PGSESSION_", environ: Mapping[str, str] | None = None) -> Config:
        """Make a configuration from environment variables: `PGSESSION_MAX_SESSIONS=3` sets `max_sessions`.

        Durations are seconds or ISO 8601 (`PT10M`), booleans `true`/`false`, `1`/`0`, `yes`/`no` or `on`/`off`.
        Variables of the prefix that name no field are left alone: other tools have theirs.

        Args:
            prefix: What the name of each variable begins with.
            environ: The variables; None: those of this process.

        Raises:
            TypeError: `prefix` is not a str, or `environ` is not a mapping.
            ConfigError: A value cannot be read as what its field is, or breaks the field's rule; names the variable or
                the field.
        """
        rules.instance("prefix", prefix, str, "a str")
        variables = os.environ if environ is None else rules.mapping("environ", environ)
        fields = {}
        for name in cls.__struct_fields__:
            text = variables.get(prefix + name.upper())
            if text is not None and name not in _OBJECTS:
                fields[name] = _from_text(prefix + name.upper(), name, text)
        return cls(**fields)


def _duration(name: str, value: object, least: int = 1) -> timedelta:
    return timedelta(microseconds=rules.microseconds(name, value, least))


def _duration_or_zero(name: str, value: object) -> timedelta:
    return _duration(name, value, 0)


def _idle_timeout(name: str, value: object) -> timedelta:
    return _duration(name, value, rules.LEAST_IDLE_TIMEOUT)


def _policy(name: str, value: object) -> object:
    return rules.choice(name, value, ("evict", "reject"))


def _conninfo(name: str, value: object) -> object:
    if value is not None and not isinstance(value, str) and not callable(value):
        raise TypeError(
            f"{name}: a str, a function that returns one, or None is needed, not {type(value).__name__}"
        )
    if isinstance(value, str):
        check_readable(name, rules.conninfo_text(name, value))
    return None if value is None else rules.conninfo(name, value)


def _audit_function(name: str, value: object) -> object:
    if value is None:
        return None
    rules.function(name, value)
    if inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(type(value).__call__):
        raise TypeError(f"{name}: a plain function is needed, not a coroutine function")
    return value


def _path(name: str, value: object) -> str | None:
    if value is None:
        return None
    path = os.fspath(value) if isinstance(value, os.PathLike) else value
    return rules.path(name, path)


def _warm_mode(name: str, value: object) -> object:
    return rules.choice(name, value, ("before_ready", "background"))


def _codec(name: str, value: object) -> Codec | None:
    if value is None:
        return None
    codec = rules.instance(name, value, Codec, "a Codec or None")
    if (type(codec).seal is Codec.seal) != (type(codec).open is Codec.open):
        raise ValueError(f"{name}: must have both of seal and open, or neither, not one of them")
    return codec


def _instrument(name: str, value: object) -> object:
    if value is not None and not callable(getattr(value, "measured", None)):
        raise TypeError(
            f"{name}: an object with a method `measured`, or None, is needed, not {type(value).__name__}"
        )
    return value


def _cache_size(name: str, value: object) -> int | None:
    return None if value is None else rules.count(name, value, 1, 2**30)


def _shared_cache(name: str, value: object) -> str | None:
    return None if value is None else rules.place(name, value)


def _logger(name: str, value: object) -> logging.Logger | None:
    return None if value is None else rules.instance(name, value, logging.Logger, "a logging.Logger or None")


_RULES: dict[str, Callable[[str, object], object]] = {
    "max_sessions": partial(rules.count, least=0, most=2**31 - 1),
    "max_sessions_policy": _policy,
    "max_attribute_length": partial(rules.count, least=1, most=2**28),
    "max_session_size": partial(rules.count, least=1, most=2**30),
    "max_attributes": partial(rules.count, least=1, most=2**30),
    "rotation_grace": _duration_or_zero,
    "session_expiration": _duration,
    "inactivity_duration": _idle_timeout,
    "cleanup_interval": _duration_or_zero,
    "cache_size": _cache_size,
    "shared_cache": _shared_cache,
    "shared_cache_size": partial(rules.count, least=LEAST_SHARED, most=2**40),
    "max_session_lifetime_in_cache": _duration_or_zero,
    "max_staleness": _duration,
    "stale_if_error": _duration_or_zero,
    "last_access_update_interval": _duration,
    "last_access_update_batch_size": partial(rules.count, least=1, most=10**6),
    "schema_name": rules.schema_name,
    "table_prefix": rules.table_prefix,
    "create_schema_if_missing": rules.boolean,
    "notify_on_updates": rules.boolean,
    "notify_on_failed_updates": rules.boolean,
    "synchronous_commit": rules.boolean,
    "notify_before_flush": rules.boolean,
    "operation_timeout": _duration,
    "pool_min_size": partial(rules.count, least=0, most=10_000),
    "pool_max_size": partial(rules.count, least=1, most=10_000),
    "listener_conninfo": _conninfo,
    "on_audit_event": _audit_function,
    "warm": _path,
    "warm_mode": _warm_mode,
    "audit_sample": partial(rules.count, least=0, most=10_000),
    "instrument": _instrument,
    "codec": _codec,
    "logger": _logger,
}


def _checked(rule: Callable[[str, object], object], name: str, value: object) -> object:
    try:
        return rule(name, value)
    except (TypeError, ValueError) as error:
        raise ConfigError(str(error)) from None


def _check_combinations(config: Config) -> None:
    if config.pool_min_size > config.pool_max_size:
        raise ConfigError(
            f"pool_min_size: must be at most pool_max_size ({config.pool_max_size}), not {config.pool_min_size}"
        )


def _from_text(variable: str, field: str, text: str) -> Any:
    """Read the text of a variable as what its field's default is."""
    default = getattr(_DEFAULTS, field)
    try:
        if isinstance(default, timedelta):
            iso = text.upper().startswith(("P", "+P", "-P"))
            return msgspec.convert(text, timedelta) if iso else float(text)
        if isinstance(default, bool):
            return _BOOLEANS[text.strip().lower()]
        return int(text) if isinstance(default, int) or field in _NUMBERS else text
    except (ValueError, KeyError, msgspec.ValidationError):
        raise ConfigError(f"{variable}: {text!r} cannot be read as {_kind(default)}") from None


def _kind(default: object) -> str:
    if isinstance(default, timedelta):
        return "a duration (seconds, or ISO 8601 such as PT10M)"
    return "a boolean (true or false)" if isinstance(default, bool) else "an integer"


_DEFAULTS = Config()
_NUMBERS = ("cache_size",)  # also where there is none by default
_OBJECTS = ("codec", "instrument", "logger", "on_audit_event")  # which no text can name
_BOOLEANS = {
    "true": True,
    "1": True,
    "yes": True,
    "on": True,
    "false": False,
    "0": False,
    "no": False,
    "off": False,
}
