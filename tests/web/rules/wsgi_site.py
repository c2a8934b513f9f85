"""A node of the adapters for WSGI, whose applications are in `wsgi_apps`."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from tests.web.rules.contract import Place, Site, end_with_stdin, process
from tests.web.rules.django_site import SEVERAL, serve_by_gunicorn


class WsgiSite:
    cookie_name = "__Host-session"
    conflict_status = 409
    dropped_status = 200
    lacks: frozenset[str] = frozenset()

    def __init__(self, server: str, ports: list[int]) -> None:
        if server in SEVERAL:
            self.lacks |= {"one process"}
        self._ports = ports

    def nodes(self, setting: str) -> tuple[str, str]:
        here, there = (f"http://127.0.0.1:{port}/{setting}" for port in self._ports)
        return here, there


@contextmanager
def wsgi(place: Place, server: str = "gthread", framework: str = "wsgi") -> Iterator[Site]:
    """Two nodes."""
    with ExitStack() as stack:
        nodes = [
            stack.enter_context(process(__spec__.name, server, framework, json.dumps(place)))
            for _ in range(2)
        ]
        yield WsgiSite(server, [port for [port] in nodes])


def load(framework: str, place: str) -> Any:
    """As a server does: once it has forked and patched what it wants to, unless it preloads."""
    from tests.web.rules.wsgi_apps import application

    return application(framework, Place(*json.loads(place)))


if __name__ == "__main__":
    listening = socket.create_server(("127.0.0.1", 0), backlog=100)
    end_with_stdin(lambda: os.kill(os.getpid(), signal.SIGTERM))
    print(listening.getsockname()[1], flush=True)  # connections wait until it has started
    server, framework, place = sys.argv[1:]
    serve_by_gunicorn(listening, lambda: load(framework, place), *server.split())
