"""Change a user's roles at once in all of the user's sessions, computing them only for those that are used."""

from __future__ import annotations

from uuid import UUID

from common import manager

from pgsession import Session, SessionManager


class Users:
    """The application's own store of users, which knows their roles."""

    def __init__(self) -> None:
        self._roles: dict[str, list[str]] = {}
        self.lookups = 0

    def set_roles(self, user_id: str, roles: list[str]) -> None:
        self._roles[user_id] = roles

    def roles(self, user_id: str) -> list[str]:
        self.lookups += 1
        return self._roles.get(user_id, [])


def change_roles(sessions: SessionManager, users: Users, user_id: str, roles: list[str]) -> int:
    """Returns in how many sessions the old roles were forgotten; no other session is touched."""
    users.set_roles(user_id, roles)
    return sessions.delete_attribute_from_user_sessions(user_id, "roles")


def get_session_with_roles(sessions: SessionManager, users: Users, session_id: UUID) -> Session | None:
    """The roles are computed when the session is used for the first time after they were forgotten."""
    session = sessions.get_session(session_id)
    if session is not None and session.user_id is not None and "roles" not in session:
        session["roles"] = users.roles(session.user_id)
        sessions.update_session(session)
    return session


def main() -> None:
    with manager() as sessions:
        users = Users()
        users.set_roles("alice", ["reader"])
        session = sessions.create_session("alice")
        for roles in (None, ["reader", "admin"]):
            if roles is not None:
                print("forgotten in", change_roles(sessions, users, "alice", roles), "session")
            found = get_session_with_roles(sessions, users, session.id)
            assert found is not None
            print("roles:", found["roles"])


if __name__ == "__main__":
    main()
