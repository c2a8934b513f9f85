"""A node on a subscriber of logical replication, as in a blue/green upgrade, hears of every kind of change (C12)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession import schema
from tests.fault.nodes import until


@pytest.fixture
def servers(own_server: Callable[..., Any]) -> Iterator[tuple[Any, Any]]:
    """A publisher and its subscriber. The tables belong to a role of their own: as that, apply workers may do less."""
    settings = {"wal_level": "logical", "fsync": "off", "max_logical_replication_workers": 8}
    servers = own_server(settings=settings), own_server(settings=settings)
    for server in servers:
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CREATE ROLE owner; GRANT CREATE ON SCHEMA public TO owner; SET ROLE owner")
            schema.create(connection)
    publisher, subscriber = servers
    with (
        psycopg.connect(publisher.conninfo, autocommit=True) as source,
        psycopg.connect(subscriber.conninfo, autocommit=True) as target,
    ):
        source.execute("CREATE PUBLICATION p FOR ALL TABLES")
        target.execute(f"CREATE SUBSCRIPTION s CONNECTION '{publisher.conninfo}' PUBLICATION p")  # type: ignore[arg-type]
        yield servers
        target.execute("DROP SUBSCRIPTION s")


class Case:
    """One session that a change on the publisher is about, as the node of the subscriber has it in memory."""

    def __init__(self, there: Any, here: Any, **attributes: Any) -> None:
        self.there = there
        self.here = here
        self.id = there.create_session("ann", attributes, group_id="g").id
        until(lambda: here.get_session(self.id) is not None, "the new session to arrive")
        until(self._in_memory, "the subscriber's node to have it in memory")

    def _in_memory(self) -> bool:
        session = self.here.get_session(self.id)
        return session is not None and bool(session.from_cache)

    def until(self, condition: Callable[[Any], bool], what: str) -> None:
        """Reads from memory until it is no longer what it was."""
        until(lambda: condition(self.here.get_session(self.id)), f"{what} to be seen")

    def gone(self, what: str) -> None:
        self.until(lambda session: session is None, what)

    def update(self, change: Callable[[Any], object] = lambda session: None, **options: Any) -> None:
        session = self.there.get_session(self.id, refresh=True)
        change(session)
        self.there.update_session(session, **options)


def test_every_kind_of_change_on_the_publisher_is_heard_on_the_subscriber(servers: tuple[Any, Any]) -> None:
    config = pgsession.Config(max_sessions=0, last_access_update_interval=3600)
    with ExitStack() as running:
        there, here = (
            running.enter_context(pgsession.SessionManager(server.conninfo, config)) for server in servers
        )
        operator = running.enter_context(psycopg.connect(servers[0].conninfo, autocommit=True))

        case = Case(there, here)
        case.update(lambda session: session.set("a", 1))
        case.until(lambda session: session.get("a") == 1, "a new attribute")
        case.update(lambda session: session.set("a", 2))
        case.until(lambda session: session["a"] == 2, "a changed attribute")
        case.update(lambda session: session.pop("a"))
        case.until(lambda session: "a" not in session, "the end of an attribute")
        case.update(group_id="other")
        case.until(lambda session: session.group_id == "other", "another group")
        before = case.here.get_session(case.id).expires_at
        case.update(expires_in=3600)
        case.until(lambda session: session.expires_at != before, "another expiry")
        operator.execute("UPDATE sessions SET user_id = 'bob' WHERE id = %s", (case.id,))
        case.until(lambda session: session.user_id == "bob", "another user, by plain SQL")
        there.delete_session(case.id)
        case.gone("a logout without attributes")

        for end in (
            lambda case: there.delete_session(case.id),
            lambda case: there.delete_user_sessions("ann"),
            lambda case: there.delete_group_sessions("g"),
            lambda case: there.delete_all_sessions(),
            lambda case: operator.execute("DELETE FROM sessions"),
            lambda case: operator.execute("TRUNCATE sessions, session_attributes"),
        ):
            cases = [Case(there, here), Case(there, here, a=1)]
            end(cases[-1])
            for ended in cases[-1:] if there.get_session(cases[0].id, refresh=True) else cases:
                ended.gone("the end of a session")
        with psycopg.connect(servers[1].conninfo) as connection:
            errors = "SELECT apply_error_count + sync_error_count FROM pg_stat_subscription_stats"
            if connection.info.server_version >= 150_000:
                assert connection.execute(errors).fetchall() == [(0,)]
