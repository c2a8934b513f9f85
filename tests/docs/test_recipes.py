"""The snippets of the short pages, each about one task, run as they stand."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("httpx2")

import psycopg
from fastapi import FastAPI
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from starlette.testclient import TestClient

import pgsession
from pgsession.cli import main
from tests.fault.nodes import until
from tests.fault.pgbouncer import PgBouncer

ROOT = Path(__file__).resolve().parents[2]
KEY = b"k" * 32
ALICE = {"name": "alice", "password": "wonderland"}


def snippets(page: str, language: str = "python") -> list[str]:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    found: list[str] = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return found


def right(name: str, password: str) -> bool:
    return {"name": name, "password": password} == ALICE


class Application:
    """One that a page's snippets go into, on tables of its own. `database` is where the pages say so."""

    def __init__(self, dsn: str, schema: str) -> None:
        self.config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
        self.names: dict[str, Any] = {"key": KEY, "dsn": dsn, "config": self.config, "right": right}

    def add(self, *texts: str) -> None:
        for text in texts:
            text = text.replace('database="postgresql://app@db/app"', "database=dsn, config=config")
            exec(text.replace('"postgresql://app@db/app", ', "dsn, config, "), self.names)

    def browser(self) -> TestClient:
        return TestClient(self.names["app"], base_url="https://testserver")


@pytest.fixture
def application(dsn: str, schema: str) -> Application:
    return Application(dsn, schema)


class Browser:
    """One with a cookie of its own, of several for one running application, whose client keeps none."""

    def __init__(self, client: TestClient, cookie: str = "") -> None:
        self._client = client
        self.cookie = cookie

    def __call__(self, method: str, path: str, **params: str) -> Any:
        answer = self._client.request(method, path, params=params, headers={"Cookie": self.cookie})
        self._client.cookies.clear()
        if said := answer.headers.get("set-cookie"):
            self.cookie = "" if "Max-Age=0" in said else said.partition(";")[0]
        return answer

    def log_in(self) -> None:
        assert self("POST", "/login", **ALICE).status_code == 200

    @property
    def is_in(self) -> bool:
        return bool(self("GET", "/devices").status_code == 200)


def test_devices_and_log_out_everywhere(
    application: Application, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    application.add(*snippets("devices"), *snippets("log-out-everywhere"))
    with application.browser() as client:
        laptop, phone = Browser(client), Browser(client)
        assert not laptop.is_in
        assert laptop("POST", "/login", name="alice", password="wrong").status_code == 401
        laptop.log_in()
        phone.log_in()
        ours, theirs = sorted(laptop("GET", "/devices").json(), key=lambda each: not each["here"])
        assert ours["here"] and not theirs["here"] and theirs["browser"] == "testclient"
        assert laptop("DELETE", f"/devices/{UUID(int=1)}").status_code == 404
        assert laptop("DELETE", f"/devices/{theirs['id']}").status_code == 200 and not phone.is_in
        phone.log_in()
        thief = Browser(client, laptop.cookie)
        assert laptop("POST", "/password").status_code == 200 and laptop.cookie != thief.cookie
        assert laptop.is_in and not phone.is_in and not thief.is_in
        phone.log_in()
        assert laptop("POST", "/logout-everywhere").status_code == 200 and not laptop.cookie
        assert not phone.is_in
        laptop.log_in()
        [command] = snippets("log-out-everywhere", "sh")
        monkeypatch.setenv("PGSESSION_DATABASE", dsn)
        monkeypatch.setenv("PGSESSION_SCHEMA_NAME", schema)
        assert main(shlex.split(command)[1:]) == 0
        until(lambda: not laptop.is_in, "the operator's word to arrive")
        handlers = application.names["app"].exception_handlers
        assert handlers[pgsession.RevocationNotConfirmed] is application.names["not_confirmed"]


def test_remember_me(application: Application) -> None:
    application.names["app"] = FastAPI()
    application.add(*snippets("remember-me"))
    with application.browser() as browser:
        assert "Max-Age" not in browser.post("/login", params=ALICE).headers["set-cookie"]
        remembered = browser.post("/login", params=ALICE | {"remember": "true"})
        assert f"Max-Age={14 * 86400}" in remembered.headers["set-cookie"]


def test_step_up(application: Application) -> None:
    application.add(*snippets("devices"), *snippets("step-up"))
    with application.browser() as client:
        user = Browser(client)
        user.log_in()
        assert user("POST", "/pay").status_code == 403
        assert user("POST", "/confirm", password="wrong").status_code == 401
        thief = Browser(client, user.cookie)
        assert user("POST", "/confirm", password=ALICE["password"]).status_code == 200
        assert user("POST", "/pay").json() == "paid"
        assert thief("POST", "/pay").status_code == 403


def test_personal_data(dsn: str, schema: str) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with pgsession.SessionManager(dsn, config) as sessions:
        names: dict[str, Any] = {"sessions": sessions}
        for text in snippets("erasure"):
            exec(text, names)
        kept = sessions.create_session("bob").id
        for _ in range(2):
            sessions.create_session("alice", {"advertising_profile": 1, "cart": ["book"]})
        assert names["withdraw"]("alice") == 2
        assert [each["holds"] for each in names["export"]("alice")] == [{"cart": ["book"]}] * 2
        assert names["erase"]("alice") == 2 and names["export"]("alice") == []
        assert sessions.get_session(kept) is not None


def test_the_cipher_is_that_of_the_example() -> None:
    example = (ROOT / "examples" / "encrypted_attributes.py").read_text(encoding="utf-8")
    shown = snippets("encryption", "py")
    assert len(shown) == 2 and all(f"\n\n{text}\n" in example for text in shown)


def test_behind_pgbouncer(dsn: str, schema: str) -> None:
    with psycopg.connect(dsn) as connection:
        pgsession.schema.create(connection, schema)
    [text] = snippets("pgbouncer")
    with PgBouncer(dsn) as bouncer:
        text = text.replace('"postgresql://app@pgbouncer:6432/app"', "bouncer")
        text = text.replace('"postgresql://app@db:5432/app"', "dsn, schema_name=schema")
        names: dict[str, Any] = {"bouncer": bouncer.conninfo, "dsn": dsn, "schema": schema}
        exec(text, names)
        with names["sessions"] as sessions:
            session = sessions.create_session("alice")
            until(lambda: sessions.get_session(session.id).from_cache, "memory to answer")


def test_several_hosts(dsn: str, schema: str) -> None:
    """The first host is not there; the second one is the primary."""
    [text] = snippets("patroni")
    known = conninfo_to_dict(dsn)
    [given] = re.findall(r'"(host=.*?)"', text)
    here = conninfo_to_dict(given)
    assert here.pop("host") == "pg1,pg2,pg3"
    del here["dbname"], here["user"]
    hosts = {"host": f"127.0.0.1,{known['host']}", "port": f"1,{known['port']}"}
    conninfo = make_conninfo(dsn, **(here | hosts))
    names: dict[str, Any] = {}
    exec(text, names)  # unopened, as it stands
    assert "target_session_attrs=read-write" in conninfo
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with type(names["sessions"])(conninfo, config) as sessions:
        session = sessions.create_session("alice")
        until(lambda: sessions.get_session(session.id).from_cache, "memory to answer")
