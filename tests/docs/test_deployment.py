"""The README's recipe for production, run as it stands, but for the names of the roles and the schema."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
RECIPE = README.partition("## In production")[2].partition("\n## ")[0]
ROLES = ("sessions_owner", "app", "sessions_reader")


@pytest.fixture
def names(dsn: str, schema: str) -> Iterator[dict[str, str]]:
    """What stands for the recipe's names; roles are the whole server's."""
    names = {role: f"{role}_{schema}" for role in ROLES} | {"web": schema}
    yield names
    with psycopg.connect(dsn, autocommit=True) as admin:
        for role in ROLES:
            if admin.execute("SELECT FROM pg_roles WHERE rolname = %s", (names[role],)).fetchall():
                admin.execute(f"DROP OWNED BY {names[role]} CASCADE; DROP ROLE {names[role]}")  # type: ignore[arg-type]


def test_the_recipe(dsn: str, names: dict[str, str]) -> None:
    def named(text: str) -> str:
        return re.sub(r"\b(?:sessions_owner|sessions_reader|app|web)\b", lambda found: names[found[0]], text)

    def as_role(role: str) -> str:
        return make_conninfo(dsn, options=f"-c role={names[role]}")

    def run(conninfo: str, statements: str) -> list[tuple[object, ...]]:
        with psycopg.connect(conninfo, autocommit=True) as connection:
            cursor = connection.execute(named(statements))  # type: ignore[arg-type]
            return cursor.fetchall() if cursor.description else []

    def init() -> str:
        words = shlex.split(named(command))
        assert words[0] == "pgsession" and words[-1].startswith(f"postgresql://{names['sessions_owner']}@")
        done = subprocess.run(
            [sys.executable, "-m", *words[:-1], as_role("sessions_owner")],
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", RECIPE, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["sql", "", "sql"]
    first, command, last = (text for _, text in blocks)
    run(dsn, first)
    assert "applied migration" in init()
    run(as_role("sessions_owner"), last)
    assert "nothing to do" in init()
    (opening,) = re.findall(r"`SessionManager\(\S+ (Config\(.*?\))\)`", RECIPE)
    config = eval(named(opening), {"Config": pgsession.Config})
    with pgsession.SessionManager(as_role("app"), config) as sessions:
        session = sessions.create_session("ann", {"secret": 1})
        with sessions.lock("r"):
            seen = run(as_role("sessions_reader"), "SELECT user_id FROM web.sessions, web.session_locks")
        assert seen == [("ann",)]
        for forbidden in (
            "SELECT * FROM web.session_attributes",
            "SELECT * FROM web.session_incarnation",
            "DELETE FROM web.sessions",
            "SELECT web.session_incarnate_1()",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                run(as_role("sessions_reader"), forbidden)
        # Who is to end sessions needs one right more.
        run(as_role("sessions_owner"), "GRANT DELETE ON web.sessions TO sessions_reader")
        run(as_role("sessions_reader"), "DELETE FROM web.sessions")
        assert sessions.get_session(session.id, refresh=True) is None
