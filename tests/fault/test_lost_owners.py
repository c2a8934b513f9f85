"""What was read of a commit that a crash has lost is never saved into what is another owner's session now."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

import pgsession
from tests.fault.nodes import Node

Server = Any


def test_what_was_read_of_a_lost_commit_reaches_no_other_owners_session(
    kind: str, own_server: Callable[..., Server]
) -> None:
    """Lost versions are given out again, so that no comparison of versions says whose session it was."""
    server = own_server(settings={"wal_writer_delay": "10s"})
    config = pgsession.Config(
        create_schema_if_missing=True, max_staleness=2, notify_before_flush=False, synchronous_commit=False
    )
    with Node(kind, server.conninfo, config) as node:
        saved, given, given_again = (node.create_session("alice", {"n": "alice's"}) for _ in range(3))
        with psycopg.connect(server.conninfo, autocommit=True) as connection:
            connection.execute("CHECKPOINT")  # the sessions themselves are safe
        saved["n"] = "lost"
        node.update_session(saved)
        node.rotate_session(given, user_id="bob")
        node.rotate_session(given_again, user_id="carol")
        held = [node.from_memory(session.id) for session in (saved, given, given_again)]
        server.restart("immediate")
        node.until_in_sync()
        for session in held:
            assert node.get_session(session.id).user_id == "alice"
        for session in (saved, given_again):
            node.rotate_session(node.get_session(session.id), user_id="bob")

        for session, owner in zip(held, ("bob", "alice", "bob"), strict=True):
            for options in ({}, {"check": "session"}, {"check": "attributes"}, {"group_id": "g"}):
                session["n"] = f"{session.user_id}'s"
                with pytest.raises((pgsession.SessionNotFoundError, pgsession.ConflictError)):
                    node.update_session(session, **options)
            with pytest.raises((pgsession.SessionNotFoundError, pgsession.SessionVersionConflict)):
                node.rotate_session(session, user_id="eve")
            read = node.get_session(session.id, refresh=True)
            assert (read.user_id, read.group_id, read["n"]) == (owner, None, "alice's")
