"""Save only if nobody else has changed the session, or the attributes, that the change was based on."""

from __future__ import annotations

from uuid import UUID

from common import manager

from pgsession import AttributeVersionConflict, SessionManager, SessionVersionConflict


def close_account(sessions: SessionManager, session_id: UUID) -> bool:
    """Session-level: any change by anybody, to whatever attribute, counts. False: look again before you decide."""
    session = sessions.get_session(session_id)
    if session is None:
        return False
    session["closed"] = session.get("balance", 0) == 0
    try:
        sessions.update_session(session, check="session")
    except SessionVersionConflict:
        return False
    return True


def switch_theme(sessions: SessionManager, session_id: UUID, theme: str) -> tuple[str, ...]:
    """Attribute-level: only the attributes that are to be written count. Returns those that others have changed."""
    session = sessions.get_session(session_id)
    if session is None:
        return ()
    preferences = session.get("preferences", {}, type=dict[str, str])
    session["preferences"] = preferences | {"theme": theme}
    try:
        sessions.update_session(session, check="attributes")
    except AttributeVersionConflict as conflict:
        return conflict.keys
    return ()


def main() -> None:
    with manager() as sessions:
        session = sessions.create_session("alice", {"balance": 0, "preferences": {"theme": "dark"}})
        print("switched:", switch_theme(sessions, session.id, "light") == ())

        session["preferences"]["theme"] = "blue"  # based on what it was before
        try:
            sessions.update_session(session, check="attributes")
        except AttributeVersionConflict as conflict:
            print("refused:", conflict)

        session.invalidate()  # nobody shall use this outdated object any more
        print("closed:", close_account(sessions, session.id))


if __name__ == "__main__":
    main()
