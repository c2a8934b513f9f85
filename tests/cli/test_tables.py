"""`init`, `check` and `drop`: what becomes of the tables, and what a rehearsal leaves as it was."""

from __future__ import annotations

from collections.abc import Callable

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.roles import Roles
from tests.tables import Tables

from .conftest import Run


def objects(tables: Tables) -> int:
    """How many relations, functions and domains are in the test's schema."""
    return int(
        tables.run(
            "SELECT (SELECT count(*) FROM pg_class c WHERE c.relnamespace = n.oid)"
            " + (SELECT count(*) FROM pg_proc p WHERE p.pronamespace = n.oid)"
            " + (SELECT count(*) FROM pg_type t WHERE t.typnamespace = n.oid AND t.typtype = 'd')"
            " FROM (SELECT %s::regnamespace AS oid) n",
            tables.schema,
        )[0][0]
    )


def test_a_dry_run_does_nothing_and_init_does_what_it_said(run: Run, tables: Tables, schema: str) -> None:
    rehearsed = run("init", "--dry-run", "--json").json
    assert rehearsed["dry_run"] and "applied migration 0001_tables" in rehearsed["done"]
    assert not tables.run("SELECT 1 FROM pg_namespace WHERE nspname = %s", schema)
    assert "of which this would be done:" in run("init", "--dry-run").out
    done = run("init", "--json").json
    assert done == rehearsed | {"dry_run": False}
    assert done["schema"] == schema and done["table_prefix"] == "" and done["sql"] is None
    assert run("init", "--json").json["done"] == ["nothing to do: the schema is at version 1"]


def test_the_script_is_for_psql(
    run: Run, dsn: str, roles: Roles, load: Callable[..., None], schema: str
) -> None:
    """What it makes, a service can work with."""
    owner = roles.dsn("owner")
    script = run("init", "--sql", "--grant-to", roles.service, database=owner).out
    assert script.startswith("BEGIN;") and script.endswith("COMMIT;\n")
    run("check", database=owner, status=1)
    load(owner, script, "-v", "ON_ERROR_STOP=1")
    assert run("init", "--json", "--grant-to", roles.service, database=owner).json["done"] == [
        "nothing to do: the schema is at version 1"
    ]
    said = run("check", "--json", database=roles.dsn("service")).json
    assert said["well"] and said["schema"] == schema
    with pgsession.SessionManager(roles.dsn("service"), pgsession.Config(schema_name=schema)) as manager:
        assert manager.create_session("u")


def test_check_names_what_is_wrong_and_the_remedy(run: Run, tables: Tables, roles: Roles) -> None:
    said = run("check", status=1)
    assert "there are no tables of pgsession" in said.err and "pgsession init" in said.err
    assert said.out == "" and said.err.count("\n") == 1
    run("init", database=roles.dsn("owner"))
    assert "well" in run("check", database=roles.dsn("owner")).out
    assert f"--grant-to {roles.service}" in run("check", database=roles.dsn("service"), status=1).err


def test_drop_asks_and_takes_everything_of_ours_alone(run: Run, tables: Tables, roles: Roles) -> None:
    owner = roles.dsn("owner")
    run("init", "--grant-to", roles.service, database=owner)
    ours = objects(tables)
    with psycopg.connect(owner, autocommit=True) as connection:
        for statement in (
            "CREATE TABLE {}.mine (id int)",
            "CREATE FUNCTION {}.session_mine_1() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            # As an older library has left it.
            "CREATE FUNCTION {}.session_send_0() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        ):
            connection.execute(sql.SQL(statement).format(sql.Identifier(tables.schema)))
    assert "there is no terminal to ask at: say --yes" in run("drop", database=owner, status=2).err
    dry = run("drop", "--dry-run", "--json", database=owner).json
    assert objects(tables) == ours + 3
    assert dry["dry_run"] and f"{tables.schema}.session_send_0()" in dry["dropped"]
    assert run("drop", "--yes", "--json", database=owner).json == dry | {"dry_run": False}
    assert objects(tables) == 2
    assert "nothing to drop" in run("drop", "--yes", database=owner).out
    assert run("drop", "--yes", "--json", database=owner).json["dropped"] == []


def test_drop_leaves_what_something_depends_on(run: Run, tables: Tables) -> None:
    run("init")
    tables.run("CREATE VIEW {schema}.mine AS SELECT id FROM {sessions}")
    before = objects(tables)
    said = run("drop", "--yes", status=1)
    assert "nothing was dropped" in said.err and "mine" in said.err and objects(tables) == before


def test_drop_is_the_owners(run: Run, tables: Tables, roles: Roles) -> None:
    run("init", database=roles.dsn("owner"))
    before = objects(tables)
    for kind in ("stranger", "service", "operator"):
        run("drop", "--yes", database=roles.dsn(kind), status=1)
    assert objects(tables) == before


@pytest.mark.parametrize(("answer", "status"), [("y\n", 0), ("n\n", 130), ("", 130)])
def test_the_answer_counts(
    run: Run, tables: Tables, monkeypatch: pytest.MonkeyPatch, answer: str, status: int
) -> None:
    run("init")
    before = objects(tables)
    with Terminal(answer, monkeypatch):
        said = run("drop", status=status)
    assert "drop the tables, with every session in them?" in said.err
    assert objects(tables) == (0 if status == 0 else before)


class Terminal:
    """A person at the keyboard, who types that."""

    def __init__(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        import io
        import sys

        keyboard = io.TextIOWrapper(io.BytesIO(text.encode()))
        keyboard.isatty = lambda: True  # type: ignore[method-assign]
        monkeypatch.setattr(sys, "stdin", keyboard)

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...
