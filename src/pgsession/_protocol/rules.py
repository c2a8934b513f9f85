"""The rules for arguments stand here, each of them once; every entry point goes through them.

What the compiled core needs too (session ids, texts, flags, durations, moments) it states itself, and is exported here.
A rule takes the argument's name and its value, and returns what is stored. A refusal reads "name: rule, not value": a
TypeError where the type is wrong, a ValueError where the value is. `Config` turns both into a ConfigError of the same
words.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from uuid import UUID

from pgsession._core.arguments import check_count as count
from pgsession._core.arguments import check_flag as boolean
from pgsession._core.arguments import check_text
from pgsession._core.clock import duration_micros as microseconds
from pgsession._core.clock import expiry_micros as expiry
from pgsession._core.key import to_bytes
from pgsession._protocol.events import MAX_PAYLOAD

__all__ = [
    "attribute_key",
    "boolean",
    "channel",
    "choice",
    "conninfo",
    "conninfo_text",
    "count",
    "expiry",
    "function",
    "identifier",
    "instance",
    "mapping",
    "microseconds",
    "octets",
    "optional_identifier",
    "optional_microseconds",
    "optional_seconds",
    "optional_session_id",
    "path",
    "payload",
    "role_names",
    "schema_name",
    "seconds",
    "session_id",
    "session_ids",
    "table_prefix",
    "timeout",
]

MAX_ID_BYTES = 512  # an index row must hold it
MAX_NAME_BYTES = 63  # of a name or channel: PostgreSQL cuts what is longer, without an error
LONGEST_NAME = "session_attributes_expires_at_idx"  # of all that stands behind a table prefix
MAX_PREFIX_BYTES = MAX_NAME_BYTES - len(LONGEST_NAME)
LONGEST_PATH = 4096  # bytes; systems take no more
LONGEST_TEXT = 1_000_000  # bytes, where nothing else bounds it
LEAST_IDLE_TIMEOUT = 1_000_000  # microseconds
_QUOTE = "$pgsession$"  # around the bodies of our functions

_T = TypeVar("_T")
_Choice = TypeVar("_Choice", bound=str | None)


# ---- ids and keys ----


def session_id(name: str, value: object) -> bytes:
    """Return the 16 bytes of a session id: a UUID, its str of 36 characters or 16 bytes."""
    return to_bytes(value, name)  # type: ignore[arg-type]


def optional_session_id(name: str, value: object) -> bytes | None:
    """Return the 16 bytes of a session id, or None."""
    return None if value is None else session_id(name, value)


def session_ids(name: str, value: Iterable[_T]) -> dict[_T, bytes]:
    """Return session ids as they were given, each with its 16 bytes: any iterable of them but a str or bytes."""
    if isinstance(value, str | bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: an iterable of session ids is needed, not {type(value).__name__}")
    return {given: session_id(name, given) for given in list(value)}


def identifier(name: str, value: object) -> str:
    """Return a user id, a group id or the name of a resource as the text that is stored; str, int and UUID are taken.

    The text is that of the value itself, whatever a subclass (an enumeration, say) prints.
    """
    if isinstance(value, str):
        return check_text(name, value, 1, MAX_ID_BYTES)
    if isinstance(value, UUID):
        return check_text(name, UUID.__str__(value), 1, MAX_ID_BYTES)
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name}: a str, int or UUID is needed, not {type(value).__name__}")
    if int.bit_length(value) > 8 * MAX_ID_BYTES:  # Python refuses to print more than some thousand digits
        raise ValueError(f"{name}: must be at most {MAX_ID_BYTES} bytes, not an int of that many digits")
    return check_text(name, int.__repr__(value), 1, MAX_ID_BYTES)


def optional_identifier(name: str, value: object) -> str | None:
    """Return an id as the text that is stored, or None."""
    return None if value is None else identifier(name, value)


def attribute_key(name: str, value: object) -> str:
    """Return the key of an attribute: a str of 1 to 512 bytes, as `Session` takes it."""
    return check_text(name, value, 1, MAX_ID_BYTES)


# ---- lengths of time ----


def seconds(name: str, value: object, least: int = 1) -> float:
    """Return a duration, a timedelta or a number of seconds of at least `least` microseconds, as seconds."""
    return microseconds(name, value, least) / 1_000_000


def optional_seconds(name: str, value: object) -> float | None:
    """Return a duration as seconds, or None."""
    return None if value is None else seconds(name, value)


def optional_microseconds(name: str, value: object) -> int | None:
    """Return a duration or 0 in microseconds, or None."""
    return None if value is None else microseconds(name, value, 0)


def timeout(name: str, value: object) -> float | None:
    """Return the seconds to wait at most, 0 for not at all; None where there is no limit."""
    return None if value is None else seconds(name, value, 0)


# ---- names in PostgreSQL ----


def schema_name(name: str, value: object) -> str:
    """Return the name of a PostgreSQL schema."""
    return _quotable(name, check_text(name, value, 1, MAX_NAME_BYTES))


def table_prefix(name: str, value: object) -> str:
    """Return what is put before the names of tables, indexes, functions and triggers, so short that none is cut."""
    return _quotable(name, check_text(name, value, 0, MAX_PREFIX_BYTES))


def role_names(name: str, value: object) -> tuple[str, ...]:
    """Return the names of roles: any iterable of str but a str."""
    if isinstance(value, str) or not isinstance(value, Iterable):
        raise TypeError(f"{name}: an iterable of role names is needed, not {type(value).__name__}")
    roles = tuple(check_text(name, role, 1, MAX_NAME_BYTES) for role in value)
    if "public" in roles:  # no role can be called that
        raise ValueError(f"{name}: must be roles, not public, which is everybody")
    return roles


def _quotable(name: str, text: str) -> str:
    if _QUOTE in text:
        raise ValueError(f"{name}: must not contain {_QUOTE}")
    return text


def channel(name: str, value: object) -> str:
    """Return the name of a notification channel."""
    return check_text(name, value, 1, MAX_NAME_BYTES)


def payload(name: str, value: object) -> str:
    """Return the text of a notification."""
    return check_text(name, value, 0, MAX_PAYLOAD)


# ---- all else ----


def octets(name: str, value: object) -> bytes:
    """Return bytes, or a str as its UTF-8."""
    if isinstance(value, bytes | bytearray | memoryview):
        return memoryview(value).tobytes()  # whatever a subclass says of itself
    if not isinstance(value, str):
        raise TypeError(f"{name}: bytes or a str is needed, not {type(value).__name__}")
    try:
        return str.encode(value)
    except UnicodeEncodeError:  # it holds the text
        pass
    raise ValueError(f"{name}: must not contain lone surrogates, which UTF-8 cannot carry")


def choice(name: str, value: object, allowed: tuple[_Choice, ...]) -> _Choice:
    """Return the one of the allowed values that this is; refuse any other."""
    plain = str.__str__(value) if isinstance(value, str) else value
    if plain is None or isinstance(plain, str):
        for one in allowed:
            if plain == one:
                return one
    words = ", ".join(map(repr, allowed))
    if not isinstance(plain, str):
        raise TypeError(f"{name}: one of {words} is needed, not {type(value).__name__}")
    raise ValueError(f"{name}: must be one of {words}, not {plain!r}")


def mapping(name: str, value: object) -> Mapping[Any, Any]:
    """Return a mapping; refuse anything else, pairs of keys and values too."""
    return instance(name, value, Mapping, "a mapping")  # type: ignore[type-abstract]


def conninfo(name: str, value: str | Callable[[], _T]) -> str | Callable[[], _T]:
    """Return a conninfo, or a function that returns one."""
    if isinstance(value, str):
        return conninfo_text(name, value)
    if not callable(value):
        raise TypeError(f"{name}: a str or a function that returns one is needed, not {type(value).__name__}")
    return value


def conninfo_text(name: str, value: object, least: int = 0) -> str:
    """Return the text of a conninfo; libpq takes an empty one for its own defaults."""
    return check_text(name, value, least, LONGEST_TEXT)


def path(name: str, value: object) -> str:
    """Return the path of a file."""
    return check_text(name, value, 1, LONGEST_PATH)


def place(name: str, value: object) -> str:
    """Return where processes of a host find what they share: a name, or the path of a folder."""
    text = check_text(name, value, 1, LONGEST_PATH)
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,64}|/.*", text, re.DOTALL):
        raise ValueError(
            f"{name}: must be a name of 1 to 64 letters, digits, - and _, or the absolute path of a folder"
        )
    return text


def instance(name: str, value: object, kind: type[_T], words: str) -> _T:
    """Return an object of that type, which `words` describe."""
    if not isinstance(value, kind):
        raise TypeError(f"{name}: {words} is needed, not {type(value).__name__}")
    return value


def function(name: str, value: object) -> None:
    """Refuse what cannot be called."""
    if not callable(value):
        raise TypeError(f"{name}: a function is needed, not {type(value).__name__}")
