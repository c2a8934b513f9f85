"""Dumps, copies and TRUNCATE: what comes out is right, or a manager refuses it and says what to do."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession import schema as module
from tests.fault.nodes import until
from tests.roles import Roles

from .conftest import Database

Dump = Callable[..., str]
Load = Callable[..., None]


@pytest.fixture
def elsewhere(dsn: str, schema: str) -> Iterator[Callable[..., str]]:
    """`elsewhere()`: another database of the same server."""
    name = f"{schema}_2"
    with psycopg.connect(dsn, autocommit=True) as admin:

        def make() -> str:
            admin.execute(f"CREATE DATABASE {name}")  # type: ignore[arg-type]
            return make_conninfo(dsn, dbname=name)

        yield make
        admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")  # type: ignore[arg-type]


class Deployment:
    """Tables of an owner, used by a service, with two sessions in them."""

    def __init__(self, roles: Roles, dsn: str, schema: str) -> None:
        self.roles = roles
        self.dsn = dsn
        self.schema = schema
        self.init(dsn)
        with self.node(dsn) as node:
            self.sessions = [node.create_session("ann", {"n": n, "more": [n]}).id for n in range(2)]
            node.modify_session(self.sessions[0], lambda session: session.set("n", 5))
            with node.lock("r") as lock:
                self.token = lock.token
        self.incarnation = self.incarnation_of(dsn)
        self.secret = self.rows(dsn, "SELECT secret FROM {}.session_incarnation")

    def as_role(self, dsn: str, kind: str) -> str:
        return make_conninfo(dsn, options=f"-c role={getattr(self.roles, kind)}")

    def node(self, dsn: str, **fields: Any) -> pgsession.SessionManager:
        config = pgsession.Config(schema_name=self.schema, **fields)
        return pgsession.SessionManager(self.as_role(dsn, "service"), config)

    def rows(self, dsn: str, query: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(dsn, autocommit=True) as connection:
            cursor = connection.execute(query.format(self.schema))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def incarnation_of(self, dsn: str) -> Any:
        return self.rows(dsn, "SELECT incarnation FROM {}.session_incarnation")

    def init(self, dsn: str) -> None:
        self.rows(dsn, f"CREATE SCHEMA IF NOT EXISTS {{}} AUTHORIZATION {self.roles.owner}")
        with psycopg.connect(self.as_role(dsn, "owner"), autocommit=True) as connection:
            module.create(connection, self.schema, grant_to=[self.roles.service])

    def works(self, dsn: str, *, copied: bool = True) -> None:
        """All is there, plain SQL is heard, locks go on, and nothing is shared with where it came from."""
        with self.node(dsn) as node:
            for n, session_id in enumerate(self.sessions):
                session = node.get_session(session_id)
                assert session is not None and dict(session) == {"n": 5 if n == 0 else n, "more": [n]}
            assert node.check_health().healthy
            self.rows(dsn, "UPDATE {}.session_attributes SET value = '7' WHERE key = 'n'")
            until(lambda: dict(node.get_session(self.sessions[0]) or {})["n"] == 7, "plain SQL to be heard")
            with node.lock("r") as lock:
                assert lock.token > self.token
        if copied:
            assert self.incarnation_of(dsn) != self.incarnation
            assert self.rows(dsn, "SELECT secret FROM {}.session_incarnation") != self.secret


@pytest.fixture
def deployment(roles: Roles, dsn: str, schema: str) -> Deployment:
    return Deployment(roles, dsn, schema)


def test_a_whole_dump_in_another_database_of_the_server(
    deployment: Deployment, dsn: str, dump: Dump, load: Load, elsewhere: Callable[..., str]
) -> None:
    target = elsewhere()
    load(target, dump(dsn, f"--schema={deployment.schema}"))
    deployment.works(target)
    deployment.works(dsn, copied=False)


def test_a_whole_dump_in_place(deployment: Deployment, dsn: str, dump: Dump, load: Load) -> None:
    """A node that stays open meanwhile serves nothing of before: the versions of then are given out twice."""
    session_id = deployment.sessions[0]
    with deployment.node(dsn, max_staleness=1) as node:

        def n() -> Any:
            try:
                return dict(node.get_session(session_id) or {}).get("n")
            except (psycopg.Error, pgsession.PgSessionError):
                return None  # while there are no tables

        script = dump(dsn, f"--schema={deployment.schema}")
        node.modify_session(session_id, lambda session: session.set("n", 6))
        assert n() == 6
        deployment.rows(dsn, "DROP SCHEMA {} CASCADE")
        load(dsn, script)
        until(lambda: n() == 5, "the node to drop what it has")
        deployment.works(dsn)


def test_a_dump_without_owners_and_rights_is_refused_until_init(
    deployment: Deployment, dsn: str, dump: Dump, load: Load, elsewhere: Callable[..., str]
) -> None:
    """Whoever loads it owns it all, nobody was granted anything, and everybody may call the functions."""
    target = elsewhere()
    deployment.rows(target, f"CREATE SCHEMA {{}} AUTHORIZATION {deployment.roles.owner}")
    script = dump(dsn, "--no-owner", "--no-privileges", f"--schema={deployment.schema}")
    script = script.replace(f"CREATE SCHEMA {deployment.schema};", "")
    load(deployment.as_role(target, "owner"), script)
    with pytest.raises(
        pgsession.SchemaError, match=r"everybody may call.*GRANT USAGE ON SCHEMA.*as owner_\w+ run"
    ):
        with deployment.node(target):
            pass
    deployment.init(target)
    deployment.works(target)


def test_the_rows_alone_in_an_empty_schema(
    deployment: Deployment, dsn: str, dump: Dump, load: Load, elsewhere: Callable[..., str]
) -> None:
    target = elsewhere()
    deployment.init(target)
    load(target, dump(dsn, "--data-only", f"--schema={deployment.schema}"))
    deployment.works(target)


def test_the_rows_alone_of_a_newer_version_bring_no_version(
    deployment: Deployment, dsn: str, dump: Dump, load: Load
) -> None:
    deployment.rows(
        dsn, "SET pgsession.own = 'on'; INSERT INTO {}.session_schema_version VALUES (77, 'later', 1)"
    )
    script = dump(dsn, "--data-only", f"--table={deployment.schema}.session_schema_version")
    assert "\n77\t" in script
    deployment.rows(dsn, "DELETE FROM {}.session_schema_version WHERE version = 77")
    load(dsn, script)
    assert deployment.rows(dsn, "SELECT max(version) FROM {}.session_schema_version") == [(1,)]


def test_the_rows_alone_with_triggers_disabled_are_refused_until_init(
    deployment: Deployment, dsn: str, dump: Dump, load: Load, elsewhere: Callable[..., str]
) -> None:
    """Enabled again they are not enabled ALWAYS."""
    target = elsewhere()
    deployment.init(target)
    script = dump(dsn, "--data-only", "--disable-triggers", f"--schema={deployment.schema}")
    load(target, script, "-v", "ON_ERROR_STOP=0")  # the versions and buckets are there already
    with pytest.raises(
        pgsession.SchemaError, match=r"not enabled ALWAYS.*pgsession_2_note on .*as owner_\w+ run"
    ):
        with deployment.node(target):
            pass
    deployment.init(target)
    deployment.works(target)


def test_a_copy_by_template(roles: Roles, dsn: str, schema: str, elsewhere: Callable[..., str]) -> None:
    deployment = Deployment(roles, elsewhere(), schema)
    name = f"{schema}_3"
    deployment.rows(dsn, f"CREATE DATABASE {name} TEMPLATE {schema}_2")
    try:
        deployment.works(make_conninfo(dsn, dbname=name))
    finally:
        deployment.rows(dsn, f"DROP DATABASE {name} WITH (FORCE)")


@pytest.mark.parametrize("form", [[], ["--inserts"]])
def test_a_dump_of_the_rows_alone_is_loaded_in_any_order(
    database: Database, dump: Dump, load: Load, form: list[str]
) -> None:
    sessions = [database.create("ann", {"a": n, "b": [n]}, group="g") for n in range(3)]
    database.update(sessions[0], 1, {"a": "new"}, deletes=["b"])
    before = [database.read(session) or [] for session in sessions]
    script = dump(database.dsn, "--data-only", f"--schema={database.schema}", *form)
    assert script.index("app_session_attributes") < script.index("app_sessions ")
    database.execute("TRUNCATE app_sessions, app_session_attributes")
    load(database.dsn, script)
    for session, old in zip(sessions, before, strict=True):
        loaded = database.read(session)
        assert loaded is not None and (loaded[0], *loaded[2:11]) == (old[0], *old[2:11])
        version, owner_since = loaded[1], loaded[11]
        assert version == owner_since > old[1], "a row that was there before is another one now"
    assert database.execute("SELECT count(*), min(bucket), max(bucket) FROM app_session_user_buckets") == [
        (1025, -1, 1023)
    ]


def test_the_tables_are_truncated_in_one_statement(database: Database) -> None:
    database.create(attributes={"a": 1})
    database.execute("TRUNCATE app_sessions, app_session_attributes")
    database.create(attributes={"a": 1})
    database.execute("TRUNCATE app_session_attributes, app_sessions, app_session_locks")
    for table in ("app_sessions", "app_session_attributes"):
        assert database.execute(f"SELECT count(*) FROM {table}") == [(0,)]
