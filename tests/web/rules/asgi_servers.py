"""A node for `make web-matrix`, of an ASGI, Litestar or aiohttp application: one setting, on the server named."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from typing import Any

import trio

from tests.web.rules.asgi_site import AsgiSite
from tests.web.rules.contract import Place, Site, end_with_stdin, process

_PLACE = "PGSESSION_TEST_SITE"


class Lazy(AsgiSite):
    """Two nodes for each setting that is asked for."""

    def __init__(self, start: Callable[[str], tuple[str, str]], lacks: frozenset[str]) -> None:
        self._start = start
        self.lacks = lacks
        self._nodes: dict[str, tuple[str, str]] = {}

    def nodes(self, setting: str) -> tuple[str, str]:
        if setting not in self._nodes:
            self._nodes[setting] = self._start(setting)
        return self._nodes[setting]


@contextmanager
def asgi(place: Place, server: str, site: str) -> Iterator[Site]:
    with ExitStack() as stack:

        def start(setting: str) -> tuple[str, str]:
            node = json.dumps([*place, setting, site])
            here, there = (stack.enter_context(process(__spec__.name, server, node))[0] for _ in range(2))
            return f"http://127.0.0.1:{here}", f"http://127.0.0.1:{there}"

        yield Lazy(start, frozenset() if server.startswith("hypercorn") else frozenset({"one process"}))


def application() -> Any:
    """The application, as the environment says."""
    dsn, schema, setting, site = json.loads(os.environ[_PLACE])
    return import_module(f"tests.web.rules.{site}").make_app(Place(dsn, schema), setting)


def serve_by_uvicorn(listening: socket.socket) -> None:
    import uvicorn

    application = f"{__spec__.name}:application"
    uvicorn.run(application, factory=True, fd=listening.detach(), workers=2, log_level="warning")


def serve_by_hypercorn(listening: socket.socket, loop: str) -> None:
    from hypercorn.config import Config

    config = Config()
    config.bind = [f"fd://{listening.detach()}"]
    config.loglevel = "WARNING"
    ended = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: ended.set())
    if loop == "trio":
        import hypercorn.trio

        async def trigger() -> None:
            await trio.to_thread.run_sync(ended.wait, abandon_on_cancel=True)

        async def main() -> None:
            await hypercorn.trio.serve(application(), config, shutdown_trigger=trigger)

        trio.run(main)
    else:
        import hypercorn.asyncio

        async def wait() -> None:
            await asyncio.to_thread(ended.wait)

        asyncio.run(hypercorn.asyncio.serve(application(), config, shutdown_trigger=wait))


WORKERS = {"uvicorn": "uvicorn_worker.UvicornWorker", "aiohttp": "aiohttp.GunicornWebWorker"}


def serve_by_gunicorn(listening: socket.socket, kind: str) -> None:
    from gunicorn.app.base import BaseApplication

    class Server(BaseApplication):  # type: ignore[misc]
        def load_config(self) -> None:
            options = {
                "bind": f"fd://{listening.detach()}",
                "worker_class": WORKERS.get(kind, kind),
                "workers": 2,
                "loglevel": "warning",
                "timeout": 120,
                "control_socket_disable": True,
            }
            for name, value in options.items():
                self.cfg.set(name, value)

        def load(self) -> Any:
            return application()

    Server().run()


def serve(server: str) -> None:
    """Serve at a free port, which is printed, until stdin is closed."""
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    end_with_stdin(lambda: os.kill(os.getpid(), signal.SIGTERM))
    print(listening.getsockname()[1], flush=True)
    program, kind = server.split()
    if program == "uvicorn":
        serve_by_uvicorn(listening)
    elif program == "hypercorn":
        serve_by_hypercorn(listening, kind)
    else:
        serve_by_gunicorn(listening, kind)


if __name__ == "__main__":
    os.environ[_PLACE] = sys.argv[2]
    serve(sys.argv[1])
