"""Distributed server-side sessions on PostgreSQL alone, read at the speed of a dictionary.

`SessionManager` (threads) and `AsyncSessionManager` (asyncio) keep sessions in PostgreSQL and answer reads from this
process's memory; LISTEN/NOTIFY tells every node what to drop. Only the names in `__all__` are public.
"""

from __future__ import annotations

from pgsession._async.admin import AsyncAdmin
from pgsession._async.listener import AsyncListener
from pgsession._async.lock import AsyncLock
from pgsession._async.manager import AsyncSessionManager
from pgsession._async.sharded_admin import AsyncShardedAdmin
from pgsession._async.sharded_manager import AsyncShardedSessionManager
from pgsession._core.session import Session
from pgsession._sync.admin import Admin
from pgsession._sync.listener import Listener
from pgsession._sync.lock import Lock
from pgsession._sync.manager import SessionManager
from pgsession._sync.sharded_admin import ShardedAdmin
from pgsession._sync.sharded_manager import ShardedSessionManager
from pgsession._version import __version__
from pgsession.attribute import Attribute
from pgsession.audit import AuditEvent
from pgsession.codec import Codec
from pgsession.config import Config
from pgsession.default import DEFAULT
from pgsession.errors import (
    AttributeCodecError,
    AttributeTooLargeError,
    AttributeTypeError,
    AttributeVersionConflict,
    ConfigError,
    ConflictError,
    DatabaseUnavailable,
    EventLoopError,
    InvalidTokenError,
    ListenerError,
    LockError,
    LockExpiredError,
    LockNotAcquiredError,
    LockNotHeldError,
    ManagerClosedError,
    OperationTimeout,
    PgSessionError,
    RevocationNotConfirmed,
    SchemaError,
    SessionExistsError,
    SessionInvalidatedError,
    SessionNotFoundError,
    SessionTooLargeError,
    SessionVersionConflict,
    ShardsFailed,
    TooManyAttributesError,
    TooManySessionsError,
    WriteOutcomeUnknown,
)
from pgsession.infos import Finding, LockInfo, NodeInfo, SessionInfo
from pgsession.instrument import Instrument
from pgsession.opened import Opened
from pgsession.shard import CitusShards, Shard, read_shards
from pgsession.stats import Health, Stats
from pgsession.tokens import Signer

__all__ = [
    "DEFAULT",
    "Admin",
    "AsyncAdmin",
    "AsyncListener",
    "AsyncLock",
    "AsyncSessionManager",
    "AsyncShardedAdmin",
    "AsyncShardedSessionManager",
    "Attribute",
    "AttributeCodecError",
    "AttributeTooLargeError",
    "AttributeTypeError",
    "AttributeVersionConflict",
    "AuditEvent",
    "CitusShards",
    "Codec",
    "Config",
    "ConfigError",
    "ConflictError",
    "DatabaseUnavailable",
    "EventLoopError",
    "Finding",
    "Health",
    "Instrument",
    "InvalidTokenError",
    "Listener",
    "ListenerError",
    "Lock",
    "LockError",
    "LockExpiredError",
    "LockInfo",
    "LockNotAcquiredError",
    "LockNotHeldError",
    "ManagerClosedError",
    "NodeInfo",
    "Opened",
    "OperationTimeout",
    "PgSessionError",
    "RevocationNotConfirmed",
    "SchemaError",
    "Session",
    "SessionExistsError",
    "SessionInfo",
    "SessionInvalidatedError",
    "SessionManager",
    "SessionNotFoundError",
    "SessionTooLargeError",
    "SessionVersionConflict",
    "Shard",
    "ShardedAdmin",
    "ShardedSessionManager",
    "ShardsFailed",
    "Signer",
    "Stats",
    "TooManyAttributesError",
    "TooManySessionsError",
    "WriteOutcomeUnknown",
    "__version__",
    "read_shards",
]
