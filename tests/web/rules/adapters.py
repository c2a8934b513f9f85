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


def django(server: str = "gthread") -> Adapter:
    for name in ("django", "gevent" if "gevent" in server else "gunicorn"):
        pytest.importorskip(name)
    from tests.web.rules.django_site import django

    return partial(django, server=server)


ADAPTERS: dict[str, Callable[[], Adapter]] = {"asgi": asgi, "django": django}
# For `make web-matrix`: on the other servers.
MATRIX: dict[str, Callable[[], Adapter]] = {
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
