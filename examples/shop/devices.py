"""What "your devices" tells of each login, for users to know their own by."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Self

import msgspec
from starlette.requests import Request

# What user agents say of themselves; the first that is found counts, for most name others, too.
BROWSERS = {"Firefox/": "Firefox", "Edg/": "Edge", "Chrome/": "Chrome", "Safari/": "Safari"}
SYSTEMS = {
    "Android": "Android",
    "iPhone": "iPhone",
    "Windows": "Windows",
    "Mac OS": "macOS",
    "Linux": "Linux",
}


class Device(msgspec.Struct, frozen=True):
    """Is kept with the session that the login has begun."""

    browser: str
    address: str
    since: datetime

    @classmethod
    def of(cls, request: Request) -> Self:
        agent = request.headers.get("user-agent", "")
        browser, system = (
            next((name for sign, name in signs.items() if sign in agent), "unknown")
            for signs in (BROWSERS, SYSTEMS)
        )
        address = request.client.host if request.client else "unknown"
        return cls(f"{browser} on {system}", address, datetime.now(UTC))
