"""The row that tells one life of the server from the next."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
import pytest

from pgsession import schema
from pgsession._database.statements import Statements

from .conftest import Database, run
from .test_races import at_once


def connect(dsn: str) -> psycopg.Connection[Any]:
    """Once the server takes connections again."""
    while True:
        try:
            return psycopg.connect(dsn, autocommit=True)
        except psycopg.OperationalError:
            pass


def test_every_restart_and_crash_begins_a_new_incarnation(own_server: Callable[..., Any]) -> None:
    server = own_server()
    statements = Statements()
    seen = []

    def begin() -> tuple[Any, ...]:
        """What a read sees first, and what the first node to come makes of it."""
        with connect(server.conninfo) as connection:
            before = connection.execute(statements.read, ("00" * 16,)).fetchone()
            made = run(connection, statements.incarnate())
            after = connection.execute(statements.read, ("00" * 16,)).fetchone()
            assert before is not None and made is not None and after is not None
            assert before[0] is None and made[1] is True and after[0] == made[0]
            again = run(connection, statements.incarnate())
            assert again is not None and again[:2] == (made[0], False)
        seen.append(made[0])
        return made

    with connect(server.conninfo) as connection:
        schema.create(connection)
        first = connection.execute(statements.read, ("00" * 16,)).fetchone()
        assert first is not None and first[0] is not None, "whoever makes the tables begins it, too"
        seen.append(first[0])
    server.restart("fast")
    begin()
    server.restart("immediate")
    begin()
    # One backend killed: the server recovers without the postmaster starting anew.
    with connect(server.conninfo) as connection, connect(server.conninfo) as victim:
        started = connection.execute("SELECT pg_postmaster_start_time()").fetchone()
        os.kill(victim.info.backend_pid, signal.SIGKILL)
    while True:
        try:
            with connect(server.conninfo) as connection:
                row = connection.execute(statements.read, ("00" * 16,)).fetchone()
                same = connection.execute("SELECT pg_postmaster_start_time()").fetchone() == started
        except psycopg.OperationalError:
            continue
        if row is not None and row[0] is None:
            break
    assert same
    begin()
    assert len(set(seen)) == 4


@pytest.mark.parametrize("other", ["system_identifier = 1", "started_at = 'epoch'", "place = 'base/1/1'"])
def test_the_row_of_a_copy_is_no_incarnation(database: Database, other: LiteralString) -> None:
    """A copied data folder brings it along, and so does a copied table."""
    database.execute("SET pgsession.own = 'on'; UPDATE app_session_incarnation SET " + other)
    made = database.run(database.statements.incarnate())
    assert made[0] != database.incarnation and made[1] is True
    assert database.run(database.statements.incarnate())[:2] == (made[0], False)
    assert database.execute(database.statements.read, "00" * 16)[0][0] == made[0]


def test_many_nodes_agree_on_one(own_server: Callable[..., Any]) -> None:
    server = own_server()
    statements = Statements()
    with connect(server.conninfo) as connection:
        schema.create(connection)
    answers: list[tuple[Any, ...]] = []
    connections = [connect(server.conninfo) for _ in range(5)]

    def incarnate(connection: psycopg.Connection[Any]) -> None:
        answers.append(run(connection, statements.incarnate()) or ())

    at_once(*(lambda c=c: incarnate(c) for c in connections))
    assert len({answer[0] for answer in answers}) == 1 and answers[0][0]
    assert sum(answer[1] for answer in answers) == 1
    for connection in connections:
        connection.close()
