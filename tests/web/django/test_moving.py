"""Browsers whose sessions were moved from Django's own engine come with its cookie."""

from __future__ import annotations

import secrets
import string
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.http import HttpRequest, JsonResponse
from django.test import AsyncClient, Client, override_settings
from django.urls import path

from pgsession.contrib.django import session_manager
from pgsession.web.moving import OPEN, entry_id, moved_id
from tests.tables import Tables


def do(request: HttpRequest) -> JsonResponse:
    if "set" in request.GET:
        key, value = request.GET["set"].split(":")
        request.session[key] = int(value)
    return JsonResponse(dict(request.session.items()))


def leave(request: HttpRequest) -> JsonResponse:
    """A logout that has not looked at the session."""
    request.session.flush()
    return JsonResponse({})


OLD = "sessionid"
NEW = "token"
urlpatterns = [path("do", do), path("leave", leave)]
LETTERS = string.ascii_lowercase + string.digits


def settings(name: str) -> Any:
    from django.conf import settings as now

    ours = "pgsession.contrib.django.moving.SessionMiddleware"
    return override_settings(
        SESSION_COOKIE_NAME=name,
        ROOT_URLCONF=sys.modules[__name__],
        MIDDLEWARE=[ours, *now.MIDDLEWARE[1:]],
        PGSESSION={**now.PGSESSION, "moved_from": OLD},
    )


@pytest.fixture(params=[NEW, OLD], ids=["another name", "the same name"])
def name(request: pytest.FixtureRequest, tables: Tables) -> Iterator[str]:
    """The cookie's, which may be that of before."""
    with settings(request.param):
        yield request.param


def brought(**values: Any) -> str:
    """A session that a run of the command has brought; its key."""
    key = "".join(secrets.choice(LETTERS) for _ in range(32))
    manager, ends = session_manager(), datetime.now(UTC) + timedelta(days=1)
    manager.create_session(None, values, session_id=moved_id(entry_id(key)), expires_at=ends)
    manager.create_session(None, {OPEN: 0}, session_id=entry_id(key), expires_at=ends)
    return key


def browser(key: str, kind: Any = Client) -> Any:
    client = kind()
    client.cookies[OLD] = key
    return client


def test_it_gets_a_token(name: str) -> None:
    client = browser(brought(n=1))
    answer = client.get("/do")
    assert answer.json() == {"n": 1} and len(answer.cookies[name].value) == 88
    assert set(client.cookies) == {OLD, name}
    assert client.get("/do?set=m:2").json() == {"n": 1, "m": 2}
    del client.cookies[OLD]
    if name == NEW:
        assert client.get("/do").json() == {"n": 1, "m": 2}


async def test_it_gets_a_token_from_async_handlers(name: str) -> None:
    client = browser(brought(n=1), AsyncClient)
    answer = await client.get("/do")
    assert answer.json() == {"n": 1} and len(answer.cookies[name].value) == 88


def test_a_key_that_a_client_made_is_nothing(name: str, tables: Tables) -> None:
    client = browser("a" * 32)
    answer = client.get("/do")
    assert answer.json() == {} and (name not in answer.cookies or not answer.cookies[name].value)
    answer = client.get("/do?set=n:1")
    assert len(answer.cookies[name].value) == 88 and tables.count() == 1


def test_requests_under_way_get_the_same_one_until_it_is_written(name: str) -> None:
    key = brought(n=1)
    first = browser(key)
    first.get("/do")
    assert browser(key).get("/do").json() == {"n": 1}
    first.get("/do?set=n:2")
    late = browser(key).get("/do")
    assert late.json() == {} and not late.cookies


@pytest.mark.parametrize("has_come", [True, False])
def test_a_logout_ends_it_and_deletes_both_cookies(name: str, has_come: bool) -> None:
    key = brought(n=1)
    client = browser(key)
    if has_come:
        client.get("/do")
    answer = client.get("/leave")
    gone = {each for each, cookie in answer.cookies.items() if cookie["max-age"] == 0}
    assert gone == ({name, OLD} if has_come else {OLD})
    assert session_manager().get_session(moved_id(entry_id(key))) is None
    assert browser(key).get("/do").json() == {}


def test_its_life_goes_on(name: str) -> None:
    key = brought(n=1)
    client = browser(key)
    client.get("/do")
    stored = session_manager().get_session(moved_id(entry_id(key)))
    assert stored is not None and stored.expires_at - datetime.now(UTC) < timedelta(days=1)
    client.get("/do?set=n:2")
    stored = session_manager().get_session(moved_id(entry_id(key)))
    assert stored is not None and stored.expires_at - datetime.now(UTC) > timedelta(days=13)
