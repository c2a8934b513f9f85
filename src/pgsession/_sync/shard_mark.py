# Generated from src/pgsession/_async/shard_mark.py by tools/async_to_sync.py: never edit.

"""The tables of a shard say which of how many they are, so that no node takes them for others."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from psycopg import Connection, errors, sql

from pgsession._database.statements import Statements
from pgsession.errors import ConfigError, SchemaError

from .pool import plain_cursor

_SAID = re.compile(r"^pgsession shard (\d+) of (\d+)$", re.MULTILINE)


class ShardMark(NamedTuple):
    """Says which shard tables are to be."""

    number: int
    shards: int

    def __str__(self) -> str:
        return f"pgsession shard {self.number} of {self.shards}"


def check_mark(connection: Connection[Any], statements: Statements, mark: ShardMark) -> None:
    """Check that the tables are those of this shard; tables that say nothing are told to be.

    It stands in the comment of the table of sessions, which a dump has, too.

    Raises:
        ConfigError: They are another shard's, or one of another number of shards: users would be looked for where
            they are not.
        SchemaError: They say nothing, and this role may not have them say it.
    """
    table = sql.Identifier(statements.schema, f"{statements.prefix}sessions")
    name = table.as_string(connection)
    cursor = plain_cursor(connection).execute(
        "SELECT pg_catalog.obj_description(%s::pg_catalog.regclass, 'pg_class')", (name,)
    )
    row = cursor.fetchone()
    comment = "" if row is None or row[0] is None else str(row[0])
    said = _SAID.search(comment)
    if said is None:
        query = sql.SQL("COMMENT ON TABLE {} IS {}").format(table, f"{comment}\n{mark}".strip())
        try:
            plain_cursor(connection).execute(query)
        except errors.InsufficientPrivilege:
            raise SchemaError(
                f"{name} does not say which shard it is: run as its owner: {query.as_string(connection)}"
            ) from None
    elif (int(said[1]), int(said[2])) != mark:
        raise ConfigError(
            f"shards: the tables of number {mark.number} say that they are shard {said[1]} of {said[2]}, not "
            f"{mark.number} of {mark.shards}: every node must be given the same shards in the same order, and their "
            "number is fixed once there are users"
        )
