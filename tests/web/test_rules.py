"""What becomes of a request's session: which calls are made, and what the browser is told."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from types import SimpleNamespace
from typing import Any, TypedDict
from uuid import UUID

import msgspec
import pytest

import pgsession
from pgsession import ConfigError, SessionManager
from pgsession.testing import Clock
from pgsession.web import (
    CookiePolicy,
    OnConflict,
    SessionConflict,
    SessionRules,
    WebSession,
    releasing,
    run,
    run_async,
)
from tests.tables import Tables

HOUR = 3600


class Browser:
    """One cookie, and the requests that it goes with."""

    def __init__(self, manager: SessionManager, rules: SessionRules | None = None) -> None:
        self.manager = manager
        self.rules = SessionRules() if rules is None else rules
        self.cookie = ""
        self.headers: dict[str, str] = {}

    def begin(self, manager: SessionManager | None = None, cookie: str | None = None) -> WebSession:
        manager = self.manager if manager is None else manager
        tokens = self.rules.tokens(self.cookie if cookie is None else cookie)
        if not tokens:
            return WebSession(self.rules.cookie, manager.token)
        opened = self.rules.from_memory(manager, tokens)
        release = None
        if opened is None:
            opened, release = run(manager, self.rules.opening(tokens))
        return WebSession(self.rules.cookie, manager.token, opened, release)

    def end(self, session: WebSession, manager: SessionManager | None = None) -> dict[str, str]:
        manager = self.manager if manager is None else manager
        try:
            run(manager, self.rules.saving(session))
        finally:
            run(manager, releasing(session))
        self.headers = dict(self.rules.headers(session))
        given = self.headers.get("Set-Cookie")
        if given is not None:
            self.cookie = "" if "Max-Age=0" in given else given.partition(";")[0]
        return self.headers

    def request(self, use: Callable[[WebSession], object] = lambda _: None) -> dict[str, str]:
        session = self.begin()
        use(session)
        return self.end(session)


@pytest.fixture
def browser(manager: SessionManager) -> Browser:
    return Browser(manager)


def put(**values: Any) -> Callable[[WebSession], None]:
    return lambda session: session.update(values)


def read(browser: Browser, key: str) -> Any:
    return browser.begin().get(key)


# ---- when something is stored ----


def test_nothing_is_stored_before_it_holds_something(browser: Browser, tables: Tables) -> None:
    assert browser.request() == {}
    assert browser.request(lambda session: session.get("cart")) == {"Vary": "Cookie"}
    assert browser.request(lambda session: (session.rotate(), session.expire(60), session.log_out())) == {
        "Vary": "Cookie"
    }
    assert tables.count() == 0
    headers = browser.request(put(cart=["book"]))
    assert headers["Vary"] == "Cookie" and headers["Set-Cookie"].startswith("__Host-session=")
    assert tables.count() == 1 and read(browser, "cart") == ["book"]


def test_a_cookie_is_set_on_a_change_only(browser: Browser) -> None:
    browser.request(put(cart=["book"]))
    assert browser.request() == {}
    assert browser.request(lambda session: session["cart"]) == {"Vary": "Cookie"}
    assert "Set-Cookie" in browser.request(lambda session: session["cart"].append("pen"))
    assert read(browser, "cart") == ["book", "pen"]


def test_the_token_brings_the_version_to_every_node(browser: Browser, elsewhere: SessionManager) -> None:
    browser.request(put(n=0))
    for n in range(1, 20):
        nodes = [browser.manager, elsewhere]
        session = browser.begin(nodes[n % 2])
        assert session["n"] == n - 1
        session["n"] = n
        browser.end(session, nodes[n % 2])


@pytest.mark.parametrize("value", ["A" * 88, str(UUID(int=1)), "", "é", "x" * 5000])
def test_what_a_client_made_is_not_adopted(browser: Browser, tables: Tables, value: str) -> None:
    browser.cookie = f"__Host-session={value}"
    browser.request(put(n=1))
    assert tables.count() == 1 and browser.cookie != f"__Host-session={value}"
    stored = tables.one("SELECT id FROM {sessions}")
    assert str(stored) != value and read(browser, "n") == 1


def test_forged_cookies_of_other_hosts_do_not_hide_the_real_one(browser: Browser) -> None:
    browser.request(put(n=1))
    mine = browser.cookie
    for cookie in (f"__Host-session=forged; {mine}", f"{mine}; __Host-session=forged"):
        session = browser.begin(cookie=cookie)
        assert session["n"] == 1


# ---- logging in and out ----


def test_login_rotates_binds_and_keeps_the_cart(browser: Browser) -> None:
    browser.request(put(cart=["book"]))
    planted = browser.cookie
    browser.request(lambda session: session.log_in("alice"))
    assert browser.cookie != planted
    session = browser.begin()
    assert session.user_id == "alice" and session["cart"] == ["book"]
    thief = browser.begin(cookie=planted)
    assert thief.user_id is None and dict(thief) == {}


@pytest.mark.parametrize("user", ["alice", 7, UUID(int=7)])
def test_login_without_a_session_makes_one(browser: Browser, user: str | int | UUID) -> None:
    def log_in(session: WebSession) -> None:
        session.log_in(user)
        assert session.user_id == str(user) and session.new and session.session_id is None

    browser.request(log_in)
    session = browser.begin()
    assert session.user_id == str(user) and not session.new and isinstance(session.session_id, UUID)


def test_login_as_the_same_user_rotates_too(browser: Browser) -> None:
    browser.request(lambda session: session.log_in("alice"))
    before, known = browser.cookie, browser.begin().session_id
    browser.request(lambda session: session.log_in("alice"))
    assert browser.cookie != before and browser.begin().session_id == known
    assert browser.begin(cookie=before).user_id is None


def test_login_as_another_user_ends_the_session_of_before(browser: Browser, tables: Tables) -> None:
    def log_in(session: WebSession) -> None:
        session.log_in("alice")
        session["secret"] = "hers"

    browser.request(log_in)
    browser.request(lambda session: session.log_in("bob"))
    session = browser.begin()
    assert session.user_id == "bob" and dict(session) == {}
    assert tables.count() == 1


@pytest.mark.parametrize("stored", [False, True])
def test_of_two_logins_of_a_request_the_second_sees_nothing_of_the_first(
    browser: Browser, tables: Tables, stored: bool
) -> None:
    if stored:
        browser.request(put(cart=["book"]))

    def log_in(session: WebSession) -> None:
        session.log_in("alice")
        session["secret"] = "hers"
        session.log_in("bob")

    browser.request(log_in)
    session = browser.begin()
    assert session.user_id == "bob" and dict(session) == {}
    assert tables.count() == 1


@pytest.mark.parametrize("end", ["log_out", "clear"])
def test_logout_deletes_on_the_server_and_the_cookie_with_all_its_attributes(
    browser: Browser, tables: Tables, end: str
) -> None:
    browser.request(put(cart=["book"]))
    kept = browser.cookie
    headers = browser.request(lambda session: getattr(session, end)())
    assert headers["Set-Cookie"] == browser.rules.cookie.delete_cookie() and browser.cookie == ""
    assert tables.count() == 0
    assert browser.begin(cookie=kept).new


def test_what_is_put_in_after_logout_begins_a_new_session(browser: Browser, tables: Tables) -> None:
    browser.request(lambda session: session.log_in("alice"))
    before = browser.begin().session_id
    browser.request(lambda session: (session.log_out(), session.flash("bye")))
    session = browser.begin()
    assert session.user_id is None and session.session_id != before and tables.count() == 1
    assert session.flashes() == [("message", "bye")]


def test_rotation_keeps_the_session(browser: Browser) -> None:
    browser.request(put(n=1))
    before, known = browser.cookie, browser.begin().session_id
    browser.request(lambda session: (session.rotate(grace=0), session.update(n=2)))
    session = browser.begin()
    assert session.session_id == known and session["n"] == 2
    assert browser.begin(cookie=before).new


@pytest.mark.parametrize("user", [None, True, 1.5, b"alice"])
def test_a_user_of_another_type_is_refused_at_once(browser: Browser, user: Any) -> None:
    with pytest.raises(TypeError, match=r"^user_id: a str, an int or a UUID is needed"):
        browser.begin().log_in(user)


# ---- requests with an older token ----


def test_a_superseded_token_is_an_empty_session_whose_changes_are_dropped(
    browser: Browser, tables: Tables
) -> None:
    browser.request(put(n=1))
    before = browser.cookie
    browser.request(lambda session: session.log_in("alice"))
    late = browser.begin(cookie=before)
    assert late.new and late.user_id is None
    late["n"] = 2
    assert browser.end(late) == {"Vary": "Cookie"}
    assert tables.count() == 1 and read(browser, "n") == 1
    for use in (WebSession.log_out, WebSession.rotate, WebSession.clear):
        late = browser.begin(cookie=before)
        use(late)
        assert browser.end(late) == {"Vary": "Cookie"}
    assert browser.begin().user_id == "alice"


def test_a_superseded_token_does_not_log_in(browser: Browser) -> None:
    browser.request(put(n=1))
    before = browser.cookie
    browser.request(lambda session: session.log_in("alice"))
    with pytest.raises(SessionConflict, match="token of before the last rotation"):
        browser.begin(cookie=before).log_in("bob")
    assert browser.begin().user_id == "alice"


def test_a_previous_token_saves_but_never_touches_the_cookie(browser: Browser) -> None:
    browser.request(put(n=1))
    before = browser.cookie
    browser.request(WebSession.rotate)
    late = browser.begin(cookie=before)
    late["m"] = 2
    assert browser.end(late) == {"Vary": "Cookie"}
    assert read(browser, "m") == 2
    late = browser.begin(cookie=before)
    late.rotate()
    assert browser.end(late) == {"Vary": "Cookie"}
    late = browser.begin(cookie=before)
    late.log_in("bob")
    with pytest.raises(SessionConflict):
        browser.end(late)
    late = browser.begin(cookie=before)
    late.log_out()
    late["bye"] = True
    assert browser.end(late) == {"Vary": "Cookie"}
    assert browser.begin().new, "logged out on the server"


def test_two_tabs_that_rotate_at_once_leave_the_browser_with_a_good_cookie(browser: Browser) -> None:
    browser.request(put(n=1))
    one, two = browser.begin(), browser.begin()
    one.rotate()
    two.rotate()
    two["n"] = 2
    assert "Set-Cookie" in browser.end(one)
    assert browser.end(two) == {"Vary": "Cookie"}
    assert read(browser, "n") == 2


@pytest.mark.parametrize("changes_again", [False, True])
def test_a_cookie_of_before_a_rotation_elsewhere_is_not_set(browser: Browser, changes_again: bool) -> None:
    """Saved in the middle of a request, and rotated by another one before its end."""
    browser.request(put(n=1))
    slow = browser.begin()
    slow["n"] = 2
    run(browser.manager, browser.rules.saving(slow))
    browser.request(lambda session: session.log_in("alice"))
    if changes_again:
        slow["n"] = 3
    assert browser.end(slow) == {"Vary": "Cookie"}
    assert browser.begin().user_id == "alice"


def test_a_cookie_of_a_save_in_the_middle_is_set_at_the_end(browser: Browser) -> None:
    session = browser.begin()
    session["n"] = 1
    run(browser.manager, browser.rules.saving(session))
    assert "Set-Cookie" in browser.end(session) and read(browser, "n") == 1


# ---- requests that overlap ----


def test_changes_of_different_keys_are_merged_and_of_the_same_key_the_last_wins(browser: Browser) -> None:
    browser.request(put(n=0))
    one, two = browser.begin(), browser.begin()
    one.update(a=1, n=1)
    two.update(b=2, n=2)
    browser.end(one)
    browser.end(two)
    assert dict(browser.begin()) == {"a": 1, "b": 2, "n": 2}


def test_fail_refuses_the_same_key_only(manager: SessionManager) -> None:
    browser = Browser(manager, SessionRules(on_conflict="fail"))
    browser.request(put(n=0))
    one, two, three = browser.begin(), browser.begin(), browser.begin()
    one.update(a=1, n=1)
    two.update(b=2)
    three.update(n=3)
    three.rotate()
    browser.end(one)
    browser.end(two)
    before = browser.cookie
    with pytest.raises(SessionConflict):
        browser.end(three)
    assert dict(browser.begin(cookie=before)) == {"a": 1, "b": 2, "n": 1}


def test_serial_handles_the_requests_of_a_session_one_after_the_other(
    manager: SessionManager, elsewhere: SessionManager
) -> None:
    browser = Browser(manager, SessionRules(on_conflict="serial", serial_timeout=1))
    browser.request(put(cart=[]))
    first = browser.begin()
    with pytest.raises(SessionConflict, match="serial_timeout"):
        browser.begin(elsewhere)
    first["cart"].append(1)
    browser.end(first)
    second = browser.begin(elsewhere)
    second["cart"].append(2)
    browser.end(second, elsewhere)
    third = browser.begin()
    assert third["cart"] == [1, 2]
    browser.end(third)


def test_who_dies_with_his_turn_keeps_the_others_waiting_for_less_than_they_wait(
    manager: SessionManager, tables: Tables
) -> None:
    browser = Browser(manager, SessionRules(on_conflict="serial"))
    browser.request(put(n=1))
    session = browser.begin()
    assert tables.one("SELECT extract(epoch FROM expires_at - clock_timestamp()) FROM {session_locks}") <= 10
    browser.end(session)


def test_a_turn_that_cannot_be_ended_does_not_take_the_cookie_away(
    manager: SessionManager, tables: Tables, caplog: pytest.LogCaptureFixture
) -> None:
    browser = Browser(manager, SessionRules(on_conflict="serial"))
    browser.request(put(n=1))
    session = browser.begin()
    session.log_in("alice")
    tables.run("ALTER TABLE {session_locks} RENAME TO session_locks_away")
    try:
        assert "Set-Cookie" in browser.end(session)
    finally:
        tables.run("ALTER TABLE {schema}.session_locks_away RENAME TO session_locks")
    assert "could not be ended" in caplog.text
    tables.run("DELETE FROM {session_locks}")  # its lease time is over
    session = browser.begin()
    assert session.user_id == "alice"
    browser.end(session)


@pytest.mark.parametrize("on_conflict", ["merge", "fail", "serial"])
def test_what_ended_meanwhile_stays_so_and_the_cookie_is_left_alone(
    manager: SessionManager, tables: Tables, on_conflict: OnConflict
) -> None:
    browser = Browser(manager, SessionRules(on_conflict=on_conflict))
    for use in (put(n=2), WebSession.rotate, WebSession.log_out, lambda session: session.expire(60)):
        browser.request(put(n=1))
        running = browser.begin()
        known = running.session_id
        use(running)
        assert known is not None and manager.delete_session(known)
        assert browser.end(running) == {"Vary": "Cookie"}
        assert tables.count() == 0
        running["more"] = 1
        run(manager, browser.rules.saving(running))
        assert tables.count() == 0
        browser.cookie = ""


def test_a_login_whose_session_ended_meanwhile_is_refused(browser: Browser, tables: Tables) -> None:
    browser.request(put(n=1))
    running = browser.begin()
    running.log_in("alice")
    assert browser.manager.delete_session(str(tables.one("SELECT id FROM {sessions}")))
    with pytest.raises(SessionConflict):
        browser.end(running)
    assert tables.count() == 0


def test_of_two_logins_at_once_one_is_refused(browser: Browser) -> None:
    browser.request(put(n=1))
    one, two = browser.begin(), browser.begin()
    one.log_in("alice")
    two.log_in("bob")
    browser.end(one)
    with pytest.raises(SessionConflict):
        browser.end(two)
    assert browser.begin().user_id == "alice"


@pytest.mark.parametrize("on_other_node", [False, True], ids=["one node", "two nodes"])
@pytest.mark.parametrize("before", [None, "alice"])
@pytest.mark.parametrize("begins", ["before", "after"])
def test_two_clicks_on_a_login_log_in_once(
    browser: Browser,
    elsewhere: SessionManager,
    tables: Tables,
    on_other_node: bool,
    before: str | None,
    begins: str,
) -> None:
    """The browser drops the first answer, and has only the cookie of the second one."""
    browser.request(put(cart=["book"]))
    if before is not None:
        browser.request(lambda session: session.log_in(before))
    given = browser.cookie
    node = elsewhere if on_other_node else browser.manager
    first, second = browser.begin(), browser.begin(node)
    assert second["cart"] == ["book"]
    if begins == "before":
        second.log_in("alice", remember=True)
    first.log_in("alice", remember=True)
    browser.end(first)
    if begins == "after":
        second.log_in("alice", remember=True)
    browser.cookie = given
    assert "Max-Age=" in browser.end(second, node)["Set-Cookie"] and browser.cookie != given
    assert browser.begin().user_id == "alice" and read(browser, "cart") == ["book"] and tables.count() == 1
    assert browser.begin(cookie=given).new, "the token of before is of no use"


def test_a_message_of_each_request_is_kept(browser: Browser) -> None:
    browser.request(put(n=1))
    one, two = browser.begin(), browser.begin()
    one.flash("saved")
    two.flash({"to": "alice"}, "error")
    browser.end(one)
    browser.end(two)
    session = browser.begin()
    assert dict(session) == {"n": 1} and len(session) == 1, "what is ours is not shown"
    assert session.flashes() == [("message", "saved"), ("error", {"to": "alice"})]
    browser.end(session)
    assert browser.begin().flashes() == []


# ---- how long it lasts ----


def max_age(headers: dict[str, str]) -> int | None:
    for part in headers["Set-Cookie"].split("; "):
        if part.startswith("Max-Age="):
            return int(part.removeprefix("Max-Age="))
    return None


def lives(browser: Browser, tables: Tables) -> tuple[bool, float]:
    """Whether it ends by inactivity, and its seconds at most."""
    [row] = tables.run(
        "SELECT inactivity IS NOT NULL, extract(epoch FROM expires_at - clock_timestamp())::float8 FROM {sessions}"
    )
    return row[0], row[1]


def test_a_session_ends_with_its_browser_unless_it_is_remembered(browser: Browser, tables: Tables) -> None:
    assert max_age(browser.request(put(n=1))) is None
    assert max_age(browser.request(lambda session: session.log_in("alice"))) is None
    inactivity, left = lives(browser, tables)
    assert inactivity and left == pytest.approx(30 * 24 * HOUR, abs=60)
    headers = browser.request(lambda session: session.log_in("alice", remember=timedelta(days=7)))
    assert max_age(headers) == pytest.approx(7 * 24 * HOUR, abs=60)
    inactivity, left = lives(browser, tables)
    assert not inactivity and left == pytest.approx(7 * 24 * HOUR, abs=60)
    assert max_age(browser.request(put(n=2))) == pytest.approx(7 * 24 * HOUR, abs=60)
    assert dict(browser.begin()) == {"n": 2}
    assert max_age(browser.request(lambda session: session.expire(None))) is None
    assert lives(browser, tables)[0]
    assert max_age(browser.request(put(n=3))) is None


def test_remember_is_known_by_a_new_session_too(browser: Browser) -> None:
    headers = browser.request(lambda session: session.log_in("alice", remember=True))
    assert max_age(headers) == pytest.approx(30 * 24 * HOUR, abs=60)
    assert max_age(browser.request(put(n=2))) == pytest.approx(30 * 24 * HOUR, abs=60)


@pytest.mark.parametrize("renew", [True, False])
def test_a_lifetime_is_renewed_after_half_of_it(manager: SessionManager, tables: Tables, renew: bool) -> None:
    browser = Browser(manager, SessionRules(CookiePolicy(max_age=HOUR, renew=renew)))
    assert max_age(browser.request(put(n=1))) == pytest.approx(HOUR, abs=60)
    assert "Set-Cookie" not in browser.request(lambda session: session["n"])
    Clock().advance(timedelta(minutes=31))
    assert browser.request() == {}, "only what is used is renewed"
    headers = browser.request(lambda session: session["n"])
    if renew:
        assert max_age(headers) == pytest.approx(HOUR, abs=60)
        assert lives(browser, tables)[1] == pytest.approx(HOUR, abs=60)
        assert "Set-Cookie" not in browser.request(lambda session: session["n"])
    else:
        assert "Set-Cookie" not in headers
        assert max_age(browser.request(put(n=2))) == pytest.approx(29 * 60, abs=60)


def test_a_clock_that_is_ahead_does_not_delete_the_cookie(
    manager: SessionManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    browser = Browser(manager, SessionRules(CookiePolicy(max_age=HOUR)))
    ahead = SimpleNamespace(time=lambda: time.time() + 2 * HOUR)
    monkeypatch.setattr("pgsession.web.rules.time", ahead)
    assert max_age(browser.request(put(n=1))) == 1
    assert read(browser, "n") == 1


def test_a_browser_session_where_others_have_a_lifetime(manager: SessionManager) -> None:
    browser = Browser(manager, SessionRules(CookiePolicy(max_age=HOUR)))
    assert max_age(browser.request(lambda session: (session.update(n=1), session.expire(None)))) is None
    assert max_age(browser.request(put(n=2))) is None
    assert max_age(browser.request(lambda session: session.expire(HOUR))) is not None


# ---- after the response has begun ----


def test_after_the_response_has_begun_changes_are_saved_and_tokens_stay(browser: Browser) -> None:
    browser.request(put(n=1))
    session = browser.begin()
    browser.end(session)
    session["n"] = 2
    assert session.modified
    run(browser.manager, browser.rules.saving(session))
    assert not session.modified and browser.headers == {} and read(browser, "n") == 2
    for act in (session.rotate, lambda: session.log_in("alice"), lambda: session.expire(60)):
        with pytest.raises(RuntimeError, match="the response has begun"):
            act()


def test_after_the_response_has_begun_no_new_session_is_made(browser: Browser, tables: Tables) -> None:
    session = browser.begin()
    browser.end(session)
    session["n"] = 1
    with pytest.raises(RuntimeError, match="no cookie can be set any more"):
        run(browser.manager, browser.rules.saving(session))
    assert tables.count() == 0


# ---- the mapping ----


class Cart(msgspec.Struct, frozen=True):
    items: tuple[str, ...]
    note: str = ""


def test_typed_values_before_and_after_they_are_stored(browser: Browser) -> None:
    def use(session: WebSession) -> None:
        session["items"] = ["a"]
        assert session.as_type(Cart) == Cart(("a",))
        assert session.get("items", type=tuple[str, ...]) == ("a",)
        assert session.get("none", type=int) is None
        with pytest.raises(pgsession.AttributeTypeError):
            session.get("items", type=int)

    browser.request(use)
    session = browser.begin()
    assert session.as_type(Cart) == Cart(("a",)) and session.get("items", type=list[str]) == ["a"]
    with pytest.raises(pgsession.AttributeTypeError):
        session.get("items", type=int)


@pytest.mark.parametrize("stored", [False, True])
def test_a_typed_view_is_the_same_before_and_after_it_is_stored(browser: Browser, stored: bool) -> None:
    class Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
        items: tuple[str, ...] = ()

    class Open(msgspec.Struct):
        items: tuple[str, ...] = ()

    class Items(TypedDict, total=False):
        items: list[str]

    if stored:
        browser.request(lambda session: session.log_in("alice", remember=True))
    session = browser.begin()
    session.flash("hello")
    session["items"] = ["a"]
    assert session.as_type(Strict) == Strict(("a",))
    for wrong in (int, dict, Open, list[int], "Items"):
        with pytest.raises(TypeError, match=r"^type: a "):
            session.as_type(wrong)  # type: ignore[arg-type, type-var]
    view = session.as_type(Items)
    assert dict(view) == {"items": ["a"]} and len(view) == 1
    with pytest.raises(ValueError, match=r"^key: must not begin with"):
        view.update({"pgsession:max_age": 1})  # type: ignore[typeddict-unknown-key]
    session["items"] = [1]
    with pytest.raises(pgsession.AttributeTypeError, match=r"^attribute 'items'"):
        session.as_type(Strict)
    session.log_out()
    view["items"] = ["b"]
    assert session["items"] == ["b"]


@pytest.mark.parametrize(
    "read", [lambda session: session.get("bad", type=int), lambda session: session.as_type(Cart)]
)
def test_a_value_that_json_cannot_hold_is_named_where_it_is_read_as_a_type(
    browser: Browser, read: Callable[[WebSession], object]
) -> None:
    session = browser.begin()
    session.update(bad=object(), items=[object()])
    with pytest.raises(TypeError, match=r"^attribute '(bad|items)': a value that JSON can hold is needed"):
        read(session)


def test_a_missing_field_is_a_key_error(browser: Browser) -> None:
    with pytest.raises(KeyError, match="items"):
        browser.begin().as_type(Cart)


def test_a_typed_value_of_a_new_session_is_saved_with_what_is_changed_inside(browser: Browser) -> None:
    class Box(msgspec.Struct):
        items: list[str]

    def use(session: WebSession) -> None:
        session["box"] = {"items": ["a"]}
        box = session.get("box", type=Box)
        assert box is not None
        box.items.append("b")

    browser.request(use)
    assert read(browser, "box") == {"items": ["a", "b"]}


@pytest.mark.parametrize("stored", [False, True])
@pytest.mark.parametrize("key", ["pgsession:max_age", "pgsession:flash:1"])
def test_keys_of_our_own_are_not_to_be_set(browser: Browser, stored: bool, key: str) -> None:
    """An application may put what a client sends into its session, keys and all."""
    if stored:
        browser.request(put(n=1))
    session = browser.begin()
    with pytest.raises(ValueError, match=rf"^key: must not begin with 'pgsession:', not '{key}'$"):
        session.update({key: 10**9})
    assert not session.modified and session.flashes() == []


def test_it_is_a_dict_to_the_framework(browser: Browser) -> None:
    session = browser.begin()
    assert not session.accessed
    assert not session and session.accessed
    session.setdefault("a", []).append(1)
    session.update(b=2, c=3)
    assert session.pop("b") == 2 and session.pop("b", None) is None
    del session["c"]
    assert dict(session) == {"a": [1]} == session and "a" in session and list(session.items()) == [("a", [1])]
    with pytest.raises(KeyError):
        session["c"]
    with pytest.raises(TypeError, match=r"^key: a str is needed, not int$"):
        session[1] = 2  # type: ignore[index]
    assert repr(session) == "<WebSession new>"


def test_a_session_is_loaded_at_first_use(manager: SessionManager) -> None:
    stored, loads = manager.create_session(None, {"n": 1}), 0

    def load() -> pgsession.Opened:
        nonlocal loads
        loads += 1
        return pgsession.Opened(stored, "current")

    rules = SessionRules()
    session = WebSession(rules.cookie, manager.token, load)
    run(manager, rules.saving(session))
    assert not session.modified and rules.headers(session) == [] and loads == 0
    assert session["n"] == 1 and session["n"] == 1 and loads == 1


# ---- the same by asyncio ----


async def test_the_same_steps_are_made_by_an_async_manager(dsn: str, config: pgsession.Config) -> None:
    rules = SessionRules(on_conflict="serial")
    async with pgsession.AsyncSessionManager(dsn, config, signer=pgsession.Signer(b"k" * 32)) as manager:
        session = WebSession(rules.cookie, manager.token)
        session["n"] = 1
        await run_async(manager, rules.saving(session))
        [(_, cookie), _] = rules.headers(session)
        tokens = rules.tokens(cookie.partition(";")[0])
        opened, release = await run_async(manager, rules.opening(tokens))
        session = WebSession(rules.cookie, manager.token, opened, release)
        session.log_out()
        await run_async(manager, rules.saving(session))
        [(_, cookie), _] = rules.headers(session)
        assert cookie == rules.cookie.delete_cookie()
        assert (await manager.open_token(tokens[0])).state == "ended"


# ---- what is refused ----


def test_settings_that_are_not_usable_are_named() -> None:
    with pytest.raises(ConfigError, match=r"^on_conflict: must be 'merge', 'fail' or 'serial', not 'last'$"):
        SessionRules(on_conflict="last")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^serial_timeout: must be from 1 second"):
        SessionRules(serial_timeout=0)
