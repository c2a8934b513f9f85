"""The test's own tables, seen and changed as an operator would with psql."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, LiteralString

import psycopg
from psycopg import sql

NAMES = ("sessions", "session_attributes", "session_locks", "session_user_buckets")


class Tables:
    """`tables.run("SELECT version FROM {sessions} WHERE id = %s", id)`: its rows. Each call is a transaction."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.dsn = dsn
        self.schema = schema

    def query(self, statement: LiteralString) -> sql.Composed:
        return sql.SQL(statement).format(
            **{name: sql.Identifier(self.schema, name) for name in NAMES},
            schema=sql.Identifier(self.schema),
        )

    def run(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """What the statement returns. The triggers tell every node of what it changes."""
        with psycopg.connect(self.dsn, autocommit=True) as connection:
            return _rows(connection.execute(self.query(statement), parameters or None))

    def run_unheard(self, statement: LiteralString, *parameters: Any) -> list[tuple[Any, ...]]:
        """The same with the triggers off: as time itself changes things, nobody is told."""
        with psycopg.connect(self.dsn) as connection:
            connection.execute("SET LOCAL pgsession.own = 'on'; SET LOCAL session_replication_role = replica")
            return _rows(connection.execute(self.query(statement), parameters or None))

    def one(self, statement: LiteralString, *parameters: Any) -> Any:
        """The first column of the first row."""
        return self.run(statement, *parameters)[0][0]

    def count(self) -> int:
        """How many sessions there are, live or not."""
        return int(self.one("SELECT count(*) FROM {sessions}"))

    @contextmanager
    def locked(self, statement: LiteralString, *parameters: Any) -> Iterator[None]:
        """Holds the row locks of a `SELECT ... FOR UPDATE` for the block."""
        with psycopg.connect(self.dsn) as connection:
            assert connection.execute(self.query(statement), parameters or None).fetchall()
            yield

    def backends(self, where: LiteralString = "true") -> list[int]:
        """The server processes that work for the test's tables at this moment, by what they run."""
        return [
            row[0]
            for row in self.run("SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() AND " + where)
        ]


def _rows(cursor: psycopg.Cursor[Any]) -> list[tuple[Any, ...]]:
    return cursor.fetchall() if cursor.description else []
