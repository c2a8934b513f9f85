from __future__ import annotations

import logging
from datetime import timedelta
from functools import partial
from typing import Any

import msgspec
import pytest

from pgsession.audit import AuditEvent
from pgsession.config import Config
from pgsession.errors import ConfigError


def test_the_defaults_are_the_documented_ones() -> None:
    config = Config()
    assert (config.max_sessions, config.max_sessions_policy, config.max_attribute_length) == (
        5,
        "evict",
        16384,
    )
    assert config.session_expiration == timedelta(days=30)
    assert config.inactivity_duration == timedelta(hours=48)
    assert config.cleanup_interval == timedelta(hours=1)
    assert config.cache_size is None and config.shared_cache is None
    assert config.shared_cache_size == 128 * 2**20
    assert config.max_session_lifetime_in_cache == timedelta(hours=48)
    assert config.max_staleness == timedelta(seconds=10)
    assert config.stale_if_error == timedelta(0)
    assert config.last_access_update_interval == timedelta(minutes=10)
    assert config.last_access_update_batch_size == 5000
    assert not config.create_schema_if_missing
    assert config.notify_on_updates and not config.notify_on_failed_updates and config.synchronous_commit


def test_durations_are_timedeltas_or_seconds() -> None:
    assert Config(max_staleness=2.5).max_staleness == timedelta(seconds=2.5)
    assert Config(max_staleness=timedelta(seconds=3)).max_staleness == timedelta(seconds=3)
    assert msgspec.structs.replace(Config(), cleanup_interval=60).cleanup_interval == timedelta(minutes=1)


async def coroutine_function(event: AuditEvent) -> None: ...


class WithCoroutine:
    async def __call__(self, event: AuditEvent) -> None: ...


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"max_session": 3}, "max_session: there is no such"),
        ({"max_sessions": -1}, "max_sessions: must be from 0"),
        ({"max_sessions": "5"}, "max_sessions: an int is needed"),
        ({"max_sessions": True}, "max_sessions: an int is needed"),
        ({"cache_size": 0}, "cache_size: must be from 1"),
        ({"max_attribute_length": 0}, "max_attribute_length: must be from 1"),
        ({"last_access_update_batch_size": 0}, "last_access_update_batch_size: must be from 1"),
        ({"max_sessions_policy": "drop"}, "max_sessions_policy: must be one of 'evict', 'reject'"),
        ({"session_expiration": 0}, "session_expiration: must be from 1 microsecond to 36500 days, not "),
        (
            {"session_expiration": timedelta(seconds=-1)},
            "session_expiration: must be from 1 microsecond to 36500 days, not ",
        ),
        ({"session_expiration": float("nan")}, "session_expiration: must be from .* not nan"),
        ({"session_expiration": float("inf")}, "session_expiration: must be from .* not inf"),
        (
            {"session_expiration": timedelta(days=40000)},
            "session_expiration: must be from 1 microsecond to 36500 days",
        ),
        ({"stale_if_error": -1}, "stale_if_error: must be 0 or from 1 microsecond"),
        ({"max_staleness": "10"}, "max_staleness: a timedelta or a number of seconds"),
        ({"inactivity_duration": 0.999}, "inactivity_duration: must be from 1 s to 36500 days"),
        ({"max_staleness": 4e-7}, "max_staleness: must be from 1 microsecond"),
        ({"cleanup_interval": 4e-7}, "cleanup_interval: must be 0 or from 1 microsecond"),
        ({"schema_name": ""}, "schema_name: must not be empty"),
        ({"schema_name": "a\0b"}, "schema_name: must not contain NUL"),
        ({"schema_name": "\ud800"}, "schema_name: must not contain lone surrogates"),
        ({"schema_name": "x" * 64}, "schema_name: must be at most 63 bytes"),
        ({"table_prefix": "x" * 40}, "table_prefix: must be at most"),
        ({"table_prefix": None}, "table_prefix: a str"),
        ({"synchronous_commit": 1}, "synchronous_commit: True or False"),
        ({"listener_conninfo": 7}, "listener_conninfo: a str, a function"),
        ({"audit_sample": 10_001}, "audit_sample: must be from 0 to 10000, not 10001"),
        ({"warm": ""}, "warm: must not be empty"),
        ({"warm": b"ids"}, "warm: a str is needed, not bytes"),
        ({"warm": "a\0b"}, "warm: must not contain NUL"),
        ({"warm_mode": "later"}, "warm_mode: must be one of 'before_ready', 'background'"),
        ({"logger": "pgsession"}, "logger: a logging.Logger"),
        ({"on_audit_event": "print"}, "on_audit_event: a function is needed, not str"),
        ({"on_audit_event": coroutine_function}, "on_audit_event: a plain function is needed"),
        ({"on_audit_event": partial(coroutine_function)}, "on_audit_event: a plain function is needed"),
        ({"on_audit_event": WithCoroutine()}, "on_audit_event: a plain function is needed"),
    ],
)
def test_a_bad_field_is_named_with_its_rule(fields: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=f"^{message}"):
        Config(**fields)


def test_what_may_be_zero() -> None:
    config = Config(max_sessions=0, cleanup_interval=0, max_session_lifetime_in_cache=0, stale_if_error=0)
    assert config.cleanup_interval == timedelta(0)


def test_it_is_frozen() -> None:
    with pytest.raises(AttributeError):
        Config().max_sessions = 3  # type: ignore[misc]


def test_from_env() -> None:
    environ = {
        "PGSESSION_MAX_SESSIONS": "7",
        "PGSESSION_MAX_STALENESS": "2.5",
        "PGSESSION_INACTIVITY_DURATION": "PT3H",
        "PGSESSION_CREATE_SCHEMA_IF_MISSING": "Yes",
        "PGSESSION_TABLE_PREFIX": "app_",
        "PGSESSION_TEST_DSN": "not ours",
    }
    config = Config.from_env(environ=environ)
    assert config == Config(
        max_sessions=7,
        max_staleness=2.5,
        inactivity_duration=timedelta(hours=3),
        create_schema_if_missing=True,
        table_prefix="app_",
    )
    assert Config.from_env("APP_", {"APP_CACHE_SIZE": "9"}).cache_size == 9
    assert Config.from_env(environ={}) == Config()


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("MAX_SESSIONS", "many"),
        ("MAX_STALENESS", "10 s"),
        ("MAX_STALENESS", "P"),
        ("SYNCHRONOUS_COMMIT", "maybe"),
    ],
)
def test_from_env_names_the_variable(name: str, text: str) -> None:
    with pytest.raises(ConfigError, match=f"^PGSESSION_{name}: '{text}' cannot be read as"):
        Config.from_env(environ={f"PGSESSION_{name}": text})


def test_from_env_applies_the_rules() -> None:
    with pytest.raises(ConfigError, match=r"^cache_size: must be from 1"):
        Config.from_env(environ={"PGSESSION_CACHE_SIZE": "0"})


def test_a_logger_is_taken() -> None:
    assert Config(logger=logging.getLogger("app")).logger is logging.getLogger("app")
