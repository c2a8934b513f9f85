"""A shard is a schema of its own, with the sessions of a part of the users, on one of several servers."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec

__all__ = ["CitusShards", "Shard"]

ConninfoFunction = Callable[[], str | Awaitable[str]]


class Shard(msgspec.Struct, frozen=True, kw_only=True, repr_omit_defaults=True):
    """Says where a shard is. Those of one `database` are on one server, and share its connections.

    Attributes:
        database (str | Callable[[], str | Awaitable[str]]): A conninfo, or a function that returns one, as for
            `SessionManager`.
        schema_name (str | None): The schema of its tables, None for `Config.schema_name`, an underscore and its number:
            `public_3`.
        listener_conninfo (str | Callable[[], str | Awaitable[str]] | None): The conninfo of the server's listener,
            where `database` leads through a pooler; None for `database`. It is that of the first shard of a server.
    """

    database: str | ConninfoFunction
    schema_name: str | None = None
    listener_conninfo: str | ConninfoFunction | None = None

    def __repr__(self) -> str:
        """Return what a log may show: a conninfo has a password."""
        return f"Shard(schema_name={self.schema_name!r})"


class CitusShards(msgspec.Struct, frozen=True, repr_omit_defaults=True):
    """Has Citus keep the shards on its servers, and move them while they are used: with `citus_rebalance_start`, say.

    Each is a schema that Citus distributes, `Config.schema_name`, an underscore and its number: `public_3`. A shard has
    a pool and a listener of its own, which lead to the server that it is on, by the address that Citus knows; all else
    of the conninfo is the coordinator's. The role has to own the schemas.

    Attributes:
        coordinator (str | Callable[[], str | Awaitable[str]]): The conninfo of the coordinator, which is asked where
            shards are, or a function that returns one, as for `SessionManager`.
        count (int): How many shards there are, from 1 to 4096: several times as many as servers, for they are moved
            whole.
    """

    coordinator: str | ConninfoFunction
    count: int = 16

    def __repr__(self) -> str:
        """Return what a log may show: a conninfo has a password."""
        return f"CitusShards(count={self.count})"
