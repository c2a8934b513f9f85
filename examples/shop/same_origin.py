"""Refuses forged requests: those that the page of another site has made the user's browser send."""

from __future__ import annotations

from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

SAFE = ("GET", "HEAD", "OPTIONS")  # they change nothing


class SameOrigin:
    """Lets what changes something through only from pages of this application.

    The cookie's `SameSite=Lax` keeps it from going along with other sites' requests. This refuses, beyond that, those
    of other hosts and ports of this site, and forged logins, which need no cookie. Forms need no tokens for it.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] not in SAFE and not is_own(Headers(scope=scope)):
            await PlainTextResponse("This came from another site.", 403)(scope, receive, send)
        else:
            await self.app(scope, receive, send)


def is_own(headers: Headers) -> bool:
    """Return True where no page of another origin has sent a request. Scripts cannot set these headers."""
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site in ("same-origin", "none")
    origin = headers.get("origin")  # of browsers of before 2023; what sends neither is no browser
    return origin is None or urlsplit(origin).netloc == headers.get("host")
