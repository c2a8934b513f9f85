"""An attribute is a value together with what is known about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Attribute"]


class Attribute(msgspec.Struct, frozen=True):
    """Holds the value of one session attribute, its version and its expiry.

    Given to `create_session` or set in a session, it makes a value that expires: `Attribute(code, expires_at=soon)`.
    `Session.attribute(key)` returns one.

    Attributes:
        value (Any): The value, decoded.
        version (int, default 0): The version of the session that last wrote the attribute; 0: not saved yet. What is
            given is not looked at.
        expires_at (datetime, default None): When the attribute ends, an aware datetime, in UTC where it is returned;
            None: with its session.
    """

    value: Any
    version: int = 0
    expires_at: datetime | None = None
