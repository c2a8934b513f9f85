"""Checks what callers pass, and turns it into what is stored. Every refusal names the argument and the rule."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

MAX_ID_BYTES = 512  # an index row must hold it
MAX_MICROSECONDS = 253_402_300_799_999_999  # the last instant of the year 9999, the last that datetime has
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


def identifier(name: str, value: object) -> str:
    """A user or group id, or a resource name, as the text that is stored: str, int and UUID are taken."""
    if isinstance(value, bool) or not isinstance(value, str | int | UUID):
        raise TypeError(f"{name}: a str, int or UUID is needed, not {type(value).__name__}")
    text = str(value)
    if not text:
        raise ValueError(f"{name}: must not be empty")
    if "\0" in text:
        raise ValueError(f"{name}: must not contain NUL, which PostgreSQL cannot store")
    try:
        length = len(text.encode())
    except UnicodeEncodeError:
        raise ValueError(f"{name}: must not contain lone surrogates, which UTF-8 cannot carry") from None
    if length > MAX_ID_BYTES:
        raise ValueError(f"{name}: must be at most {MAX_ID_BYTES} bytes, not {length}")
    return text


def attribute_key(name: str, value: object) -> str:
    """The key of an attribute: a str within the bounds of an identifier."""
    if not isinstance(value, str):
        raise TypeError(f"{name}: a str is needed, not {type(value).__name__}")
    return identifier(name, value)


def optional_identifier(name: str, value: object) -> str | None:
    """The same, or None."""
    return None if value is None else identifier(name, value)


def microseconds(duration: timedelta | float) -> int:
    """A length of time, as a timedelta or in seconds, in whole microseconds."""
    return duration // _MICROSECOND if isinstance(duration, timedelta) else int(duration * 1_000_000)


def seconds(name: str, value: object) -> float:
    """A length of time given as a timedelta or a number of seconds, as seconds; more than 0."""
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{name}: a timedelta or a number of seconds is needed, not {type(value).__name__}")
    if not 0 < value < 10**10:
        raise ValueError(f"{name}: must be more than 0 and less than 10**10 seconds, not {value}")
    return float(value)


def expiry(now: Callable[[], int], expires_at: object, expires_in: object) -> int | None:
    """When something ends, in microseconds since 1970 on the database's clock, which `now()` tells; None: not said."""
    if expires_at is not None and expires_in is not None:
        raise ValueError("expires_at, expires_in: only one of them may be given")
    if expires_at is not None:
        if not isinstance(expires_at, datetime):
            raise TypeError(f"expires_at: an aware datetime is needed, not {type(expires_at).__name__}")
        if expires_at.utcoffset() is None:
            raise ValueError("expires_at: must be aware (have a time zone), not naive")
        return (expires_at - _EPOCH) // _MICROSECOND
    if expires_in is None:
        return None
    length = seconds("expires_in", expires_in)
    exact = expires_in if isinstance(expires_in, timedelta) else length
    return min(now() + microseconds(exact), MAX_MICROSECONDS)


def choice(name: str, value: object, allowed: tuple[object, ...]) -> None:
    """Refuses a value that is not among the allowed ones."""
    if value not in allowed:
        raise ValueError(f"{name}: must be one of {', '.join(map(repr, allowed))}, not {value!r}")


def boolean(name: str, value: object) -> bool:
    """A plain bool: what merely looks true or false is a mistake more often than not."""
    if not isinstance(value, bool):
        raise TypeError(f"{name}: True or False is needed, not {value!r}")
    return value


def mapping(name: str, value: object) -> Mapping[str, Any]:
    """A mapping."""
    if not isinstance(value, Mapping):
        raise TypeError(f"{name}: a mapping is needed, not {type(value).__name__}")
    return value
