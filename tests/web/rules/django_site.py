"""A node of Django's adapter: one project for each setting, since Django's settings are of the whole process.

Its users are in no database, so that the project needs none but that of its sessions.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from copy import deepcopy
from typing import Any

from tests.web.rules.contract import KEY, SETTINGS, Place, Site, end_with_stdin, meet, process

SEVERAL = {
    "sync": 16,
    "sync preload": 16,
    "gevent preload": 2,
    "gthread preload": 2,
    "uvicorn": 2,
}  # processes of a node
POOL = 2  # connections of a process: some servers have many
THREADS = 24  # of a node; the tests meet in fifteen at most
_PLACE = "PGSESSION_TEST_SITE"
COOKIE = "__Host-session"
PEOPLE = "tests.web.rules.people"
NAME = "tests.web.rules.django_site"


class DjangoSite:
    cookie_name = COOKIE
    conflict_status = dropped_status = 400
    # A login of who is logged in changes no key (Django's own tests say so), and a session that is only read is renewed
    # only by SESSION_SAVE_EVERY_REQUEST, which renews the cookie with each response.
    lacks = frozenset({"rotate", "log_in again", "renew"})

    def __init__(self, server: str, start: Callable[[str], tuple[str, str]]) -> None:
        if server in SEVERAL:
            self.lacks |= {"one process"}
        self._start = start
        self._nodes: dict[str, tuple[str, str]] = {}

    def nodes(self, setting: str) -> tuple[str, str]:
        if setting not in self._nodes:
            self._nodes[setting] = self._start(setting)
        return self._nodes[setting]


@contextmanager
def django(place: Place, server: str = "gthread") -> Iterator[Site]:
    """Two nodes for each setting that is asked for."""
    with ExitStack() as stack:

        def start(setting: str) -> tuple[str, str]:
            ports = [
                stack.enter_context(process(NAME, server, json.dumps([*place, setting]))) for _ in range(2)
            ]
            here, there = (f"http://127.0.0.1:{port}" for [port] in ports)
            return here, there

        yield DjangoSite(server, start)


# ---- the project ----


def settings_of(place: Place, setting: str) -> dict[str, Any]:
    asked = dict(SETTINGS[setting])
    max_age = asked.pop("max_age", None)
    return {
        "DATABASES": {},
        "INSTALLED_APPS": [
            "django.contrib.auth",
            "django.contrib.contenttypes",
            "pgsession.contrib.django",
            PEOPLE,
        ],
        "AUTH_USER_MODEL": "people.Person",
        "AUTHENTICATION_BACKENDS": [f"{PEOPLE}.Everybody"],
        "MIDDLEWARE": [
            "django.contrib.sessions.middleware.SessionMiddleware",
            "django.contrib.auth.middleware.AuthenticationMiddleware",
            "django.contrib.messages.middleware.MessageMiddleware",
        ],
        "MESSAGE_STORAGE": "django.contrib.messages.storage.session.SessionStorage",
        "ROOT_URLCONF": NAME,
        "SECRET_KEY": KEY,
        "ALLOWED_HOSTS": ["*"],
        "SESSION_ENGINE": "pgsession.contrib.django",
        "PGSESSION": {"database": place.dsn, "schema_name": place.schema, "pool_max_size": POOL, **asked},
        "SESSION_COOKIE_NAME": COOKIE,
        "SESSION_COOKIE_SECURE": True,
        "SESSION_EXPIRE_AT_BROWSER_CLOSE": max_age is None,
        "SESSION_COOKIE_AGE": max_age or 1_209_600,
    }


def application() -> Any:
    """Set Django up as the environment says, for WSGI."""
    from django.core.wsgi import get_wsgi_application

    configure()
    return get_wsgi_application()


def asgi_application() -> Any:
    from django.core.asgi import get_asgi_application

    configure(async_views=True)
    return get_asgi_application()


def configure(*, async_views: bool = False) -> None:
    from django.conf import settings

    if not settings.configured:
        dsn, schema, setting = json.loads(os.environ[_PLACE])
        settings.configure(**settings_of(Place(dsn, schema), setting), ASYNC_VIEWS=async_views)


def perform(request: Any) -> list[Any]:
    from django.contrib import auth, messages

    session = request.session
    results: list[Any] = []
    for name, *arguments in json.loads(request.body):
        result = None
        match name, *arguments:
            case "read", key:
                result = deepcopy(session.get(key))  # as it is now
            case ["all"]:
                result = {key: value for key, value in session.items() if not key.startswith("_")}
            case "set", key, value:
                session[key] = value
            case "append", key, value:
                session[key].append(value)
            case "delete", key:
                del session[key]
            case "log_in", user, remember:
                auth.login(request, auth.get_user_model()(name=user), f"{PEOPLE}.Everybody")
                if remember:
                    session.set_expiry(remember)
            case ["log_out"]:
                auth.logout(request)
            case ["user"]:
                result = request.user.name if request.user.is_authenticated else None
            case "flash", message:
                messages.info(request, message)
            case ["flashes"]:
                result = [str(message) for message in messages.get_messages(request)]
            case "expire", seconds:
                session.set_expiry(seconds or 0)
            case "meet", port:
                meet(port)
            case _:
                raise ValueError(name)
        results.append(result)
    return results


async def aperform(request: Any) -> list[Any]:
    """The same by what async views have."""
    from django.contrib import auth, messages

    session = request.session
    results: list[Any] = []
    for name, *arguments in json.loads(request.body):
        result = None
        match name, *arguments:
            case "read", key:
                result = deepcopy(await session.aget(key))
            case ["all"]:
                result = {key: value for key, value in await session.aitems() if not key.startswith("_")}
            case "set", key, value:
                await session.aset(key, value)
            case "append", key, value:
                (await session.aget(key)).append(value)
            case "delete", key:
                await session.apop(key)
            case "log_in", user, remember:
                await auth.alogin(request, auth.get_user_model()(name=user), f"{PEOPLE}.Everybody")
                if remember:
                    await session.aset_expiry(remember)
            case ["log_out"]:
                await auth.alogout(request)
            case ["user"]:
                user = await request.auser()
                result = user.name if user.is_authenticated else None
            case "flash", message:
                messages.info(request, message)
            case ["flashes"]:
                result = [str(message) for message in messages.get_messages(request)]
            case "expire", seconds:
                await session.aset_expiry(seconds or 0)
            case "meet", port:
                await ameet(port)
            case _:
                raise ValueError(name)
        results.append(result)
    return results


async def ameet(port: int) -> None:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    await reader.read(1)
    writer.close()


def do(request: Any) -> Any:
    from django.http import JsonResponse

    return JsonResponse(perform(request), safe=False)


async def ado(request: Any) -> Any:
    from django.http import JsonResponse

    return JsonResponse(await aperform(request), safe=False)


def stream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    results = perform(request)

    def lines() -> Iterator[str]:
        yield json.dumps(results) + "\n"
        meet(int(request.GET["port"]))
        yield "end\n"

    return StreamingHttpResponse(lines())


async def astream(request: Any) -> Any:
    from django.http import StreamingHttpResponse

    results = await aperform(request)

    async def lines() -> AsyncIterator[str]:
        yield json.dumps(results) + "\n"
        await ameet(int(request.GET["port"]))
        yield "end\n"

    return StreamingHttpResponse(lines())


def __getattr__(name: str) -> Any:
    """Be the URLconf, once Django is there; with async views where the application is one of ASGI."""
    if name != "urlpatterns":
        raise AttributeError(name)
    from django.conf import settings
    from django.urls import path

    by_asgi = settings.ASYNC_VIEWS
    return [path("do", ado if by_asgi else do), path("stream", astream if by_asgi else stream)]


# ---- the servers ----


def serve(server: str) -> None:
    """Serve at a free port, which is printed, until stdin is closed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    end_with_stdin(lambda: os.kill(os.getpid(), signal.SIGTERM))
    if server == "runserver":
        return serve_by_runserver(listening)
    print(listening.getsockname()[1], flush=True)  # connections wait until it has started
    if server == "uvicorn":
        serve_by_uvicorn(listening)
    else:
        serve_by_gunicorn(listening, application, *server.split())


def serve_by_gunicorn(
    listening: socket.socket, application: Callable[[], Any], kind: str, preload: str = ""
) -> None:
    if kind == "gevent" and preload:  # as gunicorn's configuration has to, before anything else is loaded
        from gevent import monkey

        monkey.patch_all()
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": f"fd://{listening.detach()}",
                "worker_class": kind,
                "workers": SEVERAL.get(f"{kind} {preload}".strip(), 1),
                "threads": THREADS if kind == "gthread" else 1,
                "preload_app": bool(preload),
                "loglevel": "warning",
                "timeout": 120,
                "control_socket_disable": True,
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return application()

    Server().run()


def serve_by_uvicorn(listening: socket.socket) -> None:
    import uvicorn
    from uvicorn.supervisors import Multiprocess

    config = uvicorn.Config(f"{NAME}:asgi_application", factory=True, workers=2, log_level="warning")
    Multiprocess(config, sockets=[listening]).run()


def serve_by_runserver(listening: socket.socket) -> None:
    import django as package
    from django.core.management import call_command

    port = listening.getsockname()[1]
    listening.close()
    configure()
    package.setup()

    def tell() -> None:
        while True:
            try:
                socket.create_connection(("127.0.0.1", port)).close()
            except ConnectionRefusedError:
                time.sleep(0.01)
            else:
                return print(port, flush=True)

    threading.Thread(target=tell, daemon=True).start()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    call_command("runserver", f"127.0.0.1:{port}", use_reloader=False, stdout=sys.stderr)


if __name__ == "__main__":
    os.environ[_PLACE] = sys.argv[2]
    serve(sys.argv[1])
