"""What the shop refuses, which no page of it sends. What it does is in tests/browser."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

pytest.importorskip("httpx2")
pytest.importorskip("starlette")

from starlette.testclient import TestClient

import pgsession
from examples.shop.app import make_app

URL = "https://shop.example"
KEY = b"k" * 32


@pytest.fixture
def app(dsn: str, config: pgsession.Config) -> Any:
    return make_app(dsn, KEY, config, name="A", other_node=URL)


@pytest.fixture
def alice(app: Any) -> Iterator[TestClient]:
    """Is logged in, on the browser whose node runs."""
    with TestClient(app, base_url=URL, follow_redirects=False) as client:
        assert log_in(client).status_code == 303
        yield client


def log_in(client: TestClient, name: str = "alice", password: str = "wonderland") -> Any:
    return client.post("/login", data={"name": name, "password": password})


def devices(client: TestClient) -> int:
    text: str = client.get("/devices").text
    return text.count("<li>")


def test_forged_requests_are_refused(alice: TestClient) -> None:
    forged: list[dict[str, str]] = [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site", "Origin": URL},
        {"Origin": "https://evil.example"},
        {"Origin": f"{URL}:8443"},
        {"Origin": "null"},
    ]
    for headers in forged:
        assert alice.post("/logout", headers=headers).status_code == 403
        assert alice.get("/", headers=headers).status_code == 200, "a link may lead here"
    assert devices(alice) == 1
    own: list[dict[str, str]] = [{"Sec-Fetch-Site": "same-origin"}, {"Origin": URL}, {}]
    for headers in own:
        assert alice.post("/logout", headers=headers).status_code == 303


def test_nobody_ends_the_sessions_of_others(alice: TestClient) -> None:
    sessions = alice.app_state["sessions"]
    assert alice.portal is not None
    [hers] = alice.portal.call(sessions.list_user_sessions, "alice")
    alice.cookies.clear()  # now it is the browser of somebody else
    for name, password in (("bob", "wonderland"), ("bob", ""), ("", ""), ("eve", "wonderland")):
        assert log_in(alice, name, password).status_code == 401
    assert not alice.cookies
    assert log_in(alice, "bob", "builder").status_code == 303
    for chosen in (str(hers.id), "", "nothing"):
        assert alice.post("/devices/log-out", data={"session": chosen}).status_code == 303
    assert devices(alice) == 1
    assert [each.id for each in alice.portal.call(sessions.list_user_sessions, "alice")] == [hers.id]


def test_devices_are_for_users(alice: TestClient) -> None:
    alice.cookies.clear()
    assert alice.get("/devices").headers["location"] == "/login"
    for path in ("log-out", "log-out-others", "log-out-everywhere"):
        assert alice.post(f"/devices/{path}").headers["location"] == "/login"
    assert not alice.cookies


def test_a_product_that_there_is_not(alice: TestClient) -> None:
    for key in ("gold", "", "pgsession:max_age"):
        assert alice.post("/cart", data={"product": key}).status_code == 404
        assert alice.post("/cart/remove", data={"product": key}).status_code == 303
    assert alice.post("/cart", files={"product": b"tea"}).status_code == 400
    assert "There is nothing in it" in alice.get("/cart").text


def test_what_is_not_confirmed_is_said(alice: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    """A node does not answer in time."""

    async def end(*_: Any, **__: Any) -> int:
        raise pgsession.RevocationNotConfirmed(silent=1, certain_in=12.0, done=1)

    monkeypatch.setattr(pgsession.AsyncSessionManager, "delete_user_sessions", end)
    assert alice.post("/devices/log-out-others").headers["location"] == "/devices"
    assert "Logged out: certain in 12 seconds." in alice.get("/devices").text
    assert alice.post("/devices/log-out-everywhere").status_code == 303
    assert alice.get("/devices").headers["location"] == "/login"
    assert "certain in 12 seconds" in alice.get("/login").text
