"""The snippets of shards.md, on two servers."""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg import sql

import pgsession
from tests.docs.test_other_snippets import blocks, run
from tests.sharded import Shards

PAGE = "docs/shards.md"


def test_the_page(all_shards: Shards, dsn: str) -> None:
    one, two = dsn, str(all_shards[1].database)
    config = pgsession.Config(create_schema_if_missing=True)
    first, second = blocks(PAGE, "python")
    name = f"of_{Path(PAGE).stem}"
    try:
        for shown, real in (("postgresql://app@db1/app", one), ("postgresql://app@db2/app", two)):
            assert shown in first
            first = first.replace(shown, real)
        run(first.replace("sessions_", f"{name}_"), {"key": b"k" * 32})
        plain = pgsession.Config(create_schema_if_missing=True, schema_name=name)
        with pgsession.SessionManager(one, plain) as before:
            old_id = before.create_session("alice").id
        second = second.replace('"public"', f'"{name}"').replace("sessions_1", f"{name}_9")
        run(second, {"pgsession": pgsession, "one": one, "two": two, "config": config, "old_id": old_id})
    finally:
        for server in (one, two):
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute("SET client_min_messages = warning")
                for schema in (name, *(f"{name}_{number}" for number in (0, 1, 2, 3, 9))):
                    connection.execute(
                        sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
                    )
