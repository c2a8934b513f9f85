"""These structs are what an `Admin` tells about sessions, locks, nodes, and what keeps these from memory."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Literal
from uuid import UUID

import msgspec

from ._short_names import short_name, shown

__all__ = ["Finding", "LockInfo", "NodeInfo", "SessionInfo"]


class SessionInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Tells what the database has of a live session. Its `repr()` shows no id, user or value.

    Attributes:
        id (UUID): The session's id.
        user_id (str | None): Its user, None for an anonymous session.
        group_id (str | None): Its group, None without one.
        version (int): The version that rises with every saved change.
        created_at (datetime): When it was created.
        updated_at (datetime): When a change was saved for the last time.
        last_accessed (datetime): When it was accessed for the last time, as far as that was written.
        expires_at (datetime): When it ends at the latest.
        include_inactivity (bool): True where it also ends by inactivity.
        inactivity (timedelta | None): After how long without an access it does, None where it does not.
        attributes (dict[str, Any] | None): Its live attributes, None unless they were asked for (`with_values=True`).
    """

    id: UUID
    user_id: str | None
    group_id: str | None
    version: int
    created_at: datetime
    updated_at: datetime
    last_accessed: datetime
    expires_at: datetime
    include_inactivity: bool
    inactivity: timedelta | None
    attributes: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {short_name(self.id)}>"


class LockInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Tells who holds a lock, as far as the database knows. Its `repr()` shows no session id.

    Attributes:
        resource (str): The name of what is locked.
        token (int): The fencing token of its holder.
        session_id (UUID | None): The session that the lock ends with, None without one.
        acquired_at (datetime): When its holder took it.
        expires_at (datetime): When it ends unless its holder renews it.
    """

    resource: str
    token: int
    session_id: UUID | None
    acquired_at: datetime
    expires_at: datetime

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {shown(self.resource)}>"


class NodeInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Tells of a node that is registered in `session_nodes`.

    Attributes:
        node (str): The node's id, which its events carry.
        registered_at (datetime): When it registered.
        serves_for (timedelta): For how long it serves from memory without a sign of life.
    """

    node: str
    registered_at: datetime
    serves_for: timedelta


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """Tells what came of looking for one cause that can keep a node from working, or from answering from memory.

    Attributes:
        cause (str): Its name, such as `"pooler"`; [the command line's page](cli.md#doctor) has all of them.
        level (str): `"well"`: it is not there. `"problem"`: it is, and nodes do not work or do not answer from memory.
            `"warning"`: it is, and may become a problem. `"unknown"`: it could not be looked for.
        message (str): A sentence: what was found.
        remedy (str | None): A sentence: what mends it, None where nothing is to be mended.
    """

    cause: str
    level: Literal["well", "problem", "warning", "unknown"]
    message: str
    remedy: str | None = None
