"""What a node believes of whose session it is may be outdated: ended, moved or given to another user a moment ago."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import pytest

from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until
from tests.fault_proxy import FaultProxy

Held = tuple[Node, Node, Any]


def move_group(there: Node, console: Console, session: Any) -> None:
    there.update_session(session, group_id="b")


def move_user(there: Node, console: Console, session: Any) -> None:
    console("UPDATE {t}.sessions SET user_id = 'bob' WHERE id = %s", session.id)


ENDS: dict[str, tuple[Callable[..., None], Callable[[Node], int]]] = {
    "group": (move_group, lambda node: int(node.delete_group_sessions("b"))),
    "user": (move_user, lambda node: int(node.delete_user_sessions("bob"))),
    "user but one": (move_user, lambda node: int(node.delete_user_sessions("bob", keep=uuid.uuid4()))),
    "attribute": (move_user, lambda node: int(node.delete_attribute_from_user_sessions("bob", "n"))),
}


@pytest.mark.parametrize("what", list(ENDS))
def test_what_was_moved_there_a_moment_ago_ends_too(
    new_node: NewNode, console: Console, dsn: str, what: str
) -> None:
    """This node has not heard of the move, and went on serving the session after its own call had returned."""
    move, end = ENDS[what]
    with FaultProxy(dsn) as way:
        here, there = new_node(listener_conninfo=way.conninfo, max_staleness=60), new_node()
        session = there.create_session("ann", {"n": 1}, group_id="a")
        bystander = there.create_session("carol", {"n": 1}, group_id="c")
        for one in (session, bystander):
            here.from_memory(one.id)
        way.freeze()
        move(there, console, session)
        known = here.get_session(session.id)
        assert known.from_cache and (known.user_id, known.group_id) == ("ann", "a"), "it has not heard of it"
        assert end(here) == 1
        read = here.get_session(session.id)
        assert dict(read) == {} if what == "attribute" else read is None
        assert here.get_session(bystander.id).from_cache


@pytest.mark.parametrize("saved", [False, True])
def test_a_session_that_is_inserted_again_during_an_outage_of_the_listener(
    new_node: NewNode, console: Console, dsn: str, saved: bool
) -> None:
    """Its versions began anew: memory said alice, the database bob, and the resync found no difference."""
    with FaultProxy(dsn) as way:
        node = new_node(listener_conninfo=way.conninfo)
        session = node.create_session("alice", {})
        if saved:
            session["role"] = "admin"
            node.update_session(session)
        before = node.from_memory(session.id).version
        way.refuse()
        way.cut()
        until(lambda: not node.in_sync, "the node to notice")
        console("DELETE FROM {t}.sessions WHERE id = %s", session.id)
        console(
            "INSERT INTO {t}.sessions (id, user_id, expires_at) VALUES (%s, 'bob', now() + interval '1 day')",
            session.id,
        )
        if saved:
            console(
                "INSERT INTO {t}.session_attributes (session_id, key, value) VALUES (%s, 'role', '\"guest\"')",
                session.id,
            )
        way.forward()
        node.until_in_sync()
        read = node.get_session(session.id)
        assert (read.user_id, dict(read)) == ("bob", {"role": "guest"} if saved else {})
        assert read.version > before
