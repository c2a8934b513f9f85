"""Makes the manager of what an application names as its database: one server, or a list of shards."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from pgsession import (
    AsyncSessionManager,
    AsyncShardedSessionManager,
    Config,
    SessionManager,
    Shard,
    ShardedSessionManager,
    Signer,
)

__all__ = ["Database", "Shards", "async_manager", "close", "manager"]

Shards = Sequence[Shard | str]
Database = str | Callable[[], str] | Shards


def manager(database: Database, config: Config | None, signer: Signer | None) -> SessionManager:
    """Return a manager, not open yet."""
    if isinstance(database, str) or callable(database):
        return SessionManager(database, config, signer=signer)
    return ShardedSessionManager(database, config, signer=signer)


def async_manager(database: Database, config: Config | None, signer: Signer | None) -> AsyncSessionManager:
    """Return a manager for the running loop, not open yet."""
    if isinstance(database, str) or callable(database):
        return AsyncSessionManager(database, config, signer=signer)
    return AsyncShardedSessionManager(database, config, signer=signer)


def close(manager: SessionManager, timeout: float | None) -> None:
    """Close a manager of either kind within so many seconds; None: without a limit."""
    manager.close(timeout)
