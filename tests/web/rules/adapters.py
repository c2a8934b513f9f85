"""The adapters that keep the rules. One that is not installed is skipped."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.web.rules.contract import Adapter


def asgi() -> Adapter:
    for name in ("starlette", "uvicorn"):
        pytest.importorskip(name)
    from tests.web.rules.asgi_site import asgi

    return asgi


ADAPTERS: dict[str, Callable[[], Adapter]] = {"asgi": asgi}
