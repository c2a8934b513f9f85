"""The cookie: what is refused, and what is written."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from pgsession import ConfigError
from pgsession.web import CookiePolicy
from pgsession.web.cookie import varies_on_cookie


@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({}, "__Host-session"),
        ({"secure": False}, "session"),
        ({"path": "/app"}, "session"),
        ({"domain": "example.org"}, "session"),
        ({"name": "sid"}, "sid"),
    ],
)
def test_the_name_has_the_prefix_where_browsers_allow_it(fields: dict[str, Any], name: str) -> None:
    assert CookiePolicy(**fields).name == name


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"name": "__Host-x", "secure": False}, "name: __Host-x needs secure=True, path='/' and no domain"),
        ({"name": "__host-x", "path": "/app"}, "name: __host-x needs secure=True, path='/' and no domain"),
        ({"name": "__Host-x", "domain": "example.org"}, "name: __Host-x needs secure=True, path='/' and no"),
        ({"name": "__Secure-x", "secure": False}, "name: __Secure-x needs secure=True"),
        ({"samesite": "none", "secure": False}, "samesite: 'none' needs secure=True"),
        ({"partitioned": True, "secure": False}, "partitioned: needs secure=True"),
        ({"samesite": "Lax"}, "samesite: must be 'lax', 'strict' or 'none', not 'Lax'"),
        ({"samesite": None}, "samesite: must be 'lax', 'strict' or 'none', not None"),
        ({"secure": 1}, "secure: True or False is needed, not 1"),
        ({"httponly": None}, "httponly: True or False is needed, not None"),
        ({"renew": "no"}, "renew: True or False is needed, not 'no'"),
        ({"name": ""}, "name: must be letters, digits and"),
        ({"name": "a b"}, "name: must be letters, digits and"),
        ({"name": "a=b"}, "name: must be letters, digits and"),
        ({"name": 7}, "name: a str is needed, not int"),
        ({"path": "app"}, "path: must begin with / and have no ; or control character, not 'app'"),
        ({"path": "/;Domain=org"}, "path: must begin with / and have no ; or control character"),
        ({"path": "/\r\nX: y"}, "path: must begin with / and have no ; or control character"),
        ({"domain": ".example.org"}, "domain: must be a host's name, without a dot in front"),
        ({"domain": ""}, "domain: must be a host's name"),
        ({"max_age": 0}, "max_age: must be from 1 second to 400 days, not 0"),
        ({"max_age": timedelta(days=401)}, "max_age: must be from 1 second to 400 days"),
        ({"max_age": float("nan")}, "max_age: must be from 1 second to 400 days"),
        ({"max_age": 1e300}, "max_age: must be from 1 second to 400 days"),
        ({"max_age": True}, "max_age: a timedelta or seconds are needed, not bool"),
        ({"remember_for": "30 days"}, "remember_for: a timedelta or seconds are needed, not str"),
    ],
)
def test_what_browsers_would_refuse_is_refused_at_once(fields: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        CookiePolicy(**fields)
    assert str(refused.value).startswith(words)


def test_the_header_has_every_attribute() -> None:
    usual = CookiePolicy()
    assert usual.set_cookie("t", None) == "__Host-session=t; Path=/; SameSite=Lax; Secure; HttpOnly"
    assert usual.set_cookie("t", 60) == "__Host-session=t; Max-Age=60; Path=/; SameSite=Lax; Secure; HttpOnly"
    other = CookiePolicy(samesite="none", domain="example.org", path="/app", partitioned=True, httponly=False)
    assert other.set_cookie("t", None) == (
        "session=t; Path=/app; SameSite=None; Domain=example.org; Secure; Partitioned"
    )


@pytest.mark.parametrize(
    "fields", [{}, {"samesite": "none", "domain": "example.org", "path": "/app", "partitioned": True}]
)
def test_deleting_repeats_every_attribute(fields: dict[str, Any]) -> None:
    policy = CookiePolicy(**fields)
    given, deleted = policy.set_cookie("t", None).split("; "), policy.delete_cookie().split("; ")
    assert deleted[0] == f"{policy.name}=" and deleted[1] == "Max-Age=0"
    assert set(given[1:]) <= set(deleted)


@pytest.mark.parametrize(
    ("values", "varies"),
    [([], False), (["Accept"], False), (["accept, COOKIE"], True), (["*"], True), (["Cookies"], False)],
)
def test_vary(values: list[str], varies: bool) -> None:
    assert varies_on_cookie(values) is varies
