"""What the engine does beyond what Django's own tests of it ask for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from django.contrib.sessions.backends.base import CreateError, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.contrib.sessions.middleware import SessionMiddleware
from django.core.serializers.json import DjangoJSONEncoder
from django.core.signing import JSONSerializer
from django.http import HttpRequest, HttpResponse
from django.test import RequestFactory, override_settings

import pgsession
from pgsession.contrib.django import SessionStore, session_manager
from pgsession.contrib.django.configuration import signer
from pgsession.testing import Clock
from tests.tables import Tables

pytestmark = pytest.mark.usefixtures("tables")
USER = "_auth_user_id"


def stored(**values: object) -> SessionStore:
    store = SessionStore()
    store.update(values)
    store.save()
    return store


def again(store: SessionStore) -> SessionStore:
    """The next request's."""
    return SessionStore(store.session_key)


def answered(view: Callable[[HttpRequest], HttpResponse], cookie: str | None) -> HttpResponse:
    """What Django's middleware makes of the answer of a view."""
    request = RequestFactory().get("/")
    if cookie is not None:
        request.COOKIES["sessionid"] = cookie
    response = SessionMiddleware(view)(request)
    assert isinstance(response, HttpResponse)
    return response


@pytest.fixture
def elsewhere(shop: str) -> Iterator[pgsession.SessionManager]:
    """Another node."""
    config = pgsession.Config(max_sessions=0)
    with pgsession.SessionManager(shop, config, signer=signer()) as manager:
        yield manager


class Pickled:
    """A serializer that is no JSON."""

    def dumps(self, obj: object) -> bytes:
        return repr(obj).encode()

    def loads(self, data: bytes) -> object:
        return eval(data, {"datetime": __import__("datetime")})


class Extended(JSONSerializer):
    """A serializer of JSON with more types, as Django's documentation shows one."""

    def dumps(self, obj: Any) -> bytes:
        import json

        return json.dumps(obj, cls=DjangoJSONEncoder).encode("latin-1")


# ---- what is stored ----


def test_nothing_is_stored_before_there_is_something(tables: Tables) -> None:
    store = SessionStore()
    assert store.get("a") is None
    assert store.is_empty() and not store.modified and tables.count() == 0


def test_values_are_stored_as_json_one_by_one(tables: Tables) -> None:
    stored(cart=[1, {"n": "é"}], count=2)
    found = dict(tables.run("SELECT key, value::text FROM {session_attributes}"))
    assert found == {"cart": '[1,{"n":"é"}]', "count": "2"}


def test_values_are_what_the_serializer_makes_of_them() -> None:
    store = stored(pair=(1, [2]), names={1: "a", None: "b"})
    store[7] = "seven"
    store.save()
    assert store["pair"] == (1, [2]) and store[7] == "seven"  # in this request as they were set
    assert dict(again(store).items()) == {"pair": [1, [2]], "names": {"1": "a", "null": "b"}, "7": "seven"}


@pytest.mark.parametrize(
    "value", [datetime.now(UTC), object(), {1, 2}, float("nan")], ids=lambda value: type(value).__name__
)
def test_what_json_has_not_is_refused(value: object, tables: Tables) -> None:
    store = stored(a=None)
    store["a"] = value
    with pytest.raises((TypeError, ValueError)):
        store.save()
    nested = again(stored(a=[]))
    nested["a"].append(value)
    assert nested.modified
    with pytest.raises((TypeError, ValueError)):
        nested.save()
    assert tables.run("SELECT DISTINCT value::text FROM {session_attributes} ORDER BY 1") == [
        ("[]",),
        ("null",),
    ]


@override_settings(SESSION_SERIALIZER=f"{__name__}.Extended")
def test_a_serializer_of_json_with_more_types_is_kept_to(tables: Tables) -> None:
    store = stored(at=datetime(2026, 1, 2, tzinfo=UTC))
    assert again(store)["at"] == "2026-01-02T00:00:00Z"
    assert tables.one("SELECT value::text FROM {session_attributes}") == '"2026-01-02T00:00:00Z"'


@override_settings(SESSION_SERIALIZER=f"{__name__}.Pickled")
def test_any_other_serializer_is_kept_to() -> None:
    store = stored(at=datetime(2026, 1, 2), pair=(1, 2), cart=[{3}])
    later = again(store)
    assert dict(later.items()) == {"at": datetime(2026, 1, 2), "pair": (1, 2), "cart": [{3}]}
    assert not later.modified
    later["cart"][0].add(4)
    assert later.modified
    later.save()
    assert again(later)["cart"] == [{3, 4}]


def test_changes_inside_of_values_are_found() -> None:
    store = again(stored(cart={"book": [1]}, untouched=[1]))
    assert store["untouched"] == [1] and not store.modified
    store["cart"]["book"].append(2)
    assert store.modified
    store.save()
    assert again(store)["cart"] == {"book": [1, 2]}
    store["cart"]["book"].append(3)  # and once more in the same request
    store.save()
    assert again(store)["cart"] == {"book": [1, 2, 3]}


def test_what_was_set_may_go_on_changing() -> None:
    store = SessionStore()
    cart: list[int] = []
    store["cart"] = cart
    store.save()
    cart.append(1)
    store.save()
    assert again(store)["cart"] == [1]


def test_a_save_without_a_change_writes_nothing_and_keeps_the_key() -> None:
    store = again(stored(a=1))
    before = store.session_key
    store["a"] = 1
    store.save()
    assert store.session_key == before


def test_the_key_brings_the_version_along(elsewhere: pgsession.SessionManager) -> None:
    store = stored(a=1)
    before = store.session_key
    assert elsewhere.open_token(before or "").state == "current"
    store["a"] = 2
    store.save()
    assert store.session_key != before
    found = elsewhere.open_token(store.session_key or "").session
    assert found is not None and found["a"] == 2 and found.id == store.session_id
    assert SessionStore(before)["a"] == 2


def test_a_cleared_session_stays_and_a_flushed_one_ends(tables: Tables) -> None:
    store = again(stored(a=1, b=2))
    store.clear()  # before it was read
    assert store.modified
    store.save()
    assert tables.count() == 1 and dict(again(store).items()) == {}
    store.flush()
    assert tables.count() == 0 and store.is_empty()


def test_a_session_that_exists_is_not_created() -> None:
    with pytest.raises(CreateError):
        again(stored(a=1)).save(must_create=True)


# ---- when it ends ----


def ends_in(store: SessionStore) -> timedelta:
    session = session_manager().open_token(store.session_key or "").session
    assert session is not None
    assert not session.include_inactivity
    return session.expires_at - datetime.now(UTC)


@pytest.mark.parametrize(
    ("expiry", "seconds"),
    [(None, 1_209_600), (0, 1_209_600), (600, 600), (timedelta(hours=1), 3600)],
    ids=repr,
)
def test_a_session_ends_when_django_says(expiry: Any, seconds: int) -> None:
    store = SessionStore()
    store["a"] = 1
    store.set_expiry(expiry)
    store.save()
    assert timedelta(seconds=seconds - 30) < ends_in(store) <= timedelta(seconds=seconds)
    store = again(store)
    store.set_expiry(1200)
    store.save()
    assert timedelta(seconds=1170) < ends_in(store) <= timedelta(seconds=1200)


@override_settings(USE_TZ=False)
def test_a_naive_date_is_one_of_the_projects_time_zone() -> None:
    store = SessionStore()
    store.set_expiry(timedelta(hours=1))
    store.save()
    again(store).save()
    assert timedelta(minutes=59) < ends_in(store) <= timedelta(hours=1)


def test_a_naive_date_where_others_are_aware_is_one_of_the_projects_time_zone_too() -> None:
    """Django's own engine saves it, too."""
    store = SessionStore()
    store.set_expiry(datetime.now() + timedelta(hours=1))
    store.save()
    again(store).save()
    assert timedelta(minutes=59) < ends_in(store) <= timedelta(hours=1)


def test_one_that_is_to_have_ended_already_has() -> None:
    store = stored(a=1)
    store.set_expiry(-1)
    store.save()
    assert dict(again(store).items()) == {}


def test_saving_every_request_writes_only_what_is_worth_it(tables: Tables) -> None:
    store = stored(a=1)
    store.set_expiry(1000)
    store.save()
    before = tables.run("SELECT version, expires_at FROM {sessions}")
    again(store).save()
    assert tables.run("SELECT version, expires_at FROM {sessions}") == before
    Clock().advance(20)
    again(store).save()
    assert tables.one("SELECT expires_at FROM {sessions}") >= before[0][1]


def test_expired_sessions_are_cleared(tables: Tables) -> None:
    from django.core.management import call_command

    stored(a=1)
    Clock().advance(timedelta(days=8))
    stored(a=2)
    Clock().advance(timedelta(days=8))
    call_command("clearsessions")
    assert tables.count() == 1
    Clock().advance(timedelta(days=8))
    asyncio.run(SessionStore.aclear_expired())
    assert tables.count() == 0


# ---- whose it is ----


def users(tables: Tables) -> list[str | None]:
    return [user for (user,) in tables.run("SELECT user_id FROM {sessions} ORDER BY user_id")]


def test_who_logs_in_gets_the_session_and_a_key_of_his_own(tables: Tables) -> None:
    visitor = stored(cart=[1])
    store = again(visitor)
    store.cycle_key()
    store[USER] = "7"
    store.save()
    assert users(tables) == ["7"]
    assert again(store)["cart"] == [1]
    assert not store.exists(visitor.session_key)
    assert visitor.session_id == store.session_id
    del store[USER]
    before = store.session_key
    store.save()
    assert users(tables) == [None] and not store.exists(before)


@override_settings(PGSESSION={"database": "default", "max_sessions": 1, "max_sessions_policy": "reject"})
def test_one_session_too_many_is_not_saved(tables: Tables) -> None:
    stored(**{USER: "7"})
    with pytest.raises(UpdateError):
        stored(**{USER: "7"})
    visitor = stored(a=1)
    visitor[USER] = "7"
    with pytest.raises(UpdateError):
        visitor.save()
    assert users(tables) == ["7", None]


@override_settings(PGSESSION={"database": "default", "max_sessions": 1})
def test_or_the_oldest_ends() -> None:
    first = stored(**{USER: "7"})
    stored(**{USER: "7"})
    assert dict(again(first).items()) == {}


# ---- requests that overlap ----


def test_changes_of_different_keys_are_merged() -> None:
    store = stored(a=1, b=1, c=1)
    one, other = again(store), again(store)
    one["a"] = 2
    del other["c"]
    other["b"] = 2
    other.save()
    one.save()
    assert dict(one.items()) == {"a": 2, "b": 2}  # what the other did is there
    one["d"] = 1
    one.save()  # and stays
    assert dict(again(one).items()) == {"a": 2, "b": 2, "d": 1}


def test_of_the_same_key_the_last_one_stays() -> None:
    store = stored(a=1)
    one, other = again(store), again(store)
    one["a"], other["a"] = 2, 3
    one.save()
    other.save()
    assert again(store)["a"] == 3


@override_settings(PGSESSION={"database": "default", "on_conflict": "fail"})
def test_or_the_later_one_fails() -> None:
    store = stored(a=1, b=1)
    one, other, third = again(store), again(store), again(store)
    one["a"], other["a"], third["b"] = 2, 3, 4
    one.save()
    with pytest.raises(SessionInterrupted):
        other.save()
    third.save()
    assert dict(again(store).items()) == {"a": 2, "b": 4}


def test_a_late_request_does_not_undo_a_login(tables: Tables) -> None:
    visitor = stored(cart=[1])
    early, late, later = again(visitor), again(visitor), again(visitor)
    assert early["cart"] == [1]
    login = again(visitor)
    login.cycle_key()
    login[USER] = "7"
    login.save()

    early["cart"].append(2)  # it had been read before
    with pytest.raises(UpdateError):
        early.save()
    assert dict(late.items()) == {} and not late.modified
    assert late.session_key == visitor.session_key and not late.is_empty()  # no cookie is deleted
    late["a"] = 1
    with pytest.raises(UpdateError):
        late.save()
    later.flush()  # a late logout
    assert not later.modified and not later.is_empty()
    later["a"] = 1
    with pytest.raises(UpdateError):
        later.save()
    cycling = again(visitor)
    cycling.cycle_key()
    cycling[USER] = "8"
    with pytest.raises(UpdateError):
        cycling.save()
    assert users(tables) == ["7"] and dict(again(login).items()) == {"cart": [1], USER: "7"}


def test_after_the_grace_an_old_key_is_none(tables: Tables) -> None:
    visitor = stored(cart=[1])
    again(visitor).cycle_key()
    tables.run("UPDATE {sessions} SET rotated_at = rotated_at - interval '1 h'")
    session_manager().clear_cache()
    store = again(visitor)
    assert dict(store.items()) == {}
    store["a"] = 1
    store.save()
    assert tables.count() == 2


def test_a_request_under_way_saves_nothing_with_the_key_of_before(
    elsewhere: pgsession.SessionManager,
) -> None:
    """Django would send that to the browser, which has the new one."""
    store = again(stored(a=1))
    assert store["a"] == 1
    session = elsewhere.get_session(store.session_id or "")
    assert session is not None
    elsewhere.rotate_session(session)  # with a grace
    session_manager().clear_cache()
    store["a"] = 2
    with pytest.raises(UpdateError):
        store.save()
    assert again(store)["a"] == 1


def test_a_logout_meanwhile_drops_the_changes(tables: Tables) -> None:
    store = stored(a=1)
    one, cycling, cleared = again(store), again(store), again(store)
    assert one["a"] == 1 and cycling["a"] == 1
    again(store).flush()
    one["a"] = 2
    with pytest.raises(UpdateError):
        one.save()
    with pytest.raises(SessionInterrupted):
        cycling.cycle_key()
    cleared.clear()
    with pytest.raises(UpdateError):
        cleared.save()
    late = again(store)
    assert dict(late.items()) == {} and late.session_key is None
    assert not late.is_empty() and not late.modified  # its cookie may be another one by now
    late.flush()
    assert not late.is_empty() and not late.modified
    assert tables.count() == 0
    late["a"] = 1
    late.save()
    assert late.session_key is not None and tables.count() == 1


@pytest.mark.parametrize("key", ["forged", "ended"])
@pytest.mark.parametrize("reads", [False, True], ids=["unread", "read"])
def test_who_clears_a_session_that_is_none_is_answered(key: str, reads: bool, tables: Tables) -> None:
    """With the cookie of another engine, too: nobody gets 400 for ever."""
    cookie = "k3v5c8zo3u0w9zcx2yp1y2l3k5f8a7b1"  # as Django's own engines make them
    if key == "ended":
        store = stored(a=1)
        cookie = str(store.session_key)
        again(store).flush()

    def clear(request: HttpRequest) -> HttpResponse:
        assert not reads or request.session.get("a") is None
        request.session.clear()
        return HttpResponse()

    def clear_and_set(request: HttpRequest) -> HttpResponse:
        clear(request)
        request.session["b"] = 2
        return HttpResponse()

    response = answered(clear, cookie)
    assert tables.count() == 0
    if key == "forged":
        assert response.cookies["sessionid"]["max-age"] == 0
    else:
        assert not response.cookies  # it may be another one by now
    response = answered(clear_and_set, cookie)
    assert dict(SessionStore(response.cookies["sessionid"].value).items()) == {"b": 2}


def test_who_asks_for_the_id_depends_on_the_cookie() -> None:
    def show(request: HttpRequest) -> HttpResponse:
        return HttpResponse(str(request.session.session_id))

    assert answered(show, None).headers["Vary"] == "Cookie"


@override_settings(PGSESSION={"database": "default", "on_conflict": "serial"})
def test_who_has_lost_his_turn_overwrites_nothing() -> None:
    """Its process has stood still for longer than the lease, or something has asked whether the session is empty."""
    store = stored(a=1, b=1)
    one, other, third = again(store), again(store), again(store)
    one["a"], other["a"], third["b"] = 2, 3, 4
    one.save()
    with pytest.raises(SessionInterrupted):
        other.save()
    third.save()
    assert dict(again(store).items()) == {"a": 2, "b": 4}


@override_settings(SESSION_SAVE_EVERY_REQUEST=True)
def test_an_ended_key_is_not_saved_as_a_new_session(tables: Tables) -> None:
    store = stored(a=1)
    again(store).flush()
    assert again(store).is_empty() and tables.count() == 0


# ---- async ----


async def test_a_hit_leaves_no_thread(monkeypatch: pytest.MonkeyPatch) -> None:
    def leave(*_: object, **__: object) -> None:
        raise AssertionError("a thread was asked")

    key = await asyncio.to_thread(lambda: stored(a=1).session_key)
    monkeypatch.setattr("pgsession.contrib.django.store.sync_to_async", leave)
    store = SessionStore(key)
    assert await store.aget("a") == 1
    await store.aset("a", 2)
    assert store.modified


async def test_what_needs_the_database_does_not_block_the_loop(tables: Tables) -> None:
    threads: list[str] = []
    store = SessionStore()
    await store.aset("a", 1)
    await store.asave()
    await asyncio.to_thread(session_manager().clear_cache)
    later = SessionStore(store.session_key)
    load = SessionStore.load

    def noted(store: SessionStore) -> dict[str, object]:
        threads.append(threading.current_thread().name)
        return load(store)

    later.load = noted.__get__(later)  # type: ignore[method-assign]
    assert await later.aget("a") == 1
    assert threads and threads != [threading.current_thread().name]
    await later.acycle_key()
    assert await later.aexists(later.session_key) and not await later.aexists(store.session_key)
    await later.aflush()
    assert tables.count() == 0


# ---- settings ----


def test_keys_follow_djangos(elsewhere: pgsession.SessionManager) -> None:
    store = stored(a=1)
    secret = settings.SECRET_KEY
    with override_settings(SECRET_KEY="another", SECRET_KEY_FALLBACKS=[secret]):
        assert again(store)["a"] == 1
        new = stored(a=2)
    assert dict(again(new).items()) == {}
    with override_settings(SECRET_KEY="another"):
        assert dict(again(store).items()) == {}
        assert again(new)["a"] == 2


def test_the_manager_is_there_for_more(tables: Tables) -> None:
    store = stored(**{USER: "7"})
    assert [session.id for session in session_manager().list_user_sessions("7")] == [store.session_id]
    assert session_manager().delete_user_sessions("7") == 1
    assert dict(again(store).items()) == {}


@override_settings(PGSESSION={"database": "default", "inactivity_duration": 3600})
def test_an_idle_timeout_counts_where_the_project_names_one(tables: Tables) -> None:
    stored(a=1)
    assert tables.one("SELECT inactivity IS NOT NULL FROM {sessions}") is True
