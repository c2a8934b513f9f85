"""The pages of reference are what the code says; and SQL that the page of the tables allows does what it says there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import psycopg
import pytest

pytest.importorskip("prometheus_client")

import pgsession
from benchmarks import records, report
from tests.fault.nodes import until
from tests.tables import Tables
from tools import reference_pages

DOCS = Path(__file__).resolve().parents[2] / "docs"


def test_the_pages_are_up_to_date() -> None:
    for page, text in reference_pages.pages():
        assert page.read_text(encoding="utf-8") == text, "run `python tools/reference_pages.py`"


def test_a_change_of_the_code_is_noticed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(reference_pages, "METRICS", reference_pages.METRICS[1:])
    monkeypatch.setattr("sys.argv", ["reference_pages", "--check"])
    assert reference_pages.main() == 1 and "metrics.md" in capsys.readouterr().out


def test_quoted_figures_are_those_that_are_recorded() -> None:
    races = records.load()
    quoted = 0
    for page in report.QUOTING:
        text = page.read_text(encoding="utf-8")
        quoted += text.count("<!-- figure: ")
        assert report.quoting(text, races) == text, "run `python -m benchmarks.report`"
    assert quoted > 20
    wrong = "<!-- figure: read / pgsession, asyncio -->1 ns<!-- end -->"
    assert report.quoting(wrong, races) != wrong


def test_every_column_is_on_the_page(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn) as connection:
        pgsession.schema.create(connection, schema)
        there = connection.execute(
            "SELECT table_name, array_agg(column_name::text ORDER BY ordinal_position) FROM information_schema.columns"
            " WHERE table_schema = %s AND table_name NOT IN ('session_schema_version', 'session_fencing') GROUP BY 1",
            [schema],
        ).fetchall()
    sections = re.split(r"^## ", (DOCS / "tables.md").read_text(encoding="utf-8"), flags=re.MULTILINE)[1:]
    shown = [
        (section.split()[0], re.findall(r"^\| `(\w+)` \| ", section, re.MULTILINE))
        for section in sections
        if not section.startswith("Types of columns")
    ]
    assert sorted(shown) == sorted(there)


def test_what_sql_may_do(dsn: str, schema: str, tables: Tables) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with pgsession.SessionManager(dsn, config) as node:

        def sees(session: pgsession.Session, what: Any) -> None:
            until(lambda: what(node.get_session(session.id)), "the node to hear of it")

        one, other = node.create_session("ann", {"n": 1}), node.create_session("bob")
        for session in (one, other):
            sees(session, lambda read: read.from_cache)
        tables.run("UPDATE {sessions} SET group_id = 'g', inactivity = '5 minutes' WHERE user_id = 'ann'")
        sees(one, lambda read: read.group_id == "g" and read.version > one.version)
        tables.run("UPDATE {session_attributes} SET value = '2' WHERE key = 'n'")
        sees(one, lambda read: read["n"] == 2)
        lock = node.lock("r")
        assert lock.acquire()
        tables.run("DELETE FROM {session_locks}")
        assert lock.lost.wait(20)
        tables.run("DELETE FROM {sessions} WHERE user_id = 'ann'")
        sees(one, lambda read: read is None)
        assert node.get_session(other.id) is not None
        tables.run("INSERT INTO {sessions} (expires_at, user_id) VALUES (now() + '1 day', 'eve')")
        [new] = node.list_user_sessions("eve")
        assert new.version > 1
        tables.run("TRUNCATE {sessions}")
        sees(other, lambda read: read is None)


def test_the_condition_of_a_live_session(dsn: str, schema: str, tables: Tables) -> None:
    [condition] = re.findall(r"live while `(.*?)`", (DOCS / "tables.md").read_text(encoding="utf-8"))
    with pgsession.SessionManager(
        dsn, pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    ) as node:
        for user in ("ann", "bob"):
            node.create_session(user)
        tables.run("UPDATE {sessions} SET last_accessed = now() - interval '3 days' WHERE user_id = 'ann'")
        assert tables.run(f"SELECT user_id FROM {{sessions}} WHERE {condition}") == [("bob",)]
