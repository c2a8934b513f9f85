"""Who is asked to acknowledge, and what an acknowledgement counts for."""

from __future__ import annotations

import json

from pgsession._protocol import events
from tests.database.conftest import Database

SECOND = 1_000_000


def ask(database: Database) -> tuple[str, int, int, dict[str, int]]:
    row = database.connection.execute(database.statements.ask_nodes, ("a" * 16,)).fetchone()
    assert row is not None
    return row[0], int(row[1]), row[2], json.loads(row[3])


def silent(database: Database, xid: int, *nodes: str) -> list[str]:
    row = database.connection.execute(
        database.statements.silent_nodes, (json.dumps(nodes), str(xid))
    ).fetchone()
    assert row is not None
    return sorted(json.loads(row[1]))


def register(database: Database, *nodes: str) -> None:
    for node in nodes:
        database.run(database.statements.register(node, 10 * SECOND))


def test_the_question_is_an_event_with_its_own_transaction(database: Database) -> None:
    ear = database.ear()
    _, xid, _, _ = ask(database)
    (event,) = [events.parse(payload) for payload in ear.payloads()]
    assert event == events.Event("a" * 16, xid, (events.Awaited(),), sent=event.sent) and event.sent > 0


def test_who_may_serve_is_asked_and_for_how_long_it_may(database: Database) -> None:
    register(database, "one", "two", "gone")
    database.execute(
        "UPDATE app_session_nodes SET registered_at = now() - interval '311 s' WHERE node = 'gone'"
    )
    incarnation, _, _, serving = ask(database)
    assert incarnation == database.incarnation
    assert serving == {"one": 10 * SECOND, "two": 10 * SECOND}


def test_one_that_is_late_says_no_less_than_another_has(database: Database) -> None:
    """All who lead a host register by one name: a registration of the former leader's may come after the next one's."""
    database.run(database.statements.register("host", 60 * SECOND))
    late, longest = database.run(database.statements.register("host", 10 * SECOND))[:2]
    assert (late, longest) == (1, 60 * SECOND)
    assert ask(database)[3] == {"host": 60 * SECOND}


def test_an_acknowledgement_counts_for_what_was_asked_before(database: Database) -> None:
    register(database, "one", "two")
    _, first, _, _ = ask(database)
    _, second, _, _ = ask(database)
    assert first < second and silent(database, first, "one", "two", "never there") == ["one", "two"]
    database.run(database.statements.acknowledge("one", second, database.incarnation))
    database.run(database.statements.acknowledge("two", first, database.incarnation))
    assert silent(database, first, "one", "two") == []
    assert silent(database, second, "one", "two") == ["two"]
    database.run(database.statements.acknowledge("one", first, database.incarnation))
    register(database, "one")
    assert silent(database, second, "one", "two") == ["two"], "it never goes back"
    database.run(database.statements.unregister("two"))
    assert silent(database, second, "one", "two") == []


def test_an_acknowledgement_counts_in_its_own_incarnation(database: Database) -> None:
    """After a failover ids may be given out again, and who is late has one of before."""
    register(database, "one")
    _, xid, _, _ = ask(database)
    database.run(database.statements.acknowledge("one", xid, "another"))
    assert silent(database, xid, "one") == ["one"]


def test_new_tables_had_no_nodes_before(database: Database) -> None:
    """A database that was started, or tables that were copied, may have had some."""
    hour = 3600 * SECOND
    assert ask(database)[2] > hour
    database.execute("TRUNCATE app_session_incarnation")
    assert ask(database)[2] < hour
    database.execute("SELECT app_session_rotate_secret()")
    assert ask(database)[2] < hour


def test_another_secret_makes_no_incarnation_younger(database: Database) -> None:
    database.execute("SELECT app_session_rotate_secret()")
    assert ask(database)[2] > 3600 * SECOND
