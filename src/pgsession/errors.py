"""These errors are all that pgsession itself raises; psycopg's own errors pass through.

Texts end in logs, so theirs have no session id, user, value or token: a short name stands for an id, the first 8
hexadecimal digits of the SHA-256 of its 16 bytes. Attributes such as `session_id` have the id itself. The text of a
write's psycopg error is the server's message without its DETAIL, which may show a row; `error.diag` has that, too.
"""

from __future__ import annotations

from collections.abc import Mapping
from uuid import UUID

from ._counted import counted
from ._short_names import short_name

__all__ = [
    "AttributeCodecError",
    "AttributeTooLargeError",
    "AttributeTypeError",
    "AttributeVersionConflict",
    "ConfigError",
    "ConflictError",
    "DatabaseUnavailable",
    "EventLoopError",
    "InvalidTokenError",
    "ListenerError",
    "LockError",
    "LockExpiredError",
    "LockNotAcquiredError",
    "LockNotHeldError",
    "ManagerClosedError",
    "OperationTimeout",
    "PgSessionError",
    "RevocationNotConfirmed",
    "SchemaError",
    "SessionExistsError",
    "SessionInvalidatedError",
    "SessionNotFoundError",
    "SessionTooLargeError",
    "SessionVersionConflict",
    "ShardsFailed",
    "TooManyAttributesError",
    "TooManySessionsError",
    "WriteOutcomeUnknown",
]


class PgSessionError(Exception):
    """PgSessionError is the root of every error that is pgsession's own."""

    def __reduce__(self) -> tuple[object, ...]:
        """Let it be copied, and go to other processes, as it is: not made anew, for which its message is not enough."""
        return _restored, (type(self), self.args), self.__dict__


def _restored(kind: type[PgSessionError], args: tuple[object, ...]) -> PgSessionError:
    error = kind.__new__(kind)
    error.args = args
    return error


class ConfigError(PgSessionError, ValueError):
    """A configuration field breaks its rule; the message names the field and the rule."""


class SchemaError(PgSessionError):
    """The tables are missing, older or newer than this version needs; the message names the command to run."""


class ListenerError(PgSessionError):
    """The listener cannot do its work.

    It was pointed to a standby, a transaction pooler or another database; or it is closed, was never opened, or belongs
    to the parent of this forked process.
    """


class ManagerClosedError(PgSessionError, RuntimeError):
    """The manager is closed, was never opened, or belongs to the parent of this forked process."""


class EventLoopError(PgSessionError, RuntimeError):
    """An `AsyncSessionManager` was used from another event loop than the one that opened it; nothing was done.

    Or it was to be opened in one that psycopg cannot work in: Windows' ProactorEventLoop.
    """


class OperationTimeout(PgSessionError, TimeoutError):
    """The call was not done within `Config.operation_timeout`, and nothing of it will be.

    Attributes:
        done: Of a call about many sessions, how many it had done before; the same call goes on with the others.
    """

    def __init__(self, message: str, *, done: int = 0) -> None:
        super().__init__(message)
        self.done = done

    def _after(self, done: int) -> OperationTimeout:
        """Return this one as a call about many sessions raises it that had done so many before."""
        return OperationTimeout(
            f"{self}; {counted(done, 'session')} had been done before" if done else str(self), done=done
        )


class DatabaseUnavailable(PgSessionError, ConnectionError):
    """The database is known to be down, or too many calls wait for it already. Nothing was sent.

    While it is known to be down, one connection at a time is tried in the background; calls are sent again once that
    has found the database.
    """


class RevocationNotConfirmed(PgSessionError):
    """It was done, but within `wait` not every node has said that it knows; what the database failed with is the cause.

    Nodes that have not may still serve what was ended, from memory, for at most `certain_in` seconds.

    Attributes:
        certain_in: Seconds from now after which no node can serve it any more, whatever happens. It counts on the
            `max_staleness` and `stale_if_error` of the nodes that are registered; where these could not be asked for,
            on those of this node and of the nodes that it has known of.
        done: How many sessions were ended or rotated, by this call.
    """

    def __init__(self, *, silent: int | None, certain_in: float, done: int) -> None:
        who = "the database could not be asked which nodes there are" if silent is None else _nodes(silent)
        super().__init__(
            f"done, but {who}: a node may serve from memory what was ended for at most {certain_in:.1f} s more"
        )
        self.certain_in = certain_in
        self.done = done


def _nodes(silent: int) -> str:
    if silent == 0:
        return "nodes of before the database was started may not know of it yet"
    return f"{silent} node{'s have' if silent > 1 else ' has'} not confirmed it in time"


class SessionNotFoundError(PgSessionError, LookupError):
    """There is no live session of this id: never created, deleted, expired or inactive for too long.

    Or there is one, but not the one that was to be saved: another user has it since it was read, or it was replaced.

    Attributes:
        session_id: The id that was asked for.
    """

    def __init__(self, session_id: UUID, *, taken: bool = False) -> None:
        name = short_name(session_id)
        super().__init__(
            f"session {name} was given to another user, or replaced, since it was read; nothing was saved"
            if taken
            else f"no live session {name}"
        )
        self.session_id = session_id


class SessionExistsError(PgSessionError):
    """There is a session of the id that was chosen for a new one, and it is to be kept; nothing was done.

    Or it is to be returned, and it is another user's.

    Attributes:
        session_id: The id that was chosen.
    """

    def __init__(self, session_id: UUID) -> None:
        super().__init__(f"there is a session {short_name(session_id)} already")
        self.session_id = session_id


class SessionInvalidatedError(PgSessionError, RuntimeError):
    """The session object takes no changes and no updates any more, since `Session.invalidate()` was called."""


class TooManySessionsError(PgSessionError):
    """The user has `max_sessions` live sessions and the policy is "reject".

    Attributes:
        user_id: The user.
        limit: The value of `max_sessions`.
    """

    def __init__(self, user_id: str, limit: int) -> None:
        super().__init__(
            f"the user already has {counted(limit, 'session')}, the most that max_sessions allows"
        )
        self.user_id = user_id
        self.limit = limit


class ConflictError(PgSessionError):
    """Somebody else changed what this update was based on; nothing of the update was written.

    Attributes:
        session_id: The session's id.
    """

    session_id: UUID


class SessionVersionConflict(ConflictError):
    """The session is not at the version that the caller read any more, and the update had `check="session"`.

    Or it was read in another incarnation: before a crash or failover, in which the server may have lost what was read.
    Then `expected` and `current` may be the same number.

    Attributes:
        session_id: The session's id.
        expected: The version that the update was based on.
        current: The version in the database.
    """

    def __init__(self, session_id: UUID, expected: int, current: int) -> None:
        super().__init__(
            f"session {short_name(session_id)} is at version {current}, the update was based on {expected}"
            + (", of before the server was restarted or replaced" if current == expected else "")
        )
        self.session_id = session_id
        self.expected = expected
        self.current = current


class AttributeVersionConflict(ConflictError):
    """Somebody else changed attributes that were to be written, and the update had `check="attributes"`.

    Or the session was read before a crash or failover, in which the server may have lost what was read.

    Attributes:
        session_id: The session's id.
        keys: The keys of the attributes that were changed.
    """

    def __init__(self, session_id: UUID, keys: tuple[str, ...]) -> None:
        super().__init__(
            f"session {short_name(session_id)}: attributes changed by somebody else: {', '.join(map(repr, keys))}"
        )
        self.session_id = session_id
        self.keys = keys


class WriteOutcomeUnknown(PgSessionError):
    """The write was sent and may or may not have been made durable; the driver's error is the cause.

    Read the session again (`refresh=True`) before deciding what to do.
    """


class AttributeTooLargeError(PgSessionError, ValueError):
    """An encoded attribute value is longer than `Config.max_attribute_length` bytes.

    Attributes:
        key: The attribute's key.
        length: The bytes of the encoded value.
        limit: The bytes that are allowed.
    """

    def __init__(self, key: str, length: int, limit: int) -> None:
        super().__init__(f"attribute {key!r} is {length} bytes when encoded; max_attribute_length is {limit}")
        self.key = key
        self.length = length
        self.limit = limit


class SessionTooLargeError(PgSessionError, ValueError):
    """A save would make a session larger than `Config.max_session_size`. Nothing was sent; the changes stay pending.

    Attributes:
        size: The bytes that the keys and encoded values would take together.
        limit: The bytes that are allowed.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"the session would be {size} bytes of keys and values; max_session_size is {limit}")
        self.size = size
        self.limit = limit


class TooManyAttributesError(PgSessionError, ValueError):
    """A save would give a session more than `Config.max_attributes`. Nothing was sent; the changes stay pending.

    Attributes:
        count: The attributes that the session would have.
        limit: The attributes that are allowed.
    """

    def __init__(self, count: int, limit: int) -> None:
        super().__init__(f"the session would have {count} attributes; max_attributes is {limit}")
        self.count = count
        self.limit = limit


class AttributeTypeError(PgSessionError, TypeError):
    """A stored attribute value is not of the `type` it was asked for as, or cannot be decoded at all.

    Attributes:
        key: The attribute's key.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"attribute {key!r}: {reason}")
        self.key = key


class AttributeCodecError(PgSessionError):
    """The codec could not do its part for one attribute.

    The cause is its error; without a cause, what is stored was not sealed.
    Only the call that has asked for this attribute fails. What cannot be opened stays as it is stored, unless it is set
    anew or deleted.

    Attributes:
        key: The attribute's key.
    """

    def __init__(self, key: str, reason: str) -> None:
        super().__init__(f"attribute {key!r}: {reason}")
        self.key = key


class InvalidTokenError(PgSessionError, ValueError):
    """None of the signer's keys signed the token, or it is not a token at all."""


class LockError(PgSessionError):
    """LockError is the root of the errors of distributed locks."""


class LockNotAcquiredError(LockError):
    """Somebody else holds the lock and the allowed retries or time are over."""


class LockNotHeldError(LockError):
    """This lock object does not hold the lock that it was asked to release or extend."""


class LockExpiredError(LockError):
    """The lock was lost before it was released or extended: its lease time ran out, or its session ended."""


class ShardsFailed(PgSessionError):
    """A call about several shards has failed on some of them, and was done on the others; one failure is its cause.

    The same call made again is safe: what was done is found done.

    Attributes:
        done: What the call gave on the shards that it was done on, by their numbers.
        failed: What it failed with on the others, by their numbers.
    """

    def __init__(self, results: Mapping[int, object], failures: Mapping[int, Exception]) -> None:
        first = next(iter(failures.values()))
        others = f"done on {', '.join(map(str, results))}" if results else "done on none"
        super().__init__(
            f"not done on {counted(len(failures), 'shard')} ({', '.join(map(str, failures))}), {others}: {first}"
        )
        self.done = results
        self.failed = failures
