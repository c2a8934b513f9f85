"""Attributes that end by themselves: step-up authentication, limited offers, abandoned forms, short-lived tokens."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from common import manager

from pgsession import Session, SessionManager


def grant_elevated_access(sessions: SessionManager, session: Session) -> None:
    """After the user has given a second factor: a quarter of an hour of dangerous actions."""
    session.set("elevated_access", True, expires_in=timedelta(minutes=15))
    sessions.update_session(session)


def may_do_dangerous_things(session: Session) -> bool:
    """Nobody has to take the access away again: after its time it reads as if it had never been there."""
    return session.get("elevated_access", False, type=bool)


def offer(sessions: SessionManager, session: Session, code: str, lasts: timedelta) -> None:
    """A promotional code for a limited time."""
    session.set("promo_code", code, expires_in=lasts)
    sessions.update_session(session)


def save_form(sessions: SessionManager, session: Session, fields: dict[str, Any]) -> None:
    """One more step of a form of many: what is abandoned cleans itself up half an hour after the last step."""
    form = session.get("form", {}, type=dict[str, Any])
    session.set("form", form | fields, expires_in=timedelta(minutes=30))
    sessions.update_session(session)


def keep_api_token(sessions: SessionManager, session: Session, token: str, lasts: timedelta) -> None:
    """A token for somebody else's service, for as long as they accept it."""
    session.set("external_api_token", token, expires_in=lasts)
    sessions.update_session(session)


def main() -> None:
    with manager() as sessions:
        session = sessions.create_session("alice")
        grant_elevated_access(sessions, session)
        offer(sessions, session, "FLASH_SALE_20", timedelta(hours=1))
        save_form(sessions, session, {"name": "Alice"})
        save_form(sessions, session, {"city": "Paris"})
        keep_api_token(sessions, session, "token123", timedelta(minutes=5))
        assert may_do_dangerous_things(session)
        for key in session:
            print(f"{key:<20} until {session.attribute(key).expires_at:%H:%M:%S}: {session[key]!r}")


if __name__ == "__main__":
    main()
