"""The applications for WSGI: one for each setting, below a URL of its own, in one process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from pgsession import Config
from pgsession.contrib.wsgi import SessionMiddleware
from tests.web.rules.asgi_site import perform
from tests.web.rules.contract import KEY, SETTINGS, Place, meet
from tests.web.rules.django_site import POOL

WsgiApp = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


def perform_all(session: Any, actions: list[list[Any]]) -> list[Any]:
    return [
        meet(*arguments) if name == "meet" else perform(session, name, *arguments)
        for name, *arguments in actions
    ]


def simple(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
    """An application without a framework."""
    actions = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
    results = json.dumps(perform_all(environ["pgsession.session"], actions)).encode()
    start_response("200 OK", [("Content-Type", "application/json")])
    if environ["PATH_INFO"] == "/do":
        return [results]

    def lines() -> Iterator[bytes]:
        yield results + b"\n"
        meet(int(environ["QUERY_STRING"].removeprefix("port=")))
        yield b"end\n"

    return lines()


def make_simple(place: Place, setting: str) -> WsgiApp:
    return SessionMiddleware(
        simple,
        database=place.dsn,
        keys=[KEY.encode()],
        config=Config(schema_name=place.schema, pool_max_size=POOL),
        **SETTINGS[setting],
    )


MAKE: dict[str, Callable[[Place, str], WsgiApp]] = {"wsgi": make_simple}


def application(framework: str, place: Place) -> WsgiApp:
    applications = {setting: MAKE[framework](place, setting) for setting in SETTINGS}

    def dispatch(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        _, setting, rest = environ["PATH_INFO"].split("/", 2)
        environ.update(SCRIPT_NAME=f"/{setting}", PATH_INFO=f"/{rest}")
        return applications[setting](environ, start_response)

    return dispatch
