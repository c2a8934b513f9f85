"""A service's role can do all that a manager does, and nothing more; what it lacks is found by `open()`."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pgsession
from pgsession import schema as module
from pgsession.__main__ import main
from pgsession._database.statements import NIL, Statements
from pgsession._database.templates import FUNCTIONS
from tests.leftovers import UNRELEASED
from tests.roles import Roles


@pytest.fixture
def init(roles: Roles, schema: str, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """`init("--grant-to", "app")`, as the owner; what it says."""

    def run(*options: str, kind: str = "owner") -> str:
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv("PGSESSION_DATABASE", roles.dsn(kind))
            status = main(["init", "--schema-name", schema, *options])
        said = capsys.readouterr()
        assert status == 0, said.err
        return said.out

    return run


def lacks(roles: Roles, schema: str) -> str:
    """What opening says."""
    with pytest.raises(pgsession.SchemaError) as refused:
        with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)):
            pass
    return str(refused.value)


def catalog(roles: Roles, schema: str) -> list[tuple[Any, ...]]:
    """Every right on what is in the schema, and every trigger."""
    return roles.execute(
        "owner",
        f"SELECT relname::text, relacl::text, oid FROM pg_class WHERE relnamespace = '{schema}'::regnamespace"
        f" UNION ALL SELECT proname, proacl::text, oid FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace"
        " UNION ALL SELECT t.tgname, t.tgenabled::text, t.oid FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid"
        f" WHERE c.relnamespace = '{schema}'::regnamespace"
        f" UNION ALL SELECT nspname, nspacl::text, oid FROM pg_namespace WHERE nspname = '{schema}' ORDER BY 1, 3",
    )


def test_a_service_can_do_all_that_a_manager_does(
    roles: Roles, schema: str, init: Callable[..., str]
) -> None:
    assert f"granted to {roles.service}" in init("--grant-to", roles.service, "--grant-to", roles.operator)
    before = catalog(roles, schema)
    assert "nothing to do" in init("--grant-to", roles.service, "--grant-to", roles.operator)
    assert catalog(roles, schema) == before
    config = pgsession.Config(schema_name=schema, max_sessions=2, last_access_update_interval=0.05)
    with (
        pgsession.SessionManager(roles.dsn("service"), config) as node,
        pgsession.SessionManager(roles.dsn("operator"), config) as other,
    ):
        made = [node.create_session("ann", {"a": 1, "b": [1]}, group_id="g") for _ in range(3)]
        assert len(node.list_user_sessions("ann")) == len(node.list_group_sessions("g")) == 2
        session = other.get_session(made[2].id)
        assert session is not None
        session["b"].append(2)
        session.set("c", 1, expires_in=60)
        del session["a"]
        other.update_session(session, check="attributes")
        node.modify_session(made[2].id, lambda session: session.set("d", 1))
        read = node.get_session(made[2].id, refresh=True)
        assert read is not None and dict(read) == {"b": [1, 2], "c": 1, "d": 1}
        with node.lock("r", session_id=made[2].id, lease_time=20) as lock:
            lock.extend(30)
            assert not other.lock("r").acquire(blocking=False)
        assert node.delete_attribute_from_user_sessions("ann", "d") == 1
        node.clear_cache()
        node.evict_user_sessions("ann")
        assert node.delete_session(made[1].id) and node.delete_user_sessions("ann") == 1
        node.create_session("bob", group_id="g")
        assert node.delete_group_sessions("g") == 1
        node.create_session("bob")
        assert node.delete_all_sessions() == 1
        health = node.check_health()
        assert health.healthy, health
        assert node.stats().failed_writes == 0


def test_a_service_can_do_nothing_more(roles: Roles, schema: str, init: Callable[..., str]) -> None:
    init("--grant-to", roles.service)
    kinds = roles.execute(
        "owner",
        "SELECT relname, relkind::text FROM pg_class"
        f" WHERE relnamespace = '{schema}'::regnamespace AND relkind IN ('r', 'S')",
    )
    relations = dict(kinds)
    assert len(relations) == 9
    forbidden = [f"CREATE TABLE {schema}.mine ()", f"SELECT nextval('{schema}.session_fencing')"]
    forbidden += [f"SELECT secret FROM {schema}.session_incarnation"]
    for name in (name for name, kind in relations.items() if kind == "r"):
        table = f"{schema}.{name}"
        forbidden += [f"INSERT INTO {table} DEFAULT VALUES", f"DELETE FROM {table}", f"TRUNCATE {table}"]
        forbidden += [
            f"DO 'BEGIN LOCK TABLE {table} IN ROW EXCLUSIVE MODE; END'",
            f"ALTER TABLE {table} ADD COLUMN x int",
        ]
        forbidden += [f"CREATE TRIGGER t AFTER DELETE ON {table} EXECUTE FUNCTION {schema}.session_note_1()"]
        if name not in ("sessions", "session_attributes", "session_schema_version"):
            forbidden += [f"SELECT * FROM {table}"]
    for (call,) in roles.execute(
        "owner",
        "SELECT concat(oid::regproc, '(', array_to_string(ARRAY(SELECT 'NULL::' || format_type(t, NULL)"
        " FROM unnest(proargtypes) t), ', '), ')') FROM pg_proc"
        f" WHERE pronamespace = '{schema}'::regnamespace AND prorettype <> 'trigger'::regtype"
        f" AND NOT has_function_privilege('{roles.service}', oid, 'EXECUTE')",
    ):
        forbidden += [f"SELECT {call}"]
    assert len(forbidden) > 60
    for statement in forbidden:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            roles.execute("service", statement)


@UNRELEASED
def test_every_missing_right_is_named_at_once(roles: Roles, schema: str, init: Callable[..., str]) -> None:
    init()
    said = lacks(roles, schema)
    for name in ("USAGE ON SCHEMA", "session_attributes", "session_lock_acquire_1", "session_schema_version"):
        assert name in said
    assert f"as {roles.owner} run `python -m pgsession init --grant-to {roles.service}" in said
    (commands,) = re.findall(r"`(GRANT [^`]*)`", said)
    roles.execute("owner", commands)
    with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)) as node:
        assert node.lock("r").acquire(blocking=False)


def test_each_right_is_missed(roles: Roles, schema: str, init: Callable[..., str]) -> None:
    init()
    with pytest.raises(pgsession.SchemaError) as refused, psycopg.connect(roles.dsn("service")) as connection:
        module.check(connection, Statements(schema))
    (commands,) = re.findall(r"`(GRANT [^`]*)`", str(refused.value))
    roles.execute("owner", commands)
    parts = [
        f"{what} {name}"
        for command in commands.split("; ")
        for what, names in re.findall(r"GRANT (.* ON(?: FUNCTION| SCHEMA)?) (.*) TO ", command)
        for name in names.split(", ")
    ]
    assert len(parts) > 12
    with psycopg.connect(roles.dsn("service"), autocommit=True) as connection:
        module.check(connection, Statements(schema))
        for part in parts:
            roles.execute("owner", f"REVOKE {part} FROM {roles.service}")
            with pytest.raises(pgsession.SchemaError, match=re.escape(f"`GRANT {part} TO {roles.service}`")):
                module.check(connection, Statements(schema))
            roles.execute("owner", f"GRANT {part} TO {roles.service}")


def test_roles_and_tables_of_any_name(roles: Roles, schema: str, dsn: str) -> None:
    prefix, name = "we\"ird {}%s $1 '", f"App {{}}%s'\"{schema}"
    role = sql.Identifier(name)
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {}").format(role))
        try:
            with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
                module.create(connection, schema, prefix)
                admin.execute(sql.SQL("SET ROLE {}").format(role))
                with pytest.raises(pgsession.SchemaError) as refused:
                    module.check(admin, Statements(schema, prefix))
                assert "GRANT USAGE ON SCHEMA" in str(refused.value)
                assert len(module.create(connection, schema, prefix, grant_to=[name])) == 1
                module.check(admin, Statements(schema, prefix))
                assert "nothing to do" in module.create(connection, schema, prefix, grant_to=[name])[0]
        finally:
            admin.execute("RESET ROLE")
            admin.execute(sql.SQL("DROP OWNED BY {}; DROP ROLE {}").format(role, role))


def test_init_grants_what_is_left(roles: Roles, schema: str, init: Callable[..., str]) -> None:
    init("--grant-to", roles.service)
    roles.execute("owner", f"REVOKE SELECT ON {schema}.sessions FROM {roles.service}")
    assert f"granted to {roles.service}" in init("--grant-to", roles.service)
    assert "nothing to do" in init("--grant-to", roles.service)


def test_default_privileges_tell_nobody_the_secret(
    roles: Roles, schema: str, init: Callable[..., str]
) -> None:
    for place in ("", f"IN SCHEMA {schema}"):
        for what in ("TABLES", "FUNCTIONS"):
            others = f"{roles.service}, {roles.stranger}, PUBLIC"
            roles.execute("owner", f"ALTER DEFAULT PRIVILEGES {place} GRANT ALL ON {what} TO {others}")
    init("--grant-to", roles.service)
    roles.execute("owner", f"GRANT USAGE ON SCHEMA {schema} TO {roles.stranger}")
    for kind in ("service", "stranger"):
        for forbidden in ("SELECT secret FROM {}.session_incarnation", "DELETE FROM {}.session_incarnation"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                roles.execute(kind, forbidden.format(schema))
    callers = (
        "SELECT DISTINCT a.grantee::regrole::text FROM pg_proc p CROSS JOIN aclexplode(p.proacl) a"
        f" WHERE p.pronamespace = '{schema}'::regnamespace ORDER BY 1"
    )
    assert roles.execute("owner", callers) == [(roles.owner,), (roles.service,)]


def test_not_everybody_is_a_service(roles: Roles, schema: str) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        with pytest.raises(ValueError, match="grant_to: must be roles, not public"):
            module.create(connection, schema, grant_to=[roles.service, "public"])
    assert catalog(roles, schema)[1:] == []


def test_a_role_that_is_not_there_gets_nothing(roles: Roles, schema: str) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        with pytest.raises(
            pgsession.SchemaError, match=r'role "nobody_here" does not exist; nothing was changed'
        ):
            module.create(connection, schema, grant_to=["nobody_here"])
        with pytest.raises(pgsession.SchemaError, match="there are no tables"):
            module.check(connection, Statements(schema))


def test_who_may_not_grant_is_told(roles: Roles, schema: str, dsn: str) -> None:
    """PostgreSQL says it by a warning."""
    with psycopg.connect(dsn, autocommit=True) as admin:
        admin.execute(f"ALTER SCHEMA {schema} OWNER TO CURRENT_USER")  # type: ignore[arg-type]
        admin.execute(f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.owner}")  # type: ignore[arg-type]
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        with pytest.raises(
            pgsession.SchemaError, match=f"`GRANT USAGE ON SCHEMA {schema} TO {roles.service}`"
        ):
            module.create(connection, schema, grant_to=[roles.service])


def test_the_tables_of_an_owner_are_used_also_where_they_might_be_created(
    roles: Roles, schema: str, init: Callable[..., str]
) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    init()
    with pytest.raises(pgsession.SchemaError, match=f"init --grant-to {roles.service}.* as '{roles.owner}'"):
        with pgsession.SessionManager(roles.dsn("service"), config):
            pass
    init("--grant-to", roles.service)
    with pgsession.SessionManager(roles.dsn("service"), config) as node:
        node.create_session("ann")


TRIGGERS = [
    "ALTER TABLE {0}.sessions DISABLE TRIGGER USER",
    "ALTER TABLE {0}.sessions DISABLE TRIGGER USER; ALTER TABLE {0}.sessions ENABLE TRIGGER USER",  # as a dump does
    "ALTER TABLE {0}.session_locks ENABLE REPLICA TRIGGER pgsession_1_removed",
    "DROP TRIGGER pgsession_2_note ON {0}.sessions",
    "DROP FUNCTION {0}.session_note_1() CASCADE",
]


@pytest.mark.parametrize("change", TRIGGERS, ids=["disabled", "enabled", "replica", "dropped", "function"])
def test_a_trigger_that_does_not_fire_is_seen_and_mended(
    roles: Roles, schema: str, init: Callable[..., str], change: str
) -> None:
    init("--grant-to", roles.service)
    before = [(name, kind) for name, kind, _ in catalog(roles, schema)]
    roles.execute("owner", change.format(schema))
    said = lacks(roles, schema)
    assert "pgsession_" in said or "session_note_1" in said or "missing" in said
    assert f"as {roles.owner} run `python -m pgsession init --schema-name {schema}" in said
    init()
    assert "nothing to do" in init()
    with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)):
        pass
    assert [(name, kind) for name, kind, _ in catalog(roles, schema)] == before


def test_functions_that_everybody_may_call_are_seen_and_mended(
    roles: Roles, schema: str, init: Callable[..., str]
) -> None:
    init("--grant-to", roles.service)
    roles.execute("owner", f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO PUBLIC")
    assert "everybody may call functions of pgsession" in lacks(roles, schema)
    assert re.search(r"REVOKE EXECUTE ON FUNCTION .*session_note_1\(\).* FROM PUBLIC", init())
    with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)):
        pass


def test_all_that_is_wrong_is_said_at_once(roles: Roles, schema: str, init: Callable[..., str]) -> None:
    init("--grant-to", roles.service)
    roles.execute("owner", f"ALTER TABLE {schema}.sessions DISABLE TRIGGER pgsession_2_note")
    roles.execute("owner", f"GRANT EXECUTE ON FUNCTION {schema}.session_note_1 TO PUBLIC")
    roles.execute("owner", f"REVOKE SELECT ON {schema}.sessions FROM {roles.service}")
    roles.execute("owner", f"REVOKE ALL ON FUNCTION {schema}.session_write_1 FROM {roles.service}")
    said = lacks(roles, schema)
    for part in ("pgsession_2_note", "everybody", f"GRANT SELECT ON {schema}.sessions TO", "session_write_1"):
        assert part in said
    init("--grant-to", roles.service)
    with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)):
        pass


def test_where_nobody_may_sleep_many_sessions_are_deleted_without_rests(
    roles: Roles, dsn: str, schema: str, init: Callable[..., str]
) -> None:
    """As where EXECUTE on pg_sleep was taken from PUBLIC, against injected statements that take their time."""
    init("--grant-to", roles.service)
    with pgsession.SessionManager(
        roles.dsn("service"), pgsession.Config(schema_name=schema, max_sessions=0)
    ) as node:
        for _ in range(200):
            node.create_session("ann")
        with psycopg.connect(dsn) as connection, connection.transaction(force_rollback=True):
            connection.execute("REVOKE EXECUTE ON FUNCTION pg_sleep FROM PUBLIC")
            connection.execute(sql.SQL("SET LOCAL ROLE {}").format(sql.Identifier(roles.service)))
            call = sql.SQL("SELECT deleted FROM {}('node', 'user', 'ann', NULL, %s, 1000, false)")
            function = sql.Identifier(schema, FUNCTIONS["delete_many"])
            assert connection.execute(call.format(function), [NIL]).fetchone() == (200,)
