"""A browser exchanges the key of another store for a token, once; and nobody else gets anything by it."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from pgsession import ConfigError, SessionManager
from pgsession.web import CookiePolicy, SessionRules, run
from pgsession.web.moving import OPEN, OldKey, entry_id, exchange, moved_id
from tests.tables import Tables
from tests.web.moving.notes import DAY, NEW, OLD, Browser, Moving, Notes

Arrive = Callable[..., Browser]


@pytest.fixture
def arrive(moving: Moving, manager: SessionManager, tables: Tables) -> Arrive:
    """`arrive(user="alice", cart=[1])`: a browser that has been given such a session elsewhere; it was brought here."""

    def make(rules: SessionRules | None = None, **values: object) -> Browser:
        store = Notes()
        key = store.begin(**values)
        assert moving.run(store).new == 1
        return Browser(manager, key, rules)

    return make


def grace_is_over(key: str, tables: Tables, *nodes: SessionManager) -> None:
    changed = tables.run(
        "UPDATE {session_attributes} SET expires_at = now() WHERE key = %s AND expires_at IS NOT NULL RETURNING 1",
        OPEN,
    )
    assert changed
    for node in nodes:
        node.get_session(entry_id(key), refresh=True)


def test_the_browser_is_still_logged_in_and_gets_a_token(
    arrive: Arrive, elsewhere: SessionManager, tables: Tables
) -> None:
    browser = arrive(user="alice", cart=["book"])
    session = browser.begin()
    assert session.user_id == "alice" and dict(session) == {"user": "alice", "cart": ["book"]}
    assert browser.end(session) == [NEW]
    token = browser.cookies[NEW]
    session = browser.begin(elsewhere)
    session["cart"].append("pen")
    assert browser.end(session, elsewhere) == [NEW] and browser.cookies[NEW] != token
    assert browser.begin(**{NEW: browser.cookies[NEW]})["cart"] == ["book", "pen"]
    assert tables.count() == 2  # with its entry


def test_it_is_given_also_where_the_request_does_not_look_at_it(arrive: Arrive) -> None:
    browser = arrive(n=1)
    assert browser.end(browser.begin()) == [NEW]
    assert browser.end(browser.begin()) == []


def test_what_a_first_request_changes_is_saved(arrive: Arrive) -> None:
    browser = arrive(n=1)
    session = browser.begin()
    session["n"] = 2
    assert browser.end(session) == [NEW]
    assert browser.begin()["n"] == 2


@pytest.mark.parametrize("value", ["", "''", "x" * 21, "x" * 32, "x" * 600, "é" * 30, str(UUID(int=7))])
def test_what_a_client_made_is_not_adopted(manager: SessionManager, tables: Tables, value: str) -> None:
    browser = Browser(manager, value)
    session = browser.begin()
    assert session.new and session.user_id is None
    assert browser.end(session) == []
    session = browser.begin()
    session["n"] = 1
    assert browser.end(session) == [NEW]
    assert session.session_id not in (entry_id(value), moved_id(entry_id(value)))
    assert tables.count() == 1


def test_nothing_in_the_database_opens_it(arrive: Arrive, manager: SessionManager, tables: Tables) -> None:
    browser = arrive(user="alice")
    name = entry_id(browser.cookies[OLD])
    rows = f"{tables.run('SELECT * FROM {sessions}')} {tables.run('SELECT * FROM {session_attributes}')}"
    assert browser.cookies[OLD] not in rows
    for known in (name, moved_id(name)):
        assert Browser(manager, str(known)).begin().new
        assert Browser(manager, known.hex).begin().new
    assert browser.begin().user_id == "alice"


def test_an_ordinary_session_is_opened_by_no_key(manager: SessionManager) -> None:
    """Also where somebody had found the key whose hash its id is."""
    key = secrets.token_hex(16)
    manager.create_session("alice", session_id=entry_id(key))
    assert Browser(manager, key).begin().new
    manager.create_session("alice", session_id=moved_id(entry_id(key)))
    assert Browser(manager, key).begin().new


def test_requests_under_way_get_the_same_session(arrive: Arrive, elsewhere: SessionManager) -> None:
    browser = arrive(user="alice")
    old = dict(browser.cookies)
    browser.end(browser.begin())
    again = browser.begin(elsewhere, **old)
    assert again.user_id == "alice" and browser.end(again, elsewhere) == [NEW]
    assert browser.begin().user_id == "alice"


def test_after_the_grace_a_key_opens_nothing(arrive: Arrive, tables: Tables) -> None:
    browser = arrive(user="alice")
    old = dict(browser.cookies)
    browser.end(browser.begin())
    grace_is_over(old[OLD], tables, browser.manager)
    late = browser.begin(**old)
    assert late.new
    assert browser.begin().user_id == "alice"


def test_who_has_planted_the_key_is_not_let_into_the_login(arrive: Arrive, elsewhere: SessionManager) -> None:
    """The browser has exchanged a key that an attacker has too, and its user logs in a moment later."""
    browser = arrive(cart=["bait"])
    planted = dict(browser.cookies)
    browser.end(browser.begin())
    session = browser.begin()
    session.log_in("alice")
    browser.end(session)
    for node in (browser.manager, elsewhere):
        attacker = browser.begin(node, **planted)
        assert attacker.user_id is None and len(attacker) == 0
        attacker["mine"] = True
        before = dict(browser.cookies)
        assert browser.end(attacker, node) == [] and browser.cookies == before


def test_of_two_that_exchange_at_once_none_gets_past_a_login(
    arrive: Arrive, elsewhere: SessionManager
) -> None:
    """The attacker's request has read the entry, on another node, when that of the browser does all of its work."""
    browser = arrive(cart=["bait"])
    steps = exchange(OldKey(browser.cookies[OLD]))
    entry = next(steps)(elsewhere)
    session = browser.begin()
    session.log_in("alice")
    browser.end(session)
    opened = run(elsewhere, steps, lambda _: entry)
    assert opened is not None and opened.session is None and opened.state == "superseded"


def test_a_logout_ends_it_and_has_both_cookies_deleted(arrive: Arrive, manager: SessionManager) -> None:
    browser = arrive(user="alice")
    old = dict(browser.cookies)
    browser.end(browser.begin())
    session = browser.begin()
    session.log_out()
    assert browser.end(session) == [f"-{NEW}", f"-{OLD}"] and not browser.cookies
    assert browser.begin(**old).new


def test_a_logout_may_be_the_first_request(arrive: Arrive) -> None:
    browser = arrive(user="alice")
    old = dict(browser.cookies)
    session = browser.begin()
    session.log_out()
    assert browser.end(session) == [f"-{NEW}", f"-{OLD}"]
    assert browser.begin(**old).new


def test_a_token_counts_more_than_a_key(arrive: Arrive) -> None:
    browser = arrive(user="alice")
    own = Browser(browser.manager, "")
    session = own.begin()
    session["n"] = 1
    own.end(session)
    both = {NEW: own.cookies[NEW], OLD: browser.cookies[OLD]}
    assert browser.begin(**both)["n"] == 1
    browser.manager.delete_session(session.session_id or "")
    assert browser.begin(**both).user_id == "alice"  # the token's session has ended


def test_a_late_request_does_not_exchange_its_key(arrive: Arrive) -> None:
    """Its token was superseded by a login: the browser has another one by now."""
    browser = arrive(user="alice")
    other = Browser(browser.manager, "")
    session = other.begin()
    session["n"] = 1
    other.end(session)
    before = other.cookies[NEW]
    session = other.begin()
    session.log_in("bob")
    other.end(session)
    late = browser.begin(**{NEW: before, OLD: browser.cookies[OLD]})
    assert late.user_id is None and browser.end(late) == []


def test_a_cookie_may_be_signed(arrive: Arrive) -> None:
    browser = arrive(user="alice")
    browser.cookies[OLD] += ".c2lnbmF0dXJl"
    assert browser.begin().user_id == "alice"


def test_the_old_cookie_may_have_the_same_name(arrive: Arrive) -> None:
    rules = SessionRules(CookiePolicy(name="session", secure=False, moved_from="session"))
    browser = arrive(rules, user="alice")
    browser.cookies = {"session": browser.cookies[OLD]}
    assert browser.end(browser.begin()) == ["session"]
    session = browser.begin()
    assert session.user_id == "alice"
    session.log_out()
    assert browser.end(session) == ["-session"]


def test_with_serial_it_is_exchanged_too(arrive: Arrive) -> None:
    browser = arrive(SessionRules(CookiePolicy(moved_from=OLD), on_conflict="serial"), user="alice")
    for expected in ([NEW], []):
        session = browser.begin()
        assert session.user_id == "alice" and session.has_turn
        assert browser.end(session) == expected


def test_its_life_goes_on_and_is_not_begun_anew(arrive: Arrive, manager: SessionManager) -> None:
    rules = SessionRules(CookiePolicy(moved_from=OLD, max_age=30 * DAY))
    browser = arrive(rules, user="alice")
    session = browser.begin()
    browser.end(session)
    stored = manager.get_session(session.session_id or "")
    assert stored is not None
    assert abs(stored.expires_at - datetime.now(UTC) - DAY) < timedelta(minutes=5)
    assert not stored.include_inactivity
    browser.end(browser.begin())


def test_without_the_setting_an_old_cookie_is_nothing(arrive: Arrive) -> None:
    browser = arrive(user="alice")
    assert SessionRules().tokens(f"{OLD}={browser.cookies[OLD]}") == []


def test_the_setting_is_the_name_of_a_cookie() -> None:
    with pytest.raises(ConfigError, match="moved_from"):
        CookiePolicy(moved_from="a b")
