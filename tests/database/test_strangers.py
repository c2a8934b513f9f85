"""`init` uses nothing of a stranger's, waits for nothing that a stranger can hold, and acts for the tables' owner."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession import schema as module
from pgsession._database.statements import Statements
from tests.roles import Roles

VERSIONS = (
    "CREATE TABLE {schema}.session_schema_version (version integer PRIMARY KEY, name text NOT NULL,"
    " serves_from integer NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
)
TRAP = (
    "CREATE TABLE {schema}.caught (who name);"
    "CREATE FUNCTION {schema}.trap() RETURNS trigger LANGUAGE plpgsql AS $$"
    " BEGIN INSERT INTO {schema}.caught VALUES (current_user); RETURN NEW; END $$;"
)


def all_steps(connection: psycopg.Connection[Any], schema: str) -> None:
    """What `create` does, but for its commit."""
    steps = module._creating(schema, "", ())
    query = next(steps)
    try:
        while True:
            cursor = connection.execute(query)
            query = steps.send(cursor.fetchall() if cursor.description else [])
    except StopIteration:
        pass


@pytest.mark.parametrize(
    "made",
    [
        VERSIONS + "; CREATE TRIGGER t BEFORE INSERT ON {schema}.session_schema_version"
        " FOR EACH ROW EXECUTE FUNCTION {schema}.trap()",
        VERSIONS + "; INSERT INTO {schema}.session_schema_version VALUES (1, '0001_tables', 1)",
        "CREATE FUNCTION {schema}.session_raise_version_1() RETURNS trigger LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO {schema}.caught VALUES (current_user); RETURN NEW; END $$",
        "CREATE VIEW {schema}.session_schema_version AS SELECT 1 AS version",
        "CREATE FUNCTION {schema}.caught(timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$"
        " BEGIN INSERT INTO {schema}.caught VALUES (current_user); RETURN true; END $$"
        "; CREATE DOMAIN {schema}.session_time AS timestamptz CHECK ({schema}.caught(VALUE))",
    ],
    ids=["trigger", "versions", "function", "view", "domain"],
)
@pytest.mark.parametrize("who", ["superuser", "owner"])
def test_what_a_stranger_has_made_is_refused(
    roles: Roles, dsn: str, schema: str, made: str, who: str
) -> None:
    roles.execute("owner", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}")
    roles.execute("stranger", (TRAP + made).format(schema=schema))
    with psycopg.connect(dsn if who == "superuser" else roles.dsn("owner"), autocommit=True) as connection:
        with pytest.raises(pgsession.SchemaError, match=f"{schema}.session_.*nothing was changed"):
            module.create(connection, schema)
    assert roles.execute("stranger", f"SELECT * FROM {schema}.caught") == []


@pytest.mark.parametrize(
    "change",
    [
        "ALTER FUNCTION {schema}.session_note_1 OWNER TO {stranger}",
        "ALTER TABLE {schema}.session_locks OWNER TO {stranger}",
        "ALTER DOMAIN {schema}.session_time OWNER TO {stranger}",
        "CREATE FUNCTION {schema}.session_write_1(text) RETURNS text LANGUAGE sql AS 'SELECT 1'"
        "; ALTER FUNCTION {schema}.session_write_1(text) OWNER TO {stranger}",
        "ALTER FUNCTION {schema}.session_note_1 OWNER TO {operator}",
    ],
)
def test_what_is_ours_has_one_owner(roles: Roles, dsn: str, schema: str, change: str) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        module.create(connection, schema)
        with psycopg.connect(dsn, autocommit=True) as admin:
            admin.execute(f"GRANT CREATE ON SCHEMA {schema} TO {roles.stranger}, {roles.operator}")  # type: ignore[arg-type]
            admin.execute(f"GRANT {roles.operator} TO {roles.owner}")  # type: ignore[arg-type]
            admin.execute(change.format(schema=schema, stranger=roles.stranger, operator=roles.operator))  # type: ignore[arg-type]
        with pytest.raises(
            pgsession.SchemaError, match=f"belongs to role '({roles.stranger}|{roles.operator})'"
        ):
            module.create(connection, schema)


@pytest.mark.parametrize(
    "made",
    [
        "CREATE TABLE {schema}.session_user_buckets (bucket integer PRIMARY KEY); CREATE TRIGGER pgsession_1_loaded"
        " BEFORE INSERT ON {schema}.session_user_buckets FOR EACH ROW EXECUTE FUNCTION {schema}.trap();"
        " ALTER TABLE {schema}.session_user_buckets ENABLE ALWAYS TRIGGER pgsession_1_loaded",
        "CREATE VIEW {schema}.session_user_buckets AS SELECT 1 AS bucket",
    ],
    ids=["table", "view"],
)
def test_a_strangers_table_in_the_place_of_one_of_ours_is_seen(roles: Roles, schema: str, made: str) -> None:
    """Our functions would use it, and its triggers run with the rights of our owner."""
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        module.create(connection, schema, grant_to=[roles.service])
        connection.execute(f"DROP TABLE {schema}.session_user_buckets")  # type: ignore[arg-type]
        connection.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}")  # type: ignore[arg-type]
    roles.execute("stranger", (TRAP + made).format(schema=schema))
    with psycopg.connect(roles.dsn("service"), autocommit=True) as connection:
        with pytest.raises(pgsession.SchemaError, match=f"missing, or not {roles.owner}'s: buckets"):
            module.check(connection, Statements(schema))


def test_tables_that_a_stranger_has_made_in_whole_are_not_used(roles: Roles, dsn: str, schema: str) -> None:
    """He comes before the first `init`: what a service then calls would be his functions."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"GRANT USAGE ON SCHEMA {schema} TO {roles.service}")  # type: ignore[arg-type]
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}, {roles.operator}")  # type: ignore[arg-type]
        with psycopg.connect(roles.dsn("stranger"), autocommit=True) as connection:
            module.create(connection, schema, grant_to=[roles.service])
        with psycopg.connect(roles.dsn("service"), autocommit=True) as connection:
            with pytest.raises(
                pgsession.SchemaError, match=f"role {roles.stranger}, and may have been put there"
            ):
                module.check(connection, Statements(schema))
            admin.execute(f"REVOKE CREATE ON SCHEMA {schema} FROM {roles.operator}")  # type: ignore[arg-type]
            module.check(
                connection, Statements(schema)
            )  # whom the schema's owner lets create, and nobody else
    with psycopg.connect(roles.dsn("stranger"), autocommit=True) as connection:
        assert "nothing to do" in module.create(connection, schema)[0], "he may use his own"


def test_a_membership_that_somebody_forces_on_it_changes_nothing(roles: Roles, dsn: str, schema: str) -> None:
    """Whoever may grant a role makes its members by that; `init` would make all tables that role's."""
    roles.execute("owner", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}")
    roles.execute("stranger", VERSIONS.format(schema=schema))
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"GRANT {roles.stranger} TO {roles.service}")  # type: ignore[arg-type]
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.service}")  # type: ignore[arg-type]
    with psycopg.connect(roles.dsn("service"), autocommit=True) as connection:
        with pytest.raises(pgsession.SchemaError, match="may have been put there by a stranger"):
            module.create(connection, schema)
    assert roles.execute("stranger", f"SELECT * FROM {schema}.session_schema_version") == []


def test_a_superuser_is_told_to_be_the_owner(roles: Roles, dsn: str, schema: str) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        module.create(connection, schema)
    with psycopg.connect(dsn, autocommit=True) as admin:
        with pytest.raises(pgsession.SchemaError, match=f"is no member of that.* as '{roles.owner}'"):
            module.create(admin, schema)


def test_a_member_acts_for_the_owner(roles: Roles, dsn: str, schema: str) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        module.create(connection, schema)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"GRANT {roles.owner} TO {roles.operator}")  # type: ignore[arg-type]
        admin.execute(f"DROP FUNCTION {schema}.session_hold_1")  # type: ignore[arg-type]
    with psycopg.connect(roles.dsn("operator"), autocommit=True) as connection:
        assert module.create(connection, schema) == ["created 1 function"]
        assert connection.execute("SELECT current_user").fetchone() == (roles.operator,)
        module.check(connection, Statements(schema))
    owners = (
        f"SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace"
    )
    assert roles.execute("owner", owners) == [(roles.owner,)]


def test_nobody_without_rights_can_hold_it_up(roles: Roles, schema: str) -> None:
    """As he could with an advisory lock, whose key is in pg_locks."""
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        module.create(connection, schema, grant_to=[roles.service])
        tables = connection.execute(
            f"SELECT relname FROM pg_class WHERE relnamespace = '{schema}'::regnamespace AND relkind = 'r'"  # type: ignore[arg-type]
        ).fetchall()
        for kind in ("stranger", "service"):
            with psycopg.connect(roles.dsn(kind), autocommit=True) as holder:
                for (table,) in tables:
                    with pytest.raises(psycopg.errors.InsufficientPrivilege), holder.transaction():
                        holder.execute(f"LOCK TABLE {schema}.{table} IN ROW EXCLUSIVE MODE")  # type: ignore[arg-type]
    with psycopg.connect(roles.dsn("owner")) as connection:
        all_steps(connection, schema)
        advisory = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND pid = pg_backend_pid()"
        assert connection.execute(advisory).fetchone() == (0,)


def test_a_lock_that_is_held_for_long_is_an_error(
    roles: Roles, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_LOCK_TIMEOUT", 0.1)
    with (
        psycopg.connect(roles.dsn("owner"), autocommit=True) as connection,
        psycopg.connect(roles.dsn("owner")) as holder,
    ):
        module.create(connection, schema)
        holder.execute(f"LOCK TABLE {schema}.session_schema_version")  # type: ignore[arg-type]
        with pytest.raises(pgsession.SchemaError, match="somebody has locked the tables"):
            module.create(connection, schema)


def test_of_two_at_first_the_second_waits_and_finds_all(roles: Roles, schema: str) -> None:
    """The second comes to its CREATE while the first has not committed: its wait is for that, then it looks again."""
    done: list[list[str]] = []
    with (
        psycopg.connect(roles.dsn("owner")) as first,
        psycopg.connect(roles.dsn("owner"), autocommit=True) as second,
        psycopg.connect(roles.dsn("owner"), autocommit=True) as watch,
    ):
        all_steps(first, schema)
        thread = threading.Thread(target=lambda: done.append(module.create(second, schema)))
        thread.start()
        waits = "SELECT FROM pg_locks WHERE NOT granted AND pid = %s"
        while not watch.execute(waits, (second.info.backend_pid,)).fetchall():
            assert thread.is_alive()
        first.commit()
        thread.join(30)
    assert done == [[f"nothing to do: the schema is at version {module.latest_version()}"]]


def test_eight_at_once(roles: Roles, schema: str) -> None:
    async def one() -> list[str]:
        async with await psycopg.AsyncConnection.connect(roles.dsn("owner"), autocommit=True) as connection:
            return await module.async_create(connection, schema, grant_to=[roles.service])

    async def eight() -> list[list[str]]:
        return await asyncio.gather(*(one() for _ in range(8)))

    done = asyncio.run(eight())
    assert sorted(len(lines) > 1 for lines in done) == [False] * 7 + [True]
