"""The admin's page of live sessions: who may look, who may end, and nothing that another site could have done."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from django.contrib.auth import get_user_model
from django.test import Client, TestCase, override_settings

import pgsession.schema
from pgsession.contrib.django import SessionStore, session_manager
from tests.roles import Roles
from tests.tables import Tables

PAGE = "/admin/pgsession/livesession/"
USER = "_auth_user_id"


@pytest.fixture
def in_transaction(tables: Tables) -> Iterator[None]:
    """What Django stores is taken back."""

    class Case(TestCase):
        def runTest(self) -> None:
            pass

    Case.setUpClass()
    case = Case()
    case._pre_setup()  # type: ignore[attr-defined]
    yield
    case._post_teardown()  # type: ignore[attr-defined]
    Case.tearDownClass()


@pytest.fixture
def staff(in_transaction: None) -> Callable[..., Client]:
    """`staff("view_livesession")`: a browser of one who works there and has these permissions."""

    from django.contrib.auth.models import Permission

    def make(*permissions: str) -> Client:
        user: Any = get_user_model().objects.create_user(
            "-".join(("staff", *permissions)), password="x", is_staff=True
        )
        user.user_permissions.set(Permission.objects.filter(codename__in=permissions))
        client = Client(enforce_csrf_checks=True)
        client.force_login(user)
        return client

    return make


def begun(user: str, **values: object) -> SessionStore:
    store = SessionStore()
    store.update({USER: user, **values})
    store.save()
    return store


def ended(store: SessionStore) -> bool:
    return session_manager().open_token(store.session_key or "").session is None


def post(client: Client, **values: object) -> Any:
    page = client.get(PAGE)
    assert page.status_code == 200
    return client.post(PAGE, {"csrfmiddlewaretoken": client.cookies["csrftoken"].value, **values})


def test_the_page_shows_whose_sessions_there_are_and_nothing_in_them(staff: Callable[..., Client]) -> None:
    alice, bob = begun("alice<b>", secret="hers"), begun("bob")
    client = staff("view_livesession")
    page = client.get(PAGE)
    text = page.content.decode()
    assert str(alice.session_id) in text and str(bob.session_id) in text
    assert "alice&lt;b&gt;" in text and "alice<b>" not in text
    assert "hers" not in text and (alice.session_key or "") not in text
    assert text.count("(this one)") == 1
    assert "End the chosen" not in text
    only = client.get(PAGE, {"user_id": "bob"}).content.decode()
    assert str(bob.session_id) in only and str(alice.session_id) not in only
    assert PAGE in client.get("/admin/").content.decode()


def test_there_are_pages_of_a_hundred(staff: Callable[..., Client], tables: Tables) -> None:
    sessions = {str(session_manager().create_session("alice").id) for _ in range(1)}
    tables.run(
        "INSERT INTO {sessions} (id, user_id, expires_at)"
        " SELECT gen_random_uuid(), 'alice', now() + interval '1 h' FROM generate_series(1, 149)"
    )
    client = staff("view_livesession")
    first = client.get(PAGE, {"user_id": "alice"})
    shown = {str(session.id) for session in first.context["sessions"]}
    assert len(shown) == 100
    second = client.get(PAGE, {"user_id": "alice", "after": first.context["after"]})
    rest = {str(session.id) for session in second.context["sessions"]}
    assert len(rest) == 50 and not rest & shown and sessions <= rest | shown
    assert second.context["after"] is None
    assert client.get(PAGE, {"user_id": "alice", "after": "no id"}).status_code == 200


def test_who_may_end_sessions_ends_those_that_are_chosen(staff: Callable[..., Client]) -> None:
    from django.contrib.admin.models import LogEntry

    one, two, three = begun("alice"), begun("alice"), begun("bob")
    client = staff("view_livesession", "delete_livesession")
    answer = post(client, session=[str(one.session_id), "no id"])
    assert answer.status_code == 302
    assert "1 session ended." in client.get(PAGE).content.decode()
    assert ended(one) and not ended(two) and not ended(three)
    assert [entry.object_id for entry in LogEntry.objects.all()] == [str(one.session_id)]
    post(client, all_of_user="alice")
    session_manager().clear_cache()
    assert ended(two) and not ended(three)
    assert [(entry.object_id, str(entry)) for entry in LogEntry.objects.all()] == [
        ("alice", "Deleted “all of user alice.”"),
        (str(one.session_id), f"Deleted “{one.session_id}.”"),
    ]
    assert "all of user alice" in client.get("/admin/").content.decode()


@pytest.mark.parametrize("chosen", ["this one", "all of this user"])
@override_settings(MESSAGE_STORAGE="django.contrib.messages.storage.session.SessionStorage")
def test_who_ends_his_own_is_logged_out(staff: Callable[..., Client], chosen: str) -> None:
    client = staff("view_livesession", "delete_livesession")
    own = SessionStore(client.cookies["sessionid"].value)
    choice = {"session": str(own.session_id)} if chosen == "this one" else {"all_of_user": own[USER]}
    assert post(client, **choice).status_code == 302
    session_manager().clear_cache()
    assert ended(own)
    login = client.get(PAGE, follow=True)
    assert login.redirect_chain[-1][0].startswith("/admin/login/")
    assert "1 session ended." in login.content.decode()


@pytest.mark.parametrize("user", ["a\0b", "u" * 513], ids=["NUL", "too long"])
def test_an_id_that_no_user_can_have_is_one_without_sessions(staff: Callable[..., Client], user: str) -> None:
    client = staff("view_livesession", "delete_livesession")
    assert "There are none." in client.get(PAGE, {"user_id": user}).content.decode()
    assert post(client, all_of_user=user).status_code == 302
    assert "0 sessions ended." in client.get(PAGE).content.decode()


def test_it_takes_no_more_rights_in_the_database_than_a_service_has(
    staff: Callable[..., Client], roles: Roles, schema: str
) -> None:
    with psycopg.connect(roles.dsn("owner"), autocommit=True) as connection:
        pgsession.schema.create(connection, schema, grant_to=[roles.service])
    with override_settings(PGSESSION={"database": roles.dsn("service"), "schema_name": schema}):
        one, two = begun("alice"), begun("alice")
        client = staff("view_livesession", "delete_livesession")
        assert str(one.session_id) in client.get(PAGE).content.decode()
        assert post(client, session=str(one.session_id)).status_code == 302
        assert post(client, all_of_user="alice").status_code == 302
        assert ended(one) and ended(two)


def test_nobody_else_ends_any(staff: Callable[..., Client]) -> None:
    store = begun("alice")
    chosen = {"session": str(store.session_id)}
    viewer = staff("view_livesession")
    assert viewer.post(PAGE, chosen).status_code == 403  # without a token of this site
    client = staff("view_livesession", "delete_livesession")
    client.get(PAGE)
    assert client.post(PAGE, chosen).status_code == 403
    assert client.get(PAGE, {**chosen, "all_of_user": "alice"}).status_code == 200
    viewer.get(PAGE)
    token = client.cookies["csrftoken"].value
    viewer.cookies["csrftoken"] = token
    assert viewer.post(PAGE, {**chosen, "csrfmiddlewaretoken": token}).status_code == 403
    assert not ended(store)


def test_nobody_else_looks(staff: Callable[..., Client]) -> None:
    assert staff().get(PAGE).status_code == 403
    assert Client().get(PAGE).status_code == 302
    superfluous = staff("view_livesession", "add_livesession", "change_livesession", "delete_livesession")
    for path in ("add/", "7/change/", "7/delete/", "7/history/"):
        assert superfluous.get(PAGE + path).status_code == 404
