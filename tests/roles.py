"""Roles as a deployment has them, each of which can do no more than it was given."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

KINDS = ("owner", "service", "operator", "stranger")


class Roles:
    """`roles.owner` is a role's name, `roles.dsn("owner")` how to be that role."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._dsn = dsn
        for kind in KINDS:
            setattr(self, kind, f"{kind}_{schema}")

    owner: str
    service: str
    operator: str
    stranger: str

    def dsn(self, kind: str) -> str:
        """Whatever the server asks of who logs in."""
        given = conninfo_to_dict(self._dsn).get("options") or ""
        return make_conninfo(self._dsn, options=f"{given} -c role={getattr(self, kind)}".strip())

    def execute(self, kind: str, statement: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self.dsn(kind), autocommit=True) as connection:
            cursor = connection.execute(statement)  # type: ignore[call-overload]
            return cursor.fetchall() if cursor.description else []


@contextmanager
def made(dsn: str, schema: str) -> Iterator[Roles]:
    """Makes the roles, and the schema, which is the owner's."""
    roles = Roles(dsn, schema)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute("SET client_min_messages = warning")
        for kind in KINDS:
            admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(getattr(roles, kind))))
        admin.execute(
            sql.SQL("CREATE SCHEMA {} AUTHORIZATION {}").format(
                sql.Identifier(schema), sql.Identifier(roles.owner)
            )
        )
        try:
            yield roles
        finally:
            for kind in KINDS:
                name = sql.Identifier(getattr(roles, kind))
                admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(name))
                admin.execute(sql.SQL("DROP ROLE {}").format(name))
