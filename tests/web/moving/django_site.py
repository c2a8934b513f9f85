"""A process that serves the Django project of `django_settings`, and runs its commands."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from socketserver import ThreadingMixIn
from typing import Any
from unittest.mock import patch
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tests.web.moving.command import call
from tests.web.moving.sites import PATIENCE, Browser, Service
from tests.web.rules.contract import ROOT, end_with_stdin, process

AFTER = {"version": "after"}


def environment(dsn: str, project: dict[str, Any]) -> dict[str, str]:
    return {
        "DJANGO_SETTINGS_MODULE": "tests.web.moving.django_settings",
        "PGSESSION_TEST_PROJECT": json.dumps({"dsn": dsn, **project}),
    }


def command(dsn: str, project: dict[str, Any], *arguments: str) -> tuple[int, str]:
    """Its exit status, and what it says; every warning is an error."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-m", *arguments],
        env=os.environ | environment(dsn, project), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE * 2,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@contextmanager
def node(dsn: str, project: dict[str, Any]) -> Iterator[str]:
    with patch.dict(os.environ, environment(dsn, project)), process(__spec__.name) as [port]:
        yield f"http://127.0.0.1:{port}"


@contextmanager
def django(dsn: str, engine: str = "django.contrib.sessions.backends.db") -> Iterator[Service]:
    """The database has to be empty."""
    before = {"version": "before", "settings": {"SESSION_ENGINE": engine}}
    with ExitStack() as stack:
        urls = [stack.enter_context(node(dsn, project)) for project in (AFTER, before)]

        def move(*options: str) -> tuple[int, str]:
            if "--dry-run" in options:
                return command(dsn, AFTER, "pgsession", "move", "django", *options)
            [status, said] = Browser().do(
                urls[0], ["move", options]
            )  # there Python and Django have started already
            return status, said

        yield Service(urls[1], urls[0], "sessionid", "__Host-session", move)


def do(request: Any) -> Any:
    from django.contrib import auth
    from django.http import JsonResponse

    session = request.session
    results: list[Any] = []
    for name, *arguments in json.loads(request.body):
        result = None
        match name, *arguments:
            case ["all"]:
                result = {key: value for key, value in session.items() if not key.startswith("_")}
            case ["user"]:
                result = request.user.name if request.user.is_authenticated else None
            case "set", key, value:
                session[key] = value
            case "log_in", user:
                backend = "tests.web.rules.people.Everybody"
                auth.login(request, auth.get_user_model()(name=user), backend)
            case ["log_out"]:
                auth.logout(request)
            case "move", options:
                results.extend(call("django", *options)())
                continue
            case _:
                raise ValueError(name)
        results.append(result)
    return JsonResponse(results, safe=False)


def __getattr__(name: str) -> Any:
    """Be the URLconf, once Django is there."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.urls import path

    return [path("do", do)]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, *_: object) -> None: ...


def main() -> None:
    from django.core.management import call_command
    from django.core.wsgi import get_wsgi_application

    application = get_wsgi_application()
    call_command("migrate", verbosity=0)
    server = _Server(("127.0.0.1", 0), _Quiet)
    server.set_app(application)
    end: Callable[[], object] = server.shutdown
    end_with_stdin(end)
    print(server.server_port, flush=True)
    server.serve_forever()
    server.server_close()


if __name__ == "__main__":
    main()
