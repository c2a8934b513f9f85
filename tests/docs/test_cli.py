"""The page about the command line is what the commands are, and what it shows is run."""

from __future__ import annotations

import re
import shlex

import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgsession
from pgsession._protocol.diagnosis import causes
from pgsession.cli import cli, main
from pgsession.cli._failures import Status
from tools import reference_pages

PAGE = (reference_pages.DOCS / "cli.md").read_text(encoding="utf-8")
NO_RIGHTS = {"move", "completion", "plan", "arena"}  # of their own: a service's, or none


def test_every_exit_status_is_explained() -> None:
    rows = dict(re.findall(r"^\| (\d+) \| (?:`(\w+)`)? ?\|", PAGE, re.MULTILINE))
    silent = {Status.WELL, Status.READER_GONE}  # of which nothing is said as an error
    assert rows == {str(int(status)): "" if status in silent else status.name.lower() for status in Status}
    for status in set(Status) - {Status.READER_GONE}:
        assert f" {int(status)} " in f" {cli.help} ".replace(";", " ").replace(".", " ").replace("\n", " ")


def test_the_commands_that_are_shown(
    dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    script, asking, watching, _ = re.findall(r"^```sh\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    monkeypatch.setenv("PGSESSION_DATABASE", dsn)
    monkeypatch.setenv("PGSESSION_SCHEMA_NAME", schema)
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with pgsession.SessionManager(dsn, config) as node:
        node.create_session("alice")
        lock = node.lock("nightly-report")
        assert lock.acquire()
        lines = [shlex.split(line, comments=True) for line in script.splitlines()]
        assert lines[0][0] == "export"
        for program, *arguments in lines[1:]:
            assert program == "pgsession"
            assert main(arguments) == 0, (arguments, capsys.readouterr())
        assert node.count_sessions() == 0
        for program, *arguments in (shlex.split(line) for line in asking.splitlines()[1:]):
            assert program == "pgsession"
            if "--listener-conninfo" in arguments:
                arguments[-1] = without_password(dsn, monkeypatch)
            assert main(arguments) == 0, (arguments, capsys.readouterr())
        for program, *arguments in map(shlex.split, watching.splitlines()):
            assert program == "pgsession"
            arguments[arguments.index("--seconds") + 1] = "0.1"
            assert main(arguments) == 0, (arguments, capsys.readouterr())
        with pytest.raises(pgsession.LockError):
            lock.release()


def without_password(dsn: str, monkeypatch: pytest.MonkeyPatch) -> str:
    known = conninfo_to_dict(dsn)
    if (password := known.pop("password", None)) is not None:
        monkeypatch.setenv("PGPASSWORD", str(password))
    return make_conninfo("", **known)


def test_every_cause_is_explained() -> None:
    table = PAGE.partition("## Doctor")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    assert [name for cell in cells for name in re.findall(r"`([^`]*)`", cell)] == list(causes())


def test_each_command_says_what_its_role_needs() -> None:
    table = PAGE.partition("## What a role may")[2].partition("\n## ")[0]
    cells = re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
    named = [name for cell in cells for name in re.findall(r"`([^`]*)`", cell)]
    there = [name for name, _ in reference_pages.commands() if name.split()[0] not in NO_RIGHTS]
    assert sorted(named) == sorted(there)
