"""An attribute together with what is known about it."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import msgspec

__all__ = ["Attribute"]


class Attribute(msgspec.Struct, frozen=True):
    """The value of one session attribute, its version and its expiry.

    Given to `create_session`, it sets a value that expires: `Attribute(code, expires_at=soon)`. Returned by
    `Session.attribute(key)`, `version` is the version of the session that last wrote the attribute (0: not saved
    yet) and `expires_at` an aware UTC datetime, or None where the attribute lives as long as its session.
    """

    value: Any
    version: int = 0
    expires_at: datetime | None = None
