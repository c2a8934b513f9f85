"""The project's own tests, which `manage.py test` runs."""

from __future__ import annotations

from django.contrib.auth import get_user_model
from django.db import connection
from django.test import TestCase, TransactionTestCase

from pgsession.contrib.django import session_manager


class Sessions:
    def test_a_client_logs_in(self: TestCase) -> None:
        user = get_user_model().objects.create_user("alice", password="x")
        self.client.force_login(user)
        self.client.get("/do?set=a:1")
        assert self.client.get("/do").json()["values"] == {"a": 1}
        assert self.client.get("/do").json()["user"] == "alice"
        assert session_manager().count_sessions(user_id=str(user.pk)) == 1

    def test_sessions_are_in_the_test_database(self: TestCase) -> None:
        self.client.get("/do?set=a:1")
        with connection.cursor() as cursor:
            cursor.execute("SELECT current_database(), count(*) > 0 FROM sessions")
            name, found = cursor.fetchone()
        assert name.startswith("test_shop_") and found
        assert name == connection.settings_dict["NAME"]


class InTransactions(Sessions, TestCase):
    pass


class WithoutTransactions(Sessions, TransactionTestCase):
    pass
