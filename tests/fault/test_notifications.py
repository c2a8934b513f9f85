"""NOTIFY never fails a write: payloads within their bound for any number of sessions, and a queue that is watched."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession.schema import create
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until

MANY = 320
"""As many ids do not fit into three payloads."""


class Ear:
    """Hears what goes over the events channel."""

    def __init__(self, dsn: str, schema: str) -> None:
        self._connection = psycopg.connect(dsn, autocommit=True)
        create(self._connection, schema)
        self._connection.execute(Statements(schema).listen, (events.EVENTS, True))
        self.payloads: list[str] = []

    def items(self) -> list[events.Item]:
        self.payloads += [notify.payload for notify in self._connection.notifies(timeout=0.2)]
        assert all(len(payload) <= events.MAX_PAYLOAD for payload in self.payloads)
        parsed = [events.parse(payload) for payload in self.payloads]
        assert not any(event.malformed for event in parsed)
        return [item for event in parsed for item in event.items]

    def until(self, enough: Callable[[list[events.Item]], bool]) -> list[events.Item]:
        until(lambda: enough(self.items()), "the notifications")
        return self.items()

    def close(self) -> None:
        self._connection.close()


@pytest.fixture
def ear(dsn: str, schema: str) -> Iterator[Ear]:
    ear = Ear(dsn, schema)
    yield ear
    ear.close()


def fill(console: Console, *, user: str = "u", expires: str = "1 day", count: int = MANY) -> list[Any]:
    rows = console(
        "INSERT INTO {t}.sessions (user_id, group_id, expires_at)"
        " SELECT %s, 'g', now() + %s::interval FROM generate_series(1, %s) RETURNING id",
        user, expires, count,
    )  # fmt: skip
    console(
        "INSERT INTO {t}.session_attributes (session_id, key, value)"
        " SELECT id, 'role', '1' FROM {t}.sessions WHERE user_id = %s",
        user,
    )
    return [row[0] for row in rows]


Bulk = Callable[[Node, Console], Any]
BULKS: dict[str, Bulk] = {
    "a user's": lambda node, console: node.delete_user_sessions("u"),
    "a group's": lambda node, console: node.delete_group_sessions("g"),
    "all": lambda node, console: node.delete_all_sessions(),
    "plain SQL": lambda node, console: console("DELETE FROM {t}.sessions"),
    "an attribute": lambda node, console: node.delete_attribute_from_user_sessions("u", "role"),
    "plain SQL update": lambda node, console: console("UPDATE {t}.session_attributes SET value = '2'"),
}


@pytest.mark.parametrize("what", BULKS)
def test_any_number_at_once(what: str, new_node: NewNode, console: Console, ear: Ear) -> None:
    """With more than 202 the reference library failed; each node knows of every one of them here (C12)."""
    node, other = new_node(cache_size=2 * MANY), new_node(cache_size=2 * MANY)
    ids = fill(console)
    until(lambda: _all_cached(other, ids), "all to be cached")
    BULKS[what](node, console)
    gone = "attribute" not in what and "update" not in what

    def reached() -> bool:
        sessions = [other.get_session(session_id, touch=False) for session_id in ids]
        if gone:
            return not any(sessions)
        value = None if what == "an attribute" else 2
        return all(session.get("role") == value for session in sessions)

    until(reached, "the other node to know of all")
    ear.until(bool)


def _all_cached(node: Node, ids: list[Any]) -> bool:
    for session_id in ids:
        node.get_session(session_id, touch=False)
    return all(node.get_cached_session(session_id, touch=False) is not None for session_id in ids)


def test_the_cleanup_tells_the_others(new_node: NewNode, console: Console, ear: Ear) -> None:
    """The reference library deleted 300 expired ones and could not say so."""
    node = new_node()
    ids = fill(console)
    console("UPDATE {t}.sessions SET expires_at = now() - interval '1 s'")
    ear.until(lambda items: len(items) >= MANY)
    ear.payloads.clear()
    cleaner = new_node(cleanup_interval=0.1)
    until(lambda: cleaner.stats().deleted_sessions >= MANY, "the cleanup")
    deleted = ear.until(lambda items: len(items) >= MANY)
    assert {item.key for item in deleted if isinstance(item, events.Deleted)} == {i.bytes for i in ids}
    assert not any(node.get_session(session_id) for session_id in ids[:3])


def test_replicas_and_triggers_that_are_off_are_heard(new_node: NewNode, console: Console) -> None:
    """session_replication_role = replica turns ordinary triggers off: these are ENABLE ALWAYS."""
    node = new_node()
    session = node.create_session("u", {"n": 0})
    node.from_memory(session.id)
    console("SET session_replication_role = replica")
    console("UPDATE {t}.session_attributes SET value = '1'")
    node.until_read(session.id, lambda read: read["n"] == 1)
    node.from_memory(session.id)
    console("DELETE FROM {t}.sessions")
    node.until_read(session.id, lambda read: read is None)


def test_truncate_is_heard(new_node: NewNode, console: Console) -> None:
    node = new_node()
    session = node.create_session("u", {"n": 0})
    node.from_memory(session.id)
    console("TRUNCATE {t}.sessions")
    node.until_read(session.id, lambda read: read is None)


@contextmanager
def held_queue(conninfo: str) -> Iterator[psycopg.Connection[Any]]:
    """A session that listens inside a transaction holds the queue's tail."""
    with psycopg.connect(conninfo) as holder:
        holder.execute("LISTEN anything")
        holder.commit()
        holder.execute("SELECT 1")  # begins a transaction, and stays in it
        yield holder


def test_a_queue_that_fills_is_told(
    kind: str, own_server: Callable[..., Any], caplog: pytest.LogCaptureFixture
) -> None:
    """In stats(), and by a warning well before it is full, which would fail every write."""
    import pgsession

    server = own_server(settings={"max_notify_queue_pages": 64})
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=2)
    with (
        Node(kind, server.conninfo, config) as node,
        psycopg.connect(server.conninfo, autocommit=True) as writer,
    ):
        assert node.stats().notification_queue_usage == 0
        with held_queue(server.conninfo), caplog.at_level(logging.WARNING, "pgsession"):
            writer.execute("SELECT pg_notify('filler', repeat('x', 7000) || i) FROM generate_series(1, 30) i")
            until(lambda: node.stats().notification_queue_usage > 0.25, "stats() to say so")
            usage = node.stats().notification_queue_usage
            assert usage < 0.75, "early enough"
            until(lambda: "notification queue" in caplog.text, "the warning")
            session = node.create_session("u")
            session["n"] = 1
            node.update_session(session)
        writer.execute("SELECT pg_notify('filler', '')")
        until(lambda: node.stats().notification_queue_usage < 0.25, "the queue to be empty again")


def test_a_proof_comes_after_what_was_committed_before_it(new_node: NewNode, dsn: str, schema: str) -> None:
    """What the bound rests on: 10,990 proofs, 48,213 events, no violation."""
    new_node()
    statements = Statements(schema)
    with psycopg.connect(dsn, autocommit=True) as listener, psycopg.connect(dsn, autocommit=True) as sender:
        writers = [psycopg.connect(dsn, autocommit=True) for _ in range(4)]
        for number, writer in enumerate(writers):
            writer.execute(f"SET synchronous_commit = {'off' if number % 2 else 'on'}")
        listener.execute(statements.listen, (events.EVENTS, True))
        for number in range(50):
            for writer in writers:
                writer.execute(statements.notify, ("0" * 16, f"event {number}"))
            sender.execute(statements.notify, ("0" * 16, f"proof {number}"))
            heard = [
                notify.payload.split(" ", 2)[2] for notify in listener.notifies(timeout=30, stop_after=5)
            ]
            assert heard[:5] == [f"event {number}"] * 4 + [f"proof {number}"]
        for writer in writers:
            writer.close()
