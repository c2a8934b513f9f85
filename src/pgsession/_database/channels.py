"""What PostgreSQL takes as a channel and as a payload."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from psycopg import sql

MAX_CHANNEL_LENGTH = 63  # PostgreSQL's NAMEDATALEN - 1; it would cut a longer name silently
MAX_PAYLOAD_LENGTH = 7999  # it refuses 8,000


def check_channel(channel: str) -> None:
    if not 0 < len(channel.encode()) <= MAX_CHANNEL_LENGTH or "\0" in channel:
        raise ValueError(
            f"a channel's name has 1 to {MAX_CHANNEL_LENGTH} bytes in UTF-8, and no NUL: {channel!r}"
        )


def check_payload(payload: str) -> None:
    if "\0" in payload or len(payload.encode()) > MAX_PAYLOAD_LENGTH:
        raise ValueError(f"a payload has at most {MAX_PAYLOAD_LENGTH} bytes in UTF-8, and no NUL")


def for_each(command: LiteralString, channels: Iterable[str]) -> sql.Composed:
    """One script: without parameters the server takes it in one go, as one transaction."""
    return sql.SQL("; ").join(sql.SQL(command).format(sql.Identifier(channel)) for channel in channels)
