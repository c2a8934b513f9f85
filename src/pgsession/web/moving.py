"""A session that was moved here from another store: its browser exchanges the key that it has from there, once.

Beside each session that `python -m pgsession move` brings there is an *entry*, found by a hash of the old key, which
nobody can turn back into the key. It says whether the key still opens the session. So a key that has been exchanged,
or whose session has ended here, opens nothing however often the command is run again; and a session that was moved is
one like any other.
"""

from __future__ import annotations

import re
from datetime import timedelta
from functools import partial
from hashlib import sha256
from uuid import UUID

from pgsession import (
    AsyncSessionManager,
    ConflictError,
    Opened,
    Session,
    SessionManager,
    SessionNotFoundError,
)
from pgsession.web.steps import Steps

__all__ = ["GRACE", "OPEN", "Exchanged", "OldKey", "entry_id", "exchange", "key_in", "moved_id"]

# An attribute of an entry: 0: the key has not been exchanged. The session's version then: it was a moment ago. Missing:
# it opens nothing any more.
OPEN = "open"
GRACE = timedelta(minutes=5)  # for requests that were under way, and for a browser that missed the response
_TRIES = 3
# What stores make of 128 random bits or more. A shorter key could be found by trying, and so read out of the hash.
_KEY = re.compile(r"[0-9A-Za-z_-]{22,512}")


class OldKey(str):
    """A key of another store, where tokens are looked for."""

    __slots__ = ()


class Exchanged(Opened):
    """A session that was opened by an old key: its browser is to get the token."""

    __slots__ = ()


def key_in(cookie: str) -> OldKey | None:
    """Return the key that a cookie of another store carries; None where it carries none.

    Args:
        cookie: The cookie's value; what stands behind a dot is a signature.
    """
    key = cookie.partition(".")[0]
    return OldKey(key) if _KEY.fullmatch(key) else None


def entry_id(key: str) -> UUID:
    """Return the id of the entry of an old key."""
    return _hashed(b"pgsession: the entry of a moved session's key\0", key.encode())


def moved_id(entry: UUID) -> UUID:
    """Return the id of the session that an entry is of."""
    return _hashed(b"pgsession: a moved session\0", entry.bytes)


def _hashed(label: bytes, value: bytes) -> UUID:
    return UUID(bytes=sha256(label + value).digest()[:16])


def exchange(key: OldKey, refresh: bool = False) -> Steps[Opened | None]:
    """Open the session of an old key, for the first time or once more within `GRACE`.

    Once more only while nothing was written to it since the first time: so who has planted the key, or seen it, is not
    let into what its user has done after that, such as to log in.

    Args:
        key: The key.
        refresh: True: as the database has it now.

    Returns:
        opened: The session as `Exchanged`; as superseded, where the browser has, or is about to get, a token for it;
            None where the key opens nothing.
    """
    name = entry_id(key)
    for again in (refresh, *[True] * (_TRIES - 1)):
        entry = yield partial(_read, name, again)
        exchanged = None if entry is None else entry.get(OPEN)
        if exchanged is None:
            return None
        session: Session | None = yield partial(_read, moved_id(name), again)
        if session is None:
            return None
        if exchanged:
            unchanged = session.version == exchanged
            return Exchanged(session, "current") if unchanged else Opened(None, "superseded")
        entry.set(OPEN, session.version, expires_in=GRACE)
        try:
            yield partial(_save, entry)
        except ConflictError:  # another request was faster, or the command is at it
            continue
        except SessionNotFoundError:
            return None
        return Exchanged(session, "current")
    return Opened(None, "superseded")


def _read(name: UUID, refresh: bool, manager: SessionManager | AsyncSessionManager) -> object:
    return manager.get_session(name, refresh=refresh)


def _save(entry: Session, manager: SessionManager | AsyncSessionManager) -> object:
    return manager.update_session(entry, check="session")
