"""What `wait=` promises (C13): once it has returned, no node serves what was ended, whatever ails that node."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

import pgsession
from pgsession._database.statements import Statements
from pgsession._protocol.acknowledgements import SERVES_UNHEARD, SILENCE
from tests.database.conftest import run as run_script
from tests.fault.conftest import NewNode
from tests.fault.nodes import Console, Node, until
from tests.fault_proxy import FaultProxy

ROOT = Path(__file__).resolve().parents[2]
STALENESS = 1.0  # seconds, of most nodes here
CAN_STOP = pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="processes cannot be stopped here")

PROCESS = """
import sys, pgsession
config = pgsession.Config(schema_name=sys.argv[2], max_staleness=float(sys.argv[3]))
with pgsession.SessionManager(sys.argv[1], config) as sessions:
    print("open", flush=True)
    for line in sys.stdin:
        session = sessions.get_session(line.strip())
        print("none" if session is None else "cached" if session.from_cache else "read", flush=True)
"""


class Process:
    """A node in a process of its own."""

    def __init__(self, conninfo: str, schema: str, staleness: float) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-c", PROCESS, conninfo, schema, str(staleness)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert self._answer() == "open"

    def _answer(self) -> str:
        assert self._process.stdout
        return self._process.stdout.readline().strip()

    def ask(self, session_id: Any) -> None:
        assert self._process.stdin
        self._process.stdin.write(f"{session_id}\n")
        self._process.stdin.flush()

    def get(self, session_id: Any) -> str:
        self.ask(session_id)
        return self._answer()

    def from_memory(self, session_id: Any) -> None:
        until(lambda: self.get(session_id) == "cached", "the process to have it in memory")

    def signal(self, number: int) -> None:
        os.kill(self._process.pid, number)

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
        for stream in (self._process.stdin, self._process.stdout):
            assert stream
            stream.close()


@contextmanager
def process(conninfo: str, schema: str, staleness: float = STALENESS) -> Iterator[Process]:
    node = Process(conninfo, schema, staleness)
    try:
        yield node
    finally:
        node.end()


@pytest.fixture
def node(new_node: NewNode) -> Node:
    """Who ends something."""
    return new_node(max_staleness=STALENESS)


def registered(console: Console) -> list[str]:
    return [name for (name,) in console("SELECT node FROM {t}.session_nodes ORDER BY registered_at")]


def bounded(seconds: float) -> Any:
    """A guard, of three times the bound."""

    @contextmanager
    def guard() -> Iterator[None]:
        began = time.monotonic()
        yield
        assert time.monotonic() - began < 3 * seconds

    return guard()


END: dict[str, Any] = {
    "session": lambda node, session, **wait: node.delete_session(session.id, **wait),
    "user": lambda node, session, **wait: node.delete_user_sessions("u", **wait),
    "group": lambda node, session, **wait: node.delete_group_sessions("g", **wait),
    "all": lambda node, session, **wait: node.delete_all_sessions(**wait),
}


@pytest.mark.parametrize("what", END)
def test_once_it_has_returned_no_node_serves_it(node: Node, new_node: NewNode, what: str) -> None:
    others = [new_node() for _ in range(2)]
    for _ in range(5):
        session = node.create_session("u", group_id="g")
        held = [other.from_memory(session.id) for other in (node, *others)]
        assert END[what](node, session, wait=20) == 1
        assert [other.get_cached_session(session.id) for other in (node, *others)] == [None] * 3
        for other, before in zip((node, *others), held, strict=True):
            before["late"] = 1
            with pytest.raises(pgsession.SessionNotFoundError):
                other.update_session(before)


def test_a_rotation_waits_for_all_to_know_the_new_token(dsn: str, schema: str, kind: str) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    signer = pgsession.Signer(b"k" * 32)
    with Node(kind, dsn, config) as node, Node(kind, dsn, config) as other:
        for each in (node, other):
            each.manager._signer = signer
        session = node.create_session("u")
        for _ in range(5):
            old = node.token(session)
            other.from_memory(session.id)
            assert other.get_session_by_token(old) is not None
            node.rotate_session(session, grace=0, wait=20)
            assert other.get_cached_session_by_token(old) is None
            assert other.open_token(old).state in ("superseded", "ended")
            assert other.get_session_by_token(node.token(session)) is not None


def test_a_user_of_many_steps(node: Node, new_node: NewNode, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each step is a transaction of its own; the last of them counts."""
    monkeypatch.setattr(f"pgsession._{node.kind}.store.STEP", 2)
    other = new_node()
    sessions = [node.create_session("u") for _ in range(5)]
    for session in sessions:
        other.from_memory(session.id)
    assert node.delete_user_sessions("u", wait=20) == 5
    assert not any(other.get_cached_session(session.id) for session in sessions)


def test_what_another_has_ended_is_waited_for_as_well(node: Node, new_node: NewNode) -> None:
    """Nothing was to be done; but whoever did it has told the others only a moment ago."""
    another, third = new_node(), new_node()
    for _ in range(5):
        session = another.create_session("u")
        node.from_memory(session.id), third.from_memory(session.id)
        another.delete_session(session.id)
        assert node.delete_session(session.id, wait=20) is False
        assert third.get_cached_session(session.id) is None and node.get_cached_session(session.id) is None


def test_nothing_is_asked_where_nobody_waits(node: Node, console: Console) -> None:
    node.delete_session(node.create_session("u").id)
    node.delete_user_sessions("u")
    assert console("SELECT max(acknowledged::text::bigint) FROM {t}.session_nodes") == [(0,)]
    node.delete_user_sessions("u", wait=20)
    assert console("SELECT max(acknowledged::text::bigint) > 0 FROM {t}.session_nodes") == [(True,)]


@CAN_STOP
def test_a_frozen_node_is_waited_for_until_its_proof_is_over(node: Node, dsn: str, schema: str) -> None:
    session = node.create_session("u")
    with process(dsn, schema) as frozen:
        frozen.from_memory(session.id)
        frozen.signal(signal.SIGSTOP)
        frozen.ask(session.id)
        began = time.monotonic()
        assert node.delete_session(session.id, wait=20)
        assert time.monotonic() - began >= STALENESS
        frozen.signal(signal.SIGCONT)
        assert frozen._answer() == "none"


@CAN_STOP
def test_no_longer_than_the_bound(node: Node, dsn: str, schema: str) -> None:
    """It is done, and says for how long at most it is not certain."""
    session = node.create_session("u")
    with process(dsn, schema, 60) as frozen:
        frozen.from_memory(session.id)
        frozen.signal(signal.SIGSTOP)
        with bounded(1), pytest.raises(pgsession.RevocationNotConfirmed) as caught:
            node.delete_session(session.id, wait=0.5)
        assert 50 < caught.value.certain_in < 60 and caught.value.done == 1
        assert "1 node has not confirmed" in str(caught.value) and " s more" in str(caught.value)
        frozen.signal(signal.SIGCONT)
    assert node.get_session(session.id) is None


def test_who_goes_on_while_it_is_waited_for_is_asked_again(new_node: NewNode, node: Node, dsn: str) -> None:
    """Its listener had not yet the question in its ears when it was cut; it acknowledges once it has compared."""
    with FaultProxy(dsn) as way:
        other = new_node(listener_conninfo=way.conninfo, max_staleness=60)
        session = node.create_session("u")
        other.from_memory(session.id)
        way.freeze()
        with ThreadPoolExecutor(1) as crew:
            ended = crew.submit(node.delete_session, session.id, wait=50)
            until(lambda: node.get_cached_session(session.id) is None, "it to be deleted")
            way.cut()
            way.forward()
            assert ended.result(50)
        assert other.get_cached_session(session.id) is None


def test_a_node_that_is_cut_off_is_waited_for(new_node: NewNode, node: Node, dsn: str) -> None:
    """It hears nothing, and reaches no database either."""
    with FaultProxy(dsn) as way:
        other = new_node(way.conninfo, max_staleness=STALENESS)
        session = node.create_session("u")
        other.from_memory(session.id)
        way.freeze()
        assert node.delete_session(session.id, wait=20)
        assert other.get_cached_session(session.id) is None
        way.forward()


def test_what_is_stale_if_error_is_waited_for(new_node: NewNode, node: Node, dsn: str) -> None:
    with FaultProxy(dsn) as way:
        other = new_node(way.conninfo, max_staleness=0.5, stale_if_error=0.5, operation_timeout=0.5)
        session = node.create_session("u")
        other.from_memory(session.id)
        way.refuse()
        way.cut()
        assert node.delete_session(session.id, wait=20)
        with pytest.raises(
            (pgsession.DatabaseUnavailable, psycopg.OperationalError, pgsession.OperationTimeout)
        ):
            other.get_session(session.id)
        way.forward()


@CAN_STOP
def test_a_dead_node_counts_for_no_longer_than_it_could_serve(node: Node, dsn: str, schema: str) -> None:
    session = node.create_session("u")
    with process(dsn, schema) as dead:
        dead.from_memory(session.id)
        dead.signal(signal.SIGKILL)
        with bounded(2 * STALENESS):
            assert node.delete_session(session.id, wait=20)


def test_who_was_silent_for_long_is_waited_for_no_more(node: Node, dsn: str, console: Console) -> None:
    """Its row is there until a cleanup comes by, but it serves nothing."""
    statements = Statements(node.manager._config.schema_name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        run_script(connection, statements.register("gone", 60_000_000))
        console(
            "UPDATE {t}.session_nodes SET registered_at = now() - %s * interval '1 second' WHERE node = 'gone'",
            SILENCE + 61,
        )
        assert node.delete_user_sessions("u", wait=20) == 0
        assert "gone" in registered(console)


def test_a_node_of_an_older_version_is_waited_for(node: Node, dsn: str, console: Console) -> None:
    """It is registered and acknowledges nothing, but it serves nothing for longer than it has said."""
    statements = Statements(node.manager._config.schema_name)
    with psycopg.connect(dsn, autocommit=True) as connection:
        run_script(connection, statements.register("older", 700_000))
        began = time.monotonic()
        assert node.delete_user_sessions("u", wait=20) == 0
        assert time.monotonic() - began >= 0.7
        run_script(connection, statements.register("older", 60_000_000))
        with pytest.raises(pgsession.RevocationNotConfirmed):
            node.delete_user_sessions("u", wait=0.1)


def test_who_leaves_meanwhile_counts_no_more(node: Node, dsn: str) -> None:
    statements = Statements(node.manager._config.schema_name)
    with psycopg.connect(dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as crew:
        run_script(connection, statements.register("leaving", 60_000_000))
        waiting = crew.submit(node.delete_user_sessions, "u", wait=50)
        until(lambda: acknowledged(connection, statements, node.node), "the node to acknowledge")
        assert not waiting.done()
        run_script(connection, statements.unregister("leaving"))
        assert waiting.result(20) == 0


def acknowledged(connection: psycopg.Connection[Any], statements: Statements, node: str) -> bool:
    row = connection.execute(
        f"SELECT acknowledged::text::bigint FROM {statements.schema}.session_nodes WHERE node = %s",
        (node,),  # type: ignore[arg-type]
    ).fetchone()
    return row is not None and row[0] > 0


def test_who_joins_meanwhile_is_not_waited_for(node: Node, new_node: NewNode, dsn: str) -> None:
    """It has read nothing of before."""
    statements = Statements(node.manager._config.schema_name)
    with psycopg.connect(dsn, autocommit=True) as connection, ThreadPoolExecutor(1) as crew:
        run_script(connection, statements.register("in the way", 60_000_000))
        waiting = crew.submit(node.delete_user_sessions, "u", wait=50)
        until(lambda: acknowledged(connection, statements, node.node), "the node to acknowledge")
        run_script(connection, statements.register("joining", 60_000_000))
        run_script(connection, statements.unregister("in the way"))
        assert waiting.result(20) == 0


def test_nodes_of_before_a_failover_are_waited_for(kind: str, own_server: Any) -> None:
    """They are in no table, and may not have noticed yet."""
    server = own_server()
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=1.5)
    with FaultProxy(server.conninfo) as way, Node(kind, way.conninfo, config) as cut_off:
        session = cut_off.create_session("u")
        cut_off.from_memory(session.id)
        way.freeze()
        server.restart("immediate")
        with Node(kind, server.conninfo, config) as node:
            assert node.delete_session(session.id, wait=30)
            assert cut_off.get_cached_session(session.id) is None
        way.cut()


def test_a_database_that_is_lost_meanwhile_is_no_success(new_node: NewNode, node: Node, dsn: str) -> None:
    with FaultProxy(dsn) as way:
        ender = new_node(way.conninfo, listener_conninfo=dsn, max_staleness=10)
        store, done = ender.manager._runtime.store, threading.Event()
        ask = store.ask_nodes

        def lose(deadline: float) -> Any:
            way.refuse()
            way.cut()
            done.set()
            return ask(deadline)

        store.ask_nodes = lose
        session = ender.create_session("u")
        with (
            bounded(1),
            pytest.raises(pgsession.RevocationNotConfirmed, match="could not be asked") as caught,
        ):
            ender.delete_session(session.id, wait=1)
        assert done.is_set() and caught.value.__cause__ is not None
        assert 8 < caught.value.certain_in <= 10.1
        way.forward()
    assert node.get_session(session.id) is None


def test_a_lost_connection_is_tried_again(new_node: NewNode, dsn: str) -> None:
    with FaultProxy(dsn) as way:
        ender = new_node(way.conninfo, listener_conninfo=dsn)
        store = ender.manager._runtime.store
        ask, cuts = store.ask_nodes, []

        def cut(deadline: float) -> Any:
            if not cuts:
                way.cut()
            cuts.append(1)
            return ask(deadline)

        store.ask_nodes = cut
        assert ender.delete_session(ender.create_session("u").id, wait=20)


# ---- who may serve is registered ----


def test_a_node_whose_words_get_through_no_more_ends_to_serve(
    node: Node, console: Console, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Before its row may be removed."""
    session = node.create_session("u")
    node.from_memory(session.id)
    coherence = node.manager._coherence
    coherence.registered(coherence._clock.now() - SERVES_UNHEARD * 1_000_000)
    assert not node.in_sync and node.get_cached_session(session.id) is None
    assert not node.get_session(session.id).from_cache
    node.manager._runtime.synchronizer._sign_due = 0
    node.from_memory(session.id)
    assert node.stats().listener_losses >= 1, "what it has not heard meanwhile is compared"


def test_a_table_that_somebody_holds_does_not_take_a_node_out_of_sync(
    new_node: NewNode, console: Console
) -> None:
    node = new_node(max_staleness=4)
    session = node.create_session("u")
    node.from_memory(session.id)
    synchronizer = node.manager._runtime.synchronizer

    def failed() -> bool:
        assert node.in_sync
        return synchronizer._mute is not None

    with console.connection.transaction():
        console("LOCK TABLE {t}.session_nodes IN ACCESS EXCLUSIVE MODE")
        synchronizer._sign_due = 0
        until(failed, "a sign of life to fail")
        proofs = node.stats().proofs
        until(lambda: node.stats().proofs > proofs, "another proof")
        assert node.in_sync and node.get_session(session.id).from_cache
    synchronizer._sign_due = 0
    until(lambda: synchronizer._mute is None, "one to get through")


@pytest.mark.parametrize("timeout", [0.5, 30])
def test_who_closes_is_waited_for_no_more(
    node: Node, new_node: NewNode, console: Console, timeout: float
) -> None:
    other = new_node()
    assert other.node in registered(console)
    other.close(timeout)
    assert other.node not in registered(console)
