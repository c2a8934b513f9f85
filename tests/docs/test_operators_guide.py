"""The operators' part of the page about deploying, run as it stands, but for the names of the role and the schema."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from tests.roles import Roles, made
from tests.tables import Tables

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text(encoding="utf-8")
PART = PAGE.partition("## Look after sessions")[2].partition("\n## ")[0]
((_, GRANTS), (_, SNIPPET), (_, MOST)) = re.findall(r"^```(\w+)\n(.*?)^```$", PART, re.DOTALL | re.MULTILINE)


@pytest.fixture
def roles(dsn: str, schema: str) -> Iterator[Roles]:
    with made(dsn, schema) as roles:
        yield roles


def grant(roles: Roles, schema: str, statements: str) -> None:
    roles.execute("owner", statements.replace("web", schema).replace("sessions_operator", roles.operator))


def test_what_the_page_shows(
    roles: Roles, dsn: str, schema: str, config: pgsession.Config, capsys: pytest.CaptureFixture[str]
) -> None:
    with pgsession.SessionManager(roles.dsn("owner"), config) as node:
        session = node.create_session("alice", {"secret": 1})
        other = node.create_session("bob")
        grant(roles, schema, GRANTS)
        with psycopg.connect(roles.dsn("operator")) as connection:
            found = connection.execute(MOST.replace("web", schema).encode()).fetchall()
        assert sorted(found) == [("alice", 1), ("bob", 1)]
        lock, tied = node.lock("nightly-report"), node.lock("tied", session_id=session.id)
        assert lock.acquire() and tied.acquire()
        shown: dict[str, Any] = {
            "pgsession": pgsession, "timedelta": timedelta, "database": roles.dsn("operator"),
        }  # fmt: skip
        exec(SNIPPET.replace("web", schema), shown)
        told = capsys.readouterr().out
        assert str(session.id) in told and str(other.id) not in told and "2 sessions on" in told
        assert "nightly-report" in told
        assert lock.lost.wait(20) and tied.lost.wait(20)
        assert node.get_session(session.id, refresh=True) is None and node.get_session(other.id) is not None
        admin = shown["admin"]
        for refused in (lambda: admin.list_sessions(with_values=True), admin.rotate_secret):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                refused()
        grant(roles, schema, "GRANT SELECT ON web.session_attributes TO sessions_operator")
        (seen,) = admin.list_sessions(with_values=True)
        assert seen.attributes == {}
        pgsession.Admin(roles.dsn("owner"), config).rotate_secret()


@pytest.mark.parametrize(
    ("right", "calls"),
    [
        ("SELECT ON web.sessions", ["list_sessions", "count", "revoke"]),
        ("SELECT ON web.session_locks", ["list_locks", "break_lock"]),
        ("SELECT ON web.session_nodes", ["nodes"]),
        ("DELETE ON web.sessions", ["revoke"]),
        ("DELETE ON web.session_locks", ["break_lock"]),
    ],
)
def test_each_right_is_needed_for_what_needs_it_alone(
    roles: Roles, schema: str, config: pgsession.Config, tables: Tables, right: str, calls: list[str]
) -> None:
    with pgsession.SessionManager(roles.dsn("owner"), config):
        pass
    grant(roles, schema, GRANTS)
    grant(roles, schema, f"REVOKE {right} FROM sessions_operator")
    admin = pgsession.Admin(roles.dsn("operator"), config)
    every: dict[str, Any] = {
        "list_sessions": admin.list_sessions,
        "count": admin.count,
        "revoke": lambda: admin.revoke(user_id="u"),
        "list_locks": admin.list_locks,
        "break_lock": lambda: admin.break_lock("r"),
        "nodes": admin.nodes,
    }
    for name, call in every.items():
        if name not in calls:
            call()
            continue
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match=right.partition("web.")[2]):
            call()
