"""A value of a session is stored as the project's `SESSION_SERIALIZER` says."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from typing import Protocol

import msgspec
from django.core.signing import JSONSerializer

__all__ = ["Serializer", "Values"]

_SAME_IN_JSON = (str, int, bool, type(None))


class Serializer(Protocol):
    """Says what Django asks of a serializer of sessions."""

    def dumps(self, obj: object) -> bytes:
        """Return the bytes that stand for a value."""

    def loads(self, data: bytes) -> object:
        """Return the value that bytes stand for."""


class Values:
    """Turns a session's values into what is stored, and back.

    JSON is stored as it is, for other programs to read; what another serializer makes, as text in Base64.

    Args:
        serializer: The class of it.
    """

    def __init__(self, serializer: type[Serializer]) -> None:
        self._serializer = serializer()
        self.are_json = serializer.loads is JSONSerializer.loads

    def to_stored(self, value: object) -> object:
        """Return what is stored of a value, and what it is when it is read again."""
        if self.are_json:
            if type(value) in _SAME_IN_JSON:
                return value
            return self._serializer.loads(self._serializer.dumps(value))
        return b64encode(self._serializer.dumps(value)).decode()

    def from_stored(self, stored: object) -> object:
        """Return the value of what is stored."""
        if self.are_json:
            return stored
        if not isinstance(stored, str):
            raise TypeError(
                f"SESSION_SERIALIZER: it has not made what is stored, which is {type(stored).__name__}"
            )
        return self._serializer.loads(b64decode(stored))


def name_of(key: object) -> str:
    """Return the name under which a value is stored: its key as JSON has it."""
    if isinstance(key, str):
        return key
    return str(next(iter(json.loads(json.dumps({key: None})))))


def are_alike(value: object, other: object) -> bool:
    """Return True where both are the same JSON; False also where one is none."""
    try:
        return bool(value == other) and msgspec.json.encode(value) == msgspec.json.encode(other)
    except Exception:  # of the values' own code, too
        return False
