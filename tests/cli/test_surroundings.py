"""Surroundings that no command should fail in: a server that goes silent, a full disk, no output, odd names."""

from __future__ import annotations

import re
import shlex
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path

import pytest

import pgsession
from pgsession import schema as tables_of
from pgsession.cli import _parameters, cli
from tests.roles import Roles
from tests.tables import Tables

from .conftest import Run
from .test_command_line import ABOUT_TABLES, NEEDED
from .ways import Way

_READY = b"Z"
_GUARD = 6.0  # seconds


class Silent(Way):
    """The server lets in, and then says nothing, until the guard of the test ends it."""

    def __init__(self, conninfo: str) -> None:
        super().__init__(conninfo, sslmode="disable")
        self.guarded = False

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        server.settimeout(_GUARD)
        try:
            with server.makefile("rb") as answers:
                ready = False
                while head := answers.read(5):
                    body = answers.read(int.from_bytes(head[1:], "big") - 4)
                    if not ready:
                        client.sendall(head + body)
                    ready = ready or head[:1] == _READY
        except TimeoutError:
            self.guarded = True
            client.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


@pytest.mark.parametrize("path", ABOUT_TABLES, ids=" ".join)
def test_each_command_is_bounded_on_a_server_that_goes_silent(
    run: Run, dsn: str, path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    if path == ("doctor",):  # to which that is a finding
        return
    monkeypatch.setattr(_parameters, "_GRACE", 0)
    with Silent(dsn) as way:
        said = run(*path, *NEEDED.get(path[-1], []), "--timeout", "0.1", database=way.conninfo, status=None)
    assert said.status in (4, 5) and said.err.count("\n") == 1, said
    assert not way.guarded


@pytest.mark.parametrize("name", ["PGSESSION_DATABASE", "PGSESSION_DSN", "PGSESSION_LISTENER_CONNINFO"])
def test_what_is_no_conninfo_is_not_quoted(run: Run, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """libpq's own message quotes a URL with the password in it."""
    wrong = "postgresql://app:geheim@[::1/app"
    for path in (("nodes",), ("stats",), ("doctor",), ("init",)):
        if name == "PGSESSION_DATABASE":
            said = run(*path, database=wrong, status=2)
        else:
            monkeypatch.setenv(name, wrong)
            said = run(*path, database=None, status=2)
        field = "listener_conninfo" if "LISTENER" in name else name  # Config has read that one
        assert re.search(rf"{field}: .*a connection string or URL", said.err) and "geheim" not in said.err


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("more", [[], ["--json"]], ids=["text", "json"])
def test_a_full_disk_is_no_failure_with_nothing_done(
    run: Run, node: pgsession.SessionManager, monkeypatch: pytest.MonkeyPatch, more: list[str]
) -> None:
    node.create_session(user_id="alice")
    with monkeypatch.context() as patch, open("/dev/full", "w") as full:
        patch.setattr(sys, "stdout", full)
        said = run("sessions", "revoke", "--user", "alice", *more, status=5)
    assert "No space left on device" in said.err and said.err.count("\n") == 1
    assert run("sessions", "count").out == "0\n"


def test_without_an_output_a_command_does_its_work(
    run: Run, node: pgsession.SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    node.create_session(user_id="alice")
    for arguments in (
        ["sessions", "list"],
        ["sessions", "list", "--json"],
        ["sessions", "revoke", "--user", "alice"],
    ):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", None)
            run(*arguments)
    assert run("sessions", "count").out == "0\n"


def test_the_command_in_a_remedy_can_be_pasted_into_a_shell() -> None:
    for role in ("o'clock $(x)", '"o\'clock $(x)"'):
        said = shlex.split(tables_of.command('my "own"; schema', "a b_", role))
        assert said[:3] == ["python", "-m", "pgsession"]
        init = cli.commands["init"]
        given = init.make_context("init", said[4:-1]).params
        assert given["schema_name"] == 'my "own"; schema' and given["table_prefix"] == "a b_"
        assert given["grant_to"] == ("o'clock $(x)",)


def test_the_doctor_names_the_schema_where_rights_are_missing(run: Run, roles: Roles, schema: str) -> None:
    run("init", database=roles.dsn("owner"))
    said = run("doctor", database=roles.dsn("service"), status=1)
    assert f"pgsession init --grant-to {roles.service} --schema-name {schema} DATABASE" in said.out


def test_times_that_no_datetime_holds_are_shown_as_the_first_or_last(
    run: Run, node: pgsession.SessionManager, tables: Tables
) -> None:
    """Plain SQL can write them."""
    session = node.create_session(user_id="alice")
    tables.run("UPDATE {sessions} SET created_at = '4000-01-01 BC', last_accessed = '30000-01-01'")
    node.clear_cache()
    found = node.get_session(session.id)
    assert found is not None and found.created_at == datetime.min.replace(tzinfo=UTC)
    (listed,) = run("sessions", "list", "--json").json
    first, last = "0001-01-01T00:00:00.000000Z", "9999-12-31T23:59:59.999999Z"
    assert (listed["created_at"], listed["last_accessed"]) == (first, last)
    assert "0001-01-01" in run("sessions", "list").out
    told = run("stats", "--json").json["sessions"]
    assert (told["oldest_created_at"], told["last_accessed"]) == (first, last)
    assert "9999-12-31" in run("stats").out
