"""Another store, in memory, and what brings its sessions; a browser that has a cookie of it."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.cookies import SimpleCookie
from typing import Any

import msgspec

from pgsession import AsyncSessionManager, Config, SessionManager
from pgsession.contrib.moving.mover import Contents, LeftBehind, Mover, OldSession, Report
from pgsession.web import CookiePolicy, SessionRules, WebSession, releasing, run

DAY = timedelta(days=1)
OLD = "old"  # the other store's cookie
NEW = "__Host-session"


class Notes:
    """A store of JSON, in which tests write. `begin` returns a key as servers make it."""

    errors: tuple[type[Exception], ...] = ()

    def __init__(self) -> None:
        self.sessions: dict[str, tuple[dict[str, Any], datetime | None]] = {}
        self.closed = 0

    def begin(self, lasting: timedelta | None = DAY, **values: Any) -> str:
        key = secrets.token_hex(16)
        self.write(key, lasting, **values)
        return key

    def write(self, key: str, lasting: timedelta | None = DAY, **values: Any) -> None:
        self.sessions[key] = values, None if lasting is None else datetime.now(UTC) + lasting

    def batches(self) -> Iterator[list[OldSession]]:
        for key, (values, ends) in list(self.sessions.items()):
            old = OldSession(key, json.dumps(values, default=repr, sort_keys=True).encode(), ends)
            yield [old, old]

    def contents(self, old: OldSession) -> Contents:
        values, _ = self.sessions[old.key]
        if "broken" in values:
            raise LeftBehind("it is broken")
        user = values.get("user")
        return Contents(user, dict(values))

    def close(self) -> None:
        self.closed += 1


class Moving:
    """Runs, as the command makes them, by one manager."""

    def __init__(self, dsn: str, config: Config) -> None:
        self._runner = asyncio.Runner()
        self._manager = AsyncSessionManager(dsn, msgspec.structs.replace(config, max_sessions=0))

    def __enter__(self) -> Moving:
        self._runner.run(self._manager.open())
        return self

    def __exit__(self, *_: object) -> None:
        self._runner.run(self._manager.close())
        self._runner.close()

    def run(self, store: Notes, *without: str, dry_run: bool = False) -> Report:
        mover = Mover(self._manager, store, without=frozenset(without), dry_run=dry_run)
        return self._runner.run(mover.run())


class Browser:
    """Cookies, by their names, and the requests that they go with."""

    def __init__(self, manager: SessionManager, old: str, rules: SessionRules | None = None) -> None:
        self.manager = manager
        self.rules = SessionRules(CookiePolicy(moved_from=OLD)) if rules is None else rules
        self.cookies = {OLD: old}

    def begin(self, manager: SessionManager | None = None, **cookies: str) -> WebSession:
        manager = manager or self.manager
        header = "; ".join(f"{name}={value}" for name, value in (cookies or self.cookies).items())
        tokens = self.rules.tokens(header)
        release = None
        opened = self.rules.from_memory(manager, tokens) if tokens else None
        if tokens and opened is None:
            opened, release = run(manager, self.rules.opening(tokens))
        return WebSession(self.rules.cookie, manager.token, opened, release)

    def end(self, session: WebSession, manager: SessionManager | None = None) -> list[str]:
        """Save it; return the cookies that are set, those that are deleted with a minus."""
        manager = manager or self.manager
        run(manager, self.rules.saving(session))
        run(manager, releasing(session))
        changed = []
        for header, value in self.rules.headers(session):
            if header == "Set-Cookie":
                [(name, morsel)] = SimpleCookie(value).items()
                gone = morsel["max-age"] == "0"
                changed.append(f"-{name}" if gone else name)
                if gone:
                    self.cookies.pop(name, None)
                else:
                    self.cookies[name] = morsel.value
        return changed
