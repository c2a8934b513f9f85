"""What a node serves when it does not hear: nothing that it cannot prove to be current, and all that it can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

import pgsession
from pgsession._core.record import Record
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until
from tests.fault_proxy import FaultProxy
from tests.versions import changes

ROOT = Path(__file__).resolve().parents[2]


def test_an_own_write_that_is_done_later_is_heard_of(new_node: NewNode, console: Console, dsn: str) -> None:
    """Its connection dies while it waits for a row; the record is read again as it was; then the server goes on."""
    with FaultProxy(dsn) as way:
        node = new_node(way.conninfo, listener_conninfo=dsn)
        session = node.create_session("u", {"n": 0})
        with (
            Console(dsn, node.manager._config.schema_name) as other,
            ThreadPoolExecutor(1) as crew,
            other.connection.transaction(),
        ):
            other("SELECT FROM {t}.sessions WHERE id = %s FOR UPDATE", session.id)
            session["n"] = 1
            update = crew.submit(node.update_session, session)
            until(lambda: console.waiting() > 0, "the update to wait for the row")
            way.cut()
            with pytest.raises(pgsession.WriteOutcomeUnknown):
                update.result(30)
            assert changes(node.from_memory(session.id)) == 0
        node.until_read(session.id, lambda read: read["n"] == 1)
        assert changes(node.from_memory(session.id)) == 1


def test_a_silent_listener_serves_nothing_past_the_bound(new_node: NewNode, dsn: str) -> None:
    """No FIN, no error: the connection just says nothing any more."""
    with FaultProxy(dsn) as way:
        writer, node = new_node(), new_node(listener_conninfo=way.conninfo, max_staleness=1)
        session = writer.create_session("u", {"n": 0})
        node.from_memory(session.id)
        way.lose()
        session["n"] = 1
        writer.update_session(session)
        node.until_read(session.id, lambda read: read["n"] == 1)
        assert node.from_memory(session.id)["n"] == 1
        assert node.stats().listener_losses >= 1


def test_without_a_listener_each_read_asks_the_database(new_node: NewNode, dsn: str) -> None:
    with FaultProxy(dsn) as way:
        writer, node = new_node(), new_node(listener_conninfo=way.conninfo, max_staleness=1)
        session = writer.create_session("u", {"n": 0})
        node.from_memory(session.id)
        way.refuse()
        way.cut()
        until(lambda: not node.in_sync, "the node to notice")
        for number in range(1, 4):
            session["n"] = number
            writer.update_session(session)
            read = node.get_session(session.id)
            assert read["n"] == number and not read.from_cache
        assert node.get_cached_session(session.id) is None
        way.forward()
        node.until_in_sync()
        assert node.from_memory(session.id)["n"] == 3


def raises(kind: type[Exception], fn: Callable[..., object], *arguments: object) -> bool:
    try:
        fn(*arguments)
    except kind:
        return True
    return False


@pytest.mark.parametrize("allowed", [0, 60])
def test_stale_if_error(kind: str, own_server: Callable[..., Any], allowed: int) -> None:
    """With the database gone: an error, or for so much longer what was known; never past that, never by default."""
    server = own_server(settings={"restart_after_crash": "off"})
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=1, stale_if_error=allowed)
    with Node(kind, server.conninfo + " connect_timeout=2", config) as node:
        session = node.create_session("u", {"n": 0})
        node.from_memory(session.id)
        server.run("pg_ctl", "-D", server.folder, "-m", "immediate", "-w", "stop")
        until(lambda: not node.in_sync, "the node to notice")
        if allowed:
            assert node.get_session(session.id)["n"] == 0
            assert node.stats().stale_served >= 1
        else:
            # What is known is that old, and no older, until the last proof is over.
            until(
                lambda: raises(pgsession.DatabaseUnavailable, node.get_session, session.id), "memory to end"
            )


@pytest.mark.slow
def test_the_resync_of_200_000_sessions(new_node: NewNode, console: Console, dsn: str) -> None:
    """Few statements, whatever their number; what did not change stays."""
    count = 200_000
    with FaultProxy(dsn) as way:
        node = new_node(listener_conninfo=way.conninfo, cache_size=count)
        console("SET synchronous_commit = off")
        console("ALTER TABLE {t}.sessions DISABLE TRIGGER ALL")  # quickly, and unheard
        rows = console(
            "INSERT INTO {t}.sessions (version, owner_since, generation, user_id, expires_at)"
            " SELECT 1, 1, 0, 'u', now() + interval '1 day' FROM generate_series(1, %s) RETURNING id",
            count,
        )
        keys = [row[0].bytes for row in rows]
        cache, now = node.manager._cache, node.manager._clock.database_now()
        for key in keys:
            cache.put(Record(key, 1, "u", None, now, now, now, now + 10**12, None, []))
        before = node.stats()
        assert before.cached_sessions == count
        way.refuse()
        way.cut()
        until(lambda: not node.in_sync, "the node to notice")
        console("UPDATE {t}.sessions SET version = 2 WHERE id = ANY (%s)", [row[0] for row in rows[:3]])
        console("DELETE FROM {t}.sessions WHERE id = ANY (%s)", [row[0] for row in rows[3:5]])
        way.forward()
        node.until_in_sync()
        assert node.stats().resyncs > before.resyncs
        assert len(cache) == count - 5
        assert [cache.version(key) for key in keys[:6]] == [0, 0, 0, 0, 0, 1]


def test_a_thousand_readers_cost_one_query(new_node: NewNode, dsn: str) -> None:
    """C10: they join the fill that is under way."""
    with FaultProxy(dsn) as way:
        node = new_node(way.conninfo, listener_conninfo=dsn, max_staleness=30)
        session = new_node().create_session("u", {"n": 0})
        way.freeze()
        with ThreadPoolExecutor(64) as crew:
            reads = [crew.submit(node.get_session, session.id) for _ in range(64)]
            until(lambda: node.stats().joined_fills == 63, "all others to join the first")
            assert node.stats().fills == 1
            way.forward()
            assert all(read.result(30)["n"] == 0 for read in reads)


FROZEN = """
import sys, pgsession
config = pgsession.Config(schema_name=sys.argv[2], max_staleness=1)
with pgsession.SessionManager(sys.argv[1], config) as sessions:
    session_id = sys.argv[3]
    while not (session := sessions.get_session(session_id)).from_cache:
        pass
    print("cached", session["n"], flush=True)
    for line in sys.stdin:  # the first line comes while this process is stopped
        session = sessions.get_session(session_id)
        print("read", session["n"], flush=True)
"""


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")
def test_a_process_that_was_stopped_serves_nothing_stale(dsn: str, schema: str) -> None:
    """It could hear nothing, and its clock went on: the very first read asks the database."""
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    with Node("sync", dsn, config) as node:
        session = node.create_session("u", {"n": 0})
        process = subprocess.Popen(
            [sys.executable, "-c", FROZEN, dsn, schema, str(session.id)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stdin and process.stdout
        try:
            assert process.stdout.readline() == "cached 0\n"
            os.kill(process.pid, signal.SIGSTOP)
            _until_past(1.0)
            session["n"] = 1
            node.update_session(session)
            process.stdin.write("read\n")
            process.stdin.flush()
            os.kill(process.pid, signal.SIGCONT)
            assert process.stdout.readline() == "read 1\n"
            process.stdin.close()
            assert process.wait(30) == 0
        finally:
            process.kill()
            process.wait()
            process.stdout.close()


def _until_past(seconds: float) -> None:
    end = time.monotonic() + seconds
    until(lambda: time.monotonic() > end, "the bound to pass")
