"""Logins of users whose keys are UUIDs, and what a new password does to their sessions."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib import auth
from django.http import HttpRequest
from django.test import AsyncClient, Client

from pgsession.contrib.django import SessionStore, session_manager
from tests.tables import Tables


@pytest.fixture
def alice(tables: Tables) -> Any:
    user = auth.get_user_model().objects.create_user("alice", password="old")
    yield user
    user.delete()


def request_of(client: Client | AsyncClient) -> HttpRequest:
    request = HttpRequest()
    request.session = SessionStore(client.cookies[settings.SESSION_COOKIE_NAME].value)
    request.user = auth.get_user(request)
    return request


def user_at(client: Client) -> str:
    return str(client.get("/do").json()["user"])


def test_a_login_binds_the_session_to_the_users_key(alice: Any, tables: Tables) -> None:
    client = Client()
    client.get("/do?set=cart:1")
    before = client.cookies["sessionid"].value
    assert client.login(username="alice", password="old")
    assert tables.run("SELECT user_id FROM {sessions}") == [(str(alice.pk),)]
    assert client.get("/do").json() == {"values": {"cart": 1}, "user": "alice"}
    assert SessionStore(before).load() == {}
    client.logout()
    assert tables.count() == 0


def test_a_login_of_another_user_begins_anew(alice: Any, tables: Tables) -> None:
    bob = auth.get_user_model().objects.create_user("bob")
    client = Client()
    client.force_login(alice)
    client.get("/do?set=cart:1")
    client.force_login(bob)
    assert client.get("/do").json() == {"values": {}, "user": "bob"}
    assert tables.run("SELECT user_id FROM {sessions}") == [(str(bob.pk),)]
    bob.delete()


def test_a_new_password_keeps_this_session_and_ends_the_others(alice: Any) -> None:
    here, elsewhere = Client(), Client()
    for client in (here, elsewhere):
        assert client.login(username="alice", password="old")
        assert user_at(client) == "alice"
    stolen = here.cookies["sessionid"].value
    request = request_of(here)
    session_id = request.session.session_id
    alice.set_password("new")
    alice.save()
    auth.update_session_auth_hash(request, alice)
    request.session.save()
    here.cookies["sessionid"] = request.session.session_key
    assert user_at(here) == "alice" and request.session.session_id == session_id
    assert not SessionStore().exists(stolen)
    assert user_at(elsewhere) == ""  # which ends it
    assert session_manager().count_sessions(user_id=alice.pk) == 1


async def test_alogin_and_alogout(shop: str, tables: Tables) -> None:
    users = auth.get_user_model().objects
    alice: Any = await users.acreate(username="alice")
    client = AsyncClient()
    await client.aforce_login(alice)
    assert await asyncio.to_thread(tables.run, "SELECT user_id FROM {sessions}") == [(str(alice.pk),)]
    answer = await client.get("/do?set=a:1")
    assert answer.json() == {"values": {"a": 1}, "user": "alice"}
    request = await sync_to_async(request_of)(client)
    await auth.alogout(request)
    assert await asyncio.to_thread(tables.count) == 0
    await alice.adelete()
