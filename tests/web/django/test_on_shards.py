"""A Django project whose sessions are on several servers."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from django.conf import settings
from django.contrib import auth
from django.core.checks import run_checks
from django.core.exceptions import ImproperlyConfigured
from django.test import Client, override_settings

import pgsession
from pgsession.contrib.django import configuration, session_manager
from tests.sharded import Shards
from tests.tables import Tables


@pytest.fixture(params=["merge", "serial"])
def shards(request: pytest.FixtureRequest, empty_shards: Shards, tables: Tables) -> Iterator[Shards]:
    """The project's sessions are there."""
    given = {"database": empty_shards, "max_sessions": 0, "on_conflict": request.param}
    with override_settings(PGSESSION=given):
        yield empty_shards


def test_logins_move_to_their_users_shards(shards: Shards, tables: Tables) -> None:
    users: list[Any] = [auth.get_user_model().objects.create_user(f"u{number}") for number in range(4)]
    manager = session_manager()
    assert isinstance(manager, pgsession.ShardedSessionManager)
    for user in users:
        client = Client()
        client.get("/do?set=cart:1")
        visitor = client.cookies[settings.SESSION_COOKIE_NAME].value
        client.force_login(user)
        assert client.get("/do").json() == {"values": {"cart": 1}, "user": user.get_username()}
        assert manager.count_sessions(user_id=str(user.pk)) == 1
        assert manager.open_token(visitor).session is None
        client.logout()
        assert manager.count_sessions(user_id=str(user.pk)) == 0
        user.delete()
    assert tables.count() == 0


def test_a_login_of_a_session_that_is_lists_and_ends(shards: Shards) -> None:
    user = auth.get_user_model().objects.create_user("u")
    devices = [Client() for _ in range(3)]
    for device in devices:
        device.force_login(user)
    assert len(session_manager().list_user_sessions(str(user.pk))) == 3
    from pgsession.contrib.django.admin import _admin

    page = _admin()  # of live sessions
    assert isinstance(page, pgsession.ShardedAdmin) and len(page.list_sessions(user_id=str(user.pk))) == 3
    assert session_manager().delete_user_sessions(str(user.pk)) == 3
    assert [device.get("/do").json()["user"] for device in devices] == [""] * 3
    user.delete()


def test_aliases_of_databases(shop: str) -> None:
    shards = [pgsession.Shard(database="default", schema_name="a"), "default"]
    with override_settings(PGSESSION={"database": shards, "schema_name": "s"}):
        read = configuration.read().database
        assert isinstance(read, list)
        assert [(each.database, each.schema_name) for each in read if isinstance(each, pgsession.Shard)] == [
            (configuration.conninfo_of("default"), "a"),
            (configuration.conninfo_of("default"), "s_1"),
        ]
        assert [(place.alias, place.shard) for place in configuration.places()] == [
            ("default", (0, 2)),
            ("default", (1, 2)),
        ]
        assert "`python manage.py migrate`" in configuration.how_to_migrate()


def test_migrate_makes_the_tables_of_each(shop: str) -> None:
    from importlib import import_module

    import psycopg
    from django.db import connection

    create = import_module("pgsession.contrib.django.migrations.0001_tables").create
    given = {"database": ["default", "default"], "schema_name": "made"}
    with override_settings(PGSESSION=given), connection.schema_editor() as editor:
        create(None, editor)
        assert session_manager().count_sessions() == 0  # it has found them as they are to be
    with psycopg.connect(shop, autocommit=True) as server:
        server.execute(
            "SET client_min_messages = warning; DROP SCHEMA made_0 CASCADE; DROP SCHEMA made_1 CASCADE"
        )


@pytest.mark.parametrize(
    "database", [[], ["default"] * 5000, [3], [pgsession.Shard(database="", schema_name="s")] * 2]
)
def test_what_cannot_be_shards_is_said(shop: str, database: Any) -> None:
    with override_settings(PGSESSION={"database": database, "schema_name": "s"}):
        with pytest.raises(ImproperlyConfigured, match="PGSESSION: shards"):
            configuration.read()
        assert "pgsession.E001" in [each.id for each in run_checks()]
