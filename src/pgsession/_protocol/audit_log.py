"""The audit log decides what is told of what happens, and what of it is lost. It does no I/O."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final
from uuid import UUID

from pgsession._core.record import Record
from pgsession.audit import AuditEvent, AuditKind
from pgsession.errors import ConflictError, SessionVersionConflict

from .operations import Create, Delete, Operation, Update

MOST_WAITING: Final = 10_000  # events
# Anybody can send tokens that are refused, as many as he likes: they push out nothing else.
MOST_REFUSED_WAITING: Final = 100  # events about them
REFUSED_A_SECOND: Final = 10  # likewise, in the long run; at once, `MOST_REFUSED_WAITING`
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


# What an event is made of, later and by who reports it; a plain tuple, which costs a tenth of an event: True for a
# refused token, the time, and the event's kind, session, user, group, reason, resource, count.
_Entry = tuple[bool, int, AuditKind, bytes | None, str | None, str | None, str | None, str | None, int]


class AuditLog:
    """Holds the events that wait to be reported, in the order in which they happened; safe for threads.

    Args:
        node: The id of the node.
        database_now: Returns the database's time, in microseconds.
        active: False: nobody wants to know, and nothing is kept.
        clock: Returns the time by which refused tokens are counted, in seconds.
    """

    def __init__(
        self,
        node: str,
        database_now: Callable[[], int],
        *,
        active: bool,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.active = active
        self.lost = 0
        self.on_put: Callable[[], None] = _nobody_waits  # called for the first that waits
        self._node = node
        self._database_now = database_now
        self._clock = clock
        self._guard = threading.Lock()
        self._waiting: deque[_Entry] = deque()
        self._refused_waiting = 0
        self._refused_left = float(MOST_REFUSED_WAITING)  # that may be told at once
        self._refused_at = clock()

    def __len__(self) -> int:
        return len(self._waiting)

    # -- what happens ---------------------------------------------------------------------------------------------

    def created(self, record: Record) -> None:
        """Tell of a session that was created."""
        self._about(record, "session_created")

    def bound(self, record: Record) -> None:
        """Tell of a session that belongs to another user than before, with the user that it has now."""
        self._about(record, "session_bound")

    def rotated(self, record: Record) -> None:
        """Tell of a session that has a new token, and no other user."""
        self._about(record, "session_renewed")

    def ended(
        self,
        reason: str,
        *,
        session: bytes | None = None,
        user_id: str | None = None,
        group_id: str | None = None,
        count: int = 1,
    ) -> None:
        """Tell of sessions that were deleted: of one, or how many."""
        if count:
            self._put("session_expired", session, user_id, group_id, reason, count=count)

    def token_refused(self, state: str, session: bytes | None = None) -> None:
        """Tell of a token that is `forged`, `superseded` or `ended`; not which session a forged one names."""
        if state == "forged":
            self._put("session_token_forged", None, None, None, None, refused=True)
        else:
            self._put("session_use_after_expire", session, None, None, state, refused=True)

    def conflict(self, record: Record, error: ConflictError) -> None:
        """Tell of an update that was refused, and was based on this record."""
        reason = "session" if isinstance(error, SessionVersionConflict) else "attributes"
        self._about(record, "session_update_conflict", reason)

    def lock_lost(self, resource: str, reason: str, session: bytes | None = None) -> None:
        """Tell of a lock that was held here and was `ended`, or has `expired`."""
        self._put("session_lock_lost", session, None, None, reason, resource=resource)

    def audit_failed(self, reason: str, record: Record | None = None, detail: str | None = None) -> None:
        """Tell what the auditor has found, of a session or of the tables."""
        if record is None:
            self._put("session_audit_failed", None, None, None, reason, resource=detail)
        else:
            self._about(record, "session_audit_failed", reason)

    def settled(self, results: Sequence[tuple[Operation, Any]], evicted: Iterable[bytes]) -> None:
        """Tell what became of a batch of writes, and which sessions had to make room for others."""
        if not self.active:
            return
        users: set[str] = set()
        for operation, result in results:
            if isinstance(operation, Create) and isinstance(result, Record):
                self._created(operation, result, users)
            elif isinstance(operation, Delete) and result is None:
                self.ended(
                    "logout", session=operation.key, user_id=operation.user_id, group_id=operation.group_id
                )
            elif isinstance(operation, Update) and isinstance(result, ConflictError):
                self.conflict(operation.record, result)
            elif isinstance(operation, Update) and isinstance(result, Record):
                self._rotated(operation, result, users)
        user = users.pop() if len(users) == 1 else None
        for key in evicted:
            self.ended("evicted", session=key, user_id=user)

    def _created(self, operation: Create, record: Record, users: set[str]) -> None:
        """Tell of a session that was created, unless it was there, and of one that it replaced."""
        if operation.generation != record.generation:
            return
        before = operation.replaced
        if before is not None:
            self.ended(before.reason, session=operation.key, user_id=before.user_id, group_id=before.group_id)
        if operation.user_id is not None:
            users.add(operation.user_id)
        self.created(record)

    def _rotated(self, operation: Update, record: Record, users: set[str]) -> None:
        """Tell of a session that has a new token, and perhaps another user, among whose sessions room was made."""
        if operation.rotation is None or operation.rotation.generation != record.generation:
            return
        if operation.record.user_id == record.user_id:
            self.rotated(record)
            return
        if record.user_id is not None:
            users.add(record.user_id)
        self.bound(record)

    # -- the events that wait -------------------------------------------------------------------------------------

    def _about(self, record: Record, kind: AuditKind, reason: str | None = None) -> None:
        self._put(kind, record.key, record.user_id, record.group_id, reason)

    def _put(
        self,
        kind: AuditKind,
        session: bytes | None,
        user_id: str | None,
        group_id: str | None,
        reason: str | None,
        *,
        resource: str | None = None,
        count: int = 1,
        refused: bool = False,
    ) -> None:
        if not self.active:
            return
        with self._guard:
            waiting = len(self._waiting)
            if not (self._admits_refused() if refused else waiting < MOST_WAITING):
                self.lost += 1
                return
            self._refused_waiting += refused
            self._waiting.append(
                (refused, self._database_now(), kind, session, user_id, group_id, reason, resource, count)
            )
        if not waiting:  # else somebody has said so, and it is not over
            self.on_put()

    def _admits_refused(self) -> bool:
        if self._refused_waiting >= MOST_REFUSED_WAITING:
            return False
        now = self._clock()
        self._refused_left = min(
            float(MOST_REFUSED_WAITING), self._refused_left + (now - self._refused_at) * REFUSED_A_SECOND
        )
        self._refused_at = now
        if self._refused_left < 1:
            return False
        self._refused_left -= 1
        return True

    def take(self) -> AuditEvent | None:
        """Return the oldest event that waits, None if there is none."""
        with self._guard:
            if not self._waiting:
                return None
            refused, at, kind, session, user_id, group_id, reason, resource, count = self._waiting.popleft()
            self._refused_waiting -= refused
        return AuditEvent(
            kind=kind,
            time=_EPOCH + timedelta(microseconds=at),
            node=self._node,
            session_id=None if session is None else UUID(bytes=session),
            user_id=user_id,
            group_id=group_id,
            reason=reason,
            resource=resource,
            count=count,
        )

    def give_up(self) -> None:
        """Count what waits as lost, and keep nothing any more."""
        with self._guard:
            self.active = False
            self.lost += len(self._waiting)
            self._waiting.clear()


def _nobody_waits() -> None:
    """Do nothing: nobody reports what waits, yet."""
