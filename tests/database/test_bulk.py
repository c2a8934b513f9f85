"""Walks over many sessions, the cleanup, the flush of accesses, the resync, the lists."""

from __future__ import annotations

import json
import threading
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest

from pgsession._database.arrays import integer_array, uuid_array
from pgsession._database.statements import NIL
from pgsession._protocol import events
from pgsession._protocol.events import Changed, Deleted, Everything

from .conftest import DAY, HOUR, Database, unfinished


def walk(database: Database, step: Any, **options: Any) -> tuple[int, int, int]:
    """(steps, done, skipped) of a whole walk."""
    after, steps, done, skipped = NIL, 0, 0, 0
    while True:
        last, changed, passed = database.run(step(after, **options))[:3]
        steps, done, skipped = steps + 1, done + changed, skipped + passed
        if last is None:
            return steps, done, skipped
        after = last.hex


@pytest.mark.parametrize("count", [1, 140, 141, 202, 300, 1000])
@pytest.mark.parametrize("scope", ["user", "group", "all"])
def test_any_number_of_sessions_is_deleted_and_announced(database: Database, scope: str, count: int) -> None:
    """Defect 2: 202 sessions of a user were the most."""
    database.fill(count, group="staff")
    other = database.create("other") if scope != "all" else None
    database.create("other", group="other") if scope != "all" else None
    ids = {row[0].bytes for row in database.execute("SELECT id FROM app_sessions WHERE user_id = 'user0'")}
    ear = database.ear()
    statements, node = database.statements, database.node
    step = {
        "user": lambda after: statements.delete_user(node, "user0", None, after, size=500),
        "group": lambda after: statements.delete_group(node, "staff", after, size=500),
        "all": lambda after: statements.delete_all(node, after, size=500),
    }[scope]
    assert walk(database, step)[1:] == (count, 0)
    payloads = ear.payloads()
    assert max(map(len, payloads)) <= 7999
    heard = ear_items(payloads)
    if scope == "all" and count > 140:
        assert Everything() in heard
    else:
        assert heard == {Deleted(key) for key in ids}, "an event about a user would end everybody's leases"
    left = {row[0] for row in database.execute("SELECT user_id FROM app_sessions")}
    assert left == ({"other"} if other else set())
    assert database.execute("SELECT count(*) FROM app_session_attributes") == [(0,)]


def ear_items(payloads: list[str]) -> set[Any]:
    return {item for payload in payloads for item in events.parse(payload).items}


def test_a_step_rests_while_it_deletes(database: Database) -> None:
    """Without that who writes meanwhile would wait for a processor for as long as a step takes."""
    watcher, pid = database.connect(), database.execute("SELECT pg_backend_pid()")[0][0]
    seen: set[Any] = set()
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            seen.update(watcher.execute("SELECT wait_event FROM pg_stat_activity WHERE pid = %s", (pid,)))

    with ThreadPoolExecutor(1) as crew:
        watching = crew.submit(watch)
        try:
            for _ in range(20):
                database.fill(1000)
                database.run(database.statements.delete_user(database.node, "user0", size=1000))
                if ("PgSleep",) in seen:
                    break
        finally:
            over.set()
        watching.result()
    assert ("PgSleep",) in seen
    assert database.execute("SELECT count(*) FROM app_sessions") == [(0,)]


def test_one_session_is_kept_and_locked_ones_are_waited_for(database: Database) -> None:
    kept, locked, gone = (database.create("ann") for _ in range(3))
    other = database.connect()
    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (locked,))
        step = database.statements.delete_user(database.node, "ann", kept)
        assert database.run(step)[1:3] == (1, 1)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.run(
                database.statements.delete_user(database.node, "ann", kept, waiting=True, lock_timeout=10)
            )
        database.execute("ROLLBACK")
    assert database.run(database.statements.delete_user(database.node, "ann", kept, waiting=True))[1:3] == (
        1,
        0,
    )
    assert database.read(kept) is not None and database.read(gone) is None


@pytest.mark.parametrize("waiting", [False, True])
@pytest.mark.parametrize("scope", ["user", "group"])
def test_who_has_another_owner_by_now_is_no_part_of_a_walk(
    database: Database, scope: str, waiting: bool
) -> None:
    """Between the look at a page of a walk and its locks anybody can change whose a session is."""
    mine, others = database.create("ann", group="ann"), database.create("bob", group="bob")
    held = database.execute(
        "SELECT app_session_hold_1(ARRAY[%s, %s]::uuid[], %s, 'ann', %s)", mine, others, scope, waiting
    )
    assert held == [([uuid.UUID(mine)],)]


def test_an_attribute_leaves_all_sessions_of_a_user(database: Database) -> None:
    with_it = [database.create("ann", {"role": 1, "x": 1}) for _ in range(3)]
    without, other = database.create("ann", {"x": 1}), database.create("bob", {"role": 1})
    expired = database.create("ann", values=[["role", "1", 5]])
    ear = database.ear()
    step = lambda after: database.statements.drop_attribute(database.node, "ann", "role", after, size=2)  # noqa: E731
    assert walk(database, step)[1:] == (3, 0)
    assert set(ear.items()) == {Changed(bytes.fromhex(session), 2) for session in with_it}
    assert all(database.attributes(session) == {"x": 1} for session in with_it)
    assert [database.version(session) for session in (without, expired, other)] == [1, 1, 1]


def test_a_node_can_only_clean_up_alone(database: Database) -> None:
    other = database.connect()
    script = database.statements.cleanup(database.node, "expired", 0)
    database.run(unfinished(script), other)
    assert database.run(script)[:3] == (None, 0, True)
    other.execute("COMMIT")
    assert database.run(script)[:3] == (None, 0, False)


@pytest.mark.parametrize("what", ["expired", "inactive"])
def test_the_cleanup_deletes_what_is_over_and_says_so(database: Database, what: Any) -> None:
    """Defect 2: a cleanup of 300 deleted them and could not tell."""
    database.fill(300)
    over = [row[0].hex for row in database.execute("SELECT id FROM app_sessions")]
    alive = [database.create(inactivity=None), database.create()]
    column = "expires_at" if what == "expired" else "last_accessed"
    database.execute("SET pgsession.own = 'on'")
    database.execute(
        f"UPDATE app_sessions SET {column} = now() - interval '2 days' WHERE id = ANY (%s::uuid[])", over
    )
    if what == "inactive":
        database.execute(
            "UPDATE app_sessions SET last_accessed = now() - interval '2 days' WHERE inactivity IS NULL"
        )
    database.execute("RESET pgsession.own")
    ear = database.ear()
    other = database.connect()
    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (over[0],))
        removed = 0
        if what == "expired":
            while step := database.run(database.statements.cleanup(database.node, what, 0, size=100))[1]:
                assert step <= 100
                removed += step
        else:
            removed = walk(
                database, lambda after: database.statements.cleanup(database.node, what, 0, after, size=100)
            )[1]
        assert removed == 299
    assert database.run(database.statements.cleanup(database.node, what, 0))[1] == 1
    heard = ear.items()
    assert len(heard) == 300 and set(heard) == {Deleted(bytes.fromhex(session)) for session in over}
    assert {row[0].hex for row in database.execute("SELECT id FROM app_sessions")} == set(alive)
    assert database.execute("SELECT count(*) FROM app_session_attributes") == [(0,)]


def test_the_cleanup_of_attributes_and_locks_raises_no_version(database: Database) -> None:
    ear = database.ear()
    session = database.create(
        values=[["old", "1", 5], ["new", "1", database.now() + DAY], ["plain", "1", None]]
    )
    owner = uuid.uuid4().hex
    for resource, lease in (("over", -1), ("held", HOUR)):
        database.run(database.statements.acquire(resource, owner, lease, None))
    assert database.run(database.statements.cleanup(database.node, "attributes", 0))[1] == 1
    assert database.run(database.statements.cleanup(database.node, "locks", 0))[1] == 1
    assert database.execute("SELECT resource FROM app_session_locks") == [("held",)]
    assert database.execute("SELECT key FROM app_session_attributes ORDER BY 1") == [("new",), ("plain",)]
    assert database.version(session) == 1 and ear.items() == []


def test_accesses_never_move_back_and_locked_ones_are_returned(database: Database) -> None:
    """C11, and no version raised, nobody told."""
    ear = database.ear()
    sessions = [database.create() for _ in range(4)]
    now = database.now()
    database.execute("SET pgsession.own = 'on'")
    database.execute("UPDATE app_sessions SET last_accessed = now() - interval '1 hour'")
    database.execute("RESET pgsession.own")
    other = database.connect()

    def touch(times: list[int]) -> Any:
        ids = [*map(bytes.fromhex, sessions), b"\1" * 16]
        script = database.statements.write_accesses(uuid_array(ids), integer_array([*times, now]))
        return database.run(script)[0]

    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (sessions[1],))
        assert touch([now - 1000, now, now - 2 * HOUR, now + DAY]) == bytes.fromhex(sessions[1])
    read = [database.read(session) for session in sessions]
    assert all(snapshot is not None and snapshot[1] == 1 for snapshot in read)
    accessed = [snapshot[6] for snapshot in read if snapshot]
    assert accessed[0] == now - 1000
    assert accessed[1] < now - HOUR + 60_000_000 and accessed[2] < now - HOUR + 60_000_000
    assert now < accessed[3] <= database.now()
    assert touch([now - 2000] * 4) is None
    assert database.read(sessions[0])[6] == now - 1000  # type: ignore[index]
    assert ear.items() == []


def test_an_access_that_meets_another_change_is_not_lost(database: Database) -> None:
    """The row has moved since the statement's snapshot: found by its old place it would be missed."""
    session = database.create()
    database.execute("UPDATE app_sessions SET last_accessed = now() - interval '1 hour'")
    now = database.now()
    function = database.execute("SELECT pg_get_functiondef('app_session_write_accesses_1'::regproc)")[0][0]
    assert "SKIP LOCKED" in function
    # Without SKIP LOCKED the statement waits, so that the row certainly changes in between.
    database.execute(
        function.replace("SKIP LOCKED", "").replace("app_session_write_accesses_1", "app_waiting_accesses")
    )
    other, waiting = database.connect(), database.connect()
    with other.transaction():
        other.execute("SET LOCAL pgsession.own = 'on'")
        other.execute("UPDATE app_sessions SET version = version + 1 WHERE id = %s", (session,))
        from threading import Thread

        call = f"SELECT app_waiting_accesses('{{{session}}}', '{{{now}}}')"
        thread = Thread(target=waiting.execute, args=(call,))
        thread.start()
        while not database.execute(
            "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s", waiting.info.backend_pid
        ):
            pass
    thread.join(30)
    assert database.read(session)[6] == now  # type: ignore[index]


def test_the_resync_finds_what_differs_or_is_gone(database: Database) -> None:
    """Defects 6 and 7: by inequality, for any number of sessions, in one statement."""
    database.fill(70_000)
    rows = database.execute("SELECT id, version, generation FROM app_sessions")
    known = {row[0].bytes: row[1] for row in rows}
    generations = {row[0].bytes: row[2] for row in rows}
    newer, gone, ahead, another = [key for key, _ in zip(known, range(4), strict=False)]
    generations[another] += 1
    database.update(newer.hex(), 1, {"a": 1}, notify=False)
    database.write(delete=[[0, gone.hex()]])
    known[ahead] = 17  # what a crash took back
    cursor = database.connection.execute(
        database.statements.resync,
        (uuid_array(known), integer_array(known.values()), integer_array(generations.values())),
    )
    incarnation, now, differing, _ = cursor.fetchone() or (None, None, None, None)
    assert incarnation == database.incarnation and abs(now - database.now()) < HOUR
    assert {differing[i : i + 16] for i in range(0, len(differing), 16)} == {newer, gone, ahead, another}
    same = database.execute(database.statements.resync, uuid_array([]), "{}", "{}")
    assert same[0][2] is None


def test_lists_hold_live_sessions_newest_access_first(database: Database) -> None:
    sessions = [database.create("ann", {"a": i}, group="g") for i in range(4)]
    database.create("ann", expires=5)
    database.create("bob", group="h")
    database.execute(
        "UPDATE app_sessions SET last_accessed = now() - interval '1 hour' WHERE id = %s", sessions[2]
    )
    database.execute(
        "UPDATE app_sessions SET last_accessed = now() - interval '2 days' WHERE id = %s", sessions[0]
    )
    expected = [database.read(sessions[i]) for i in (3, 1, 2)]
    for query, subject in ((database.statements.list_user, "ann"), (database.statements.list_group, "g")):
        rows = database.execute(query, subject, None, None, None, 100)
        assert len(rows) == 1 and rows[0][0] == database.incarnation
        assert json.loads(rows[0][2]) == expected
        assert json.loads(database.execute(query, "nobody", None, None, None, 100)[0][2]) == []
