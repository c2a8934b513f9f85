"""Composes the commands that are sent for several channels at once."""

from __future__ import annotations

from collections.abc import Iterable
from typing import LiteralString

from psycopg import sql


def for_each(command: LiteralString, channels: Iterable[str]) -> sql.Composed:
    """Compose one script of a command for each channel; without parameters the server takes it as one transaction."""
    return sql.SQL("; ").join(sql.SQL(command).format(sql.Identifier(channel)) for channel in channels)
