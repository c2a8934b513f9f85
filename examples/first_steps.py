"""Create a session, read it, change it, delete it."""

from __future__ import annotations

from datetime import timedelta

import msgspec
from common import manager

from pgsession import Session, SessionManager


class Preferences(msgspec.Struct):
    """How the user likes it. Any type that msgspec knows will do: a dataclass, a TypedDict, list[str], ..."""

    theme: str = "light"
    language: str = "en"


def log_in(sessions: SessionManager, user_id: int) -> Session:
    """Lives for two days, also when it is not used for long."""
    return sessions.create_session(
        user_id,
        {"role": "admin", "preferences": Preferences(theme="dark")},
        include_inactivity=False,
        expires_in=timedelta(hours=48),
    )


def switch_theme(sessions: SessionManager, session: Session) -> Preferences:
    """What is changed inside a value is saved with it."""
    preferences = session.get("preferences", Preferences(), type=Preferences)
    preferences.theme = "light" if preferences.theme == "dark" else "dark"
    sessions.update_session(session)
    return preferences


def main() -> None:
    with manager() as sessions:
        session = log_in(sessions, 7)
        print(f"created {session.id} for user {session.user_id}: {dict(session)}")

        found = sessions.get_session(session.id)
        assert found is not None and found.from_cache
        print("now", switch_theme(sessions, found))

        # Past the memory of this process, and without counting as an access:
        fresh = sessions.get_session(session.id, refresh=True, touch=False)
        assert fresh is not None and fresh["preferences"]["theme"] == "light"

        print("deleted:", sessions.delete_session(session.id))
        assert sessions.get_session(session.id) is None


if __name__ == "__main__":
    main()
