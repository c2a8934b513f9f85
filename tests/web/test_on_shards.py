"""A web application and its metrics on several servers: a login moves the session, and the browser goes on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import pgsession
from pgsession.contrib.wsgi import SessionMiddleware
from pgsession.telemetry._metrics import Watched
from tests.sharded import Shards

from .test_wsgi import KEY, Client, Start, session_of


def shop(environ: dict[str, Any], start_response: Start) -> Iterable[bytes]:
    session = session_of(environ)
    if environ["PATH_INFO"] == "/add":
        session["n"] = session.get("n", 0) + 1
    elif environ["PATH_INFO"] != "/":
        session.log_in(environ["PATH_INFO"][1:])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [f"{session.get('n')} {session.user_id}".encode()]


def test_a_login_keeps_the_cart(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards, signer=pgsession.Signer(KEY)) as manager:
        for user in ("alice", "bob", "carol", "dave"):
            client = Client(SessionMiddleware(shop, manager=manager))
            assert client.get("/add")[1] == "1 None"
            visitor = client.cookie
            client.get(f"/{user}")
            assert client.cookie != visitor
            assert client.get("/add")[1] == f"2 {user}"
            assert client.get("/")[1] == f"2 {user}"
            client.cookie = visitor
            assert client.get("/")[1] == "None None"
        assert manager.count_sessions() == 4
        watched = Watched()
        watched.add(manager, "shop")
        [(name, stats)] = watched.stats()
        assert name == "shop" and stats.writes > 0
