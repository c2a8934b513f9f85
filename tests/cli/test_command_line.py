"""What holds for every command: where the database is, what an error looks like, and the exit status."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgsession
from pgsession._database import overview
from pgsession.cli import cli
from tests.fault_proxy import FaultProxy
from tests.tables import Tables

from .conftest import Run


def leaves(group: click.Group = cli, *path: str) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from leaves(command, *path, name)
        else:
            yield (*path, name), command


NEEDED = {
    "show": ["00000000-0000-0000-0000-000000000001"],
    "break": ["r"],
    "revoke": ["--user", "u"],
    "drop": ["--yes"],
}
ABOUT_TABLES = [
    path
    for path, command in leaves()
    if path[0] != "move" and any(p.name == "database" for p in command.params)
]


def test_each_command_is_on_both_programs() -> None:
    environment = {**os.environ, "NO_COLOR": "1"}
    program = Path(sys.executable).with_name("pgsession.exe" if sys.platform == "win32" else "pgsession")
    said = {
        subprocess.run(
            [*command, "--help"], capture_output=True, env=environment, check=True, timeout=60
        ).stdout
        for command in ([program], [sys.executable, "-m", "pgsession"])
    }
    assert len(said) == 1


@pytest.mark.parametrize("path", ABOUT_TABLES, ids=" ".join)
def test_no_command_takes_a_password_for_everybody_to_read(run: Run, path: tuple[str, ...]) -> None:
    for given in ("postgresql://app:geheim@db/app", "host=db password=geheim", "host=db sslpassword=geheim"):
        said = run(*path, *NEEDED.get(path[-1], []), given, status=2)
        assert "DATABASE: must have no password" in said.err and "geheim" not in said.err
        assert said.err.count("\n") == 1
    said = run(*path, *NEEDED.get(path[-1], []), "geheim", status=2)
    assert "geheim" not in said.err


def test_nor_does_the_other_store(run: Run) -> None:
    said = run("move", "starsessions", "--redis", "redis://:geheim@cache/0", status=2)
    assert "--redis: must have no password" in said.err and "geheim" not in said.err


@pytest.mark.parametrize("path", ABOUT_TABLES, ids=" ".join)
def test_a_database_that_does_not_answer(
    run: Run, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the argument, which comes before the environment."""
    if path == ("doctor",):  # to which that is a finding
        return
    arguments = [*path, *NEEDED.get(path[-1], []), "host=/nowhere dbname=x"]
    said = run(*arguments, status=4)
    assert said.err.startswith("pgsession: the database does not answer: ") and said.err.count("\n") == 1
    said = run(*arguments, "--json", status=4)
    assert said.out == ""
    assert json.loads(said.err)["error"] | {"message": ""} == {
        "status": 4,
        "kind": "no_answer",
        "message": "",
        "shards": None,
    }


@pytest.mark.parametrize("path", ABOUT_TABLES, ids=" ".join)
def test_tables_that_are_not_there(run: Run, path: tuple[str, ...]) -> None:
    if path in (("init",), ("drop",), ("doctor",)):
        return
    said = run(*path, *NEEDED.get(path[-1], []), status=1)
    assert "there are no tables of pgsession" in said.err and "pgsession init" in said.err
    assert said.err.count("\n") == 1


def test_where_the_database_is(run: Run, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    known = {name: str(value) for name, value in conninfo_to_dict(dsn).items() if value}
    password = known.pop("password", None)
    if password:
        monkeypatch.setenv("PGPASSWORD", password)
    run("init", make_conninfo(**known), database=None)
    assert run("sessions", "count", database=dsn).err == ""
    monkeypatch.setenv("PGSESSION_DSN", dsn)
    said = run("sessions", "count", database=None)
    assert (
        said.out == "0\n" and said.err == "PGSESSION_DSN is the old name of PGSESSION_DATABASE: rename it\n"
    )
    monkeypatch.delenv("PGSESSION_DSN")
    for name, value in known.items():
        monkeypatch.setenv({"dbname": "PGDATABASE"}.get(name, f"PG{name.upper()}"), value)
    assert run("sessions", "count", database=None).out == "0\n"


def test_a_service_file_says_where(
    run: Run, dsn: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run("init")
    known = conninfo_to_dict(dsn)
    lines = [f"{name}={value}" for name, value in known.items() if value and name != "options"]
    (tmp_path / "services").write_text("\n".join(["[web]", *lines]) + "\n")
    monkeypatch.setenv("PGSERVICEFILE", str(tmp_path / "services"))
    assert run("sessions", "count", "service=web", database=None).out == "0\n"


def test_where_the_tables_are(run: Run, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init", "--table-prefix", "x_")
    monkeypatch.setenv("PGSESSION_TABLE_PREFIX", "x_")
    assert run("sessions", "count").out == "0\n"
    assert run("sessions", "count", "--table-prefix", "y_", status=1)


def test_a_wrong_argument_is_said_in_one_line(run: Run) -> None:
    for arguments, words in (
        (("sessions", "list", "--limit", "0"), "--limit"),
        (("sessions", "list", "--older-than", "long"), "--older-than: a duration (seconds, or ISO 8601"),
        (("sessions", "list", "--older-than", "-1"), "--older-than"),
        (("sessions", "list", "--timeout", "0"), "--timeout"),
        (("no-such-command",), "no-such-command"),
        (("sessions", "list", "--no-such-option"), "--no-such-option"),
    ):
        said = run(*arguments, status=2)
        assert words in said.err and said.err.count("\n") == 1 and "--help` tells more" in said.err
        assert json.loads(run(*arguments, "--json", status=2).err)["error"]["kind"] == "usage"
    assert "Commands:" in run(status=2).err
    assert run("--version").out.startswith("pgsession ")


def test_a_variable_for_a_field_that_breaks_its_rule(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGSESSION_OPERATION_TIMEOUT", "soon")
    assert "PGSESSION_OPERATION_TIMEOUT" in run("sessions", "count", status=2).err


def test_a_silent_server_is_not_waited_for(run: Run, dsn: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run("init")
    with FaultProxy(dsn) as way:
        query = overview.query

        def freeze(schema: str, prefix: str) -> sql.Composed:
            way.freeze()
            return query(schema, prefix)

        monkeypatch.setattr(overview, "query", freeze)
        said = run("stats", "--timeout", "0.3", database=way.conninfo, status=4)
        assert "did not answer in time" in said.err and "--timeout" in said.err
        said = run("stats", "--timeout", "2", database=way.conninfo, status=4)  # it does not let in, either
        assert said.err.count("\n") == 1


def test_somebody_else_who_has_locked_the_tables(run: Run, tables: Tables, dsn: str) -> None:
    run("init")
    with psycopg.connect(dsn) as connection:
        connection.execute(tables.query("LOCK TABLE {sessions}"))
        for path in (("sessions", "count"), ("stats",)):
            said = run(*path, "--timeout", "0.5", status=4)
            assert said.err.count("\n") == 1


def test_a_write_of_unknown_outcome_has_a_status_of_its_own(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lost(self: pgsession.Admin, resource: str) -> bool:
        raise pgsession.WriteOutcomeUnknown("the connection was lost") from psycopg.OperationalError("gone")

    monkeypatch.setattr(pgsession.Admin, "break_lock", lost)
    said = run("locks", "break", "r", status=5)
    assert "it is not known whether it was done" in said.err and "(gone)" in said.err


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_an_interrupt_ends_it_in_one_line(dsn: str, schema: str, tables: Tables, run: Run) -> None:
    run("init")
    command = [sys.executable, "-m", "pgsession", "sessions", "count", "--timeout", "60"]
    environment = {**os.environ, "PGSESSION_DATABASE": dsn, "PGSESSION_SCHEMA_NAME": schema}
    with psycopg.connect(dsn) as connection:
        connection.execute(tables.query("LOCK TABLE {sessions}"))
        with subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        ) as process:
            until_it_waits(dsn, schema)
            process.send_signal(signal.SIGINT)
            out, err = process.communicate(timeout=30)
    assert (process.returncode, out) == (130, "")
    assert err.strip().splitlines() == ["interrupted"]


def until_it_waits(dsn: str, schema: str) -> None:
    from tests.fault.nodes import until

    def waits() -> bool:
        with psycopg.connect(dsn) as connection:
            query = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
            return bool(connection.execute(query, [f"%{schema}%"]).fetchall())

    until(waits, "the command to wait")


def test_a_reader_that_has_gone_ends_it_without_a_word(run: Run, dsn: str, schema: str) -> None:
    run("init")
    environment = {**os.environ, "PGSESSION_DATABASE": dsn, "PGSESSION_SCHEMA_NAME": schema}
    for options in ([], ["--json"], ["--help"]):
        command = [sys.executable, "-m", "pgsession", "sessions", "list", *options]
        read, write = os.pipe()
        os.close(read)
        try:
            done = subprocess.run(
                command, env=environment, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60
            )
        finally:
            os.close(write)
        assert (done.returncode, done.stderr) == (141, ""), options


def test_the_library_does_not_import_the_command_line() -> None:
    program = "import sys, pgsession; print({'click', 'rich', 'pgsession.cli'} & set(sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "set()\n"
