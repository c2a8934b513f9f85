"""Every public parameter has a row in the table below, and every entry point answers by the rule in its row.

The entry points are found by looking at the classes, so a new parameter without a row fails. Each is fed what its rule
refuses, and has to raise the very error that the rule raises: type and words. No database is needed: arguments are
checked before anything else happens.
"""

from __future__ import annotations

import asyncio
import enum
import inspect
import logging
import math
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from functools import partial
from typing import Any, NamedTuple

import click
import psycopg
import pytest

import pgsession
from pgsession import cli as command
from pgsession import schema
from pgsession._async.held_lock import AsyncLost
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.hit import session_of
from pgsession._core.record import Record
from pgsession._database.statements import Statements
from pgsession._protocol import rules
from pgsession._sync.held_lock import Lost

NOW = 1_700_000_000_000_000
CLOCK = Clock(manual=NOW)
CENTURY = timedelta(days=36500)
LOGGER = logging.getLogger("pgsession.test")
ID = uuid.UUID(int=5)


class Rule(NamedTuple):
    check: Callable[[str, Any], object]
    bad: list[Any]
    good: list[Any]


class Free(NamedTuple):
    """A parameter that no rule of ours is about."""

    why: str


class Odd(str):
    """Text that says something else of itself."""

    def __str__(self) -> str:
        return ""


class Text(bytes, enum.Enum):
    empty = b""


def optional(rule: Rule) -> Rule:
    def check(name: str, value: object) -> object:
        return None if value is None else rule.check(name, value)

    return Rule(check, [value for value in rule.bad if value is not None], [*rule.good, None])


def typed(words: str, *good: Any) -> Rule:
    def check(name: str, value: object) -> None:
        raise TypeError(f"{name}: {words} is needed, not {type(value).__name__}")

    return Rule(check, [5, 1.5, [], object()], list(good))


def conninfo(words: str, *good: Any) -> Rule:
    """Texts are refused in words of their own."""
    rule = typed(words, *good)

    def check(name: str, value: object) -> None:
        (rules.conninfo if isinstance(value, str) else rule.check)(name, value)

    return Rule(check, [*rule.bad, "host=a\0b", "\ud800"], rule.good)


# ---- the rules, with values at and beyond their limits ----

NO_TEXT = ["a\0b", "\0", "\ud800", "x\udfff", None, 5, b"x", ["x"], True, 1.5, object()]
NO_NUMBER = ["5", None, True, False, 1.5, b"5", [5], object()]
SESSION_ID = Rule(
    rules.session_id,
    ["", "x", str(ID) + " ", "{" + str(ID)[2:] + "}}", str(ID)[:-1] + "g", str(ID)[:-1] + "é", "\ud800" * 36, "\0" * 36,
     b"", b"x" * 15, b"x" * 17, Text.empty, None, 5, True, 1.5, bytearray(16), [ID], object()],
    [ID, str(ID), str(ID).upper(), ID.bytes, Odd(ID)],
)  # fmt: skip
IDENTIFIER = Rule(
    rules.identifier,
    [
        "",
        "x" * 513,
        "é" * 257,
        "a\0b",
        "\ud800",
        None,
        True,
        1.5,
        b"x",
        [],
        object(),
        10**512,
        10**5000,
        -(10**511),
    ],
    ["x" * 512, "é" * 256, 0, -1, 10**511, ID, Odd("x" * 512)],
)
KEY = Rule(rules.attribute_key, ["", "x" * 513, "é" * 257, *NO_TEXT], ["x" * 512, "é" * 256, Odd("x")])
NO_DURATION = [-1e-9, -1, math.nan, math.inf, -math.inf, 1e300, 10**400, 10**5000, 4e-7, timedelta(microseconds=-1),
               timedelta(days=213_503_983), timedelta(days=106_751_992), timedelta.max, timedelta.min,
               CENTURY + timedelta(microseconds=1), 36500 * 86400 + 1,
               "5", True, False, [5], b"5", object(), datetime.now(UTC)]  # fmt: skip
LENGTHS = [1e-6, timedelta(microseconds=1), 5, 0.5, CENTURY, 36500 * 86400]
DURATION = Rule(rules.seconds, [0, 0.0, timedelta(0), None, *NO_DURATION], LENGTHS)
IDLE_TIMEOUT = Rule(partial(rules.seconds, least=1_000_000), [0, 0.999999, *DURATION.bad], [1, CENTURY])
ZERO_OR_DURATION = Rule(
    partial(rules.seconds, least=0), [None, *NO_DURATION], [0, 0.0, timedelta(0), *LENGTHS]
)
TIMEOUT = optional(ZERO_OR_DURATION)
EXPIRES_AT = Rule(
    lambda name, value: rules.expiry(CLOCK, expires_at=value),
    [datetime(2100, 1, 1), datetime(1970, 1, 1, tzinfo=UTC), datetime.min.replace(tzinfo=UTC),
     datetime.max.replace(tzinfo=timezone(timedelta(hours=-1))), 5, "2100-01-01", True, timedelta(1), object()],
    [None, datetime.max.replace(tzinfo=UTC), datetime(1971, 1, 1, tzinfo=timezone(timedelta(hours=14)))],
)  # fmt: skip
EXPIRES_IN = optional(Rule(lambda name, value: rules.expiry(CLOCK, expires_in=value), DURATION.bad, LENGTHS))
FLAG = Rule(rules.boolean, [0, 1, None, "yes", "", [], object()], [True, False])


def count(least: int, most: int = 2**63 - 1) -> Rule:
    bad = [least - 1, most + 1, -(10**400), 10**400, 10**5000, *NO_NUMBER]
    return Rule(partial(rules.count, least=least, most=most), bad, [least, most])


def choice(*allowed: str | None) -> Rule:
    bad = [
        value for value in ("", "both", "\0", "\ud800", 5, True, None, [], object()) if value not in allowed
    ]
    return Rule(partial(rules.choice, allowed=allowed), bad, list(allowed))


CHECK = choice(None, "session", "attributes")
INSTRUMENT = typed("an object with a method `measured`, or None,")
FUNCTION = Rule(rules.function, [5, "print", None, [], object()], [print])
CHANNEL = Rule(rules.channel, ["", "x" * 64, "é" * 32, *NO_TEXT], ["x" * 63, "é" * 31])
PAYLOAD = Rule(rules.payload, ["x" * 8000, "é" * 4000, *NO_TEXT], ["", "x" * 7999])
SCHEMA = Rule(rules.schema_name, ["", "x" * 64, "é" * 32, "$pgsession$", *NO_TEXT], ["x" * 63, "é" * 31])
PREFIX = Rule(
    rules.table_prefix, ["x" * 31, "x" * 35, "é" * 16, "$pgsession$", *NO_TEXT], ["", "x" * 30, "é" * 15]
)
ROLE = Rule(
    lambda name, value: rules.role_names(name, [value]), ["", "x" * 64, "é" * 32, *NO_TEXT], ["x" * 63]
)
ROLES = Rule(
    rules.role_names, ["x", None, 5, True, object(), *([value] for value in ROLE.bad)], [[], ["x" * 63]]
)
IDS = Rule(
    rules.session_ids,
    [None, 5, True, str(ID), ID.bytes, object(), *([value] for value in SESSION_ID.bad)],
    [[], (ID, str(ID)), {ID.bytes}],
)
VALUE = Rule(
    lambda name, value: fresh(pgsession.Session).set("k", value),
    ["a\0b", "\ud800", math.nan, [math.inf], 1j, {1j: 1}, {1: 0, "1": 0}, "x" * 16383],
    ["x" * 16382, None, [1, {"a": 1.5}]],
)
TEXT = typed("a str", "")
PATH = Rule(rules.path, ["", "x" * 4097, *NO_TEXT], ["x", "é" * 2048])
SHARED = Rule(
    rules.place, ["", "a b", "a/b", "x" * 65, "/" * 4097, *NO_TEXT], ["x-1_Y", "x" * 64, "/", "/a b"]
)
MESSAGE = Rule(
    rules.octets, ["\ud800", None, 5, [], object()], ["", "\0", b"", bytearray(b"x"), memoryview(b"x")]
)
KEYS = Rule(
    lambda name, value: pgsession.Signer(value),
    [None, 5, [], b"", b"x" * 31, "x" * 32, ["x" * 32], [b"x" * 32, None]],
    [b"x" * 32, [b"x" * 32, bytearray(32)]],
)

TOKEN = Free("whatever it is, it is a token that nobody signed")
ANYTHING = Free("any object")
LOOKED_UP = Free("a key that cannot be stored is not found")
OURS = Free("given by the manager, which has checked it")
DRIVER = Free("psycopg checks it")

# ---- the table: by name, and by callable and name where the name says not enough ----

TABLE: dict[str, Rule | Free] = {
    "active_within": TIMEOUT,
    "after": optional(SESSION_ID),
    "attributes": optional(typed("a mapping", {}, {"a": 1})),
    "blocking": FLAG,
    "change": FUNCTION,
    "channel": CHANNEL,
    "check": CHECK,
    "command_timeout": DURATION,
    "config": optional(typed("a Config or None")),
    "connect_timeout": count(1, 2**31 - 1),
    "connection": DRIVER,
    "conninfo": Rule(rules.conninfo, [5, None, b"", [], object(), "host=a\0b", "\ud800"], ["", print]),
    "dry_run": FLAG,
    "environ": optional(typed("a mapping", {})),
    "expires_at": EXPIRES_AT,
    "expires_in": EXPIRES_IN,
    "grace": optional(ZERO_OR_DURATION),
    "grant_to": ROLES,
    "group_id": IDENTIFIER,
    "health_check_interval": optional(DURATION),
    "heartbeat_interval": DURATION._replace(good=[1e-6, 59.9]),
    "hook": FUNCTION,
    "ids": IDS,
    "if_exists": choice("error", "return", "replace")._replace(good=["error"]),  # the others need an id
    "include_inactivity": FLAG,
    "inactivity": optional(IDLE_TIMEOUT),
    "keep": optional(SESSION_ID),
    "key": KEY,
    "keys": KEYS,
    "lease_time": DURATION._replace(good=[10.1, CENTURY]),
    "limit": count(1, 1000),
    "listener": optional(typed("a listener (LISTENER) or None")),
    "logger": typed("a logging.Logger", LOGGER),
    "max_retries": optional(count(0)),
    "message": MESSAGE,
    "min_version": count(0),
    "notify": FLAG,
    "older_than": TIMEOUT,
    "on_done": optional(FUNCTION),
    "on_error": optional(FUNCTION),
    "on_notification": FUNCTION,
    "on_out_of_sync": optional(FUNCTION),
    "params": DRIVER,
    "payload": PAYLOAD,
    "prefix": PREFIX,
    "query": DRIVER,
    "reconnect_delay": DURATION,
    "refresh": FLAG,
    "resource": IDENTIFIER,
    "retries": count(0),
    "retry_delay": DURATION,
    "schema": SCHEMA,
    "seconds": DURATION,
    "session": typed("a Session"),
    "session_id": SESSION_ID,
    "signer": optional(typed("a Signer or None", pgsession.Signer(b"x" * 32))),
    "statements": Free("made by `Statements`, which has checked the names"),
    "timeout": TIMEOUT,
    "token": TOKEN,
    "touch": FLAG,
    "user_id": IDENTIFIER,
    "value": VALUE,
    "wait": optional(DURATION),
    "with_values": FLAG,
}
SPECIAL: dict[tuple[str, str], Rule | Free] = {
    ("Statements.__init__", "placed"): Free("what Citus says"),
    **{
        (f"schema.{name}", "shard"): Free("two numbers, tested below")
        for name in ("create", "async_create", "rehearse")
    },
    ("*SessionManager.__init__", "database"): conninfo(
        "a conninfo, a function that returns one, or a pool (POOL)", "", print
    ),
    ("*Admin.__init__", "database"): conninfo("a conninfo or a pool (POOL)", ""),
    ("*Admin.list_locks", "after"): optional(IDENTIFIER),
    **{
        (f"*Admin.{method}", name): optional(rule)
        for method in ("list_sessions", "count")
        for name, rule in (("user_id", IDENTIFIER), ("group_id", IDENTIFIER), ("session_id", SESSION_ID))
    },
    **{  # nothing at all is refused, in words of its own
        ("*Admin.revoke", name): optional(rule)._replace(good=rule.good)
        for name, rule in (
            ("user_id", IDENTIFIER),
            ("group_id", IDENTIFIER),
            ("active_within", ZERO_OR_DURATION),
            ("older_than", ZERO_OR_DURATION),
            ("session_id", SESSION_ID),
        )
    },
    ("*SessionManager.create_session", "group_id"): optional(IDENTIFIER),
    ("*SessionManager.create_session", "session_id"): optional(SESSION_ID),
    ("*SessionManager.create_session", "user_id"): optional(IDENTIFIER),
    ("*SessionManager.update_session", "user_id"): optional(IDENTIFIER),
    ("*SessionManager.rotate_session", "user_id"): optional(IDENTIFIER),
    ("*SessionManager.rotate_session", "group_id"): optional(IDENTIFIER),
    ("*SessionManager.update_session", "group_id"): optional(IDENTIFIER),
    ("*SessionManager.check_health", "timeout"): DURATION,
    ("*SessionManager.count_sessions", "user_id"): optional(IDENTIFIER),
    ("*SessionManager.count_sessions", "group_id"): optional(IDENTIFIER),
    ("*SessionManager.modify_session", "options"): Free("as for update_session, which takes them"),
    ("*SessionManager.update_session", "include_inactivity"): optional(FLAG),
    ("*SessionManager.lock", "session_id"): optional(SESSION_ID),
    **{
        ("*Lock.__init__", name): OURS
        for name in (
            "opened", "clock", "resource", "session_id", "lease", "heartbeat", "max_retries", "retry_delay"
        )
    },
    ("*Listener.execute", "timeout"): optional(DURATION),
    ("*Listener.remove_lost_hook", "hook"): FUNCTION._replace(good=[]),
    ("*Listener.unlisten", "on_notification"): optional(FUNCTION),
    **{
        ("Session." + name, "key"): LOOKED_UP
        for name in ("__getitem__", "__delitem__", "__contains__", "attribute", "get", "pop")
    },
    ("Session.get", "default"): ANYTHING,
    ("Session.get", "type"): Free("msgspec checks it"),
    ("Session.as_type", "type"): Free("tests/core/test_typed.py"),
    ("Session.pop", "default"): ANYTHING,
    ("Session.setdefault", "key"): KEY._replace(bad=[key for key in KEY.bad if key != ["x"]]),  # looked up first
    ("Session.setdefault", "default"): VALUE,
    ("Session.update", "other"): Free("what a dict takes; its keys and values are fed below"),
    ("Session.update", "more"): Free("as `other`"),
    ("Config.from_env", "prefix"): TEXT,
}  # fmt: skip
CONFIG: dict[str, Rule] = {
    "max_sessions": count(0, 2**31 - 1),
    "max_sessions_policy": choice("evict", "reject"),
    "max_attribute_length": count(1, 2**28),
    "max_session_size": count(1, 2**30),
    "max_attributes": count(1, 2**30),
    "rotation_grace": ZERO_OR_DURATION,
    "session_expiration": DURATION,
    "inactivity_duration": IDLE_TIMEOUT,
    "cleanup_interval": ZERO_OR_DURATION,
    "cache_size": optional(count(1, 2**30)),
    "shared_cache": optional(SHARED),
    "shared_cache_size": count(2**22, 2**40),
    "max_session_lifetime_in_cache": ZERO_OR_DURATION,
    "max_staleness": DURATION,
    "stale_if_error": ZERO_OR_DURATION,
    "last_access_update_interval": DURATION,
    "last_access_update_batch_size": count(1, 10**6),
    "pool_min_size": count(0, 10_000),
    "operation_timeout": DURATION,
    "pool_max_size": count(1, 10_000),
    "schema_name": SCHEMA,
    "table_prefix": PREFIX,
    "create_schema_if_missing": FLAG,
    "notify_on_updates": FLAG,
    "notify_on_failed_updates": FLAG,
    "synchronous_commit": FLAG,
    "notify_before_flush": FLAG,
    "listener_conninfo": optional(conninfo("a str, a function that returns one, or None", "", print)),
    "on_audit_event": optional(FUNCTION),
    "audit_sample": count(0, 10_000),
    "warm": optional(PATH),
    "warm_mode": choice("before_ready", "background"),
    "instrument": optional(INSTRUMENT),
    "codec": optional(typed("a Codec or None", pgsession.Codec())),
    "logger": optional(typed("a logging.Logger or None", LOGGER)),
}
CHOSEN = Free("a flag, or checked by click")
COMMAND: dict[str, Rule | Free] = {
    "access_interval": CHOSEN,
    "active": CHOSEN,
    "active_within": Free("tests/cli"),
    "as_json": CHOSEN,
    "as_sql": CHOSEN,
    "beacons": CHOSEN,
    "cache_size": CHOSEN,
    "database": DRIVER,
    "dry_run": CHOSEN,
    "folder": Free("tests/host"),
    "everybodys": CHOSEN,
    "full_ids": CHOSEN,
    "grant_to": ROLE,
    "group_id": IDENTIFIER,
    "hit_rate": CHOSEN,
    "host_memory": CHOSEN,
    "hosts": CHOSEN,
    "key_prefix": CHOSEN,
    "limit": CHOSEN,
    "listener_conninfo": DRIVER,
    "logins": CHOSEN,
    "max_age": CHOSEN,
    "max_connections": CHOSEN,
    "max_staleness": CHOSEN,
    "older_than": Free("tests/cli"),
    "pool_max_size": CHOSEN,
    "requests": CHOSEN,
    "resource": IDENTIFIER,
    "schema_name": SCHEMA,
    "seconds": CHOSEN,
    "server_cores": CHOSEN,
    "session_id": CHOSEN,
    "session_size": CHOSEN,
    "sessions": CHOSEN,
    "shard": CHOSEN,
    "shards": Free("tests/cli"),
    "shell": CHOSEN,
    "spread": CHOSEN,
    "table_prefix": PREFIX,
    "timeout": Free("tests/cli"),
    "unpickle": CHOSEN,
    "url": Free("tests/cli"),
    "user_id": IDENTIFIER,
    "user_key": CHOSEN,
    "values": CHOSEN,
    "without": CHOSEN,
    "workers": CHOSEN,
    "writes": CHOSEN,
    "yes": CHOSEN,
}
COMMANDS_NEED = {
    "show": [str(uuid.UUID(int=1))],
    "break": ["resource"],
    "flask-session": ["--redis=redis://nowhere"],
    "starsessions": ["--redis=redis://nowhere"],
}
"""What a command takes besides."""

# ---- the entry points ----

CLASSES = (
    pgsession.SessionManager,
    pgsession.AsyncSessionManager,
    pgsession.Session,
    pgsession.Lock,
    pgsession.AsyncLock,
    Lost,
    AsyncLost,
    pgsession.Listener,
    pgsession.AsyncListener,
    pgsession.Admin,
    pgsession.AsyncAdmin,
    pgsession.Signer,
    pgsession.Config,
    Statements,
)  # fmt: skip
OPERATORS = ("__init__", "__getitem__", "__setitem__", "__delitem__", "__contains__")
MADE_OTHERWISE = {("Session", "__init__"), ("Config", "__init__"), ("Lost", "__init__")}
NEEDED: dict[str, Any] = {
    "change": print, "channel": "c", "connection": None, "database": "", "hook": print, "ids": [], "key": "k",
    "keys": b"k" * 32, "message": b"m", "on_notification": print, "query": "SELECT 1", "resource": "r", "schema": "s",
    "seconds": 5, "session_id": ID, "group_id": "g", "statements": None, "token": "t", "user_id": "u", "value": 1,
    "prefix": "",
}  # fmt: skip


class Entry(NamedTuple):
    name: str
    owner: type | None
    function: Callable[..., Any]
    parameters: dict[str, Any]

    def call(self, arguments: dict[str, Any]) -> Any:
        """Call it on a fresh object that is not open."""
        function = self.function
        if self.owner is not None and self.name.endswith(".__init__"):
            function = self.owner
        elif self.owner is not None and not isinstance(
            inspect.getattr_static(self.owner, self.function.__name__), staticmethod | classmethod
        ):
            function = partial(function, fresh(self.owner))
        given = {"session": fresh(pgsession.Session), **NEEDED, **arguments}
        positional, named = [], {}
        for name, parameter in self.parameters.items():
            if name not in arguments and parameter.default is not inspect.Parameter.empty:
                continue
            if parameter.kind in (inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL):
                continue
            if parameter.kind is inspect.Parameter.POSITIONAL_ONLY:
                positional.append(given[name])
            else:
                named[name] = given[name]
        return function(*positional, **named)


def fresh(owner: type) -> Any:
    if owner is pgsession.Session:
        cache = Cache(5, CLOCK, access_interval=10**6, lifetime=0, max_attribute_length=16384)
        return session_of(
            cache, Record(bytes(16), 1, "u", None, NOW, NOW, NOW, NOW + 10**9, None, []), from_cache=False
        )
    if owner in (pgsession.SessionManager, pgsession.AsyncSessionManager):
        return owner("", signer=pgsession.Signer(b"k" * 32))
    if owner in (pgsession.Admin, pgsession.AsyncAdmin):
        return owner("host=/nowhere")
    if owner in (pgsession.Lock, pgsession.AsyncLock):

        def closed() -> Any:
            raise pgsession.ManagerClosedError("not open")

        return owner(closed, CLOCK, "r", None, lease=2, heartbeat=1, max_retries=0, retry_delay=1)
    if owner in (Lost, AsyncLost):
        return owner(CLOCK)
    return owner() if owner in (pgsession.Listener, pgsession.AsyncListener) else owner(b"k" * 32)


def entries() -> Iterator[Entry]:
    for owner in CLASSES:
        for name in dir(owner):
            function = getattr(owner, name)
            if not callable(function) or (name.startswith("_") and name not in OPERATORS):
                continue
            if (owner.__name__.removeprefix("Async"), name) in MADE_OTHERWISE:
                continue
            if owner is Statements and name != "__init__":
                continue  # it is asked for what was checked
            yield Entry(f"{owner.__name__}.{name}", owner, function, parameters(function))
    for name in schema.__all__:
        function = getattr(schema, name)
        yield Entry(f"schema.{name}", None, function, parameters(function))


def parameters(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        found = dict(inspect.signature(function).parameters)
    except ValueError:  # a default that has no literal
        text = function.__text_signature__.strip("()")  # type: ignore[attr-defined]
        names = [word.split("=")[0].strip("$ ") for word in text.split(",")]
        kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
        found = {name: inspect.Parameter(name, kind, default=None) for name in names if name not in "*/"}
    found.pop("self", None)
    return found


ENTRIES = list(entries())


def row_of(entry: Entry, parameter: str) -> Rule | Free | None:
    name = entry.name
    row = SPECIAL.get((name, parameter)) or SPECIAL.get(("*" + name.removeprefix("Async"), parameter))
    return row or TABLE.get(parameter)


RUNNER = asyncio.Runner()


@pytest.fixture(scope="module", autouse=True)
def loop() -> Iterator[None]:
    with RUNNER:
        yield


async def awaited(result: Any) -> Any:
    return await result


def error_of(call: Callable[[], Any]) -> Exception | None:
    try:
        result = call()
        if inspect.isawaitable(result):
            RUNNER.run(awaited(result))
    except Exception as error:
        return error
    return None


def expected(rule: Rule, name: str, value: object, owner: type | None = None) -> tuple[type[Exception], str]:
    error = error_of(lambda: rule.check(name, value))
    assert isinstance(error, TypeError | ValueError), f"the rule takes {value!r:.50}"
    text = str(error)
    asynchronous = owner is not None and owner.__name__.startswith("Async")
    text = text.replace("LISTENER", "AsyncListener" if asynchronous else "Listener")
    return type(error), text.replace("POOL", "AsyncConnectionPool" if asynchronous else "ConnectionPool")


def test_every_public_parameter_has_a_row() -> None:
    assert len(ENTRIES) > 90
    missing = [
        f"{entry.name}({name})"
        for entry in ENTRIES
        for name in entry.parameters
        if row_of(entry, name) is None
    ]
    assert not missing
    assert set(CONFIG) == set(pgsession.Config.__struct_fields__)
    assert set(COMMAND) == {option.name for _, option in command_options()}


def test_no_row_is_left_over() -> None:
    used = {name for entry in ENTRIES for name in entry.parameters}
    assert set(TABLE) <= used
    names = {(entry.name.removeprefix("Async"), name) for entry in ENTRIES for name in entry.parameters}
    assert {(where.removeprefix("*"), name) for where, name in SPECIAL} <= names


RULED = [
    pytest.param(entry, name, row, id=f"{entry.name}({name})")
    for entry in ENTRIES
    for name in entry.parameters
    if isinstance(row := row_of(entry, name), Rule)
]


@pytest.mark.parametrize(("entry", "name", "rule"), RULED)
def test_an_entry_point_refuses_what_the_rule_refuses_in_its_words(
    entry: Entry, name: str, rule: Rule
) -> None:
    for value in rule.bad:
        error = error_of(partial(entry.call, {name: value}))
        assert (type(error), str(error)) == expected(rule, name, value, entry.owner), f"{value!r:.50}"


@pytest.mark.parametrize(("entry", "name", "rule"), RULED)
def test_an_entry_point_takes_what_the_rule_takes(entry: Entry, name: str, rule: Rule) -> None:
    for value in rule.good:
        if entry.name.startswith("schema."):
            continue  # it goes on to the connection, which is none
        error = error_of(partial(entry.call, {name: value}))
        closed = pgsession.ManagerClosedError | pgsession.ListenerError | pgsession.LockNotHeldError
        if entry.owner in (pgsession.Admin, pgsession.AsyncAdmin):
            closed |= psycopg.OperationalError  # it connects for each call
        assert error is None or isinstance(error, closed), f"{value!r:.50}"


@pytest.mark.parametrize(
    "entry", [e for e in ENTRIES if "expires_in" in e.parameters], ids=lambda entry: entry.name
)
def test_of_two_expiries_only_one_may_be_given(entry: Entry) -> None:
    error = error_of(partial(entry.call, {"expires_at": datetime(2100, 1, 1, tzinfo=UTC), "expires_in": 5}))
    assert (type(error), str(error)) == (ValueError, "expires_at, expires_in: only one of them may be given")


def attributes(entry: str) -> Callable[[dict[Any, Any]], Any]:
    found = next(e for e in ENTRIES if e.name == entry)
    parameter = "other" if entry == "Session.update" else "attributes"
    return lambda values: found.call({parameter: values})


MAPPINGS = ["SessionManager.create_session", "AsyncSessionManager.create_session", "Session.update"]


@pytest.mark.parametrize("entry", MAPPINGS)
def test_keys_values_and_expiries_in_a_mapping_go_by_the_same_rules(entry: str) -> None:
    feed = attributes(entry)
    cases: list[tuple[Rule, str, Callable[[Any], dict[Any, Any]]]] = [
        (KEY, "key", lambda bad: {bad: 1}),
        (VALUE, "value", lambda bad: {"k": bad}),
        (VALUE, "value", lambda bad: {"k": pgsession.Attribute(bad)}),
        (EXPIRES_AT, "expires_at", lambda bad: {"k": pgsession.Attribute(1, expires_at=bad)}),
    ]
    for rule, name, wrap in cases:
        for value in rule.bad:
            if name == "key" and isinstance(value, list):
                continue  # no dict has it
            error = error_of(lambda wrap=wrap, value=value: feed(wrap(value)))  # type: ignore[misc]
            assert (type(error), str(error)) == expected(rule, name, value), f"{name} {value!r:.50}"


@pytest.mark.parametrize("field", CONFIG)
def test_config_says_the_same_words_as_a_config_error(field: str) -> None:
    rule = CONFIG[field]
    for value in rule.bad:
        error = error_of(lambda value=value: pgsession.Config(**{field: value}))  # type: ignore[misc]
        assert type(error) is pgsession.ConfigError and isinstance(error, ValueError)
        assert str(error) == expected(rule, field, value)[1]
    room = {
        "pool_min_size": 0,
        "pool_max_size": 10_000,
    }
    for value in rule.good:
        pgsession.Config(**(room | {field: value}))


def commands(group: click.Group = command.cli, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, each in group.commands.items():
        if isinstance(each, click.Group):
            yield from commands(each, *path, name)
        else:
            yield (*path, name), each


def command_options() -> list[tuple[tuple[str, ...], click.Parameter]]:
    return [(path, option) for path, each in commands() for option in each.params]


@pytest.mark.parametrize(
    ("path", "option"),
    [pytest.param(*each, id=f"{' '.join(each[0])} {each[1].name}") for each in command_options()],
)
def test_the_command_refuses_in_the_same_words(
    path: tuple[str, ...], option: click.Parameter, capsys: pytest.CaptureFixture[str]
) -> None:
    rule = COMMAND[option.name or ""]
    if isinstance(rule, Free):
        return
    for value in rule.bad:
        if not isinstance(value, str):
            continue
        name = option.opts[0]
        needed = COMMANDS_NEED.get(path[-1], [])
        if isinstance(option, click.Argument):
            assert command.main([*path, "--", value]) == 2
        else:
            assert command.main([*path, *needed, f"{name}={value}", "host=/nowhere"]) == 2
        assert expected(rule, name, value)[1] in capsys.readouterr().err


@pytest.mark.parametrize(
    "shard", [5, "01", [0, 1], (0,), (0, 1, 2), (0, 0), (2, 2), (-1, 2), (0, 4097), ("0", 2)]
)
def test_which_shard_tables_are_is_said_by_two_numbers(shard: Any) -> None:
    with pytest.raises((TypeError, ValueError), match=r"^shard: "):
        schema.create(NEEDED["connection"], shard=shard)


def test_an_id_is_the_text_it_is_whatever_its_class_prints() -> None:
    class Name(str, enum.Enum):  # noqa: UP042 - a StrEnum prints its text
        ann = "ann"

    class Number(int, enum.Enum):
        one = 1

    assert rules.identifier("user_id", Name.ann) == "ann"
    assert rules.identifier("user_id", Number.one) == "1"
    assert rules.identifier("user_id", Odd("ann")) == "ann"
    assert rules.attribute_key("key", Name.ann) == "ann"


class OddNumber(int):
    """A number that says something else of itself."""

    def __str__(self) -> str:
        return "none"

    __repr__ = __format__ = __str__  # type: ignore[assignment]


class Unlike(str):
    """Text that is like nothing, and says something else of itself."""

    def __str__(self) -> str:
        return "none"

    def __eq__(self, other: object) -> bool:
        return False

    def __hash__(self) -> int:
        raise RuntimeError("not to be asked")

    def encode(self, *_: Any) -> bytes:  # type: ignore[override]
        return b"none"


class UnlikeBytes(bytes):
    """Bytes that say something else of themselves."""

    def __bytes__(self) -> bytes:
        return b"none"


def test_what_a_rule_returns_is_plain() -> None:
    """So is what goes to the database, whatever the class of an argument says of it."""
    for plain, of in (
        (rules.count("limit", OddNumber(5), 1), int),
        (rules.microseconds("seconds", OddNumber(5)), int),
        (rules.seconds("seconds", OddNumber(5)), float),
        (rules.identifier("user_id", OddNumber(5)), str),
        (rules.identifier("user_id", Unlike("u")), str),
        (rules.choice("check", Unlike("session"), (None, "session")), str),
        (rules.channel("channel", Unlike("c")), str),
        (rules.payload("payload", Unlike("p")), str),
        (rules.schema_name("schema", Unlike("s")), str),
        (rules.role_names("roles", [Unlike("r")])[0], str),
        (rules.octets("message", Unlike("m")), bytes),
        (rules.octets("message", UnlikeBytes(b"m")), bytes),
        (rules.conninfo("database", Unlike("host=h")), str),
        (rules.session_id("id", Unlike(str(ID))), bytes),
    ):
        assert type(plain) is of and plain not in ("none", b"none")
    assert rules.octets("message", Unlike("m")) == rules.octets("message", UnlikeBytes(b"m")) == b"m"


def test_config_keeps_what_is_plain() -> None:
    policy: Any = Unlike("evict")
    config = pgsession.Config(max_sessions=OddNumber(3), schema_name=Unlike("s"), max_sessions_policy=policy)
    assert type(config.max_sessions) is int and type(config.schema_name) is str
    assert type(config.max_sessions_policy) is str
