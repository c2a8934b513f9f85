"""A shard is a schema of its own, with the sessions of a part of the users, on one of several servers."""

from __future__ import annotations

import itertools
import os
import re
import tomllib
from collections.abc import Awaitable, Callable, Sequence

import msgspec

from pgsession._protocol import rules
from pgsession._protocol.shards import MOST
from pgsession.errors import ConfigError

__all__ = ["CitusShards", "Shard", "read_shards"]

_LONGEST_FILE = 4_000_000  # bytes: of as many shards as there can be
_PLAIN = re.compile("[A-Za-z0-9_-]+")

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
        legacy (bool): True for the one that has the sessions of the time before there were shards, whose ids name none.
            Then calls about a user ask it, too, and a session of it moves to its user's shard when it is given to a
            user. The limit of a user's sessions counts those there, too, without a transaction that holds both.
    """

    database: str | ConninfoFunction
    schema_name: str | None = None
    listener_conninfo: str | ConninfoFunction | None = None
    legacy: bool = False

    def __repr__(self) -> str:
        """Return what a log may show: a conninfo has a password."""
        return f"Shard(schema_name={self.schema_name!r})"


def read_shards(path: str | os.PathLike[str]) -> list[Shard]:
    """Return the shards that a file in TOML lists, so that nodes, commands and jobs are given the same.

    It has a table `[[shards]]` for each, in their order, with the fields of `Shard`. Where it has passwords, nobody
    else may read it.

    Args:
        path: The file's path.

    Raises:
        ConfigError: It is no such file; the message says what is wrong, without a conninfo.
        OSError: It cannot be read.
    """
    name = os.fsdecode(path)
    if "\0" in name:
        raise ConfigError("shards: the path of their file must not contain NUL")
    with open(name, "rb") as file:
        text = file.read(_LONGEST_FILE + 1)
    if len(text) > _LONGEST_FILE:
        raise ConfigError(f"shards: {name} must be at most {_LONGEST_FILE:,} bytes")
    try:
        read = tomllib.loads(text.decode())
    except (ValueError, RecursionError):  # whose message may have a part of the text in it
        raise ConfigError(f"shards: {name} is not TOML") from None
    tables = read.pop("shards", None)
    if read or not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise ConfigError(f"shards: {name} must have [[shards]] for each, and nothing else")
    for number, table in enumerate(tables):
        for field, value in table.items():
            kind = bool if field == "legacy" else str
            if field not in Shard.__struct_fields__ or not isinstance(value, kind):
                shown = field if _PLAIN.fullmatch(field) else "something"  # it may be a conninfo
                raise ConfigError(
                    f"shards: {name}: {shown} of number {number} is no field of one, or no {kind.__name__}"
                )
        if "database" not in table:
            raise ConfigError(f"shards: {name}: number {number} has no database")
    return [Shard(**table) for table in tables]


def complete(shards: Sequence[Shard | str], schema_name: str) -> list[Shard]:
    """Return the shards with the names of their schemas.

    Args:
        shards: As somebody has given them.
        schema_name: `Config.schema_name`.

    Raises:
        TypeError: They are no sequence, or one of them is neither a `Shard` nor a conninfo, or has what is none.
        ConfigError: Some cannot be what is meant.
    """
    if isinstance(shards, str | bytes) or not isinstance(shards, Sequence):
        raise TypeError(f"shards: a sequence of Shard or conninfo is needed, not {type(shards).__name__}")
    listed = list(itertools.islice(shards, MOST + 1))
    if not 1 <= len(listed) <= MOST:
        raise ConfigError(f"shards: from 1 to {MOST} of them are needed, not {len(shards)}")
    try:
        given = [_complete(number, shard, schema_name) for number, shard in enumerate(listed)]
    except ValueError as error:
        raise ConfigError(str(error)) from None
    if len({(shard.database, shard.schema_name) for shard in given}) < len(given):
        raise ConfigError("shards: two of them are the same schema of the same database")
    if sum(shard.legacy for shard in given) > 1:
        raise ConfigError("shards: only one of them can have the sessions of before there were shards")
    return given


def _complete(number: int, given: Shard | str, schema_name: str) -> Shard:
    shard = given if isinstance(given, Shard) else Shard(database=given)
    of = f"shards: of number {number} "
    listener = shard.listener_conninfo
    return Shard(
        database=rules.conninfo(f"{of}database", shard.database),
        schema_name=rules.schema_name(
            f"{of}schema_name", f"{schema_name}_{number}" if shard.schema_name is None else shard.schema_name
        ),
        listener_conninfo=None if listener is None else rules.conninfo(f"{of}listener_conninfo", listener),
        legacy=rules.boolean(f"{of}legacy", shard.legacy),
    )


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
