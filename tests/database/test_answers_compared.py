"""Whatever is asked, the incarnation in the answer is compared: tables that were made anew are noticed at once."""

from __future__ import annotations

from collections.abc import Callable
from uuid import UUID

import pytest

import pgsession

from .conftest import Database


def locked(lock: pgsession.Lock) -> None:
    with lock:
        pass


Ask = Callable[[pgsession.SessionManager], object]
ASKED: dict[str, Ask] = {
    "a list": lambda node: node.list_user_sessions("bob"),
    "a list of a group": lambda node: node.list_group_sessions("g"),
    "a delete of one": lambda node: node.delete_session(UUID(int=7)),
    "a delete of many": lambda node: node.delete_user_sessions("bob"),
    "an attribute of many": lambda node: node.delete_attribute_from_user_sessions("bob", "a"),
    "a lock": lambda node: locked(node.lock("r")),
    "a create": lambda node: node.create_session("bob"),
}


@pytest.mark.parametrize("what", ASKED)
def test_another_incarnation_is_noticed_by(database: Database, what: str) -> None:
    """The next read that the node would make by itself is minutes away."""
    config = pgsession.Config(schema_name=database.schema, table_prefix=database.prefix, max_staleness=600)
    with pgsession.SessionManager(database.dsn, config) as node:
        session = node.create_session("ann")
        cached = node.get_session(session.id)
        assert cached is not None and cached.from_cache
        database.execute("TRUNCATE app_session_incarnation")
        losses = node.stats().listener_losses
        ASKED[what](node)
        assert node.stats().listener_losses == losses + 1
        read = node.get_session(session.id)
        assert read is None or not read.from_cache
