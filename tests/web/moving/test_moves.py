"""Services of three frameworks move, with the sessions that their real stores have: over HTTP, with one browser."""

from __future__ import annotations

import secrets
from collections.abc import Iterator

import pytest

import pgsession
from tests.web.moving.sites import Browser, Service


@pytest.fixture(scope="module", params=["django", "flask", "starlette"])
def service(request: pytest.FixtureRequest, dsn: str, config: pgsession.Config) -> Iterator[Service]:
    if request.param == "django":
        pytest.importorskip("django")
        from tests.web.moving.django_site import django

        with django(request.getfixturevalue("django_dsn")) as running:
            yield running
        return
    pytest.importorskip("flask_session" if request.param == "flask" else "starsessions")
    from tests.web.moving import sites

    request.getfixturevalue("manager")  # it makes the tables
    with getattr(sites, request.param)(
        dsn, config.schema_name, request.getfixturevalue("redis_url")
    ) as running:
        yield running


def held(browser: Browser, url: str) -> tuple[str | None, object]:
    """Who is logged in, and what is in the cart."""
    user, values = browser.do(url, ["user"], ["all"])
    return user, values.get("cart")


def test_a_service_moves(service: Service) -> None:
    """Before, the day, and after; with nodes of both versions side by side for a while."""
    before, after = service.before, service.after
    alice, bob, carol, visitor = (Browser() for _ in range(4))
    for browser, name in ((alice, "alice"), (bob, "bob"), (carol, "carol")):
        browser.do(before, ["set", "cart", [name]])
        browser.do(before, ["log_in", name])
    visitor.do(before, ["set", "cart", ["pen"]])
    assert set(alice.cookies) == {service.old}
    status, said = service.move("--dry-run")
    assert status == 0 and "nothing was written" in said and "4  new here" in said
    assert held(alice, after) == (None, None) and set(alice.cookies) == {service.old}, (
        "it was not brought yet"
    )

    status, said = service.move()
    assert status == 0 and "4  new here" in said, said
    assert held(alice, after) == ("alice", ["alice"]) and held(visitor, after) == (None, ["pen"])
    assert set(alice.cookies) == {service.old, service.new}
    assert held(alice, before) == ("alice", ["alice"]), "nodes of before still know it"
    alice.do(after, ["set", "cart", ["alice", "ink"]])

    # Nodes of before go on: bob's cart changes, dave comes, carol and alice log out.
    bob.do(before, ["set", "cart", ["bob", "ink"]])
    dave = Browser()
    dave.do(before, ["log_in", "dave"])
    stolen = [dict(browser.cookies) for browser in (carol, alice)]
    for browser in (carol, alice):
        browser.do(before, ["log_out"])
        assert service.old not in browser.cookies
    status, said = service.move()
    assert status == 0, said
    assert "1  new here" in said and "1  changed there" in said and "and 2 ended here" in said, said
    assert held(bob, after) == ("bob", ["bob", "ink"]) and held(dave, after)[0] == "dave"
    for browser, cookies in zip((carol, alice), stolen, strict=True):
        assert held(browser, after) == (None, None)
        browser.cookies = cookies
        assert held(browser, after) == (None, None)

    # A logout here is one there too, and no run undoes it.
    stolen = [dict(bob.cookies)]
    bob.do(after, ["log_out"])
    assert bob.cookies == {}
    assert service.move()[0] == 0
    bob.cookies = stolen[0]
    assert held(bob, after) == (None, None)

    token = dave.cookies[service.new]
    dave.cookies = {service.new: token}
    assert held(dave, after)[0] == "dave"
    forged = Browser()
    forged.cookies = {service.old: secrets.token_hex(16)}
    assert held(forged, after) == (None, None) and service.new not in forged.cookies
