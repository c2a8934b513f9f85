"""Snippets that belong to no test of a whole page, run as they stand; and each page that has some is run by a test."""

from __future__ import annotations

import json
import logging
import re
import secrets
import shlex
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest

import pgsession
from pgsession.cli import cli, main
from tests.fault.nodes import until
from tests.tables import Tables

ROOT = Path(__file__).resolve().parents[2]
RUN_BY = {
    "README.md": ("unit/test_readme.py", "docs/test_deployment.py"),
    "SECURITY.md": ("docs/test_other_snippets.py",),
    "docs/aiohttp.md": ("docs/test_aiohttp.py",),
    "docs/capacity.md": ("docs/test_capacity.py",),
    "docs/cli.md": ("docs/test_cli.py",),
    "docs/deployment.md": ("docs/test_operators_guide.py", "docs/test_other_snippets.py"),
    "docs/devices.md": ("docs/test_recipes.py",),
    "docs/django.md": ("web/django/test_commands.py", "docs/test_other_snippets.py"),
    "docs/encryption.md": ("docs/test_recipes.py",),
    "docs/citus.md": ("citus/test_moves.py",),
    "docs/erasure.md": ("docs/test_recipes.py",),
    "docs/flask.md": ("docs/test_flask.py",),
    "docs/host-cache.md": ("docs/test_host_cache.py",),
    "docs/litestar.md": ("docs/test_litestar.py",),
    "docs/locks.md": ("docs/test_locks.py",),
    "docs/log-out-everywhere.md": ("docs/test_recipes.py",),
    "docs/monitoring.md": ("docs/test_other_snippets.py", "telemetry/test_gunicorn.py"),
    "docs/moving.md": ("docs/test_moving.py", "web/moving/page.py"),
    "docs/operate.md": ("docs/test_operate.py",),
    "docs/parity.md": ("docs/test_other_snippets.py",),
    "docs/patroni.md": ("docs/test_recipes.py",),
    "docs/pgbouncer.md": ("docs/test_recipes.py",),
    "docs/remember-me.md": ("docs/test_recipes.py",),
    "docs/shards.md": ("docs/test_shards.py",),
    "docs/shop.md": ("docs/test_shop.py",),
    "docs/step-up.md": ("docs/test_recipes.py",),
    "docs/testing.md": ("docs/test_testing.py",),
    "docs/tutorial.md": ("docs/test_tutorial.py",),
    "docs/values.md": ("docs/test_other_snippets.py",),
    "docs/web.md": ("docs/test_web.py",),
}
RUNNABLE = r"^```(python|py|sql|sh|console)\n(.*?)^```$"


def blocks(page: str, language: str) -> list[str]:
    found = re.findall(RUNNABLE, (ROOT / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [text for kind, text in found if kind == language]


def run(text: str, names: dict[str, Any]) -> None:
    """As a module of its own, which does not inherit our imports from the future."""
    exec(compile(text, "page", "exec", dont_inherit=True), names)


def test_every_page_with_something_to_run_has_its_test() -> None:
    pages = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md", "CHANGELOG.md")]
    for page in [*pages, *ROOT.glob("docs/**/*.md")]:
        if re.search(RUNNABLE, page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE):
            assert page.relative_to(ROOT).as_posix() in RUN_BY, page
    for page, tests in RUN_BY.items():
        for test in tests:
            text = (ROOT / "tests" / test).read_text(encoding="utf-8")
            assert Path(page).stem in text, f"{test} does not name {page}"


def test_values(node: pgsession.SessionManager) -> None:
    logging_in, buying = blocks("docs/values.md", "python")
    names: dict[str, Any] = {}
    run(logging_in, names)
    names["log_in"](node)
    run(buying, names)
    session = node.create_session("ann")
    names["buy"](session, "book")
    node.update_session(session)
    assert node.get_session(session.id, refresh=True)["cart"] == ["book"]  # type: ignore[index]


def test_deploying(dsn: str, config: pgsession.Config, node: pgsession.SessionManager) -> None:
    _, readiness, passwords, _, warm = blocks("docs/deployment.md", "python")
    names: dict[str, Any] = {"token": lambda: "a password"}
    run(readiness, names)
    assert names["readiness"](node) == (200, "well")
    run(passwords, names)
    assert "a password" in names["conninfo"]() and isinstance(names["sessions"], pgsession.SessionManager)
    run(warm, names)
    assert names["config"].warm == "/var/lib/shop/sessions.ids"


def test_a_security_log(dsn: str, schema: str, caplog: pytest.LogCaptureFixture) -> None:
    log = blocks("docs/deployment.md", "python")[3]
    assert log.count("pgsession.Config(") == 1
    given = f"pgsession.Config(schema_name={schema!r}, create_schema_if_missing=True, "
    names: dict[str, Any] = {"database": dsn}
    run(log.replace("pgsession.Config(", given), names)
    with caplog.at_level(logging.INFO, "audit"), names["sessions"] as node:
        session = node.create_session("ann")
        until(lambda: [record.message for record in caplog.records if record.name == "audit"], "the event")
    [told] = [record for record in caplog.records if record.name == "audit"]
    assert told.message == "session_created" and told.session_id == session.id  # type: ignore[attr-defined]


def test_removing_what_was_deployed(dsn: str) -> None:
    [_, _, dropping] = blocks("docs/deployment.md", "sql")
    mark = secrets.token_hex(4)
    roles = ("app", "sessions_operator", "sessions_owner")
    named = re.sub(rf"\b({'|'.join(roles)}|web)\b", rf"\1_{mark}", dropping)
    with psycopg.connect(dsn, autocommit=True) as connection:
        for role in roles:
            connection.execute(f"CREATE ROLE {role}_{mark}".encode())
        connection.execute(f"CREATE SCHEMA web_{mark} AUTHORIZATION sessions_owner_{mark}".encode())
        connection.execute(named.encode())
        left = "SELECT count(*) FROM pg_roles WHERE rolname LIKE %s"
        assert connection.execute(left, [f"%{mark}"]).fetchone() == (0,)


def test_watching(dsn: str, schema: str) -> None:
    pytest.importorskip("prometheus_client")
    metrics, _, lines = blocks("docs/monitoring.md", "python")
    given = f"pgsession.Config(schema_name={schema!r}, create_schema_if_missing=True, "
    names: dict[str, Any] = {"database": dsn}
    before = metrics.partition("port = ")[0]  # to serve is for tests/telemetry
    assert before.count("pgsession.Config(") == 1
    run(before.replace("pgsession.Config(", given), names)
    with names["sessions"] as node:
        node.create_session("ann")
        counted = {family.name: family for family in names["metrics"].collect()}
        assert counted["pgsession_writes"].samples[0].value == 1
    run(lines, names)
    record = logging.LogRecord("pgsession", logging.WARNING, "", 1, "it %s", ("went",), None)
    record.pgsession_event = "out_of_sync"
    said = json.loads(names["Lines"]().format(record))
    assert said == {"level": "WARNING", "text": "it went", "pgsession_event": "out_of_sync"}


def test_short_names_and_the_secret(node: pgsession.SessionManager, dsn: str, tables: Tables) -> None:
    names, rotating = blocks("SECURITY.md", "sql")
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(f"SET search_path = {tables.schema}".encode())
        to_name, to_session = names.strip().split("\n")
        session = node.create_session("ann")
        shown = UUID("0b5c6f0e-8d0a-4c8e-9b57-3f1f0a6d2c11")
        assert connection.execute(to_name.encode()).fetchone() == ("3bc81bb5",) and str(shown) in to_name
        [name] = connection.execute(to_name.replace(str(shown), str(session.id)).encode()).fetchone() or ()
        found = connection.execute(to_session.replace("3bc81bb5", name).encode()).fetchall()
        assert [row[0] for row in found] == [session.id]
        connection.execute(rotating.encode())
    assert node.get_session(session.id) is not None


def test_moving_from_the_reference_library(dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its tables, as its source has them, with one live session and one that has ended."""
    [command] = blocks("docs/parity.md", "sh")
    [moving] = blocks("docs/parity.md", "sql")
    [exchanging] = blocks("docs/parity.md", "python")
    old = f"{schema}_old"
    live, ended = uuid4(), uuid4()
    program, *arguments = shlex.split(command.replace("web", schema).replace("--grant-to app", ""))
    monkeypatch.setenv("PGSESSION_DATABASE", dsn)
    assert program == "pgsession" and main(arguments) == 0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(
            f"""CREATE SCHEMA {old};
            CREATE TABLE {old}.sessions (id uuid PRIMARY KEY, user_id uuid NOT NULL, last_accessed timestamptz,
                expires_at timestamptz, updated_at timestamptz, version integer);
            CREATE TABLE {old}.session_attributes (session_id uuid, key text, value text, expires_at timestamptz);
            INSERT INTO {old}.sessions SELECT id::uuid, gen_random_uuid(), now(), now() + life, now(), 1
                FROM (VALUES ('{live}', interval '1 day'), ('{ended}', interval '-1 day')) v(id, life);
            INSERT INTO {old}.session_attributes VALUES ('{live}', 'role', 'admin', NULL), ('{ended}', 'r', 'x', NULL)
        """.encode()
        )
        connection.execute(moving.replace("web.", f"{schema}.").replace("public.", f"{old}.").encode())
        connection.execute(f"DROP SCHEMA {old} CASCADE".encode())
    with pgsession.SessionManager(
        dsn, pgsession.Config(schema_name=schema), signer=pgsession.Signer(b"k" * 32)
    ) as sessions:
        assert sessions.count_sessions() == 1
        names: dict[str, Any] = {"sessions": sessions}
        run(exchanging, names)
        found = sessions.get_session_by_token(names["exchange"](str(live)))
        assert found is not None and found["role"] == "admin" and names["exchange"](str(ended)) is None


def test_devices_in_django(node: pgsession.SessionManager) -> None:
    pytest.importorskip("django")
    _, views = blocks("docs/django.md", "python")
    names: dict[str, Any] = {}
    run(views, names)
    laptop, phone = (node.create_session("7") for _ in range(2))
    shown: dict[str, Any] = {}
    names |= {
        "session_manager": lambda: node,
        "render": lambda request, template, context: shown.update(context),
        "redirect": lambda name: name,
    }
    request = SimpleNamespace(user=SimpleNamespace(pk=7), session=SimpleNamespace(session_id=laptop.id))
    names["your_devices"](request)
    assert {each.id for each in shown["sessions"]} == {laptop.id, phone.id} and shown["this_one"] == laptop.id
    assert names["log_out_everywhere_else"](request) == "devices"
    assert node.get_session(phone.id) is None and node.get_session(laptop.id) is not None


def test_whatever_is_named_is_there() -> None:
    """Extras of pip's commands, targets of make, commands of pgsession, in all pages."""
    pages = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md", *ROOT.glob("docs/**/*.md")]
    text = "\n".join(page.read_text(encoding="utf-8") for page in pages)
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = {
        name for found in re.findall(r"(?:pgsession|checkout)\[([\w,]+)\]", text) for name in found.split(",")
    }
    assert len(extras) > 8 and extras <= set(project["optional-dependencies"])
    targets = set(
        re.findall(r"^([a-z0-9-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    )
    made = set(re.findall(r"(?:`|^)make ([a-z0-9-]+)", text, re.MULTILINE))
    assert len(made) > 15 and made <= targets
    called = set(re.findall(r"(?:`|^|-m )pgsession (?!is )([a-z]+)", text, re.MULTILINE))
    assert len(called) > 8 and called <= set(cli.commands)
