"""Operations are writes of single sessions: each says what it asks, and what its caller gets for the answer."""

from __future__ import annotations

import enum
import math
import os
from typing import Any, Literal, NamedTuple
from uuid import UUID

from pgsession._core.record import Record
from pgsession.errors import (
    AttributeVersionConflict,
    SessionExistsError,
    SessionNotFoundError,
    SessionVersionConflict,
    TooManySessionsError,
)

from .answer_format import Answer, DeleteAnswer, Refusal


class Flag(enum.IntFlag):
    """Says what an update asks of the server's write function, where each flag has its name in lower case."""

    CHECK_SESSION = 1
    """Change nothing if the session's version is not the one that the update is based on."""
    CHECK_ATTRIBUTES = 2
    """Change nothing if the version of an attribute that the update changes is not the one that it is based on."""
    NOTIFY = 4
    """Tell all nodes. A change of group is always told."""
    NOTIFY_ON_CONFLICT = 8
    """Tell all nodes of the version that was in the way."""
    CHANGE_GROUP = 16
    CHANGE_INACTIVITY = 32
    KEEP_INACTIVITY = 64
    """Leave a session the idle timeout that it has by now; change it only where there is none."""
    CHANGE_USER = 128
    """Give the session to another user, or to nobody; if its generation is the one that the update is based on."""


IfExists = Literal["error", "return", "replace"]

# Plain ints: every update puts some of them together.
_NOTIFY, _NOTIFY_ON_CONFLICT = int(Flag.NOTIFY), int(Flag.NOTIFY_ON_CONFLICT)
_CHANGE_GROUP = int(Flag.CHANGE_GROUP)
_CHANGE_INACTIVITY = int(Flag.CHANGE_INACTIVITY)
_KEEP_INACTIVITY = int(Flag.KEEP_INACTIVITY)
_CHANGE_USER = int(Flag.CHANGE_USER)
_CHECKS = {"session": int(Flag.CHECK_SESSION), "attributes": int(Flag.CHECK_ATTRIBUTES)}


def new_generation() -> int:
    """Return what tells the tokens of a session from those of before and after: 64 random bits, as a bigint.

    A counter would be given out again after a crash or a restore from a backup.
    """
    return int.from_bytes(os.urandom(8), "big", signed=True)


def new_key() -> bytes:
    """Return the key of a new session: a random UUID, of version 4, whose object nobody needs yet."""
    key = bytearray(os.urandom(16))
    key[6] = key[6] & 0x0F | 0x40
    key[8] = key[8] & 0x3F | 0x80
    return bytes(key)


class Room(NamedTuple):
    """Says how room is made for a session of a user, where it is given one."""

    limit: int
    """The most sessions that a user may have; 0: any number."""
    evicts: bool
    """True: the user's least recently used session goes; False: there is an error."""
    accesses: list[tuple[bytes, int]]
    """What this node knows of the user's other sessions, by key and time."""


class Rotation(NamedTuple):
    """Ends the tokens of a session, and perhaps gives it to another user."""

    generation: int
    """The new one."""
    grace: int
    """Microseconds for which the tokens of before are still good."""
    user: tuple[str | None] | None = None
    """The user who gets it, or nobody; None: it keeps the one that it has."""
    room: Room | None = None
    """How room is made for it among the user's sessions."""


class Operation:
    """Holds one caller's write on its way.

    Attributes:
        key: The key of the session.
        size: About how many bytes it takes in a batch.
        future: The shared future at which its caller waits (opaque here).
        lease: The write's lease on its id (see `coherence`), from before it is sent.
        deadline: The moment of `time.monotonic` until which its caller waits.
        given_up: True once its caller is gone.
        sent: True while it may have been done: from when it is about to be sent until it is known not to have been.
        finished: True once its future is about to be settled.
        locked: Counts how often a batch found the row locked by somebody else.
    """

    __slots__ = ("deadline", "finished", "future", "given_up", "key", "lease", "locked", "sent", "size")

    def __init__(self, key: bytes, size: int) -> None:
        self.key = key
        self.size = size
        self.locked = 0
        self.lease: Any = None
        self.deadline = math.inf
        self.given_up = False
        self.sent = False
        self.finished = False
        self.future: Any = None

    @property
    def room(self) -> Room | None:
        """Return how room is made, where this gives a user a session."""
        return None

    @property
    def claims_id(self) -> bool:
        """Return True where this may have to wait until others have made, or not made, a session of its id."""
        return False

    def result(self, answer: Answer) -> Record | Exception | None:
        """Return what the caller gets for the server's answer: a value, or the exception to raise."""
        raise NotImplementedError


class Replaced(NamedTuple):
    """Tells of a session in whose place another one of its id was created."""

    reason: Literal["replaced", "expired"]
    """Why it ended: the other one replaced it, or it had expired before."""
    user_id: str | None
    group_id: str | None


class Create(Operation):
    """Creates one session; or returns the one that is there, where its id was chosen and the caller asks for that.

    Attributes:
        if_exists: What is done where there is a session of the chosen id; None: the id was not chosen.
        replaced: The session in whose place it was created, once that is known.
    """

    __slots__ = (
        "_room",
        "attributes",
        "expires_at",
        "generation",
        "group_id",
        "if_exists",
        "inactivity",
        "replaced",
        "user_id",
    )

    def __init__(
        self,
        key: bytes,
        generation: int,
        user_id: str | None,
        group_id: str | None,
        expires_at: int,
        inactivity: int | None,
        attributes: list[tuple[str, bytes, int | None]],
        room: Room,
        if_exists: IfExists | None = None,
    ) -> None:
        super().__init__(key, 256 + sum(len(name) + len(value) for name, value, _ in attributes))
        self.generation = generation
        self.user_id = user_id
        self.group_id = group_id
        self.expires_at = expires_at
        self.inactivity = inactivity
        self.attributes = attributes
        self._room = room
        self.if_exists = if_exists
        self.replaced: Replaced | None = None

    @property
    def room(self) -> Room:
        """Return how room is made for it."""
        return self._room

    @property
    def claims_id(self) -> bool:
        """Return True where its id was chosen: somebody else may have chosen it as well."""
        return self.if_exists is not None

    def row(self) -> tuple[Any, ...]:
        """Return this operation as a row of the write function (see `pgsession._database.statements`)."""
        return (
            self.key.hex(), self.generation, self.user_id, self.group_id, self.expires_at, self.inactivity,
            [(name, value.decode(), ends) for name, value, ends in self.attributes], self.if_exists,
        )  # fmt: skip

    def result(self, answer: Answer) -> Exception:
        """Return the error of a create that was not done."""
        if answer.status == "exists":
            return SessionExistsError(UUID(bytes=self.key))
        assert self.user_id is not None
        return TooManySessionsError(self.user_id, self._room.limit)

    def saved(self, created_at: int, incarnation: str | None, version: int | None = None) -> Record:
        """Return the new record: what is stored is what was sent. Its versions begin at the database's clock.

        Or at the `version` that is given: above that of the session that it replaced.
        """
        first = created_at if version is None else version
        return Record(
            self.key, first, self.user_id, self.group_id, created_at, created_at, created_at, self.expires_at,
            self.inactivity,
            [
                (name, first, ends, value)
                for name, value, ends in self.attributes
                if ends is None or ends > created_at
            ],
            generation=self.generation, owner_since=first, incarnation=incarnation,
        )  # fmt: skip


class Update(Operation):
    """Changes one session: its attributes, its expiry, its idle timeout, its group, its tokens, its user."""

    __slots__ = ("deletes", "expires_at", "flags", "group_id", "inactivity", "record", "rotation", "sets")

    def __init__(
        self,
        record: Record,
        *,
        check: str | None,
        sets: list[tuple[str, bytes, int | None, int]],
        deletes: list[tuple[str, int]],
        expires_at: int | None,
        inactivity: tuple[int | None] | None,
        group: tuple[str | None] | None,
        notify: bool,
        notify_on_conflict: bool,
        rotation: Rotation | None = None,
        keep_inactivity: bool = False,
    ) -> None:
        size = 128
        for name, value, _, _ in sets:
            size += len(name) + len(value)
        super().__init__(record.key, size)
        self.record = record
        self.sets = sets
        self.deletes = deletes
        self.expires_at = expires_at
        self.group_id = group[0] if group else None
        self.inactivity = inactivity[0] if inactivity else None
        self.rotation = rotation
        flags = _NOTIFY if notify or rotation is not None else 0
        if notify_on_conflict:
            flags |= _NOTIFY_ON_CONFLICT
        if check is not None:
            flags |= _CHECKS[check]
        if inactivity is not None:
            flags |= _CHANGE_INACTIVITY
        if keep_inactivity:
            flags |= _KEEP_INACTIVITY
        if group is not None:
            flags |= _CHANGE_GROUP
        if rotation is not None and rotation.user is not None:
            flags |= _CHANGE_USER
        self.flags = flags

    @property
    def room(self) -> Room | None:
        """Return how room is made among the sessions of the user who gets it."""
        return None if self.rotation is None else self.rotation.room

    def row(self) -> tuple[Any, ...]:
        """Return this operation as a row of the write function (see `pgsession._database.statements`)."""
        sets = [(name, value.decode(), ends, base) for name, value, ends, base in self.sets]
        return (
            self.key.hex(),
            self.record.version,
            self.record.owner_since,
            self.flags,
            self.expires_at,
            self.group_id,
            sets,
            self.deletes,
            self.record.incarnation,
            None if self.rotation is None else self._rotation_row(self.rotation),
            self.inactivity,
        )

    def _rotation_row(self, rotation: Rotation) -> tuple[int, int, int, str | None]:
        user = rotation.user[0] if rotation.user else None
        return (rotation.generation, self.record.generation, rotation.grace, user)

    def result(self, answer: Answer) -> Exception:
        """Return the error of an update that was not done."""
        assert isinstance(answer, Refusal)
        session_id = UUID(bytes=self.key)
        if answer.status == "session":
            return SessionVersionConflict(session_id, self.record.version, answer.version)
        if answer.status == "attributes":
            return AttributeVersionConflict(session_id, answer.keys)
        if answer.status == "too_many":
            rotation = self.rotation
            if rotation is None or rotation.user is None or rotation.room is None:
                raise LookupError("an update that gives no user a session is answered 'too_many'")
            return TooManySessionsError(str(rotation.user[0]), rotation.room.limit)
        return SessionNotFoundError(session_id, taken=answer.status == "taken")

    def saved(self, version: int, updated_at: int) -> Record:
        """Return the new record of an update whose caller's copy was the newest version, and of this incarnation.

        Then the two differ by the changes only.
        """
        record, flags = self.record, self.flags
        keeps_idle = flags & _KEEP_INACTIVITY and record.inactivity
        changes_idle = flags & _CHANGE_INACTIVITY and not keeps_idle
        return record.changed(
            version=version,
            updated_at=updated_at,
            last_accessed=max(record.last_accessed, updated_at),
            expires_at=record.expires_at if self.expires_at is None else self.expires_at,
            inactivity=self.inactivity or 0 if changes_idle else record.inactivity,
            group_id=self.group_id if flags & _CHANGE_GROUP else record.group_id,
            sets=[(name, value, ends) for name, value, ends, _ in self.sets],
            deletes=[name for name, _ in self.deletes],
        )


class Delete(Operation):
    """Deletes one session; its result is an error where there was no such session."""

    __slots__ = ("group_id", "user_id")

    def __init__(self, key: bytes) -> None:
        super().__init__(key, 64)
        self.user_id: str | None = None  # whose it was
        self.group_id: str | None = None

    def result(self, answer: Answer) -> Exception | None:
        """Return None where the session was deleted, else the error."""
        assert isinstance(answer, DeleteAnswer)
        self.user_id, self.group_id = answer.user_id, answer.group_id
        return None if answer.status == "ok" else SessionNotFoundError(UUID(bytes=self.key))
