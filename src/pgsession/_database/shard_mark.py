"""The tables of a shard say which of how many they are, so that no node takes them for others."""

from __future__ import annotations

import re
from collections.abc import Generator
from typing import Any, NamedTuple

from psycopg import sql

from pgsession._database.templates import names_of
from pgsession.errors import ConfigError

__all__ = ["ShardMark", "marking", "query_of", "reading"]

_Rows = list[tuple[Any, ...]]
_SAID = re.compile(r"^pgsession shard (\d+) of (\d+)$", re.MULTILINE)


class ShardMark(NamedTuple):
    """Says which shard tables are to be."""

    number: int
    shards: int

    def __str__(self) -> str:
        return f"pgsession shard {self.number} of {self.shards}"


def query_of(schema: str, prefix: str, mark: ShardMark, comment: str = "") -> sql.Composed:
    """Return what has tables say which shard they are, beside another comment.

    It stands in the comment of the table of sessions, which a dump has, too.
    """
    table = names_of(schema, prefix)["sessions"]
    return sql.SQL("COMMENT ON TABLE {} IS {}").format(table, f"{comment}\n{mark}".strip())


def marking(
    schema: str, prefix: str, mark: ShardMark
) -> Generator[sql.Composed, _Rows, list[str]]:
    """Check that the tables are those of this shard; tables that say nothing are told to be. Return what was done.

    Raises:
        ConfigError: As for `reading`.
    """
    comment = yield from reading(schema, prefix, mark)
    if comment is None:
        return []
    yield query_of(schema, prefix, mark, comment)
    return [f"made them shard {mark.number} of {mark.shards}"]


def reading(
    schema: str, prefix: str, mark: ShardMark
) -> Generator[sql.Composed, _Rows, str | None]:
    """Check that the tables are those of this shard. Return None; or their comment, where that says nothing of shards.

    Raises:
        ConfigError: They are another shard's, or one of another number of shards: users would be looked for where
            they are not.
    """
    table = names_of(schema, prefix)["sessions"].as_string()
    ((comment,),) = yield sql.SQL(
        "SELECT pg_catalog.obj_description({}::pg_catalog.regclass, 'pg_class')"
    ).format(table)
    said = _SAID.search(comment or "")
    if said is None:
        return comment or ""
    if (int(said[1]), int(said[2])) != mark:
        raise ConfigError(
            f"shards: the tables of number {mark.number} say that they are shard {said[1]} of {said[2]}, not "
            f"{mark.number} of {mark.shards}: every node must be given the same shards in the same order, and their "
            "number is fixed once there are users"
        )
    return None
