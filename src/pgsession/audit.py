"""An audit event tells one thing of those that a security log records."""

from __future__ import annotations

from datetime import datetime
from typing import Literal
from uuid import UUID

import msgspec

__all__ = ["AuditEvent"]

AuditKind = Literal[
    "session_created",
    "session_bound",
    "session_renewed",
    "session_expired",
    "session_use_after_expire",
    "session_token_forged",
    "session_update_conflict",
    "session_lock_lost",
    "session_audit_failed",
]


class AuditEvent(msgspec.Struct, frozen=True, kw_only=True):
    """Tells what has happened to a session, for `Config.on_audit_event`.

    The words are those of the OWASP Logging Vocabulary Cheat Sheet where it has some: `session_created`,
    `session_renewed`, `session_expired`, `session_use_after_expire`. The others are formed like them.

    | kind | reason | what happened |
    |---|---|---|
    | `session_created` | | a user has logged in, or an anonymous session began |
    | `session_bound` | | an anonymous session became a user's, or one user's another's |
    | `session_renewed` | | a session has a new token |
    | `session_expired` | `logout` | one session was deleted by its id |
    | | `revoked` | all of a user or a group, or all there are, were deleted by one call |
    | | `replaced` | another session was created with its id |
    | | `evicted` | it had to make room, since its user had `Config.max_sessions` |
    | | `expired`, `inactive` | a cleanup has deleted what had ended by itself, or another session took its id |
    | `session_use_after_expire` | `superseded` | a token of before a rotation was used |
    | | `ended` | a token of a session that is gone was used |
    | `session_token_forged` | | a token was used that no key of the signer has signed |
    | `session_update_conflict` | `session`, `attributes` | an update was refused: another one came before it |
    | `session_lock_lost` | `ended` | a lock that was held here was ended by somebody else |
    | | `expired` | it was not renewed in time |
    | `session_audit_failed` | `contents`, `version` | memory differed from the database in that version |
    | | `outdated`, `ended` | memory had one that others had changed or ended unheard |
    | | `schema` | tables, triggers or rights are not as they must be: `resource` says which |

    Attributes:
        kind (str): What happened, as above.
        time (datetime): When, in UTC by the database's clock as this node knows it.
        node (str): The id of the node that did it, or noticed it. It is another one after a fork.
        session_id (UUID | None): The session; None where there are many, or it is not known.
        user_id (str | None): The user; None where there is none, there are many, or it is not known.
        group_id (str | None): The group, likewise.
        reason (str | None): Why, as above.
        resource (str | None): What the lock was on, or what is wrong with the tables.
        count (int, default 1): How many sessions it is about.
    """

    kind: AuditKind
    time: datetime
    node: str
    session_id: UUID | None = None
    user_id: str | None = None
    group_id: str | None = None
    reason: str | None = None
    resource: str | None = None
    count: int = 1
