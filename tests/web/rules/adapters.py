"""The adapters that keep the rules. One that is not installed is skipped."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import pytest

from tests.web.rules.contract import Adapter


def asgi() -> Adapter:
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name)
    from tests.web.rules.asgi_site import asgi

    return asgi


def asgi_on(server: str, site: str) -> Adapter:
    for name in (
        {"aiohttp_site": "aiohttp_session", "litestar_site": "litestar", "quart_site": "quart"}.get(
            site, "starlette"
        ),
        "starlette",
        "trio",
        "uvicorn_worker" if server == "gunicorn uvicorn" else server.split()[0],
    ):
        pytest.importorskip(name)
    from tests.web.rules.asgi_servers import asgi

    return partial(asgi, server=server, site=site)


def django(server: str = "gthread") -> Adapter:
    for name in ("django", "gevent" if "gevent" in server else "gunicorn"):
        pytest.importorskip(name)
    from tests.web.rules.django_site import django

    return partial(django, server=server)


def aiohttp() -> Adapter:
    for name in ("aiohttp_session", "starlette", "uvicorn"):
        pytest.importorskip(name)
    from tests.web.rules.aiohttp_site import aiohttp

    return aiohttp


def wsgi(server: str = "gthread") -> Adapter:
    for name in ("starlette", "uvicorn", "gevent" if "gevent" in server else "gunicorn"):
        pytest.importorskip(name)
    from tests.web.rules.wsgi_site import wsgi

    return partial(wsgi, server=server)


def flask(server: str = "gthread") -> Adapter:
    pytest.importorskip("flask")
    return partial(wsgi(server), framework="flask")


def litestar() -> Adapter:
    for name in ("litestar", "starlette", "uvicorn"):
        pytest.importorskip(name)
    from tests.web.rules.litestar_site import litestar

    return litestar


def quart() -> Adapter:
    for name in ("quart", "starlette", "uvicorn"):
        pytest.importorskip(name)
    from tests.web.rules.quart_site import quart

    return quart


ADAPTERS: dict[str, Callable[[], Adapter]] = {
    "asgi": asgi,
    "django": django,
    "wsgi": wsgi,
    "flask": flask,
    "quart": quart,
    "aiohttp": aiohttp,
    "litestar": litestar,
}
# For `make web-matrix`: on the other servers.
MATRIX: dict[str, Callable[[], Adapter]] = (
    {
        f"{name} on {server}": partial(asgi_on, server, f"{name}_site")
        for name in ("asgi", "litestar")
        for server in (
            "uvicorn workers",
            "hypercorn asyncio",
            "hypercorn trio",
            "gunicorn asgi",
            "gunicorn uvicorn",
        )
    }
    | {
        f"django on {server}": partial(django, server)
        for server in (
            "sync",
            "sync preload",
            "gthread preload",
            "gevent",
            "gevent preload",
            "uvicorn",
            "runserver",
        )
    }
    | {
        f"{name} on {server}": partial(adapter, server)
        for name, adapter in (("wsgi", wsgi), ("flask", flask))
        for server in ("sync", "sync preload", "gthread preload", "gevent", "gevent preload")
    }
    | {
        f"quart on {server}": partial(asgi_on, server, "quart_site")
        for server in ("uvicorn workers", "hypercorn asyncio", "gunicorn asgi", "gunicorn uvicorn")
    }
    | {"aiohttp on gunicorn": partial(asgi_on, "gunicorn aiohttp", "aiohttp_site")}
)
