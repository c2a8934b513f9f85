"""Two nodes at once, over many seeds: what the checks promise under READ COMMITTED."""

from __future__ import annotations

import json
import random
import threading
import uuid
from collections.abc import Callable
from typing import Any, Literal

import psycopg
import pytest

from .conftest import Database, unfinished

SEEDS = 25


def at_once(*workers: Callable[[], None]) -> None:
    """Run each in a thread, started together; the first error is raised."""
    barrier = threading.Barrier(len(workers))
    errors: list[BaseException] = []

    def guarded(worker: Callable[[], None]) -> None:
        try:
            barrier.wait(30)
            worker()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=guarded, args=(worker,)) for worker in workers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    if errors:
        raise errors[0]


def until_blocked(database: Database, connection: psycopg.Connection[Any]) -> None:
    """Returns once what runs on that connection waits for a lock."""
    while not database.execute(
        "SELECT 1 FROM pg_locks WHERE NOT granted AND pid = %s", connection.info.backend_pid
    ):
        pass


def insist(database: Database, connection: psycopg.Connection[Any], item: list[Any], wait: bool) -> list[Any]:
    """What a node does with "locked": once more."""
    while True:
        answer = database.write(
            connection, update=[item], **({"wait": True, "lock_timeout": 5000} if wait else {})
        )
        if answer["update"][0][1] != "locked":
            return list(answer["update"][0])


@pytest.mark.parametrize("wait", [False, True])
@pytest.mark.parametrize("check", ["attributes", "session"])
def test_no_increment_is_lost(
    database: Database, check: Literal["attributes", "session"], wait: bool
) -> None:
    """[run] Checked in one statement, a check of k@1 passed over k@2 after a lock wait."""
    connections = [database.connect() for _ in range(2)]
    for seed in range(SEEDS):
        session = database.create(attributes={"k": 0, "other": 0})

        def increment(
            connection: psycopg.Connection[Any], choice: random.Random, session: str = session
        ) -> None:
            for _ in range(4):
                while True:
                    row = connection.execute(database.statements.read, (session,)).fetchone()
                    assert row is not None
                    snapshot = json.loads(row[2])
                    values = {key: (version, value) for key, version, _expires, value in snapshot[9]}
                    bases = {key: version for key, (version, _value) in values.items()}
                    sets = {"k": values["k"][1] + 1}
                    if choice.random() < 0.3:
                        sets["other"] = choice.random()  # makes conflicts on one key and not on the other
                    item = database.change(session, snapshot[1], sets, check=check, bases=bases)
                    if insist(database, connection, item, wait)[1] == "ok":
                        break

        at_once(
            *(
                lambda connection=connection, n=n, seed=seed: increment(
                    connection, random.Random(f"{seed}-{n}")
                )
                for n, connection in enumerate(connections)
            )
        )
        assert database.attributes(session)["k"] == 8, f"seed {seed}"
        assert database.version(session) == 9


def test_a_check_after_a_lock_wait_sees_the_attributes_that_were_committed_meanwhile(
    database: Database,
) -> None:
    """The [run] trap itself, step by step: the second update waits for the first one's row."""
    session = database.create(attributes={"k": 0})
    first, second = database.connect(), database.connect()
    database.run(unfinished(database.script(update=[database.change(session, 1, {"k": 1})])), first)
    answers: list[Any] = []
    item = database.change(session, 1, {"k": 2}, check="attributes")

    def wait_and_judge() -> None:
        answers.append(database.write(second, update=[item], wait=True)["update"][0])

    waiter = threading.Thread(target=wait_and_judge)
    waiter.start()
    until_blocked(database, second)
    first.execute("COMMIT")
    waiter.join(30)
    assert answers == [[0, "attributes", ["k"]]]
    assert database.attributes(session) == {"k": 1}


def test_two_logins_of_one_user_never_pass_the_limit(database: Database) -> None:
    """[run] Without the lock on the user: limit 1, two logins, 2 sessions."""
    connections = [database.connect() for _ in range(3)]
    for seed in range(SEEDS):
        user = f"user{seed}"

        def login(connection: psycopg.Connection[Any], user: str = user) -> None:
            for _ in range(3):
                item = database.new(user, {"a": 1}, limit=2)
                while database.write(connection, create=[item])["create"][0][1] == "locked":
                    pass

        at_once(*(lambda connection=connection: login(connection) for connection in connections))
        rows = database.execute("SELECT count(*) FROM app_sessions WHERE user_id = %s", user)
        assert rows == [(2,)], f"seed {seed}"
    orphans = (
        "SELECT count(*) FROM app_session_attributes WHERE session_id NOT IN (SELECT id FROM app_sessions)"
    )
    assert database.execute(orphans) == [(0,)]


def test_nodes_do_not_deadlock(database: Database) -> None:
    """Same ids in opposite orders, updates, deletes, logins, bulk statements and accesses at once."""
    sessions = [database.create(f"user{i % 3}", group="g") for i in range(30)]

    def batches(connection: psycopg.Connection[Any], seed: int) -> None:
        choice = random.Random(seed)
        for round_ in range(12):
            ids = choice.sample(sessions, 20)
            database.write(
                connection,
                create=[
                    database.new(f"user{choice.randrange(3)}", {"a": 1}, i=i, limit=12) for i in range(3)
                ],
                update=[database.change(s, 1, {"a": round_, "b": 1}, i=i) for i, s in enumerate(ids[:18])],
                delete=[[i, s] for i, s in enumerate(ids[18:])],
            )
            walk = database.statements.drop_attribute(database.node, f"user{round_ % 3}", "b", waiting=True)
            database.run(walk, connection)
            pairs = "{" + ",".join(ids) + "}", "{" + ",".join(["1"] * len(ids)) + "}"
            database.run(database.statements.write_accesses(*pairs), connection)
            database.run(database.statements.cleanup(database.node, "inactive", 0), connection)

    workers = [(database.connect(), seed) for seed in range(3)]
    at_once(*(lambda c=c, seed=seed: batches(c, seed) for c, seed in workers))
    for session in sessions:
        snapshot = database.read(session)
        assert snapshot is None or uuid.UUID(snapshot[0]).hex == session


@pytest.mark.parametrize("check", [None, "session"])
def test_what_changed_after_the_snapshot_is_not_written_over(
    database: Database, check: Literal["session"] | None
) -> None:
    """A batch locks and writes in one statement; here another node writes to its second session in the middle of it."""
    first, second = (database.create(attributes={"k": 0}) for _ in range(2))
    database.execute(
        "CREATE FUNCTION hold_up() RETURNS trigger LANGUAGE plpgsql AS"
        f" $$BEGIN IF NEW.id = '{first}' THEN PERFORM pg_advisory_xact_lock(7); END IF; RETURN NEW; END$$"
    )
    database.execute(
        "CREATE TRIGGER hold_up BEFORE UPDATE ON app_sessions FOR EACH ROW EXECUTE FUNCTION hold_up()"
    )
    database.execute("SELECT pg_advisory_lock(7)")
    batch = [database.change(first, 1, {"k": 1}), database.change(second, 1, {"k": 1}, i=1, check=check)]
    node, answers = database.connect(), []
    writer = threading.Thread(target=lambda: answers.append(database.write(node, update=batch)["update"]))
    writer.start()
    until_blocked(database, node)
    assert database.update(second, 1, {"k": 2, "new": 2}, connection=database.connect())[:2] == ["ok", 2]
    database.execute("SELECT pg_advisory_unlock(7)")
    writer.join(30)
    held, judged = answers[0]
    assert held[:3] == [0, "ok", 2]
    assert judged == ([1, "session", 2] if check else [1, "locked"])
    assert database.attributes(second) == {"k": 2, "new": 2} and database.version(second) == 2
    again = database.write(node, update=batch[1:])["update"][0]
    assert again[:3] == ([1, "session", 2] if check else [1, "ok", 3])
    if not check:
        assert again[4] == database.read(second)
        assert database.attributes(second) == {"k": 1, "new": 2}


def test_every_update_is_a_version_of_its_own(database: Database) -> None:
    """Without a check nothing is refused: two nodes' updates of one session, each of its own key, are all there."""
    connections = [database.connect() for _ in range(2)]
    for seed in range(SEEDS):
        session = database.create()
        answered: list[int] = []

        def write(node: int, session: str = session, answered: list[int] = answered) -> None:
            known = 1
            for number in range(8):
                item = database.change(session, known, {f"{node}.{number}": number})
                answer = insist(database, connections[node], item, False)
                assert (answer[4] is None) == (answer[2] == known + 1)
                known = answer[2]
                answered.append(known)

        at_once(*(lambda node=node: write(node) for node in range(2)))
        assert sorted(answered) == list(range(2, 18)), f"seed {seed}"
        assert len(database.attributes(session)) == 16, f"seed {seed}"


def test_rows_are_locked_in_the_order_of_their_ids(database: Database) -> None:
    """Whoever waits for a row holds none that comes after it: two who wait can never wait for each other."""
    first, second = sorted(database.create() for _ in range(2))
    holder, node = database.connect(), database.connect()
    batch = [database.change(second, 1, {"k": 1}), database.change(first, 1, {"k": 1}, i=1)]
    writer = threading.Thread(
        target=database.write, args=(node,), kwargs={"update": batch, "wait": True, "lock_timeout": 30_000}
    )
    holder.execute("BEGIN")
    try:
        holder.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (first,))
        writer.start()
        until_blocked(database, node)
        free = database.execute("SELECT 1 FROM app_sessions WHERE id = %s FOR UPDATE SKIP LOCKED", second)
        assert free == [(1,)]
    finally:
        holder.execute("ROLLBACK")
        writer.join(60)
    assert database.version(first) == database.version(second) == 2
