"""What an operator finds in the log after an outage: few lines, each with its reason, and how it ended."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any

import pytest

import pgsession
from pgsession._protocol.log_rate import AT_ONCE
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until


def lines(caplog: pytest.LogCaptureFixture) -> list[tuple[str, str]]:
    """What is in the log of ours and of the pool's, from WARNING on: the event and the text."""
    return [
        (getattr(record, "pgsession_event", "-"), record.getMessage())
        for record in caplog.records
        if record.levelno >= logging.WARNING and record.name.startswith(("pgsession", "psycopg"))
    ]


def test_an_outage_of_seconds_makes_these_lines_and_no_others(
    kind: str, own_server: Callable[..., Any], schema: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Callers come all the time, and the pool tries to connect all the time."""
    server = own_server(tcp=True)
    config = pgsession.Config(
        schema_name=schema, create_schema_if_missing=True, max_staleness=1, operation_timeout=2
    )
    with Node(kind, server.conninfo, config) as node:
        session = node.create_session("u")
        caplog.clear()
        ended = threading.Event()

        def read() -> None:
            while not ended.wait(0.05):
                try:
                    node.get_session(session.id, refresh=True)
                except (pgsession.PgSessionError, Exception):
                    pass

        readers = [threading.Thread(target=read) for _ in range(3)]
        for reader in readers:
            reader.start()
        server.run("pg_ctl", "-D", server.folder, "-m", "fast", "-w", "stop")
        until(
            lambda: "database_down" in [event for event, _ in lines(caplog)],
            "the database to be known as down",
        )
        assert not ended.wait(2.5)  # so long the outage lasts
        server.restart()
        node.until_in_sync()
        until(lambda: {"in_sync", "database_back"} <= {event for event, _ in lines(caplog)}, "the last lines")
        ended.set()
        for reader in readers:
            reader.join()
        found = lines(caplog)
        assert sorted(event for event, _ in found) == [
            "database_back", "database_down", "in_sync", "out_of_sync", "server_replaced",
        ], found  # fmt: skip
        texts = dict(found)
        assert texts["out_of_sync"].startswith("Reads go to the database, for the listener does not listen: ")
        assert texts["database_down"].startswith(
            "The database is down, and calls are refused until it is back: "
        )
        assert texts["in_sync"].startswith("Reads are answered from memory again, after ")
        assert texts["database_back"].startswith("The database is back, after ")
        records = [record for record in caplog.records if getattr(record, "pgsession_event", "") in texts]
        for record in records:
            if record.levelno >= logging.WARNING and "server_replaced" not in record.__dict__.values():
                assert record.levelno == logging.WARNING
                assert record.__dict__["pgsession_node"] == node.node
                assert (record.__dict__["pgsession_reason"] is None) == (
                    record.__dict__["pgsession_seconds"] > 0
                )


def test_a_listener_that_flaps_makes_a_bounded_number_of_lines(
    new_node: NewNode, console: Console, caplog: pytest.LogCaptureFixture
) -> None:
    node = new_node()
    caplog.clear()
    rounds = 3 * AT_ONCE
    loop = node.manager._runtime.listener._loop
    for number in range(rounds):
        losses, loop._failures = node.stats().listener_losses, 0  # or it would wait for longer each time
        console("SELECT pg_terminate_backend(%s)", node.manager._runtime.listener.pid)
        until(lambda: node.stats().listener_losses > losses, "the loss to be noticed")  # noqa: B023
        node.until_in_sync()
        if number < AT_ONCE:
            told = 2 * (number + 1)
            until(lambda: len(lines(caplog)) == told, "both lines")  # noqa: B023
    found = lines(caplog)
    assert [event for event, _ in found] == ["out_of_sync", "in_sync"] * AT_ONCE, found
    assert all(
        "\n" not in text and "closed the connection" in text
        for event, text in found
        if event == "out_of_sync"
    )
    states = node.manager._runtime.synchronizer._states
    states._filled -= 60  # a minute later
    console("SELECT pg_terminate_backend(%s)", node.manager._runtime.listener.pid)
    until(lambda: len(lines(caplog)) == 2 * AT_ONCE + 2, "the next ones")
    missed = rounds - AT_ONCE
    assert f"happened {missed} more times since the last such line" in lines(caplog)[-2][1]


def test_a_listener_of_nobodys_node_still_warns(dsn: str, caplog: pytest.LogCaptureFixture) -> None:
    with pgsession.Listener(dsn) as listener:
        heard = threading.Event()
        listener.listen("c", lambda _: None, on_out_of_sync=lambda _: heard.set())
        with Console(dsn, "public") as console:
            console("SELECT pg_terminate_backend(%s)", listener.pid)
        assert heard.wait(30)
    assert ("listener_lost", "the listener lost its connection: ") in [
        (event, text[:34]) for event, text in lines(caplog)
    ]


def test_who_asks_for_it_sees_all_that_the_pool_does() -> None:
    from pgsession._database import pool_log

    pool_log.quiet()
    pool_log.quiet()
    logger = logging.getLogger("psycopg.pool")
    assert logger.filters.count(pool_log._of_others) == 1

    class Ours:
        __module__ = "pgsession._concurrency.connecting"

    def written(*args: object, level: int = logging.WARNING) -> bool:
        return bool(logger.filter(logging.LogRecord("psycopg.pool", level, "f", 1, "%s", args, None)))

    assert not written("pgsession") and not written(Ours())
    assert written("theirs") and written(object()) and written() and written("pgsession", level=logging.ERROR)
    logger.setLevel(logging.DEBUG)
    try:
        assert written("pgsession")
    finally:
        logger.setLevel(logging.NOTSET)
