"""Creating, upgrading and checking the tables, and the command that does it."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from pgsession import schema as module
from pgsession.__main__ import main
from pgsession._database.statements import Statements, write_arguments
from pgsession.errors import SchemaError

from .conftest import Database, run


@pytest.fixture
def connection(dsn: str) -> Any:
    with psycopg.connect(dsn, autocommit=True) as connection:
        yield connection


def objects(connection: psycopg.Connection[Any], name: str) -> set[str]:
    """Every relation and function of a schema."""
    query = (
        "SELECT relname FROM pg_class WHERE relnamespace = to_regnamespace(%(name)s)"
        " UNION ALL SELECT proname FROM pg_proc WHERE pronamespace = to_regnamespace(%(name)s)"
    )
    return {row[0] for row in connection.execute(query, {"name": f'"{name}"'})}


def test_created_once_then_nothing_to_do(connection: psycopg.Connection[Any], schema: str) -> None:
    statements = Statements(schema, "p_")
    with pytest.raises(SchemaError, match=f"init --schema-name {schema} --table-prefix p_ DATABASE"):
        module.check(connection, statements)
    assert module.create(connection, schema, "p_")[0] == f"created schema {schema}"
    module.check(connection, statements)
    before = objects(connection, schema)
    assert all(name.startswith("p_") for name in before)
    assert module.create(connection, schema, "p_") == [
        f"nothing to do: the schema is at version {module.latest_version()}"
    ]
    assert objects(connection, schema) == before
    # A second set of tables beside the first.
    assert len(module.create(connection, schema, "")) == module.latest_version() + 1


async def test_on_an_asynchronous_connection(dsn: str, schema: str) -> None:
    async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
        with pytest.raises(SchemaError):
            await module.async_check(connection, Statements(schema))
        await module.async_create(connection, schema)
        await module.async_check(connection, Statements(schema))


def test_ten_at_once_on_nothing(dsn: str, schema: str) -> None:
    async def one() -> list[str]:
        async with await psycopg.AsyncConnection.connect(dsn, autocommit=True) as connection:
            await connection.execute("SET default_transaction_isolation = 'serializable'")
            return await module.async_create(connection, schema)

    async def ten() -> list[list[str]]:
        return await asyncio.gather(*(one() for _ in range(10)))

    done = asyncio.run(ten())
    assert sorted(len(lines) > 1 for lines in done) == [False] * 9 + [True]


@pytest.mark.parametrize(
    "foreign",
    [
        "CREATE TABLE {}.sessions (id int)",
        "CREATE VIEW {}.session_locks AS SELECT 1",
        "CREATE TABLE {}.session_schema_version (version text)",
        "CREATE FUNCTION {}.session_write_accesses_1(uuid[], bigint[]) RETURNS bytea LANGUAGE sql AS 'SELECT null::bytea'",  # noqa: E501
        "CREATE TYPE {}.session_attributes AS (id int)",
    ],
)
def test_what_is_not_ours_is_refused_and_nothing_half_done(
    connection: psycopg.Connection[Any], schema: str, foreign: str
) -> None:
    name = sql.Identifier(schema)
    connection.execute(sql.SQL("CREATE SCHEMA {}").format(name))
    connection.execute(sql.SQL(foreign).format(name))
    before = objects(connection, schema)
    with pytest.raises(SchemaError, match=r"session.*not made by pgsession; nothing was changed"):
        module.create(connection, schema)
    assert objects(connection, schema) == before


def test_a_newer_or_older_schema_says_what_to_do(connection: psycopg.Connection[Any], schema: str) -> None:
    statements = Statements(schema)
    module.create(connection, schema)
    table = sql.Identifier(schema, "session_schema_version")
    connection.execute("SET pgsession.own = 'on'")  # as init does
    connection.execute(sql.SQL("INSERT INTO {} VALUES (9999, 'later', 9000)").format(table))
    for attempt in (lambda: module.check(connection, statements), lambda: module.create(connection, schema)):
        with pytest.raises(SchemaError, match="install a newer pgsession"):
            attempt()
    connection.execute(sql.SQL("DELETE FROM {}").format(table))
    with pytest.raises(SchemaError, match=r"version 0 and must be at .*python -m pgsession init"):
        module.check(connection, statements)


@pytest.mark.parametrize(
    "names", [("", ""), ("s" * 64, ""), ("s", "p" * 31), ("s", "ü" * 16), ("a\0", ""), ("a$pgsession$", "")]
)
def test_names_that_postgresql_would_cut_are_refused(
    connection: psycopg.Connection[Any], names: tuple[str, str]
) -> None:
    with pytest.raises(ValueError, match=r"^(schema|prefix): must "):
        module.create(connection, *names)
    with pytest.raises(ValueError, match=r"^(schema|prefix): must "):
        Statements(*names)


def test_no_name_is_cut_behind_the_longest_prefix(connection: psycopg.Connection[Any], schema: str) -> None:
    names = (
        "SELECT relname::text FROM pg_class WHERE relnamespace = %(schema)s::regnamespace"
        " UNION SELECT proname FROM pg_proc WHERE pronamespace = %(schema)s::regnamespace"
    )
    prefix = "p" * 30
    module.create(connection, schema)
    plain = {name for (name,) in connection.execute(names, {"schema": schema})}
    module.create(connection, schema, prefix)
    prefixed = {name for (name,) in connection.execute(names, {"schema": schema})} - plain
    assert {name.removeprefix(prefix) for name in prefixed} == plain


@pytest.mark.parametrize("prefix", ['we"ird {}%s 100% ', "CamelCase_", "üß'\\"])
def test_any_name_works(open_database: Callable[..., Database], prefix: str) -> None:
    database = open_database(prefix)
    session = database.create(attributes={"a": 1})
    ear = database.ear()
    assert database.update(session, 1, {"a": 2})[0] == "ok"
    assert database.attributes(session) == {"a": 2}
    owner = "ab" * 16
    assert database.run(database.statements.acquire("r", owner, 10**6, session))[0] is True
    assert database.run(database.statements.renew("r", owner, 10**6)) is not None
    assert database.run(database.statements.release(database.node, "r", owner)) is not None
    generation = f"{{{(database.read(session) or [])[10]}}}"
    assert database.execute(database.statements.resync, "{" + session + "}", "{2}", generation)[0][2] is None
    assert len(ear.items()) == 2


def test_an_ordinary_role_needs_only_the_right_to_create(dsn: str, schema: str) -> None:
    role = f"role_{schema}"
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema)))
        admin.execute(sql.SQL("CREATE ROLE {}").format(sql.Identifier(role)))
        try:
            with psycopg.connect(dsn, autocommit=True) as connection:
                connection.execute(sql.SQL("SET SESSION AUTHORIZATION {}").format(sql.Identifier(role)))
                with pytest.raises(SchemaError, match="may not do this: permission denied for schema"):
                    module.create(connection, schema)
                grant = "GRANT USAGE, CREATE ON SCHEMA {} TO {}"
                admin.execute(sql.SQL(grant).format(sql.Identifier(schema), sql.Identifier(role)))
                module.create(connection, schema)
                statements = Statements(schema)
                module.check(connection, statements)
                run(connection, statements.incarnate())
                run(connection, statements.write("0" * 16, "m", write_arguments(False)))
        finally:
            admin.execute(sql.SQL("DROP OWNED BY {} CASCADE").format(sql.Identifier(role)))
            admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(role)))


def test_the_command(
    dsn: str, schema: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSESSION_DATABASE", dsn)
    assert main(["init", "--schema-name", schema, "--table-prefix", "x_"]) == 0
    assert "applied migration 0001_tables" in capsys.readouterr().out
    assert main(["init", "--schema-name", schema, "--table-prefix", "x_"]) == 0
    assert "nothing to do" in capsys.readouterr().out
    assert main(["init", "--schema-name", schema, "--table-prefix", "p" * 31]) == 2
    assert "--table-prefix: must be at most 30 bytes, not 31" in capsys.readouterr().err


def test_the_command_takes_libpq_variables(dsn: str, schema: str) -> None:
    names = {
        "host": "PGHOST",
        "port": "PGPORT",
        "user": "PGUSER",
        "dbname": "PGDATABASE",
        "password": "PGPASSWORD",
    }
    given = {names[name]: str(value) for name, value in conninfo_to_dict(dsn).items() if name in names}
    environment = {name: value for name, value in os.environ.items() if name != "PGSESSION_DATABASE"} | given
    command = [sys.executable, "-m", "pgsession", "init", "--schema-name", schema]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60)
    assert result.returncode == 0, result.stderr
    assert "applied migration" in result.stdout


def test_a_database_of_another_encoding_is_refused(dsn: str, schema: str) -> None:
    name = sql.Identifier(f"latin_{schema}")
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(
            sql.SQL("CREATE DATABASE {} TEMPLATE template0 ENCODING 'SQL_ASCII' LOCALE 'C'").format(name)
        )
        try:
            with psycopg.connect(make_conninfo(dsn, dbname=f"latin_{schema}"), autocommit=True) as connection:
                with pytest.raises(SchemaError, match="UTF8"):
                    module.create(connection, schema)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {}").format(name))
