"""Keep the session's token in a cookie: a forged one costs no query, and the session's id lets nobody in."""

from __future__ import annotations

import secrets
from http.cookies import SimpleCookie

from common import config, database

from pgsession import Session, SessionManager, Signer


def set_cookie(sessions: SessionManager, session: Session) -> str:
    """The value of a Set-Cookie header. It carries the version too: every node shows at least that."""
    token = sessions.token(session)
    assert token is not None, "nobody else has rotated it"
    cookie = SimpleCookie({"session": token})
    cookie["session"].update({"httponly": "1", "secure": "1", "samesite": "Strict", "path": "/"})
    return cookie["session"].OutputString()


def get_session(sessions: SessionManager, cookies: str) -> Session | None:
    """The session of a request's Cookie header; what nobody signed is refused without asking the database."""
    cookie = SimpleCookie(cookies).get("session")
    return None if cookie is None else sessions.get_session_by_token(cookie.value)


def main() -> None:
    # In earnest: from the environment, the same for all nodes; the first one signs, all verify.
    signer = Signer([secrets.token_bytes(32), secrets.token_bytes(32)])
    with database() as conninfo, SessionManager(conninfo, config(), signer=signer) as sessions:
        session = sessions.create_session("alice")
        header = set_cookie(sessions, session)
        print("Set-Cookie:", header)
        assert get_session(sessions, header.partition(";")[0]) is not None
        queries = sessions.stats().fills
        for forged in ("session=" + "A" * 88, f"session={session.id}", ""):
            assert get_session(sessions, forged) is None
        assert sessions.stats().fills == queries
        print("forged ones were refused without a query")


if __name__ == "__main__":
    main()
