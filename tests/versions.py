"""Versions of a session, counted from its creation."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def changes(session: Any) -> int:
    """How many changes were saved: the versions of a session begin at the microseconds at which it was created."""
    return int(session.version - (session.created_at - EPOCH) // timedelta(microseconds=1))
