"""Creates, upgrades and checks the tables, by versioned migrations, and the functions that work on them.

A function's name has the number of its text, so that nodes of two versions of this library run side by side while one
replaces the other: each finds its own. Each migration says in its first line which is the oldest schema version that a
library must know to work with what it makes.

Everything happens in one transaction, under a lock on a table of ours: on any error nothing is left half-done. What to
do is decided by generators of statements that do no I/O; `create`, `check` and their asynchronous twins run them.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable
from typing import Any, Final, NamedTuple, TypeVar, cast

import psycopg
from psycopg import errors, sql
from psycopg.rows import tuple_row

from pgsession._database import inspection
from pgsession._database.connections import AsyncPlainCursor, PlainCursor
from pgsession._database.inspection import Inspection
from pgsession._database.shard_mark import ShardMark, marking, query_of, reading
from pgsession._database.statements import Statements
from pgsession._database.templates import (
    DOMAINS,
    FUNCTIONS,
    RELATIONS,
    Placed,
    file,
    files,
    functions_of,
    moved_part,
    names_of,
    parameter_types,
    relations_of,
    render,
    staying_part,
)
from pgsession._protocol import rules
from pgsession._protocol.shards import MOST
from pgsession.errors import SchemaError

from ._counted import counted

__all__ = ["async_check", "async_create", "check", "create", "drop", "rehearse"]

OLDEST_VERSION: Final = 1
"""The oldest schema version that this version of the library works with, where its functions are there."""

_LOCK_TIMEOUT: Final = 5  # seconds; who uses the tables waits behind who waits to change them

_T = TypeVar("_T")
_Rows = list[tuple[Any, ...]]
_Query = sql.SQL | sql.Composed
_Steps = Generator[_Query, _Rows, _T]


def create(
    connection: psycopg.Connection[Any],
    schema: str = "public",
    prefix: str = "",
    *,
    grant_to: Iterable[str] = (),
    shard: tuple[int, int] | None = None,
) -> list[str]:
    """Create what is missing and upgrade what is older, in one transaction; return what was done, in words.

    Any number of processes may do this at once. The connection must not be in a transaction.

    Args:
        connection: A connection of the role that owns the tables, or is to own them, or of a member of it.
        schema: The PostgreSQL schema of the tables.
        prefix: What the names of tables and functions begin with.
        grant_to: The roles of services; each gets the rights that it needs, and nothing more.
        shard: Which shard the tables are, and of how many: (0, 4); None: they are no shard.

    Raises:
        ConfigError: The tables say that they are another shard.
        SchemaError: Something that is not this role's has the same name, the schema is too new for this version of the
            library, or the role lacks the right to create or to grant; or the server is a standby, the database's
            encoding is not UTF8, or somebody has locked the tables for too long.
    """
    wanted = (*_wanted(schema, prefix, grant_to), _mark(shard))
    try:
        try:
            return _run(connection, _creating(*wanted))
        except _EXISTS:
            return _run(connection, _creating(*wanted))  # another one was first: now it is there
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error


async def async_create(
    connection: psycopg.AsyncConnection[Any],
    schema: str = "public",
    prefix: str = "",
    *,
    grant_to: Iterable[str] = (),
    shard: tuple[int, int] | None = None,
) -> list[str]:
    """Do what `create` does, on an asynchronous connection."""
    wanted = (*_wanted(schema, prefix, grant_to), _mark(shard))
    try:
        try:
            return await _async_run(connection, _creating(*wanted))
        except _EXISTS:
            return await _async_run(connection, _creating(*wanted))
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error


def rehearse(
    connection: psycopg.Connection[Any],
    schema: str = "public",
    prefix: str = "",
    *,
    grant_to: Iterable[str] = (),
    shard: tuple[int, int] | None = None,
) -> tuple[list[str], str]:
    """Do what `create` would do now, and roll it back; return that in words, and as a script for psql.

    Args:
        connection: As for `create`.
        schema: As for `create`.
        prefix: As for `create`.
        grant_to: As for `create`.
        shard: As for `create`.

    Raises:
        ConfigError, SchemaError: As for `create`.
    """
    steps = _creating(*_wanted(schema, prefix, grant_to), _mark(shard))
    statements: list[str] = []
    try:
        done = _run(connection, steps, statements, keep=False)
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error
    return done, ";\n\n".join(["BEGIN", *statements, "COMMIT;"])


def drop(
    connection: psycopg.Connection[Any], schema: str = "public", prefix: str = "", *, dry_run: bool = False
) -> list[str]:
    """Drop tables, domains and functions, of every version, in one transaction; return their names in SQL.

    Args:
        connection: A connection of the role that owns the tables, or of a member of it, which is in no transaction.
        schema: The PostgreSQL schema of the tables, which stays.
        prefix: What the names of tables and functions begin with.
        dry_run: True: roll it back.

    Raises:
        SchemaError: Something that is not pgsession's depends on the tables or has their names, the role may not do it,
            or somebody has locked the tables for too long; nothing was dropped.
    """
    schema, prefix, _ = _wanted(schema, prefix, ())
    rules.boolean("dry_run", dry_run)
    try:
        return _run(connection, _dropping(schema, prefix), keep=not dry_run)
    except psycopg.Error as error:
        raise _explained(error, schema, prefix) from error


def check(
    connection: psycopg.Connection[Any], statements: Statements, shard: tuple[int, int] | None = None
) -> None:
    """Raise `SchemaError` unless the schema serves this version of the library and the role may do all that it needs.

    The error names everything that is missing, and the commands that mend it. Takes a cheap look at the catalog. With
    `shard` the tables have to say that they are this one, too; a `ConfigError` says that they are another.
    """
    mark = _mark(shard)
    try:
        _run(connection, _checking(statements.schema, statements.prefix, statements.placed))
        unmarked = (
            mark is not None
            and _run(connection, reading(statements.schema, statements.prefix, mark)) is not None
        )
    except psycopg.Error as error:
        raise _explained(error, statements.schema, statements.prefix) from error
    if mark is not None and unmarked:
        raise _unmarked(statements, mark)


async def async_check(connection: psycopg.AsyncConnection[Any], statements: Statements) -> None:
    """Do what `check` does, on an asynchronous connection."""
    try:
        await _async_run(connection, _checking(statements.schema, statements.prefix, statements.placed))
    except psycopg.Error as error:
        raise _explained(error, statements.schema, statements.prefix) from error


def check_mark(connection: psycopg.Connection[Any], statements: Statements, shard: ShardMark) -> None:
    """Check that tables are those of a shard; tables that say nothing are told to be.

    Raises:
        ConfigError: They are another shard's.
        SchemaError: They say nothing, and this role may not have them say it.
    """
    try:
        _run(connection, marking(statements.schema, statements.prefix, shard))
    except errors.InsufficientPrivilege:
        raise _unmarked(statements, shard) from None


async def async_check_mark(
    connection: psycopg.AsyncConnection[Any], statements: Statements, shard: ShardMark
) -> None:
    """Do what `check_mark` does, on an asynchronous connection."""
    try:
        await _async_run(connection, marking(statements.schema, statements.prefix, shard))
    except errors.InsufficientPrivilege:
        raise _unmarked(statements, shard) from None


def look(
    connection: psycopg.Connection[Any], schema: str, prefix: str
) -> tuple[Inspection, tuple[int, int] | None]:
    """Return what there is, the schema's version and the oldest that it serves; None where that cannot be read."""
    return _run(connection, _looking(schema, prefix))


async def async_look(
    connection: psycopg.AsyncConnection[Any], schema: str, prefix: str
) -> tuple[Inspection, tuple[int, int] | None]:
    """Do what `look` does, on an asynchronous connection."""
    return await _async_run(connection, _looking(schema, prefix))


def command(schema: str, prefix: str, grant_to: str | None = None) -> str:
    """Return the command that creates or upgrades the schema, for messages, to be pasted into a shell.

    Args:
        schema: The schema's name.
        prefix: Of tables and functions.
        grant_to: The role that is to get what a service needs, as it is or as SQL quotes it.
    """
    options = ""
    if grant_to is not None:
        quoted = len(grant_to) > 1 and grant_to[0] == grant_to[-1] == '"'
        role = grant_to[1:-1].replace('""', '"') if quoted else grant_to
        options += f" --grant-to {shlex.quote(role)}"
    options += f" --schema-name {shlex.quote(schema)}" * (schema != "public")
    options += f" --table-prefix {shlex.quote(prefix)}" * (prefix != "")
    return f"python -m pgsession init{options} DATABASE"


def latest_version() -> int:
    """Return the schema version that this version of the library makes."""
    return _migrations()[-1].version


# ---- running steps ----


def _run(
    connection: psycopg.Connection[Any],
    steps: _Steps[_T],
    statements: list[str] | None = None,
    *,
    keep: bool = True,
) -> _T:
    """Run the steps in a transaction, which is rolled back unless `keep`; note those that changed something."""
    with (
        connection.transaction(force_rollback=not keep),
        PlainCursor(connection, row_factory=tuple_row) as cursor,
    ):
        query = next(steps)
        while True:
            cursor.execute(query, prepare=False)  # several statements cannot be prepared
            if statements is not None and cursor.description is None:
                statements.append(query.as_string(connection).strip().removesuffix(";"))
            try:
                query = steps.send(cursor.fetchall() if cursor.description else [])
            except StopIteration as done:
                return cast("_T", done.value)


async def _async_run(connection: psycopg.AsyncConnection[Any], steps: _Steps[_T]) -> _T:
    async with connection.transaction(), AsyncPlainCursor(connection, row_factory=tuple_row) as cursor:
        query = next(steps)
        while True:
            await cursor.execute(query, prepare=False)
            try:
                query = steps.send(await cursor.fetchall() if cursor.description else [])
            except StopIteration as done:
                return cast("_T", done.value)


# What our functions and tables are made of, and what we ask, must be the server's own types and functions.
_TRUST_NO_PATH = sql.SQL("SET LOCAL search_path = pg_catalog, pg_temp")


# ---- migrations and versions ----


class Migration(NamedTuple):
    """Holds one step from a schema version to the next."""

    version: int
    name: str
    serves_from: int
    """The oldest schema version that a library must know to work with what this makes."""
    template: str


_SERVES_FROM = re.compile(r"-- serves_from: (\d+)$", re.MULTILINE)


def _migrations() -> list[Migration]:
    """Return the migrations in their order."""
    found = []
    for name, template in files("migrations").items():
        said = _SERVES_FROM.match(template)
        assert said is not None, f"{name}.sql does not say which versions it serves"
        found.append(Migration(int(name[:4]), name, int(said[1]), template))
    return found


def _version(names: dict[str, sql.Composable]) -> _Steps[tuple[int, int]]:
    """Return the version of the schema, and the oldest that a library must know to work with it."""
    query = "SELECT coalesce(max(version), 0), coalesce(max(serves_from), 0) FROM {versions}"
    ((version, serves_from),) = yield sql.SQL(query).format(**names)
    return version, serves_from


def _refuse_newer(schema: str, prefix: str, version: int, serves_from: int) -> None:
    if serves_from > latest_version():
        raise SchemaError(
            f"{_tables(schema, prefix)} are at version {version}, which serves no version of pgsession that knows"
            f" less than {serves_from}; this one knows {latest_version()}: install a newer pgsession"
        )


def _older(schema: str, prefix: str, version: int) -> SchemaError:
    return SchemaError(
        f"{_tables(schema, prefix)} are at version {version} and must be at {latest_version()}: run"
        f" `{command(schema, prefix)}`, or set create_schema_if_missing"
    )


def _tables(schema: str, prefix: str) -> str:
    return f"the tables of pgsession in schema {schema!r} with prefix {prefix!r}"


# ---- check ----


def _checking(schema: str, prefix: str, placed: Placed | None) -> _Steps[None]:
    yield _TRUST_NO_PATH
    found = inspection.inspection_of((yield inspection.query(schema, prefix, placed=placed)))
    if found.owner is None or "versions" in found.missing("table"):
        raise SchemaError(_nothing_there(schema, prefix))
    if not found.trusted:
        raise untrusted(schema, prefix, found.owner)
    grants, version = found.grants(), latest_version()
    if not grants:
        version, serves_from = yield from _version(names_of(schema, prefix))
        _refuse_newer(schema, prefix, version, serves_from)
        if version < OLDEST_VERSION or (version < latest_version() and found.missing("function")):
            raise _older(schema, prefix, version)
    wrong = _faults(found, same_version=version == latest_version())
    if not grants and not wrong:
        return
    again = f"as {found.owner} run `{command(schema, prefix, found.role if grants else None)}`"
    if grants:
        wrong.append(f"role {found.role} may not do what it must; that it may: `{'; '.join(grants)}`")
    raise SchemaError(f"{_tables(schema, prefix)} cannot be used: {'. '.join(wrong)}. For all of it {again}")


def _looking(schema: str, prefix: str) -> _Steps[tuple[Inspection, tuple[int, int] | None]]:
    yield _TRUST_NO_PATH
    yield sql.SQL("SET LOCAL lock_timeout = 1000")  # who holds a lock is found by other means
    found = inspection.inspection_of((yield inspection.query(schema, prefix)))
    if found.owner is None or "versions" in found.missing("table") or found.grants():
        return found, None
    return found, (yield from _version(names_of(schema, prefix)))


def _unmarked(statements: Statements, shard: ShardMark) -> SchemaError:
    query = query_of(statements.schema, statements.prefix, shard).as_string()
    return SchemaError(
        f"{_tables(statements.schema, statements.prefix)} do not say which shard they are: as their owner run"
        f" `{query}`"
    )


def _faults(found: Inspection, *, same_version: bool) -> list[str]:
    """Return what `init` mends, in words."""
    missing = found.missing("table") + found.missing("function")
    if same_version:  # a newer version may do without, and an older one is not to have them
        missing += found.missing("trigger")
    faults = []
    if missing:
        faults.append(f"missing, or not {found.owner}'s: {', '.join(missing)}")
    if triggers := found.silent_triggers():
        faults.append(
            f"disabled, or not enabled ALWAYS, so that nodes would not hear of changes: trigger {', '.join(triggers)}"
        )
    if functions := found.public_functions():
        faults.append(
            f"everybody may call functions of pgsession, and could forge what nodes tell each other: {functions}"
        )
    return faults


def untrusted(schema: str, prefix: str, owner: str) -> SchemaError:
    """Return the error about tables that a stranger may have put there."""
    name = sql.Identifier(schema).as_string()
    return SchemaError(
        f"{_tables(schema, prefix)} belong to role {owner}, and may have been put there by a stranger: others may"
        f" create in that schema too, which {owner} does not own. Take that right from them"
        f" (`REVOKE CREATE ON SCHEMA {name} FROM PUBLIC`), or let {owner} own it"
        f" (`ALTER SCHEMA {name} OWNER TO {owner}`)"
    )


def _nothing_there(schema: str, prefix: str) -> str:
    return (
        f"there are no tables of pgsession in schema {schema!r} with prefix {prefix!r}: run"
        f" `{command(schema, prefix)}`, or set create_schema_if_missing"
    )


# ---- create ----


def _wanted(schema: str, prefix: str, grant_to: Iterable[str]) -> tuple[str, str, tuple[str, ...]]:
    return (
        rules.schema_name("schema", schema),
        rules.table_prefix("prefix", prefix),
        rules.role_names("grant_to", grant_to),
    )


def _mark(shard: tuple[int, int] | None) -> ShardMark | None:
    if shard is None:
        return None
    if not isinstance(shard, tuple) or len(shard) != 2:
        raise TypeError(f"shard: a number, and of how many, is needed as a tuple, not {shard!r}")
    number, shards = shard
    shards = rules.count("shard", shards, 1, MOST)
    return ShardMark(rules.count("shard", number, 0, shards - 1), shards)


def _creating(
    schema: str,
    prefix: str,
    grant_to: tuple[str, ...],
    mark: ShardMark | None = None,
    placed: Placed | None = None,
) -> _Steps[list[str]]:
    # Whatever the default is: what another process did while we waited for the lock must be seen.
    yield sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
    yield _TRUST_NO_PATH
    yield sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(1000 * _LOCK_TIMEOUT))
    if (yield sql.SQL("SELECT current_setting('server_encoding')"))[0][0] != "UTF8":
        raise SchemaError("pgsession needs a database whose encoding is UTF8")
    names = names_of(schema, prefix, placed)
    done = yield from _making_room(schema, prefix, names, placed)
    version, serves_from = yield from _version(names)
    _refuse_newer(schema, prefix, version, serves_from)
    done += yield from _migrating(version, names, placed)
    done += yield from _completing(schema, prefix, names, placed, newer=version > latest_version())
    found = inspection.inspection_of((yield inspection.query(schema, prefix, placed=placed)))
    for repair in found.repairs():
        yield sql.SQL(repair)
        done.append(repair)
    if mark is not None:
        done += yield from marking(schema, prefix, mark)
    for role in grant_to:
        done += yield from _granting(schema, prefix, role)
    return done or [f"nothing to do: the schema is at version {max(version, latest_version())}"]


def _making_room(
    schema: str, prefix: str, names: dict[str, sql.Composable], placed: Placed | None
) -> _Steps[list[str]]:
    """Lock the table of the versions, which is made where there is nothing; from here on the tables' owner acts."""
    done: list[str] = []
    if not (yield sql.SQL("SELECT 1 FROM pg_namespace WHERE nspname = {}").format(sql.Literal(schema))):
        yield sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(schema))
        done.append(f"created schema {schema}")
    existing = yield _existing(schema, prefix, placed)
    owner = _owner(schema, prefix, existing)
    if owner is None:
        yield sql.SQL(
            "CREATE TABLE {versions} (version integer PRIMARY KEY, name text NOT NULL, serves_from integer NOT NULL,"
            " applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        ).format(**names)
    else:
        found = inspection.inspection_of((yield inspection.query(schema, prefix, placed=placed)))
        user = existing[0][-1]
        if owner != user and not found.trusted:
            raise untrusted(schema, prefix, owner)
        yield sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner))
        yield sql.SQL("LOCK TABLE {versions} IN SHARE ROW EXCLUSIVE MODE").format(**names)
        # Only what is locked stays whose it is.
        _owner(schema, prefix, (yield _existing(schema, prefix, placed)))
    return done


def _migrating(version: int, names: dict[str, sql.Composable], placed: Placed | None) -> _Steps[list[str]]:
    done: list[str] = []
    for migration in _migrations():
        if migration.version > version:
            template = migration.template if placed is None else staying_part(migration.template)
            yield render(template, names)
            # That no dump brings such a row, its trigger ignores all but our own.
            yield sql.SQL(
                "SET LOCAL pgsession.own = 'on';"
                " INSERT INTO {versions} (version, name, serves_from) VALUES ({version}, {name}, {serves_from});"
                " SET LOCAL pgsession.own = ''"
            ).format(
                **names,
                version=sql.Literal(migration.version),
                name=sql.Literal(migration.name),
                serves_from=sql.Literal(migration.serves_from),
            )
            done.append(f"applied migration {migration.name}")
    if version == 0:
        yield sql.SQL("REVOKE ALL ON {} FROM {}").format(names["incarnation"], (yield from _favoured()))
    return done


def _favoured() -> _Steps[sql.SQL]:
    """Return PUBLIC and the roles to which default privileges have just given rights, as a list in SQL."""
    rows = yield sql.SQL(
        "SELECT DISTINCT quote_ident(pg_get_userbyid(a.grantee))"
        " FROM pg_default_acl d CROSS JOIN LATERAL aclexplode(d.defaclacl) a JOIN pg_roles r ON r.oid = d.defaclrole"
        " WHERE r.rolname = current_user AND a.grantee NOT IN (0, r.oid)"
    )
    return sql.SQL(", ".join(["PUBLIC", *(role for (role,) in rows)]))


def _completing(
    schema: str, prefix: str, names: dict[str, sql.Composable], placed: Placed | None, *, newer: bool
) -> _Steps[list[str]]:
    """Make the functions and triggers that are missing; on newer tables our own functions, but no triggers."""
    found = inspection.inspection_of((yield inspection.query(schema, prefix, placed=placed)))
    if gone := found.missing("table"):
        raise SchemaError(
            f"of {_tables(schema, prefix)} some are gone ({', '.join(gone)}); nothing was changed. Restore them, or"
            " drop the others and run this again"
        )
    functions = found.missing("function")
    triggers = [] if newer else found.missing("trigger")
    others = yield from _favoured()
    for short in functions:
        yield render(file("functions", f"{short}.sql"), names)
        types = sql.SQL(", ".join(parameter_types(short, names)))
        yield sql.SQL("REVOKE ALL ON FUNCTION {}({}) FROM {}").format(names[short], types, others)
    if triggers or (functions and not newer):
        yield render(file("triggers.sql"), names)
    if functions:
        return [f"created {counted(len(functions), 'function')}"]
    return [f"created {counted(len(triggers), 'trigger')}"] if triggers else []


def _granting(schema: str, prefix: str, role: str) -> _Steps[list[str]]:
    query = inspection.query(schema, prefix, role)
    grants = inspection.inspection_of((yield query)).grants()
    for grant in grants:
        yield sql.SQL(grant)
    # Who holds no grant option is told so by a mere warning.
    found = inspection.inspection_of((yield query))
    if refused := found.grants():
        raise SchemaError(
            f"the role may not grant this: `{'; '.join(refused)}`; nothing was changed. Have the owner of schema"
            f" {schema!r} grant it first"
        )
    return [f"granted to {found.role} what a service needs"] if grants else []


# ---- shards that Citus moves ----

_NOBODY: Final = "00000000-0000-0000-0000-000000000000"
# Far above each fencing token that was given out where the tables were before: a row that no lock can have tells how
# high those can be, and moves with the others; a sequence does not. Where all clocks are right those alone would do.
_RAISE_TOKENS: Final = """SET LOCAL pgsession.own = 'on';
    WITH t AS (
        INSERT INTO {locks} AS l (resource, owner, token, acquired_at, expires_at)
        SELECT '', {nobody}, greatest(s.last_value, {now}, (SELECT max(l.token) + (1::bigint << 40) FROM {locks} l)),
            'epoch', '9999-12-31'
        FROM {fencing} s
        ON CONFLICT (resource) DO UPDATE SET token = excluded.token RETURNING token)
    SELECT setval({fencing_oid}, t.token) FROM t"""
_STAYS: Final = """SELECT lock_shard_metadata(5, ARRAY[{shard}]::bigint[])"""
_IS_HERE: Final = """SELECT EXISTS (SELECT FROM pg_dist_placement p JOIN pg_dist_local_group l ON l.groupid = p.groupid
    WHERE p.shardid = {shard})"""


async def async_adopt(connection: psycopg.AsyncConnection[Any], statements: Statements) -> bool:
    """Make on a server what a shard's tables need there that Citus has moved to it; return True where they had come.

    It holds up another move meanwhile. Nothing is done twice, whoever does it.

    Raises:
        SchemaError: As for `create`.
        psycopg.errors.ReadOnlySqlTransaction: They are elsewhere by now.
    """
    try:
        try:
            return await _async_run(connection, _adopting(statements))
        except _EXISTS:
            return await _async_run(connection, _adopting(statements))
    except psycopg.Error as error:
        raise _not_adopted(error, statements) from error


def adopt(connection: psycopg.Connection[Any], statements: Statements) -> bool:
    """Do what `async_adopt` does, on a synchronous connection."""
    try:
        try:
            return _run(connection, _adopting(statements))
        except _EXISTS:
            return _run(connection, _adopting(statements))
    except psycopg.Error as error:
        raise _not_adopted(error, statements) from error


def _not_adopted(error: psycopg.Error, statements: Statements) -> Exception:
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return error
    return _explained(error, statements.schema, statements.prefix)


def _adopting(statements: Statements) -> _Steps[bool]:
    schema, prefix, placed = statements.schema, statements.prefix, statements.placed
    assert placed is not None
    yield sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
    yield _TRUST_NO_PATH
    names = names_of(schema, prefix, placed)
    yield sql.SQL(_STAYS).format(**names)
    if not (yield sql.SQL(_IS_HERE).format(**names))[0][0]:
        raise errors.ReadOnlySqlTransaction("this shard has moved to another server")
    found = inspection.inspection_of((yield inspection.query(schema, prefix, placed=placed)))
    if not any(map(found.missing, ("table", "function", "trigger"))):
        return False
    yield from _creating(schema, prefix, (), placed=placed)
    yield render(
        _RAISE_TOKENS,
        names | {"nobody": sql.Literal(_NOBODY), "now": render("{us(clock_timestamp())}", names)},
    )
    return True


def moved_tables(schema: str, prefix: str) -> list[sql.Composed]:
    """Return the statements that make, in a schema of Citus, the tables that it moves; it takes them one by one."""
    names = names_of(schema, prefix)
    templates = [migration.template for migration in _migrations()]
    return [render(statement, names) for template in templates for statement in moved_part(template)]


# ---- drop ----

_NUMBER = re.compile(r"_\d+$")  # of a function's text
_TAKEN = """SELECT p.oid::regprocedure::text FROM pg_proc p
    WHERE p.pronamespace = {schema}::regnamespace AND p.proowner = {owner}::regrole AND p.prokind = 'f'
    AND regexp_replace(p.proname, '_[0-9]+$', '') = ANY ({names}) ORDER BY 1"""


def _dropping(schema: str, prefix: str) -> _Steps[list[str]]:
    yield sql.SQL("SET TRANSACTION ISOLATION LEVEL READ COMMITTED READ WRITE")
    yield _TRUST_NO_PATH
    yield sql.SQL("SET LOCAL lock_timeout = {}").format(sql.Literal(1000 * _LOCK_TIMEOUT))
    existing = yield _existing(schema, prefix)
    owner = _owner(schema, prefix, existing)
    if owner is None:
        return []
    names = names_of(schema, prefix)
    there = {name for name, *_ in existing}
    tables = [
        names[short] for short, name in RELATIONS.items() if short != "fencing" and prefix + name in there
    ]
    query = sql.SQL(_TAKEN).format(
        schema=sql.Literal(sql.Identifier(schema).as_string()),
        owner=sql.Literal(sql.Identifier(owner).as_string()),
        names=_array_of(prefix + _NUMBER.sub("", name) for name in FUNCTIONS.values()),
    )
    functions = [sql.SQL(label) for (label,) in (yield query)]
    fencing = [names["fencing"]] if prefix + RELATIONS["fencing"] in there else []
    domains = [names[short] for short, name in DOMAINS.items() if prefix + name in there]
    yield sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(owner))
    kinds = (("TABLE", tables), ("SEQUENCE", fencing), ("DOMAIN", domains), ("FUNCTION", functions))
    for kind, things in kinds:
        if things:
            yield sql.SQL(f"DROP {kind} {{}}").format(sql.SQL(", ").join(things))
    return [thing.as_string() for thing in (*tables, *fencing, *domains, *functions)]


# ---- what there is ----


def _existing(schema: str, prefix: str, placed: Placed | None = None) -> sql.Composed:
    return sql.SQL(file("existing.sql")).format(
        schema=sql.Literal(schema),
        relations=_array_of(
            name for own, name in relations_of(schema, prefix, placed).values() if own == schema
        ),
        domains=_array_of(prefix + name for name in DOMAINS.values()),
        functions=_array_of(functions_of(prefix, placed).values()),
    )


def _array_of(names: Iterable[str]) -> sql.Composed:
    return sql.SQL("ARRAY[{}]::name[]").format(sql.SQL(", ").join(map(sql.Literal, names)))


def _owner(schema: str, prefix: str, existing: _Rows) -> str | None:
    """Return the role to which all belongs that has our names, or None where there is nothing.

    Raises:
        SchemaError: Some of it is not ours, or belongs to a role that we are not.
    """
    owners: dict[str, str] = {name: owner for name, owner, _, has_versions, _ in existing if has_versions}
    versions = prefix + RELATIONS["versions"]
    if versions not in owners:
        if existing:
            found = ", ".join(dict.fromkeys(f"{schema}.{name}" for name, *_ in existing))
            raise SchemaError(
                f"{found} exists already and was not made by pgsession; nothing was changed. Choose another"
                " schema_name or table_prefix"
            )
        return None
    for name, owner, is_ours, _, user in existing:
        if not is_ours:
            again = command(schema, prefix, user)
            raise SchemaError(
                f"{schema}.{name} belongs to role {owner!r}, and {user!r} is no member of that; nothing was changed."
                f" Where {owner!r} is to own the tables of pgsession, run `{again}` as {owner!r}; else choose another"
                " schema_name or table_prefix"
            )
        if owner != owners[versions]:
            raise SchemaError(
                f"{schema}.{name} belongs to role {owner!r}, but {schema}.{versions} to {owners[versions]!r}; nothing"
                " was changed. Give them one owner"
            )
    return owners[versions]


# Another one may have been first.
_EXISTS = (
    errors.UniqueViolation,
    errors.DuplicateSchema,
    errors.DuplicateTable,
    errors.DuplicateFunction,
    errors.DuplicateObject,
)


def _explained(error: psycopg.Error, schema: str, prefix: str) -> Exception:
    """Return a `SchemaError` where the error says something about the schema, else the error itself."""
    reason = (error.diag.message_primary or str(error)).strip()
    if isinstance(error, errors.InsufficientPrivilege):
        return SchemaError(
            f"the database role may not do this: {reason}; nothing was changed. Run"
            f" `{command(schema, prefix)}` as a role that may create in schema {schema!r}, or grant that right"
        )
    if isinstance(error, _EXISTS):
        return SchemaError(
            f"{reason} and was not made by pgsession; nothing was changed. Choose another schema_name or table_prefix"
        )
    if isinstance(error, errors.LockNotAvailable):
        return SchemaError(
            f"somebody has locked {_tables(schema, prefix)} for more than {_LOCK_TIMEOUT} s ({reason}); nothing was"
            " changed. Run it again, or end the transaction that holds the lock"
        )
    if isinstance(error, errors.DependentObjectsStillExist):
        return SchemaError(f"{reason}: {error.diag.message_detail}; nothing was dropped. Drop that first")
    if isinstance(error, errors.UndefinedObject):
        return SchemaError(f"{reason}; nothing was changed")
    if isinstance(error, errors.ReadOnlySqlTransaction):
        return SchemaError(f"the server is read-only ({reason}): nothing can be created on a standby")
    return error
