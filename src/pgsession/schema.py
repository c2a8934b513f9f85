"""Creates, upgrades and checks the tables, by versioned migrations, and the functions that work on them.

A function's name has the number of its text, so that nodes of two versions of this library run side by side while one
replaces the other: each finds its own.

Everything happens in one transaction, under an advisory lock: on any error nothing is left half-done. What to do is
decided by a generator of statements that does no I/O; `create` and `async_create` run it.
"""

from __future__ import annotations

from collections.abc import Generator, Iterable
from typing import Any, cast

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from pgsession._database.connections import AsyncPlainCursor, PlainCursor
from pgsession._database.statements import Statements
from pgsession._database.templates import FUNCTIONS, RELATIONS, file, files, names_of, parameter_types, render
from pgsession._protocol import rules
from pgsession.errors import SchemaError

__all__ = ["async_check", "async_create", "check", "create"]

_Rows = list[tuple[Any, ...]]
_Query = sql.SQL | sql.Composed
_Steps = Generator[_Query, _Rows, list[str]]


def create(connection: psycopg.Connection[Any], schema: str = "public", prefix: str = "") -> list[str]:
    """Create what is missing and upgrade what is older, in one transaction; return what was done, in words.

    Any number of processes may do this at once. The connection must not be in a transaction.

    Raises:
        SchemaError: Something that is not ours has the same name, the schema is newer than this version of the library,
            or the role lacks the right to create; or the server is a standby, or the database's encoding is not UTF8.
    """
    rules.schema_name("schema", schema)
    rules.table_prefix("prefix", prefix)
    steps = _steps(schema, prefix)
    try:
        with connection.transaction(), PlainCursor(connection, row_factory=tuple_row) as cursor:
            query = next(steps)
            while True:
                cursor.execute(query, prepare=False)  # several statements cannot be prepared
                try:
                    query = steps.send(cursor.fetchall() if cursor.description else [])
                except StopIteration as done:
                    return cast("list[str]", done.value)
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error


async def async_create(
    connection: psycopg.AsyncConnection[Any], schema: str = "public", prefix: str = ""
) -> list[str]:
    """Do what `create` does, on an asynchronous connection."""
    rules.schema_name("schema", schema)
    rules.table_prefix("prefix", prefix)
    steps = _steps(schema, prefix)
    try:
        async with connection.transaction(), AsyncPlainCursor(connection, row_factory=tuple_row) as cursor:
            query = next(steps)
            while True:
                await cursor.execute(query, prepare=False)
                try:
                    query = steps.send(await cursor.fetchall() if cursor.description else [])
                except StopIteration as done:
                    return cast("list[str]", done.value)
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error


def check(connection: psycopg.Connection[Any], statements: Statements) -> None:
    """Raise `SchemaError`, which names the command to run, unless the schema is as this version needs it.

    It takes one cheap query.
    """
    try:
        with PlainCursor(connection, row_factory=tuple_row) as cursor:
            version = cursor.execute(statements.schema_version).fetchone()
    except psycopg.Error as error:
        raise _explained(error, statements.schema, statements.prefix) from error
    _check_version(version, statements)


async def async_check(connection: psycopg.AsyncConnection[Any], statements: Statements) -> None:
    """Do what `check` does, on an asynchronous connection."""
    try:
        async with AsyncPlainCursor(connection, row_factory=tuple_row) as cursor:
            version = await (await cursor.execute(statements.schema_version)).fetchone()
    except psycopg.Error as error:
        raise _explained(error, statements.schema, statements.prefix) from error
    _check_version(version, statements)


def command(schema: str, prefix: str) -> str:
    """Return the command that creates or upgrades the schema, for messages."""
    options = f" --schema-name {schema}" * (schema != "public") + f" --table-prefix {prefix}" * (prefix != "")
    return f"python -m pgsession init{options} DSN"


def latest_version() -> int:
    """Return the schema version that this version of the library needs."""
    return _migrations()[-1][0]


def _migrations() -> list[tuple[int, str, str]]:
    """Return each migration as (version, name, SQL template), in order."""
    return [(int(name[:4]), name, template) for name, template in files("migrations").items()]


def _steps(schema: str, prefix: str) -> _Steps:
    # Whatever the default is: what another process did while we waited for the lock must be seen.
    yield sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
    # What our functions and tables are made of must be the server's own types and functions.
    yield sql.SQL("SET LOCAL search_path = pg_catalog, pg_temp")
    lock = sql.Literal(f"pgsession schema {schema}.{prefix}")
    yield sql.SQL("SELECT pg_advisory_xact_lock(hashtextextended({}, 0))").format(lock)
    if (yield sql.SQL("SELECT current_setting('server_encoding')"))[0][0] != "UTF8":
        raise SchemaError("pgsession needs a database whose encoding is UTF8")
    names = names_of(schema, prefix)
    done: list[str] = []
    if not (yield sql.SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(sql.Literal(schema))):
        yield sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
        done.append(f"created schema {schema}")
    existing = {
        name: (kind, columns)
        for name, kind, columns in (
            yield _SIMILAR.format(
                schema=sql.Literal(schema),
                names=_array_of(prefix + name for name in RELATIONS.values()),
            )
        )
    }
    functions = {
        row[0]
        for row in (
            yield _SAME_FUNCTIONS.format(
                schema=sql.Literal(schema),
                names=_array_of(prefix + name for name in FUNCTIONS.values()),
            )
        )
    }
    versions = prefix + "session_schema_version"
    if versions not in existing:
        _refuse_foreign(schema, sorted({*existing, *functions}))
        yield sql.SQL(
            "CREATE TABLE {versions} (version integer PRIMARY KEY, name text NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        ).format(**names)
    elif existing[versions] != ("r", "version,name,applied_at"):
        _refuse_foreign(schema, [versions])
    applied = {row[0] for row in (yield sql.SQL("SELECT version FROM {versions}").format(**names))}
    if applied and max(applied) > latest_version():
        raise SchemaError(_newer(schema, prefix, max(applied)))
    for version, name, template in _migrations():
        if version in applied:
            continue
        yield render(template, names)
        yield sql.SQL("INSERT INTO {versions} (version, name) VALUES ({version}, {name})").format(
            **names, version=sql.Literal(version), name=sql.Literal(name)
        )
        done.append(f"applied migration {name}")
    missing = [short for short, name in FUNCTIONS.items() if prefix + name not in functions]
    for short in missing:
        yield render(file("functions", f"{short}.sql"), names)
        types = sql.SQL(", ".join(parameter_types(short, names)))
        yield sql.SQL("REVOKE EXECUTE ON FUNCTION {}({}) FROM PUBLIC").format(names[short], types)
    if missing:
        yield render(file("triggers.sql"), names)
        done.append(f"created {len(missing)} functions")
    return done or [f"nothing to do: the schema is at version {latest_version()}"]


_SIMILAR = sql.SQL(
    "SELECT c.relname, c.relkind::text, (SELECT string_agg(a.attname, ',' ORDER BY a.attnum) FROM pg_attribute a"
    " WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped)"
    " FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
    " WHERE n.nspname = {schema} AND c.relname = ANY ({names})"
)


_SAME_FUNCTIONS = sql.SQL(
    "SELECT p.proname FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace"
    " WHERE n.nspname = {schema} AND p.proname = ANY ({names})"
)


def _array_of(names: Iterable[str]) -> sql.Composed:
    return sql.SQL("ARRAY[{}]::name[]").format(sql.SQL(", ").join(map(sql.Literal, names)))


def _refuse_foreign(schema: str, found: list[str]) -> None:
    if found:
        raise SchemaError(
            f"{', '.join(f'{schema}.{name}' for name in found)} exists already and was not made by"
            " pgsession; nothing was changed. Choose another schema_name or table_prefix"
        )


def _newer(schema: str, prefix: str, version: int) -> str:
    return (
        f"the tables of pgsession in schema {schema!r} with prefix {prefix!r} are at version {version}, and this"
        f" version of pgsession knows only {latest_version()}: install a newer pgsession"
    )


def _check_version(row: tuple[Any, ...] | None, statements: Statements) -> None:
    version = row[0] if row else 0
    schema, prefix = statements.schema, statements.prefix
    if version > latest_version():
        raise SchemaError(_newer(schema, prefix, version))
    if version < latest_version():
        raise SchemaError(
            f"the tables of pgsession in schema {schema!r} with prefix {prefix!r} are at version {version} and must"
            f" be at {latest_version()}: run `{command(schema, prefix)}`, or set create_schema_if_missing"
        )


def _explained(error: psycopg.Error, schema: str, prefix: str) -> Exception:
    """Return a `SchemaError` where the error says something about the schema, else the error itself."""
    reason = (error.diag.message_primary or str(error)).strip()
    if isinstance(error, errors.UndefinedTable | errors.UndefinedColumn | errors.InvalidSchemaName):
        return SchemaError(
            f"there are no tables of pgsession in schema {schema!r} with prefix {prefix!r} ({reason}): run"
            f" `{command(schema, prefix)}`, or set create_schema_if_missing"
        )
    if isinstance(error, errors.InsufficientPrivilege):
        return SchemaError(
            f"the database role may not do this: {reason}; nothing was changed. Run"
            f" `{command(schema, prefix)}` as a role that may create in schema {schema!r}, or grant that right"
        )
    if isinstance(error, errors.DuplicateTable | errors.DuplicateFunction | errors.DuplicateObject):
        return SchemaError(
            f"{reason} and was not made by pgsession; nothing was changed. Choose another schema_name or table_prefix"
        )
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return SchemaError(f"the server is read-only ({reason}): nothing can be created on a standby")
    return error
