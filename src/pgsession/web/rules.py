"""The rules say which session a request has, what of it is saved and when, and which headers tell the browser."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import timedelta
from functools import partial
from typing import Literal
from uuid import UUID

from msgspec import UNSET

from pgsession import (
    AsyncSessionManager,
    ConfigError,
    ConflictError,
    LockError,
    Opened,
    Session,
    SessionManager,
    SessionNotFoundError,
    SessionVersionConflict,
)
from pgsession._core.cookie import cookie_values
from pgsession.web.cookie import LONGEST, CookiePolicy, lifetime, varies_on_cookie
from pgsession.web.moving import OldKey, exchange, key_in
from pgsession.web.session import MAX_AGE, SessionConflict, WebSession
from pgsession.web.steps import Steps

__all__ = ["OnConflict", "SessionRules", "releasing", "replace"]

OnConflict = Literal["merge", "fail", "serial"]
_POLICIES = ("merge", "fail", "serial")
# Of several cookies of one name, none of which opens a session: what the request is taken for.
_REFUSED = ("superseded", "ended", "forged")
_LEASE_TIME, _HEARTBEAT = 10, 3  # seconds: the others wait for so long for one whose process has died
_LONGEST = int(LONGEST.total_seconds())
_logger = logging.getLogger("pgsession")


class SessionRules:
    """Says which session a request has, what of it is saved, and which headers the response gets.

    Args:
        cookie: What the cookie is like.
        on_conflict: What becomes of the changes of requests that overlap. Changes of different keys are merged; of the
            same key `"merge"` keeps the last one, with `"fail"` the later request fails by `SessionConflict`.
            `"serial"`: the requests of one session are handled one after the other, on all nodes.
        serial_timeout: With `"serial"`, for how long a request waits for those before it, a timedelta or seconds.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    def __init__(
        self,
        cookie: CookiePolicy | None = None,
        *,
        on_conflict: OnConflict = "merge",
        serial_timeout: timedelta | float = 30,
    ) -> None:
        if on_conflict not in _POLICIES:
            raise ConfigError(f"on_conflict: must be 'merge', 'fail' or 'serial', not {on_conflict!r}")
        self.cookie = CookiePolicy() if cookie is None else cookie
        self.on_conflict = on_conflict
        self._waits = on_conflict == "serial"
        self.serial_timeout = lifetime("serial_timeout", serial_timeout)
        assert self.cookie.name is not None
        self._name = self.cookie.name.encode("ascii")
        self._old_name = None if self.cookie.moved_from is None else self.cookie.moved_from.encode("ascii")

    # At the beginning of a request

    def tokens(self, cookies: str | Iterable[tuple[bytes, bytes]]) -> list[str]:
        """Return the tokens that a request may have come with, the first four.

        A browser sends several where other hosts of the domain, or other paths, have set some.

        Args:
            cookies: The value of its Cookie header; of several, joined by `"; "`. Or all its headers, as ASGI has them:
                pairs of bytes, the names in lower case.
        """
        found = cookie_values(self._name, cookies)
        if self._old_name is None:
            return found
        old = [key_in(value) for value in cookie_values(self._old_name, cookies)]
        return [*found, *(key for key in old if key is not None)]

    def find(
        self, manager: SessionManager | AsyncSessionManager | None, headers: Iterable[tuple[bytes, bytes]]
    ) -> Session | list[str]:
        """Return the session of a request if this node may answer it from memory, else its tokens, for `opening`.

        It is `tokens` and `from_memory` in one, for adapters that look at every request.

        Args:
            manager: The manager, open; None: there is none yet.
            headers: All headers of the request, as for `tokens`.
        """
        if self._old_name is not None or self._waits or manager is None:
            tokens = self.tokens(headers)
            stored = self.from_memory(manager, tokens) if tokens and manager is not None else None
        else:
            tokens = cookie_values(self._name, headers)
            stored = manager.get_cached_session_by_token(tokens[0]) if len(tokens) == 1 else None
        return tokens if stored is None else stored

    def from_memory(self, manager: SessionManager | AsyncSessionManager, tokens: list[str]) -> Session | None:
        """Return the session of a token if this node may answer it from memory; else make the steps of `opening`.

        Args:
            manager: The manager, open.
            tokens: What `tokens` has found, at least one.
        """
        if self._waits or type(tokens[0]) is OldKey or (len(tokens) > 1 and type(tokens[1]) is not OldKey):
            return None
        return manager.get_cached_session_by_token(tokens[0])

    def opening(self, tokens: list[str]) -> Steps[tuple[Opened | None, Callable[[], object] | None]]:
        """Open a request's session; with `"serial"` wait for its turn.

        Args:
            tokens: What `tokens` has found.

        Returns:
            opened: What the tokens open, and with `"serial"` a step's function that ends the request's turn.

        Raises:
            SessionConflict: Its turn did not come in time.
        """
        opened = yield from _open(tokens, refresh=False)
        if opened is None or opened.session is None or not self._waits:
            return opened, None
        identity = opened.session.id
        lock = yield lambda manager: manager.lock(
            f"pgsession.web:{identity}",
            session_id=identity,
            lease_time=_LEASE_TIME,
            heartbeat_interval=_HEARTBEAT,
        )
        try:
            taken = yield lambda manager: lock.acquire(timeout=self.serial_timeout)
        except SessionNotFoundError:
            return (yield from _open(tokens, refresh=True)), None
        if not taken:
            raise SessionConflict(
                "on_conflict: other requests of the session took longer than serial_timeout"
            )
        try:
            opened = yield from _open(tokens, refresh=True)
        except BaseException:
            yield from _release(lock.release)
            raise
        if opened is None or opened.session is None or opened.session.id != identity:
            yield from _release(lock.release)
            return opened, None
        return opened, lock.release

    # At its end

    def is_due(self, session: WebSession) -> bool:
        """Return True where there is something to save; else the steps of `saving` are none.

        Args:
            session: The request's session.
        """
        if not session._accessed:
            return False
        if session.modified:
            return True
        if session._asked and not session._started and (session._given is not None or session._is_exchanged):
            return True
        stored = session._stored
        if stored is None:
            return False
        age = session._max_age()
        return age is not None and self._is_to_be_renewed(session, stored, age)

    def saving(self, session: WebSession, *, refresh: bool = False) -> Steps[None]:
        """Save what a request did to its session, if anything; `headers` has the outcome.

        Args:
            session: The request's session.
            refresh: True: set the cookie also where nothing is saved, and have a lifetime begin anew with each request,
                which is written once a hundredth of it has passed.

        Raises:
            SessionConflict: Another request was faster: see `on_conflict`, and `WebSession.log_in`.
            RuntimeError: It would be a new one, and the response has begun.
        """
        if not (refresh or self.is_due(session)):
            return
        if session._given is not None and not session._started:
            # Saved before, in the middle of the request: another one may have rotated it since.
            opened: Opened = yield partial(_open_token, session._given, False)
            if opened.state != "current":
                session._leave_cookie()
        if session._ending is not None:
            yield from self._end(session, session._ending)
        if session._stored is not None:
            yield from self._update(session, session._stored, refresh)
        elif session._late:  # its browser has, or may have been given, another one
            session._drop()
        elif session._values or session._user is not UNSET:
            yield from self._create(session)
        is_owed = session._is_exchanged and session._set_cookie is None and not session._late
        if is_owed and session._stored is not None:
            self._saved(session, session._stored)

    def _create(self, session: WebSession) -> Steps[None]:
        if session._started:
            raise RuntimeError(
                "a session that is new after the response has begun cannot be saved: no cookie can be set any more"
            )
        age = session._max_age()
        user = None if session._user is UNSET else session._user
        values = dict(session._values)
        if age != self.cookie.max_age_seconds:
            values[MAX_AGE] = age or 0
        stored = yield lambda manager: manager.create_session(
            user, values, include_inactivity=age is None, expires_in=age, session_id=session._chosen
        )
        # What another task or thread of the request has put in meanwhile.
        more = {key: value for key, value in session._values.items() if values.get(key) is not value}
        self._saved(session, stored)
        stored.update(more)

    def _update(self, session: WebSession, stored: Session, refresh: bool) -> Steps[None]:
        binding = session._user is not UNSET
        if binding and session._is_late():
            yield from self._join_login(session, stored)
            return
        try:
            if not (yield from self._save_changes(session, stored, refresh)) and not refresh:
                return
        except SessionNotFoundError:
            if binding:
                yield from self._join_login(session, stored)
                return
            session._gone()
            _logger.debug("a request's changes are dropped, for its session has ended meanwhile")
            return
        except ConflictError as error:
            if binding and isinstance(error, SessionVersionConflict):
                yield from self._join_login(session, stored)
                return
            raise session._conflict(str(error)) from error
        self._saved(session, stored)

    def _join_login(self, session: WebSession, stored: Session) -> Steps[None]:
        """Give the token of a login that was faster, if it was the same user's, as of two clicks on a button.

        Browsers hear the last answer only. This request's token was current, and its client has proved to be that user.
        """
        user = str(session._user)
        current = yield lambda manager: manager.get_session(stored.id, refresh=True)
        if current is None or current.user_id != user:
            session._gone()
            raise session._conflict("log_in: the session has ended meanwhile, or another user has logged in")
        self._saved(session, current)

    def _save_changes(self, session: WebSession, stored: Session, refresh: bool) -> Steps[bool]:
        """Make the calls that save a session; return False where there is nothing to save."""
        age = session._max_age()
        check: Literal["attributes"] | None = "attributes" if self.on_conflict == "fail" else None
        ends, inactivity = None, None
        if session._lifetime is not UNSET:
            ends, inactivity = age, age is None
            self._keep_max_age(stored, age)
        elif session._user is UNSET and self._is_to_be_renewed(
            session, stored, age, 0.99 if refresh else 0.5
        ):
            ends = age
        if session._user is not UNSET:
            user = session._user
            yield lambda manager: manager.update_session(
                stored, user_id=user, check=check, expires_in=ends, include_inactivity=inactivity
            )
            return True
        rotating = session._rotating
        changed = stored.is_modified and (check is not None or rotating is None)
        if changed or ends is not None or inactivity is not None:
            yield lambda manager: manager.update_session(
                stored, check=check, expires_in=ends, include_inactivity=inactivity
            )
            changed = True
        if rotating is not None:
            yield lambda manager: manager.rotate_session(stored, grace=rotating[0])
        return changed or rotating is not None

    def _keep_max_age(self, stored: Session, age: int | None) -> None:
        """Have the session's next requests know its lifetime, where it is not that of all."""
        if age != self.cookie.max_age_seconds:
            stored[MAX_AGE] = age or 0
        elif MAX_AGE in stored:
            del stored[MAX_AGE]

    def _is_to_be_renewed(
        self, session: WebSession, stored: Session, age: int | None, left: float = 0.5
    ) -> bool:
        return (
            age is not None
            and self.cookie.renew
            and session._accessed
            and not session._started
            # Its old key opens it for other requests under way, until it is written.
            and not session._is_exchanged
            and _seconds_left(stored) < age * left
            and not session._is_late()
        )

    def _saved(self, session: WebSession, stored: Session) -> None:
        session._become(stored)
        token = session._token(stored)
        if token is None:  # another request has rotated it since: the browser gets that one's cookie
            session._leave_cookie()
        elif not session._started:
            age = session._max_age()
            # A clock that is ahead of the database's must not delete the cookie of a session that lives.
            left = None if age is None else max(1, min(math.ceil(_seconds_left(stored)), _LONGEST))
            session._asked = True
            session._set_cookie, session._given = self.cookie.set_cookie(token, left), token

    def headers(self, session: WebSession, vary: Sequence[str] = ()) -> list[tuple[str, str]]:
        """Return the headers that a response gets beside its own; from then on no cookie can be set any more.

        Args:
            session: The request's session, saved.
            vary: The values of the Vary headers that the response has.
        """
        session._start()
        headers = []
        if session._asked:
            if session._set_cookie is not None:
                headers.append(("Set-Cookie", session._set_cookie))
            for name in self.old_cookies_to_delete(session):
                headers.append(("Set-Cookie", self.cookie.delete_cookie(name)))
        if (headers or session._accessed) and not (vary and varies_on_cookie(vary)):
            headers.append(("Vary", "Cookie"))
        return headers

    def token_for_cookie(self, session: WebSession) -> str | None:
        """Return the token for a framework that sets cookies itself; from then on no cookie can be set any more.

        Args:
            session: The request's session, saved.

        Returns:
            The token; `""`: the cookie is to be deleted; None: it is left alone.
        """
        session._start()
        return None if session._set_cookie is None else session._given or ""

    def old_cookies_to_delete(self, session: WebSession) -> list[str]:
        """Return the names of another store's cookies that are to be deleted, once: where a moved session was ended.

        Args:
            session: The request's session, saved.
        """
        is_to_be_deleted, session._forgets_old_cookie = session._forgets_old_cookie, False
        return [self.cookie.moved_from] if is_to_be_deleted and self.cookie.moved_from else []

    def _end(self, session: WebSession, ended: UUID) -> Steps[None]:
        found = yield lambda manager: manager.delete_session(ended)
        session._ending = None
        if session._started or session._late:
            return
        if found:
            session._asked = True
            session._set_cookie, session._given = self.cookie.delete_cookie(), None
            # Until then the browser keeps it, for nodes that still know it; but it is logged out of all.
            session._forgets_old_cookie = self.cookie.moved_from not in (None, self.cookie.name)
        elif session._user is UNSET:  # somebody else has ended it, and may have begun another
            session._late = True


def releasing(session: WebSession) -> Steps[None]:
    """Let the session's next request begin, where this one has its turn; also where it fails.

    Args:
        session: The request's session.
    """
    release, session._release = session._release, None
    if release is not None:
        yield from _release(release)


def replace(before: WebSession, session: WebSession) -> None:
    """Have a new session begin in place of a request's, which ends when the new one is saved.

    For frameworks in which a login begins a new session.

    Args:
        before: The session that the request came with.
        session: The new one, with what it is to hold.

    Raises:
        SessionConflict: `log_in` was called, and the request came with an older token.
    """
    before.log_out()
    session._late, session._ending, before._ending = before._late, before._ending, None
    session._asked = True
    session._release, before._release = before._release, None
    if session._late and session._user is not UNSET:
        raise session._conflict("log_in: the request came with a token of before the last rotation")


def _release(release: Callable[[], object]) -> Steps[None]:
    try:
        yield lambda _: release()
    except LockError:  # it ended with its session
        pass
    except Exception as error:  # what the request did is done, and its browser needs the cookie that says so
        _logger.warning(
            "a request's turn could not be ended, and ends by itself after the lock's lease time: %s", error
        )


def _open(tokens: list[str], *, refresh: bool) -> Steps[Opened | None]:
    """Open the first token that opens a session; else tell what the request is to be taken for."""
    refused: list[Opened] = []
    for token in tokens:
        opened: Opened | None
        if not isinstance(token, OldKey):
            opened = yield partial(_open_token, token, refresh)
        elif any(each.state == "superseded" for each in refused):
            break  # its browser has been given another token
        else:
            opened = yield from exchange(token, refresh)
        if opened is None:
            continue
        if opened.session is not None:
            return opened
        refused.append(opened)
    return min(refused, key=lambda opened: _REFUSED.index(opened.state), default=None)


def _open_token(token: str, refresh: bool, manager: SessionManager | AsyncSessionManager) -> object:
    return manager.open_token(token, refresh=refresh)


def _seconds_left(stored: Session) -> float:
    return stored.expires_at.timestamp() - time.time()
