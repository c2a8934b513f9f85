"""Change when a session ends, and whether it ends for want of use."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from common import manager

from pgsession import Session, SessionManager


def keep_me_logged_in(sessions: SessionManager, session: Session) -> Session:
    """For a year, used or not."""
    return sessions.update_session(session, expires_in=timedelta(days=365), include_inactivity=False)


def until_midnight(sessions: SessionManager, session: Session) -> Session:
    """A moment is an aware datetime; a naive one is refused."""
    tomorrow = datetime.now(UTC).date() + timedelta(days=1)
    return sessions.update_session(session, expires_at=datetime.combine(tomorrow, datetime.min.time(), UTC))


def on_a_shared_computer(sessions: SessionManager, session: Session) -> Session:
    """From now on it also ends when it is not used for a quarter of an hour, on every node."""
    return sessions.update_session(session, inactivity=timedelta(minutes=15))


def main() -> None:
    with manager() as sessions:
        session = sessions.create_session("alice")
        for change in (keep_me_logged_in, until_midnight, on_a_shared_computer):
            change(sessions, session)
            print(f"{change.__name__}: until {session.expires_at}, inactivity {session.inactivity}")


if __name__ == "__main__":
    main()
