"""What proofs of sync rest on, on a real server; and who sends a beacon, who is registered, and for how long."""

from __future__ import annotations

import functools
import random
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

import pytest

import pgsession
from pgsession._database.statements import Statements
from pgsession._protocol import events
from pgsession._protocol.proofs_of_sync import Proofs

from .conftest import Database, run
from .test_races import at_once

SECONDS = 3.0
SECOND = 1_000_000
LONG = 10**6  # microseconds
MANY = 10**15


def item(number: int) -> str:
    return events.encode(events.Deleted(number.to_bytes(16, "big")))


class Writers:
    """Whoever commits and aborts, soon and late, with and without a flush, with an id from the beginning or not."""

    def __init__(self, database: Database, seed: int) -> None:
        database.execute("CREATE TABLE log (n bigint, at timestamptz DEFAULT clock_timestamp())")
        self._database = database
        self._over = threading.Event()
        self._sources = [random.Random(seed + number) for number in range(4)]
        self._threads = [threading.Thread(target=self._write, args=(n,)) for n in range(4)]

    def __enter__(self) -> Writers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _write(self, number: int) -> None:
        source, database = self._sources[number], self._database
        connection = database.connect(synchronous_commit=source.choice(["on", "off"]))
        for count in range(1_000_000):
            if self._over.is_set():
                return
            n = number * 1_000_000 + count
            connection.execute("BEGIN")
            if source.random() < 0.5:
                connection.execute("SELECT pg_current_xact_id()")
                self._over.wait(source.choice([0, 0, 0.001, 0.02, 0.1]))
            steps: list[Callable[[], object]] = [
                lambda n=n: connection.execute("INSERT INTO log VALUES (%s)", (n,)),
                lambda n=n: connection.execute(database.statements.notify, ("0" * 16, item(n))),
            ]
            source.shuffle(steps)
            for step in steps:
                step()
            self._over.wait(source.choice([0, 0, 0.001, 0.02]))
            connection.execute("ROLLBACK" if source.random() < 0.2 else "COMMIT")


class Node:
    """A node's reads and its ear. `xid_of` is what it takes the id in an event for."""

    def __init__(self, database: Database, xid_of: Callable[[int], int]) -> None:
        self._database = database
        self._xid_of = xid_of
        self._pool, self._listener = database.connect(), database.connect()
        self._listener.execute(database.statements.listen, (events.EVENTS, True))
        self._proofs = Proofs(LONG)
        self._lock = threading.Lock()
        self._heard: set[int] = set()
        self._visible: dict[int, set[int]] = {}
        self.proofs = self.checked = 0
        self.violations: list[str] = []

    def run(self, seconds: float) -> None:
        until = time.monotonic() + seconds
        ear = threading.Thread(target=self._listen, args=(until,))
        ear.start()
        while time.monotonic() < until:
            self._read()
        ear.join(30)

    def _read(self) -> None:
        """What everybody may see at this moment, and a read that begins after it."""
        query = "SELECT n FROM log WHERE at > clock_timestamp() - interval '1 second'"
        visible = {row[0] for row in self._pool.execute(query)}
        at = time.monotonic_ns() // 1000
        with self._lock:
            wanted = self._proofs.wanted(at)
        if wanted is None:
            row = self._pool.execute(self._database.statements.look).fetchone()
        else:
            row = run(self._pool, self._database.statements.send_beacon(self._database.node, *wanted))
        assert row is not None
        with self._lock:
            self._visible[at] = visible
            if self._proofs.read(at, int(row[-1])):
                self._check()

    def _listen(self, until: float) -> None:
        while time.monotonic() < until:
            for notification in self._listener.notifies(timeout=0.05):
                self._hear(notification.payload)

    def _hear(self, payload: str) -> None:
        event = events.parse(payload)
        assert not event.malformed and event.xid
        with self._lock:
            self._heard |= {
                int.from_bytes(i.key, "big") for i in event.items if isinstance(i, events.Deleted)
            }
            if self._proofs.heard(self._xid_of(event.xid)):
                self._check()

    def _check(self) -> None:
        age = self._proofs.age(0)
        assert age is not None
        missing = self._visible[-age] - self._heard
        self.proofs += 1
        self.checked += len(self._visible[-age])
        if missing:
            self.violations.append(f"{sorted(missing)[:5]} could be seen before a read that is proved")


def lived(database: Database, xid_of: Callable[[int], int]) -> list[Node]:
    seed = random.randrange(10**9)
    print("seed", seed)
    nodes = [Node(database, xid_of) for _ in range(2)]
    with Writers(database, seed):
        at_once(*(lambda node=node: node.run(SECONDS) for node in nodes))
    return nodes


def test_a_proof_is_never_before_what_could_be_seen_at_its_read(database: Database) -> None:
    for node in lived(database, lambda xid: xid):
        assert node.violations == []
        assert node.proofs > 20 and node.checked > 200, (node.proofs, node.checked)


def test_the_check_bites(database: Database) -> None:
    """The same, had events the id of a later transaction."""
    assert any(node.violations for node in lived(database, lambda xid: xid + MANY))


# ---- who sends ----


def beacons(payloads: list[str]) -> int:
    return sum(not events.parse(payload).items for payload in payloads)


def xmax(database: Database) -> int:
    return int(database.execute(database.statements.look)[0][-1])


def test_of_many_who_ask_at_once_one_sends(database: Database) -> None:
    ear = database.ear()
    connections = [database.connect() for _ in range(12)]
    for _ in range(5):
        since = xmax(database)
        beacon = database.statements.send_beacon(database.node, since, False)
        at_once(*(functools.partial(run, connection, beacon) for connection in connections))
        (payload,) = ear.payloads()
        assert events.parse(payload).xid >= since
        assert database.run(beacon)[1] is True and ear.payloads() == []


def test_who_holds_the_row_keeps_nobody_from_sending(database: Database) -> None:
    database.run(database.statements.send_beacon(database.node, xmax(database), False))
    ear = database.ear()
    with database.connect().transaction() as held:
        held.connection.execute("SELECT FROM app_session_beacon FOR UPDATE")
        since = xmax(database)
        assert database.run(database.statements.send_beacon(database.node, since, False))[1] is False
        assert ear.payloads() == []
        assert database.run(database.statements.send_beacon(database.node, since, True))[1] is True
        assert beacons(ear.payloads()) == 1


def test_what_the_row_says_is_not_believed_for_ever(database: Database) -> None:
    database.run(database.statements.send_beacon(database.node, xmax(database), False))
    database.execute("UPDATE app_session_beacon SET xid = %s::text::xid8", 2**62)
    ear = database.ear()
    for insists in (False, True):
        assert (
            database.run(database.statements.send_beacon(database.node, xmax(database), insists))[1] is True
        )
        assert beacons(ear.payloads()) == insists


def test_every_event_has_the_id_of_its_transaction(database: Database) -> None:
    ear = database.ear()
    session = database.create("ann", {"a": 1}, group="g")
    other = database.create("ann", {"a": 1}, group="g")
    before = xmax(database)
    database.update(session, 1, {"a": 2})
    database.execute("UPDATE app_sessions SET group_id = 'h'")
    database.run(database.statements.delete_user(database.node, "ann", session))
    database.execute(database.statements.notify, database.node, "A")
    database.execute("TRUNCATE app_sessions")
    heard = [events.parse(payload) for payload in ear.payloads()]
    assert other and len(heard) >= 5
    ids = [event.xid for event in heard]
    assert ids == sorted(ids) and ids[0] >= before and len(set(ids)) == 5


def test_a_batch_is_proved_by_its_own_event(database: Database) -> None:
    ear = database.ear()
    session = database.create("ann", {"a": 1})
    for version in range(1, 20):
        database.execute("SELECT pg_current_xact_id()")
        answer = database.write(update=[database.change(session, version, {"a": version})])
        (payload,) = ear.payloads()
        assert events.parse(payload).xid >= answer["xmax"] > 0


# ---- who is there ----


def registered(database: Database) -> list[tuple[str, float]]:
    rows = database.execute(
        "SELECT node, extract(epoch FROM serves_for)::float8 FROM app_session_nodes ORDER BY 1"
    )
    return [(node, seconds) for node, seconds in rows]


def manager_of(database: Database, **settings: object) -> pgsession.SessionManager:
    config = pgsession.Config(schema_name=database.schema, table_prefix=database.prefix, **settings)  # type: ignore[arg-type]
    return pgsession.SessionManager(database.dsn, config)


def test_a_node_that_reads_is_registered_until_it_closes(database: Database) -> None:
    with manager_of(database, max_staleness=2, stale_if_error=30) as node:
        assert registered(database) == [(node._node, 32.0)]
        assert node.stats().nodes == 1
    assert registered(database) == []


def test_a_node_is_registered_before_it_listens(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    hear = pgsession.Listener._hear

    def look(*arguments: object) -> object:
        seen.append(len(registered(database)))
        return hear(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(pgsession.Listener, "_hear", look)
    with manager_of(database):
        assert seen == [1]


def test_a_new_incarnation_registers_anew(database: Database) -> None:
    with manager_of(database, max_staleness=1) as node:
        database.execute("TRUNCATE app_session_nodes, app_session_incarnation")
        end = time.monotonic() + 30
        while not (registered(database) and node.check_health().in_sync):
            assert time.monotonic() < end
            time.sleep(0.01)


def test_who_died_is_removed_by_the_cleanup(database: Database) -> None:
    for node in ("gone", "here"):
        database.run(database.statements.register(node, 10 * SECOND))
    database.execute("UPDATE app_session_nodes SET registered_at = now() - interval '309 s'")
    assert database.run(database.statements.cleanup(database.node, "nodes", 0))[1] == 0
    database.execute("UPDATE app_session_nodes SET registered_at = now() - interval '311 s'")
    assert database.run(database.statements.register("here", 10 * SECOND))[0] == 2
    assert database.run(database.statements.cleanup(database.node, "nodes", 0))[1] == 1
    assert registered(database) == [("here", 10.0)]


def test_idle_nodes_send_one_beacon_for_all_of_them(database: Database) -> None:
    """Not one for each: in 20 times its interval no more than 20, where ten nodes are."""
    statements = Statements(database.schema, database.prefix)
    with ExitStack() as nodes:
        idle = [nodes.enter_context(manager_of(database, max_staleness=0.8)) for _ in range(10)]
        connection = database.connect()
        connection.execute(statements.listen, (events.EVENTS, True))
        began = time.monotonic()
        before = [node.stats().proofs for node in idle]
        heard = [n.payload for n in connection.notifies(timeout=4)]
        intervals = (time.monotonic() - began) / 0.2
        assert 1 <= beacons(heard) <= 2 * intervals
        assert all(node.stats().proofs > count for node, count in zip(idle, before, strict=True))
        assert all(node.check_health().in_sync for node in idle)
