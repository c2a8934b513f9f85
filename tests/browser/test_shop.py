"""Visitors and users of the shop, who move between its nodes: what they see, and what their browser keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.browser.conftest import PATIENCE_MS
from tests.browser.shop import launch_options

Nodes = tuple[str, str]
NewBrowser = Callable[..., Any]  # of Playwright's contexts, which have cookies of their own
COOKIE = "__Host-session"
DAY = 86400
LAPTOP = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/150.0.0.0 Safari/537.36"
)
PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_0 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) Safari/604.1"
DESK = "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:150.0) Gecko/20100101 Firefox/150.0"


def visit(browser: Any, url: str) -> Any:
    tab = browser.new_page()
    tab.goto(url)
    return tab


def press(tab: Any, name: str) -> None:
    tab.get_by_role("button", name=name).click()


def log_in(browser: Any, node: str, name: str = "alice", *, remember: bool = False) -> Any:
    tab = visit(browser, f"{node}/login")
    tab.get_by_label("Name").fill(name)
    tab.get_by_label("Password").fill({"alice": "wonderland", "bob": "builder"}[name])
    if remember:
        tab.get_by_label("Remember me").check()
    press(tab, "Log in")
    assert is_logged_in(tab, name)
    return tab


def is_logged_in(tab: Any, name: str = "alice") -> bool:
    logged_in: bool = tab.get_by_role("button", name=f"Log out {name}").count() == 1
    assert logged_in or tab.get_by_role("link", name="Log in", exact=True).count() == 1, tab.content()
    return logged_in


def in_cart(tab: Any, node: str) -> dict[str, int]:
    tab.goto(f"{node}/cart")
    rows = tab.locator("tbody tr").all()
    return {
        row.get_by_role("rowheader").inner_text(): int(row.get_by_role("cell").first.inner_text())
        for row in rows
    }


def cookie(browser: Any, node: str) -> dict[str, Any] | None:
    cookies = browser.cookies(node)
    assert len(cookies) <= 1
    return cookies[0] if cookies else None


def token(browser: Any, node: str) -> str:
    kept = cookie(browser, node)
    assert kept is not None
    value: str = kept["value"]
    return value


def test_a_cookie_comes_with_the_first_thing_in_the_cart_and_is_out_of_reach(
    browser: NewBrowser, nodes: Nodes
) -> None:
    visitor = browser()
    tab = visit(visitor, nodes[0])
    tab.goto(f"{nodes[1]}/cart")
    assert cookie(visitor, nodes[0]) is None, "nothing was put in"
    tab.goto(nodes[0])
    press(tab, "Put into the cart Green tea")
    kept = cookie(visitor, nodes[0])
    assert kept is not None and len(kept.pop("value")) > 80
    assert kept == {
        "name": COOKIE, "domain": "localhost", "path": "/", "expires": -1,
        "secure": True, "httpOnly": True, "sameSite": "Lax",
    }  # fmt: skip
    assert tab.evaluate("document.cookie") == ""
    tab.evaluate(f"document.cookie = '{COOKIE}=planted; path=/; secure'")
    assert len(token(visitor, nodes[0])) > 80, "scripts cannot set it either"


def test_a_login_keeps_the_cart_and_ends_the_token_of_before(browser: NewBrowser, nodes: Nodes) -> None:
    visitor = browser()
    tab = visit(visitor, nodes[0])
    for product in ("Green tea", "Blue mug", "Green tea"):
        press(tab, f"Put into the cart {product}")
    assert in_cart(tab, nodes[1]) == {"Green tea": 2, "Blue mug": 1}
    before = cookie(visitor, nodes[0])
    assert before is not None
    tab = log_in(visitor, nodes[1])
    assert tab.get_by_role("status").inner_text() == "Welcome, alice."
    assert token(visitor, nodes[0]) != before["value"]
    for node in nodes:
        assert in_cart(tab, node) == {"Green tea": 2, "Blue mug": 1} and is_logged_in(tab)
        assert tab.get_by_role("status").count() == 0, "it was shown once"
    thief = browser()
    thief.add_cookies([before])
    for node in nodes:
        stolen = visit(thief, node)
        assert not is_logged_in(stolen) and in_cart(stolen, node) == {}
        assert cookie(thief, node) == before, "it is told nothing"


def test_a_wrong_password_gives_nothing_away(browser: NewBrowser, nodes: Nodes) -> None:
    visitor = browser()
    for name in ("alice", "nobody"):
        tab = visit(visitor, f"{nodes[0]}/login")
        tab.get_by_label("Name").fill(name)
        tab.get_by_label("Password").fill("guessed")
        press(tab, "Log in")
        assert tab.get_by_role("alert").inner_text() == "The name or the password is wrong."
        assert (
            tab.get_by_label("Name").input_value() == name and not tab.get_by_label("Password").input_value()
        )
    assert cookie(visitor, nodes[0]) is None


def test_two_tabs_share_the_cart_the_login_and_the_logout(browser: NewBrowser, nodes: Nodes) -> None:
    user = browser()
    first, second = visit(user, nodes[0]), visit(user, nodes[1])
    press(first, "Put into the cart Green tea")
    press(second, "Put into the cart Blue mug")
    for tab, product in ((first, "Blue mug"), (second, "A book")):  # at the same time
        tab.get_by_role("button", name=f"Put into the cart {product}").click(no_wait_after=True)
    for tab in (first, second):
        tab.wait_for_load_state()
        tab.get_by_role("link", name="Cart").wait_for()
    log_in(user, nodes[0])
    press(second, "Put into the cart Green tea")  # on a page of before the login
    assert is_logged_in(second)
    assert in_cart(first, nodes[0]) == {"Green tea": 2, "Blue mug": 2, "A book about tea": 1}
    press(first, "Log out alice")
    second.reload()
    assert not is_logged_in(second) and in_cart(second, nodes[1]) == {}
    assert cookie(user, nodes[0]) is None


def test_a_remembered_login_outlives_the_browser(
    browser: NewBrowser, nodes: Nodes, chromium: Any, program: str, tmp_path: Path
) -> None:
    """The same browser, and another host that is not remembered."""
    remembered, forgotten = nodes[0], nodes[0].replace("localhost", "127.0.0.1")

    def start() -> Any:
        running = chromium.launch_persistent_context(tmp_path, **launch_options(program))
        running.set_default_timeout(PATIENCE_MS)
        return running

    running = start()
    log_in(running, remembered, remember=True)
    log_in(running, forgotten)
    kept, lost = cookie(running, remembered), cookie(running, forgotten)
    assert kept is not None and lost is not None and lost["expires"] == -1
    assert 29 * DAY < kept["expires"] - time.time() <= 30 * DAY + 60
    running.close()
    running = start()
    assert is_logged_in(visit(running, remembered)) and token(running, remembered) == kept["value"]
    assert not is_logged_in(visit(running, forgotten)) and cookie(running, forgotten) is None
    running.close()


def test_a_user_sees_the_devices_and_logs_one_out_then_all_others(browser: NewBrowser, nodes: Nodes) -> None:
    laptop, phone, desk, bobs = (browser(user_agent=agent) for agent in (LAPTOP, PHONE, DESK, LAPTOP))
    tab, phones, desks = log_in(laptop, nodes[0]), log_in(phone, nodes[1]), log_in(desk, nodes[1])
    bob = log_in(bobs, nodes[1], "bob")
    tab.goto(f"{nodes[0]}/devices")
    names = {"Chrome on Linux this one", "Safari on iPhone", "Firefox on Windows"}
    assert set(tab.locator("li h2").all_inner_texts()) == names
    assert tab.get_by_text("from 127.0.0.1, since").count() == 3

    press(tab, "Log out Safari on iPhone")
    assert tab.get_by_role("status").inner_text() == "That device is logged out."
    assert set(tab.locator("li h2").all_inner_texts()) == names - {"Safari on iPhone"}
    phones.reload()
    desks.reload()
    assert not is_logged_in(phones) and is_logged_in(desks)

    press(tab, "Log out all others")
    assert tab.get_by_role("status").inner_text() == "Logged out elsewhere: 1."
    desks.reload()
    bob.reload()
    assert not is_logged_in(desks) and is_logged_in(tab) and is_logged_in(bob, "bob")
    assert is_logged_in(log_in(phone, nodes[1])), "it may come back"


def test_logging_out_everywhere_is_seen_in_the_other_browser_at_once(
    browser: NewBrowser, nodes: Nodes
) -> None:
    mine, other = browser(), browser()
    tab, others = log_in(mine, nodes[0]), log_in(other, nodes[1], remember=True)
    for node in nodes:  # so that both have both sessions in memory
        tab.goto(f"{node}/devices")
        others.goto(f"{node}/devices")
    press(tab, "Log out everywhere")
    others.reload()
    assert not is_logged_in(others) and others.url == f"{nodes[1]}/login"
    assert not is_logged_in(tab) and cookie(mine, nodes[0]) is None
    tab.go_back()
    assert not is_logged_in(tab), "a page of before is not shown again"
    for node in nodes:
        assert not is_logged_in(visit(other, node)) and not is_logged_in(visit(mine, node))


def test_a_form_of_another_site_is_refused(browser: NewBrowser, nodes: Nodes) -> None:
    user = browser()
    log_in(user, nodes[0])
    form = f"<form method=post action='{nodes[0]}/logout'><button>Win</button></form>"
    user.route("**/win", lambda route: route.fulfill(body=form, content_type="text/html"))
    for elsewhere in (
        nodes[0].replace("localhost", "127.0.0.1"),
        nodes[1],
    ):  # another site; another port of this
        tab = visit(user, f"{elsewhere}/win")
        with tab.expect_navigation() as done:
            press(tab, "Win")
        assert done.value.status == 403
        assert is_logged_in(visit(user, nodes[0]))


def test_pages_fit_the_smallest_phone_and_the_keyboard_leads_to_the_content(
    browser: NewBrowser, nodes: Nodes
) -> None:
    phone = browser(viewport={"width": 320, "height": 600}, is_mobile=True, user_agent=PHONE)
    tab = visit(phone, nodes[0])
    press(tab, "Put into the cart Green tea")
    tab = log_in(phone, nodes[0])
    for path in ("/", "/cart", "/login", "/devices"):
        tab.goto(nodes[0] + path)
        assert tab.evaluate("document.documentElement.scrollWidth") == 320, path
        assert tab.get_by_role("heading", level=1).count() == 1 and tab.title().endswith(" - Small Shop")
        tab.keyboard.press("Tab")
        tab.keyboard.press("Enter")
        assert tab.url.endswith(f"{path}#main")
