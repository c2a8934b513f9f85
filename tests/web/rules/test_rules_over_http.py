"""Each row of the rules, of each adapter, over HTTP with two nodes. `contract` says what the sites answer."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from http.cookies import SimpleCookie
from uuid import uuid4

import psycopg
import pytest

from pgsession import SessionManager
from tests.tables import Tables
from tests.web.rules.contract import HOUR, PATIENCE, Answer, Browser, Meeting, Site, at_once

NewBrowser = Callable[..., Browser]
Needs = Callable[..., None]
MANY = 30


# ---- nothing is stored and no cookie set until the session first holds something ----


def test_nothing_is_stored_before_the_session_holds_something(browser: NewBrowser, tables: Tables) -> None:
    visitor = browser()
    for actions in ([], [["read", "cart"]], [["user"]], [["log_out"]], [["all"]]):
        answer = visitor.do(*actions)
        assert not answer.set_cookie and visitor.cookie is None
    assert tables.count() == 0
    assert visitor.do(["set", "cart", []]).set_cookie and tables.count() == 1


# ---- Set-Cookie only on change, rotation, renewal; Vary whenever it was accessed ----


def test_a_cookie_is_set_on_a_change_and_a_rotation_only(browser: NewBrowser, needs: Needs) -> None:
    visitor = browser()
    assert len(visitor.do(["set", "cart", ["book"]], ["set", "n", 1]).set_cookie) == 1
    for actions in ([], [["read", "cart"]], [["user"]], [["all"]], [["read", "cart"], ["read", "other"]]):
        assert not visitor.do(*actions, node=1).set_cookie
    assert visitor.do(["append", "cart", "pen"]).set_cookie, "a nested change"
    assert visitor.do(["read", "cart"], node=1).results == [["book", "pen"]]
    assert visitor.do(["delete", "cart"]).set_cookie
    needs("rotate")
    assert visitor.do(["rotate"]).set_cookie
    assert not visitor.do(["read", "cart"], node=1).set_cookie


def test_a_change_is_seen_on_every_node_at_the_next_request(browser: NewBrowser) -> None:
    visitor = browser()
    visitor.do(["set", "n", 0])
    for n in range(1, 20):
        assert visitor.do(["read", "n"], ["set", "n", n], node=n % 2).results[0] == n - 1


def test_vary_says_whether_the_response_depends_on_the_cookie(browser: NewBrowser) -> None:
    visitor = browser()
    assert "cookie" in visitor.do(["read", "cart"]).vary.lower()
    assert "cookie" in visitor.do(["set", "cart", []]).vary.lower()
    assert "cookie" in visitor.do(["read", "cart"]).vary.lower()
    assert "cookie" in visitor.do(["user"]).vary.lower()
    assert "cookie" not in visitor.do().vary.lower()
    assert "cookie" not in browser().do().vary.lower()


def test_a_lifetime_is_renewed_after_half_of_it(browser: NewBrowser, tables: Tables, needs: Needs) -> None:
    needs("renew")
    visitor = browser("lasting")
    assert visitor.do(["set", "n", 1]).max_age == pytest.approx(HOUR, abs=PATIENCE)
    assert not visitor.do(["read", "n"]).set_cookie
    tables.run("UPDATE {sessions} SET expires_at = expires_at - interval '31 minutes'")
    visitor.cookie = _heard(visitor, tables)
    assert not visitor.do().set_cookie, "only what is used is renewed"
    assert visitor.do(["read", "n"]).max_age == pytest.approx(HOUR, abs=PATIENCE)
    assert not visitor.do(["read", "n"]).set_cookie


def _heard(visitor: Browser, tables: Tables) -> str | None:
    """Both nodes have heard of what SQL has changed, for they have heard of something that it has changed later."""
    marker = visitor.tab()
    marker.cookie = None
    marker.do(["set", "marker", "before"])
    for node in (0, 1):
        marker.do(["read", "marker"], node=node)  # from now on it is in memory
    tables.run("UPDATE {session_attributes} SET value = '\"after\"' WHERE key = 'marker'")
    for node in (0, 1):
        _soon(lambda: marker.do(["read", "marker"], node=node).results == ["after"])  # noqa: B023
    return visitor.cookie


def _soon(check: Callable[[], bool]) -> None:
    """Ask until it is so: the other node hears of it in a moment."""
    deadline = time.monotonic() + PATIENCE
    while not check():
        assert time.monotonic() < deadline


# ---- older tokens ----


def test_an_older_token_never_sets_or_deletes_a_cookie(
    browser: NewBrowser, tables: Tables, site: Site
) -> None:
    visitor = browser()
    visitor.do(["set", "cart", ["book"]])
    late = visitor.tab()
    visitor.do(["log_in", "alice", False])
    for node in (0, 1):
        assert late.do(["read", "cart"], ["user"], node=node).results == [None, None]
        dropped = late.try_to(["set", "cart", ["stolen"]], node=node)
        assert dropped.status == site.dropped_status and not dropped.set_cookie
        assert not late.do(["log_out"], node=node).set_cookie
        assert late.do(["all"], node=node).results == [{}]
    assert visitor.do(["read", "cart"], ["user"], node=1).results == [["book"], "alice"]
    assert tables.count() == 1


def test_an_older_token_counts_as_none_once_the_grace_is_over(
    browser: NewBrowser, tables: Tables, needs: Needs
) -> None:
    needs("one process")
    visitor = browser()
    visitor.do(["set", "cart", ["book"]])
    late = visitor.tab()
    visitor.do(["log_in", "alice", False])
    tables.run("UPDATE {sessions} SET rotated_at = rotated_at - interval '1 minute'")
    _heard(visitor, tables)
    assert not late.do(["read", "cart"]).set_cookie
    assert late.do(["set", "cart", ["pen"]]).set_cookie
    assert late.do(["read", "cart"], ["user"], node=1).results == [["pen"], None]
    assert visitor.do(["read", "cart"], ["user"], node=1).results == [["book"], "alice"]
    assert tables.count() == 3, "the third one is the marker's"


def test_a_previous_token_saves_and_leaves_the_cookie_alone(browser: NewBrowser, needs: Needs) -> None:
    needs("rotate")
    visitor = browser()
    visitor.do(["set", "n", 1])
    late = visitor.tab()
    assert visitor.do(["rotate"]).set_cookie
    for node in (0, 1):
        assert not late.do(["set", f"m{node}", node], node=node).set_cookie
        assert not late.do(["rotate"], node=node).set_cookie
    # At the node that did it: the visitor's cookie, which is left alone, does not say to others that there is more.
    assert visitor.do(["all"], node=1).results == [{"n": 1, "m0": 0, "m1": 1}]
    assert not late.do(["log_out"], node=1).set_cookie
    assert visitor.do(["all"], node=1).results == [{}], "it has ended on the server"


# ---- what a client made ----


@pytest.mark.parametrize("value", ["A" * 88, "", "x" * 3000, '"', "%00", "=" * 10, "null"])
def test_what_a_client_made_is_never_adopted(browser: NewBrowser, tables: Tables, value: str) -> None:
    visitor = browser()
    visitor.cookie = value
    assert visitor.do(["read", "n"]).results == [None]
    assert visitor.do(["set", "n", 1]).set_cookie and visitor.cookie != value
    assert visitor.do(["read", "n"], node=1).results == [1] and tables.count() == 1


def test_an_id_lets_nobody_in_and_is_not_adopted(browser: NewBrowser, tables: Tables) -> None:
    visitor, thief = browser(), browser()
    visitor.do(["set", "n", 1])
    unknown = str(uuid4())
    for known in (str(tables.one("SELECT id FROM {sessions}")), unknown):
        thief.cookie = known
        assert thief.do(["read", "n"]).results == [None]
        thief.do(["set", "n", 2])
    assert visitor.do(["read", "n"]).results == [1]
    assert tables.count() == 3 and not tables.run("SELECT 1 FROM {sessions} WHERE id = %s", unknown)


# ---- logging in and out ----


def test_login_rotates_binds_and_keeps_what_a_visitor_had(browser: NewBrowser, tables: Tables) -> None:
    visitor = browser()
    visitor.do(["set", "cart", ["book"]])
    planted = visitor.tab()
    assert visitor.do(["log_in", "alice", False], ["user"]).results[-1] == "alice"
    assert visitor.cookie != planted.cookie
    assert visitor.do(["read", "cart"], ["user"], node=1).results == [["book"], "alice"]
    assert tables.run("SELECT user_id FROM {sessions}") == [("alice",)]


def test_a_login_of_who_is_logged_in_rotates(browser: NewBrowser, needs: Needs) -> None:
    needs("log_in again")
    visitor = browser()
    visitor.do(["log_in", "alice", False])
    again = visitor.tab()
    visitor.do(["log_in", "alice", False], node=1)
    assert visitor.cookie != again.cookie
    _soon(lambda: again.do(["user"]).results == [None])


def test_login_as_another_user_shows_him_nothing_of_the_first(browser: NewBrowser, tables: Tables) -> None:
    visitor = browser()
    visitor.do(["log_in", "alice", False], ["set", "secret", "hers"])
    visitor.do(["log_in", "bob", False], node=1)
    assert visitor.do(["read", "secret"], ["user"]).results == [None, "bob"]
    assert tables.run("SELECT user_id FROM {sessions}") == [("bob",)]


def test_logout_ends_the_session_on_the_server(browser: NewBrowser, tables: Tables) -> None:
    visitor = browser()
    visitor.do(["log_in", "alice", False], ["set", "n", 1])
    thief = visitor.tab()
    visitor.do(["log_out"], node=1)
    assert visitor.cookie is None and tables.count() == 0
    assert thief.do(["read", "n"], ["user"], node=1).results == [None, None]
    _soon(lambda: thief.do(["read", "n"], ["user"]).results == [None, None])


def test_a_message_is_shown_once_also_after_a_logout(browser: NewBrowser, needs: Needs) -> None:
    needs("flash", "flashes")
    visitor = browser()
    visitor.do(["flash", "saved"])
    visitor.do(["flash", "sent"], node=1)
    assert visitor.do(["flashes"]).results == [["saved", "sent"]]
    assert visitor.do(["flashes"], node=1).results == [[]]
    visitor.do(["log_in", "alice", False])
    visitor.do(["log_out"], ["flash", "bye"])
    assert visitor.do(["user"], ["flashes"], node=1).results == [None, ["bye"]]


# ---- requests that overlap ----


def test_merge_keeps_thirty_keys_of_thirty_requests(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser("merge")
    visitor.do(["set", "n", 0])
    _together(
        visitor, meeting, [[["read", "n"], ["meet", meeting.port], ["set", f"k{n}", n]] for n in range(MANY)]
    )
    visitor.do(["set", "n", 1])  # its cookie has the newest version
    assert visitor.do(["all"], node=1).results == [{"n": 1, **{f"k{n}": n for n in range(MANY)}}]


def test_of_the_same_key_the_last_one_wins(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser("merge")
    visitor.do(["set", "cart", []])
    other = visitor.tab()
    with at_once([lambda: other.do(["append", "cart", "old"], ["meet", meeting.port])]) as [waiting]:
        meeting.gather()
        visitor.do(["append", "cart", "new"], node=1)
        meeting.release()
        assert waiting.result(PATIENCE).status == 200
    assert other.do(["read", "cart"], node=1).results == [["old"]]


def test_fail_refuses_the_later_of_two_changes_of_a_key(
    browser: NewBrowser, meeting: Meeting, site: Site
) -> None:
    visitor = browser("fail")
    visitor.do(["set", "cart", []], ["set", "n", 0])
    same, different = visitor.tab(), visitor.tab()
    calls = [
        lambda: same.try_to(["append", "cart", "old"], ["meet", meeting.port]),
        lambda: different.try_to(["set", "n", 1], ["meet", meeting.port]),
    ]
    with at_once(calls) as answers:
        meeting.gather(2)
        visitor.do(["append", "cart", "new"], node=1)
        meeting.release()
        statuses = [answer.result(PATIENCE) for answer in answers]
    assert [answer.status for answer in statuses] == [site.conflict_status, 200]
    assert not statuses[0].set_cookie
    assert different.do(["all"], node=1).results == [{"cart": ["new"], "n": 1}]


def test_serial_keeps_thirty_additions_of_thirty_requests(browser: NewBrowser) -> None:
    visitor = browser("serial")
    visitor.do(["set", "cart", []])
    barrier = threading.Barrier(MANY)

    def add(n: int) -> Answer:
        tab = visitor.tab()
        barrier.wait(PATIENCE)
        return tab.do(["append", "cart", n], node=n % 2)

    with at_once([partial(add, n) for n in range(MANY)]) as done:
        for each in done:
            each.result(PATIENCE)
    [cart] = visitor.do(["read", "cart"]).results
    assert sorted(cart) == list(range(MANY))


def test_serial_lets_one_request_in_at_a_time(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser("serial")
    visitor.do(["set", "cart", []])
    first, second = visitor.tab(), visitor.tab()
    calls = [lambda: first.do(["append", "cart", 1], ["meet", meeting.port])]
    with at_once(calls) as [one]:
        meeting.gather()
        with at_once([lambda: second.do(["read", "cart"], ["append", "cart", 2], node=1)]) as [two]:
            assert not two.done()
            meeting.release()
            one.result(PATIENCE)
            assert two.result(PATIENCE).results[0] == [1]
    assert second.do(["read", "cart"]).results == [[1, 2]]


def _together(visitor: Browser, meeting: Meeting, requests: list[list[list[object]]]) -> None:
    """Handle requests on both nodes, each in the middle of its handler at one moment."""
    tabs = [visitor.tab() for _ in requests]
    calls = [
        lambda tab=tab, actions=actions, node=n % 2: tab.do(*actions, node=node)
        for n, (tab, actions) in enumerate(zip(tabs, requests, strict=True))
    ]
    with at_once(calls) as answers:
        meeting.gather(len(requests))
        meeting.release()
        for answer in answers:
            assert answer.result(PATIENCE).status == 200


# ---- ended, or rotated, while a request ran ----


@pytest.mark.parametrize("setting", ["merge", "fail", "serial"])
@pytest.mark.parametrize("logged_in", [False, True])
def test_a_logout_while_a_request_runs(
    browser: NewBrowser,
    meeting: Meeting,
    tables: Tables,
    manager: SessionManager,
    setting: str,
    logged_in: bool,
) -> None:
    """No 500, no resurrection, and the cookie is left alone."""
    visitor = browser(setting)
    visitor.do(["set", "cart", []], *([["log_in", "alice", False]] if logged_in else []))
    running = visitor.tab()
    actions = [["append", "cart", 1], ["set", "n", 1], ["meet", meeting.port]]
    with at_once([lambda: running.try_to(*actions)]) as [answer]:
        meeting.gather()
        assert manager.delete_session(tables.one("SELECT id FROM {sessions}"))
        meeting.release()
        done = answer.result(PATIENCE)
    assert done.status in (200, running.site.conflict_status) and not done.set_cookie
    assert tables.count() == 0 and visitor.do(["all"], node=1).results == [{}]


def test_a_rotation_while_a_request_runs_keeps_its_cookie(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser()
    visitor.do(["set", "cart", []])
    running = visitor.tab()
    with at_once([lambda: running.try_to(["append", "cart", 1], ["meet", meeting.port])]) as [answer]:
        meeting.gather()
        visitor.do(["log_in", "alice", False], node=1)
        meeting.release()
        done = answer.result(PATIENCE)
    assert done.status == running.site.dropped_status and not done.set_cookie
    assert visitor.do(["user"]).results == ["alice"]


def test_a_late_logout_does_not_take_away_the_cookie_of_a_login(
    browser: NewBrowser, meeting: Meeting
) -> None:
    """The session ends with the logout of before; the browser is logged in anew, and its old request ends late."""
    visitor = browser()
    visitor.do(["log_in", "alice", False])
    running = visitor.tab()
    with at_once([lambda: running.try_to(["read", "n"], ["meet", meeting.port], ["log_out"])]) as [answer]:
        meeting.gather()
        visitor.do(["log_out"], node=1)
        visitor.do(["log_in", "bob", False], node=1)
        meeting.release()
        done = answer.result(PATIENCE)
    assert not done.set_cookie and visitor.do(["user"]).results == ["bob"]


def test_a_late_login_with_the_old_token_does_not_undo_a_login(
    browser: NewBrowser, site: Site, tables: Tables
) -> None:
    visitor = browser()
    visitor.do(["set", "cart", []])
    late = visitor.tab()
    visitor.do(["log_in", "alice", False])
    answer = late.try_to(["log_in", "bob", False], node=1)
    assert answer.status == site.conflict_status and not answer.set_cookie
    assert visitor.do(["user"], node=1).results == ["alice"] and tables.count() == 1


# ---- the cookie ----


def test_the_cookie_is_out_of_reach_of_scripts_plain_http_and_other_sites(browser: NewBrowser) -> None:
    visitor = browser()
    [header] = visitor.do(["set", "n", 1]).set_cookie
    morsel = SimpleCookie(header)[visitor.site.cookie_name]
    assert visitor.site.cookie_name == "__Host-session"
    assert morsel["secure"] and morsel["httponly"] and morsel["samesite"] == "Lax"
    assert morsel["path"] == "/" and not morsel["domain"] and not morsel["max-age"] and not morsel["expires"]


def test_deleting_repeats_every_attribute(browser: NewBrowser) -> None:
    visitor = browser()
    [given] = visitor.do(["log_in", "alice", False]).set_cookie
    [deleted] = visitor.do(["log_out"]).set_cookie
    missing = {part.strip().lower() for part in given.split(";")[1:]} - {
        part.strip().lower() for part in deleted.split(";")
    }
    assert missing <= {"httponly"}, "browsers ask for all the others"
    assert visitor.cookie is None


def test_max_age_follows_the_session(browser: NewBrowser) -> None:
    visitor = browser()
    assert visitor.do(["set", "n", 1]).max_age is None
    assert visitor.do(["log_in", "alice", 2 * HOUR]).max_age == pytest.approx(2 * HOUR, abs=PATIENCE)
    assert visitor.do(["set", "n", 2], node=1).max_age == pytest.approx(2 * HOUR, abs=PATIENCE)
    assert visitor.do(["expire", HOUR]).max_age == pytest.approx(HOUR, abs=PATIENCE)
    assert visitor.do(["set", "n", 3], node=1).max_age == pytest.approx(HOUR, abs=PATIENCE)
    assert visitor.do(["expire", None]).max_age is None
    assert visitor.do(["set", "n", 4], node=1).max_age is None


# ---- streams, and what costs nothing ----


def test_a_stream_is_saved_before_its_first_byte(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser()
    path = f"/stream?port={meeting.port}"
    with visitor.sent(path, [["set", "n", 1]]) as response:
        answer = visitor.begin_stream(response)
        assert len(answer.set_cookie) == 1
        assert visitor.do(["read", "n"], node=1).results == [1], "while the stream goes on"
        meeting.gather()
        meeting.release()
        assert response.readline() == b"end\n"


def test_a_stream_does_not_keep_the_next_request_waiting(browser: NewBrowser, meeting: Meeting) -> None:
    visitor = browser("serial")
    visitor.do(["set", "n", 0])
    with visitor.sent(f"/stream?port={meeting.port}", [["set", "n", 1]]) as response:
        visitor.begin_stream(response)
        meeting.gather()
        assert visitor.do(["read", "n"], node=1).results == [1]


@pytest.fixture
def locked(dsn: str, tables: Tables) -> Iterator[Callable[[], None]]:
    """Once called, nobody gets at the sessions' table until the test ends."""
    with psycopg.connect(dsn) as connection:
        yield lambda: connection.execute(tables.query("LOCK {sessions}, {session_attributes}")) and None
        connection.rollback()


def test_a_handler_that_leaves_the_session_alone_costs_no_query(
    browser: NewBrowser, locked: Callable[[], None], needs: Needs
) -> None:
    needs("one process")
    visitor = browser()
    visitor.do(["set", "n", 1])
    visitor.do(["read", "n"])
    locked()
    assert visitor.do().status == 200
    assert browser().do(["read", "n"]).results == [None], "nor does one that comes without a cookie"
    assert visitor.do(["read", "n"]).results == [1], "nor a session in memory"


def test_the_contract_is_json(browser: NewBrowser) -> None:
    """Values of every kind come back as they were put in."""
    visitor = browser()
    values = {"a": None, "b": [1, 2.5, "é", {"c": True}], "d": {}, "e": "", "f": json.dumps({"g": 1})}
    visitor.do(*(["set", key, value] for key, value in values.items()))
    assert visitor.do(["all"], node=1).results == [values]
