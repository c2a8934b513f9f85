"""`watch`, `secret rotate`, completion, and what a terminal gets: real processes, as at a shell."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

import pgsession
from pgsession._short_names import short_name
from pgsession.cli.watch import MOST, _row, _Said
from tests.fault.pgbouncer import PgBouncer
from tests.roles import Roles
from tests.tables import Tables

from .conftest import Run

PROGRAM = Path(sys.executable).with_name("pgsession.exe" if sys.platform == "win32" else "pgsession")


class Watcher:
    """A `watch` that listens already; `next()`: what it has said next."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        assert self.next()["kind"] == "listening"

    def next(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        assert line, self.process.communicate(timeout=30)
        row: dict[str, Any] = json.loads(line)
        return row

    def what(self, *fields: str) -> tuple[Any, ...]:
        row = self.next()
        return tuple(row[name] for name in fields)


@contextmanager
def watcher(dsn: str, schema: str, *options: str) -> Iterator[Watcher]:
    command = [sys.executable, "-m", "pgsession", "watch", "--json", "--seconds", "20", *options]
    environment = {**os.environ, "PGSESSION_DATABASE": dsn, "PGSESSION_SCHEMA_NAME": schema}
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Watcher(process)
        finally:
            process.kill()


@pytest.mark.skipif(sys.platform == "win32", reason="has no SIGINT to send")
def test_what_nodes_tell_each_other_is_seen(
    dsn: str, schema: str, node: pgsession.SessionManager, tables: Tables
) -> None:
    session = node.create_session("ann", group_id="g")
    short = short_name(session.id)
    with watcher(dsn, schema) as seen:
        session["n"] = 1
        node.update_session(session)
        row = seen.next()
        assert row["kind"] == "changed" and row["session"] == short and row["session_id"] is None
        assert row["version"] == session.version and len(row["node"]) == 16
        tables.run("UPDATE {sessions} SET group_id = 'h' WHERE id = %s", session.id)
        assert seen.what("kind", "session", "node") == ("changed", short, None)
        with node.lock(f"cart-{session.id}"):
            pass
        assert seen.what("kind", "resource") == ("lock_released", f"cart-{short}")
        node.delete_session(session.id)
        while (row := seen.next())["kind"] != "deleted":
            assert row["kind"] == "group_changed" or row["session"] == short
        assert row["session"] == short
        # The channel has another name then, and what comes on that is heard too.
        pgsession.Admin(dsn, pgsession.Config(schema_name=schema)).rotate_secret()
        assert seen.what("kind") == ("secret_rotated",)
        assert seen.what("kind") == ("listening",)
        node.clear_cache()
        assert seen.what("kind") == ("everything_changed",)
        seen.process.send_signal(signal.SIGINT)
        out, err = seen.process.communicate(timeout=30)
        assert (out, err, seen.process.returncode) == ("", "", 0)


def test_no_more_is_shown_than_can_be_read(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    second = 7.0
    monkeypatch.setattr(time, "monotonic", lambda: second)
    said = _Said(as_json=True)
    for _ in range(250):
        said.say(_row("changed", None))
    assert capsys.readouterr().out.count('"changed"') == MOST
    second = 8.0
    said.say(_row("deleted", None))
    said.tell_skipped()
    kinds = [(row["kind"], row["skipped"]) for row in map(json.loads, capsys.readouterr().out.splitlines())]
    assert kinds == [("skipped", 150), ("deleted", None)]


def test_it_ends_by_itself(run: Run, dsn: str, config: pgsession.Config) -> None:
    config = msgspec.structs.replace(config, max_staleness=0.2)
    with pgsession.SessionManager(dsn, config):
        said = run("watch", "--seconds", "0.2")
        assert "listening" in said.out and said.err == ""
        beacons = run("watch", "--seconds", "1", "--beacons", "--json").out.splitlines()
    assert {json.loads(line)["kind"] for line in beacons} == {"listening", "beacon"}


def test_where_nothing_would_be_heard(run: Run, dsn: str, roles: Roles) -> None:
    run("init", database=roles.dsn("owner"))
    with PgBouncer(dsn) as bouncer:
        said = run("watch", "--seconds", "9", database=bouncer.conninfo, status=1)
    assert "pooler" in said.err and "--listener-conninfo" in said.err and said.err.count("\n") == 1
    assert "permission denied" in run("watch", database=roles.dsn("service"), status=1).err


def test_the_secret_is_rotated_by_the_owner_alone(
    run: Run, roles: Roles, tables: Tables, schema: str
) -> None:
    run("init", "--grant-to", roles.service, database=roles.dsn("owner"))
    ((before,),) = tables.run("SELECT secret FROM {schema}.session_incarnation")
    run("secret", "rotate", database=roles.dsn("service"), status=1)
    assert run("secret", "rotate", "--json", database=roles.dsn("owner")).json == {"rotated": True}
    ((after,),) = tables.run("SELECT secret FROM {schema}.session_incarnation")
    assert before != after


# -- shells and terminals ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_what_a_shell_completes_by(run: Run, shell: str) -> None:
    assert "_PGSESSION_COMPLETE" in run("completion", shell).out


def test_a_shell_completes_commands_and_options() -> None:
    for words, wanted in (
        ("pgsession se", {"secret", "sessions"}),
        ("pgsession sessions list --act", {"--active-within"}),
    ):
        environment = {
            **os.environ,
            "_PGSESSION_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(len(words.split()) - 1),
        }
        done = subprocess.run([PROGRAM], env=environment, capture_output=True, text=True, timeout=60)
        assert {line.partition(",")[2] for line in done.stdout.splitlines()} == wanted, done


@pytest.mark.skipif(sys.platform == "win32", reason="has no pseudo-terminals")
def test_colours_are_for_terminals_and_who_wants_them(
    run: Run, dsn: str, schema: str, node: pgsession.SessionManager
) -> None:
    pytest.importorskip("rich")
    node.create_session("[red]ann")  # which rich would take for its own
    for command, plain in ((["doctor"], "well"), (["sessions", "list"], "[red]ann")):
        assert "\x1b" not in run(*command).out
        coloured, without = (
            at_a_terminal(dsn, schema, *command),
            at_a_terminal(dsn, schema, *command, NO_COLOR="1"),
        )
        assert plain in coloured and plain in without
        assert "\x1b[3" not in without and (command != ["doctor"] or "\x1b[32m" in coloured)
    assert "\N{BOX DRAWINGS LIGHT HORIZONTAL}" in coloured


def at_a_terminal(dsn: str, schema: str, *command: str, **variables: str) -> str:
    ours, theirs = os.openpty()
    environment = {
        **os.environ, "PGSESSION_DATABASE": dsn, "PGSESSION_SCHEMA_NAME": schema, "TERM": "xterm", "COLUMNS": "200",
        **variables,
    }  # fmt: skip
    with subprocess.Popen(
        [PROGRAM, *command], env=environment, stdout=theirs, stdin=theirs, stderr=theirs
    ) as process:
        os.close(theirs)
        said = b""
        try:
            while data := os.read(ours, 65536):
                said += data
        except OSError:  # its end
            pass
        os.close(ours)
        assert process.wait(60) == 0, said
    return said.decode()
