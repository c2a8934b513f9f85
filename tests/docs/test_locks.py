"""The snippets of the page about locks, run as they stand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from tests.tables import Tables

PAGE = (Path(__file__).resolve().parents[2] / "docs" / "locks.md").read_text(encoding="utf-8")


def test_who_lost_the_lock_is_refused_by_the_store(dsn: str, schema: str, tables: Tables) -> None:
    blocks = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    assert [language for language, _ in blocks] == ["python", "sql", "python", "python"]
    simple, table, define, fenced = (text for _, text in blocks)
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with (
        pgsession.SessionManager(dsn, config) as sessions,
        psycopg.connect(dsn, autocommit=True, options=f"-c search_path={schema}") as database,
    ):
        here: dict[str, Any] = {"sessions": sessions, "database": database, "build": lambda: "first"}
        exec(simple, here)
        database.execute(table)  # type: ignore[call-overload]
        exec(define, here)
        exec(fenced, here)
        exec(fenced, here)

        def lose_it_and_let_another_do_it() -> str:
            # As by a step of the server's clock, which the holder hears of with its next heartbeat.
            tables.run("UPDATE {session_locks} SET expires_at = expires_at - interval '1 hour'")
            here["build"] = lambda: "another's"
            exec(fenced, here | {})
            return "mine, late"

        here["build"] = lose_it_and_let_another_do_it
        with pytest.raises(RuntimeError, match="another holder has written nightly"):
            exec(fenced, here)
        assert database.execute("SELECT body FROM reports").fetchall() == [("another's",)]
