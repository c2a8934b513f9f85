"""Creates with chosen ids, as the statements do them: one of many makes the session, the others wait, or are told."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
import uuid
from typing import Any

import psycopg
import pytest

from pgsession._protocol.events import Changed

from .conftest import HOUR, Database, unfinished
from .test_races import at_once, until_blocked

HERE = "c" * 32
THERE = "d" * 32


def key(session: str) -> bytes:
    return bytes.fromhex(session)


def rows(database: Database) -> int:
    return int(database.execute("SELECT count(*) FROM app_sessions")[0][0])


def test_each_of_a_batch_gets_its_own_answer(database: Database) -> None:
    ear = database.ear()
    anns, bobs, replaced, expired = (database.create(user, {"a": 1}) for user in ("ann", "bob", "bob", "ann"))
    database.update(anns, 1, {"b": 2})
    database.execute("UPDATE app_sessions SET expires_at = clock_timestamp() WHERE id = %s", expired)
    database.execute("UPDATE app_sessions SET version = 5, group_id = 'g' WHERE id = %s", replaced)
    ear.items()
    batch = [
        database.new(i=0, id=anns, if_exists="return", values=[["z", "1", None]]),
        database.new(i=1, id=bobs, if_exists="return"),
        database.new(i=2, id=THERE, if_exists="return", values=[["k", "1", None]]),
        database.new(i=3, id=replaced, if_exists="replace", values=[["k", "2", None]]),
        database.new(i=4, id=expired, if_exists="error", values=[["k", "3", None]]),
        database.new(i=5, id=HERE, if_exists="error", values=[["k", "4", None]]),
        database.new(i=6, values=[["k", "5", None]]),
    ]
    before = database.read(anns)
    answer = database.write(create=batch)
    assert [item[:2] for item in answer["create"]] == [
        [0, "same"], [1, "exists"], [2, "ok"], [3, "ok"], [4, "ok"], [5, "ok"], [6, "ok"],
    ]  # fmt: skip
    assert json.loads(answer["create"][0][2]) == before == database.read(anns)
    created = answer["created_at"]
    assert sorted(answer["replaced"]) == [
        [4, created, "replaced", "bob", "g"],
        [5, created, "expired", "ann", None],
    ]
    for number, item in enumerate(batch[2:], 1):
        assert database.attributes(item[1]) == {"k": number}
        snapshot = database.read(item[1])
        assert snapshot is not None and snapshot[1:4] == [created, "ann", None]
        assert snapshot[10:] == [item[2], created, None]
    assert database.attributes(bobs) == {"a": 1}
    # Who knows an id may have looked for it, so a create is told of, in a batch with such.
    assert sorted(ear.items(), key=repr) == sorted(
        (Changed(key(item[1]), created) for item in batch[2:]), key=repr
    )


def test_a_version_is_above_the_one_before_where_the_clock_is_not(database: Database) -> None:
    session = database.create()
    ahead = database.now() + HOUR
    database.execute("UPDATE app_sessions SET version = %s WHERE id = %s", ahead, session)
    item = database.new("bob", {"a": 1}, id=session, if_exists="replace")
    answer = database.write(create=[item])
    assert answer["replaced"] == [[1, ahead + 1, "replaced", "ann", None]]
    snapshot = database.read(session)
    assert snapshot is not None and snapshot[1] == snapshot[9][0][1] == snapshot[11] == ahead + 1
    assert database.update(session, ahead, {"a": 2}) == ["taken"]


def test_who_comes_second_waits_until_it_is_known_what_the_first_does(database: Database) -> None:
    """An insert that is not committed yet: nobody can pass it by, so the wait is bounded."""
    first, second = database.connect(), database.connect()
    for end, verdict in (("COMMIT", "exists"), ("ROLLBACK", "ok")):
        session = uuid.uuid4().hex
        items = [database.new(id=session, if_exists="error", limit=1) for _ in range(2)]
        items[1][3] = "bob"
        first_script = database.script(create=items[:1], commit="plain")
        database.run(unfinished(first_script), first)
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.write(second, create=items[1:], lock_timeout=50)
        second.execute("ROLLBACK")
        answers: list[Any] = []
        waiter = threading.Thread(
            target=lambda items=items, answers=answers: answers.append(
                database.write(second, create=items[1:], wait=True)
            )
        )
        waiter.start()
        until_blocked(database, second)
        first.execute(end)
        waiter.join(30)
        # One that was not there when the wait began is looked for again.
        assert answers[0]["create"][0][:2] == [0, verdict]
        read = database.read(session)
        assert read is not None and read[2] == ("ann" if end == "COMMIT" else "bob")


def test_what_is_there_and_stays_needs_no_lock(database: Database) -> None:
    """It is answered although somebody holds its row, or the bucket of its user."""
    held, going = database.create(), database.create()
    holder = database.connect()
    holder.execute("BEGIN")
    try:
        holder.execute("SELECT FROM app_sessions FOR UPDATE")
        holder.execute("SELECT FROM app_session_user_buckets FOR UPDATE")
        batch = [
            database.new(i=0, id=held, if_exists="error", limit=3),
            database.new(i=1, id=HERE, if_exists="return", limit=3),
            database.new(i=2, id=going, if_exists="return", limit=3),
        ]
        assert [item[:2] for item in database.write(create=batch)["create"]] == [
            [0, "exists"], [1, "locked"], [2, "same"],
        ]  # fmt: skip
        replacing = [database.new(i=0, id=going, if_exists="replace")]
        assert database.write(create=replacing)["create"] == [[0, "locked"]]
    finally:
        holder.execute("ROLLBACK")
    assert database.write(create=replacing)["create"][0][1] == "ok"


def test_nobody_waits_for_an_id_with_a_bucket_locked(database: Database) -> None:
    """Else a login of another user, in the same one of the 1,024 buckets, would wait as long."""
    first, second = database.connect(), database.connect()
    item = database.new(id=HERE, if_exists="error", limit=3)
    database.run(unfinished(database.script(create=[database.new("bob", id=HERE, if_exists="error")])), first)
    answers: list[Any] = []
    waiter = threading.Thread(
        target=lambda: answers.append(database.write(second, create=[item], wait=True)["create"])
    )
    waiter.start()
    until_blocked(database, second)
    assert database.write(create=[database.new(limit=3)])["create"][0][1] == "ok"
    first.execute("ROLLBACK")
    waiter.join(30)
    assert answers[0][0][:2] == [0, "ok"]


def test_nobody_waits_for_a_bucket_with_an_id_claimed(database: Database) -> None:
    """Who holds the bucket may wait for that very session."""
    holder = database.connect()
    holder.execute("BEGIN")
    holder.execute("SELECT FROM app_session_user_buckets FOR UPDATE")
    item = database.new(id=HERE, if_exists="error", limit=3)
    assert database.write(create=[item], wait=True, lock_timeout=5000)["create"] == [[0, "locked"]]
    assert rows(database) == 0


def test_ids_are_claimed_in_their_order(database: Database) -> None:
    """Whoever waits for an id has claimed none that comes after it: two who wait can never wait for each other."""
    holder, node = database.connect(), database.connect()
    first = [database.new("bob", id=HERE, if_exists="error")]
    database.run(unfinished(database.script(create=first)), holder)
    batch = [database.new(i=i, id=session, if_exists="error") for i, session in enumerate((THERE, HERE))]
    answers: list[Any] = []
    waiter = threading.Thread(
        target=lambda: answers.append(database.write(node, create=batch, lock_timeout=30_000)["create"])
    )
    waiter.start()
    until_blocked(database, node)
    free = database.new("carol", id=THERE, if_exists="error")
    assert database.write(create=[free], lock_timeout=5000)["create"][0][1] == "ok"
    holder.execute("ROLLBACK")
    waiter.join(30)
    assert [item[:2] for item in answers[0]] == [[0, "exists"], [1, "ok"]]


def test_buckets_that_somebody_removed_come_back(database: Database) -> None:
    database.execute("DELETE FROM app_session_user_buckets")
    item = database.new(id=HERE, if_exists="error", limit=3)
    verdicts = [database.write(create=[item], wait=True)["create"][0][1] for _ in range(2)]
    assert verdicts == ["locked", "ok"]


def test_a_session_that_lives_on_after_all_is_not_replaced(database: Database) -> None:
    """It had expired when it was looked for; while its row was waited for somebody gave it more time."""
    session = database.create(attributes={"a": 1})
    database.execute("UPDATE app_sessions SET expires_at = clock_timestamp() WHERE id = %s", session)
    holder, node = database.connect(), database.connect()
    holder.execute("BEGIN")
    holder.execute(
        "UPDATE app_sessions SET expires_at = expires_at + interval '1 day' WHERE id = %s", (session,)
    )
    answers: list[Any] = []
    item = database.new("bob", id=session, if_exists="error")
    waiter = threading.Thread(
        target=lambda: answers.append(database.write(node, create=[item], wait=True)["create"])
    )
    waiter.start()
    until_blocked(database, node)
    holder.execute("COMMIT")
    waiter.join(30)
    assert answers == [[[0, "exists"]]]
    assert database.attributes(session) == {"a": 1}


def test_room_is_made_for_what_is_created_alone(database: Database) -> None:
    session, other = database.create(), database.create()
    for if_exists in ("error", "return"):
        item = database.new(id=session, if_exists=if_exists, limit=2)
        assert database.write(create=[item])["evicted"] == []
    assert database.write(create=[database.new(id=session, if_exists="replace", limit=2)])["evicted"] == []
    answer = database.write(create=[database.new(id=HERE, if_exists="return", limit=2)])
    assert answer["evicted"] == [other]
    rejecting = database.new(id=THERE, if_exists="return", limit=2, policy="reject")
    assert database.write(create=[rejecting])["create"] == [[0, "too_many"]]
    taking = database.new("ann", id=database.create("bob"), if_exists="replace", limit=2, policy="reject")
    assert database.write(create=[taking])["create"] == [[0, "too_many"]]
    assert rows(database) == 3
    snapshot = database.read(taking[1])
    assert snapshot is not None and snapshot[2] == "bob"


def test_what_a_later_one_of_the_batch_would_evict_is_tried_again(database: Database) -> None:
    ids = [uuid.uuid4().hex for _ in range(3)]
    batch = [database.new(i=i, id=session, if_exists="error", limit=1) for i, session in enumerate(ids)]
    answer = database.write(create=batch)
    assert [item[:2] for item in answer["create"]] == [[0, "locked"], [1, "locked"], [2, "ok"]]
    assert rows(database) == 1
    for item in batch[:2]:
        assert database.write(create=[item])["create"][0][1] == "ok"
    assert rows(database) == 1


def test_what_is_not_created_leaves_nothing(database: Database) -> None:
    """A claim is a row that is removed at once; of a create that is turned away none is left."""
    database.create()
    ear = database.ear()
    items = [
        database.new(id=HERE, if_exists="error", limit=1, policy="reject", values=[["k", "1", None]], i=0),
        database.new(id=THERE, if_exists="replace", limit=1, policy="reject", i=1),
    ]
    assert database.write(create=items)["create"] == [[0, "too_many"], [1, "too_many"]]
    assert rows(database) == 1 and ear.items() == []
    assert database.execute("SELECT count(*) FROM app_session_attributes") == [(0,)]


def test_an_update_beside_a_replacement_never_crosses_owners(database: Database) -> None:
    """Whichever of the two is first: what was held of ann's session is not in bob's."""
    updating, replacing = database.connect(), database.connect()
    session = database.create("ann", {"a": 1})
    change = database.change(session, 1, {"a": 2})
    item = database.new("bob", id=session, if_exists="replace")
    database.run(unfinished(database.script(update=[change], commit="plain")), updating)
    assert database.write(replacing, create=[item])["create"] == [[0, "locked"]]
    updating.execute("ROLLBACK")
    database.run(unfinished(database.script(create=[item], commit="plain")), replacing)
    assert database.write(updating, update=[change])["update"] == [[0, "locked"]]
    answers: list[Any] = []
    waiter = threading.Thread(
        target=lambda: answers.append(database.write(updating, update=[change], wait=True)["update"])
    )
    waiter.start()
    until_blocked(database, updating)
    replacing.execute("COMMIT")
    waiter.join(30)
    assert answers[0][0][1] in ("taken", "locked")
    assert database.write(updating, update=[change])["update"] == [[0, "taken"]]
    assert database.attributes(session) == {}


def test_all_kinds_of_writes_of_the_same_ids_at_once(database: Database) -> None:
    """No deadlock, no session twice, nobody's attributes in another user's session."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    ids = [uuid.uuid4().hex for _ in range(12)]

    def write(connection: psycopg.Connection[Any], node: int) -> None:
        choice = random.Random(seed + node)
        held: dict[str, int] = {}
        for _ in range(25):
            some = choice.sample(ids, 6)
            user = f"user{node}"
            creates = [
                database.new(user, {"owner": user}, i=i, id=session, if_exists=how, limit=4)
                for i, session in enumerate(some[:4])
                for how in (choice.choice(("error", "return", "replace")),)
            ]
            answer = database.write(connection, create=creates, lock_timeout=30_000)
            versions = dict(item[:2] for item in answer["replaced"])
            for i, verdict, *_ in answer["create"]:
                if verdict == "ok":
                    held[some[i]] = versions.get(i + 1, answer["created_at"])
            updates = [database.change(some[4], held.get(some[4], 1), {"owner": user})]
            database.write(connection, update=updates, delete=[[0, some[5]]])

    connections = [database.connect() for _ in range(3)]
    at_once(*(lambda c=c, node=node: write(c, node) for node, c in enumerate(connections)))
    assert database.execute("SELECT user_id FROM app_sessions GROUP BY 1 HAVING count(*) > 4") == []
    owned = (
        "SELECT count(*) FROM app_sessions s JOIN app_session_attributes a ON a.session_id = s.id"
        " WHERE to_json(s.user_id)::text <> a.value::text"
    )
    assert database.execute(owned) == [(0,)]
    orphans = (
        "SELECT count(*) FROM app_session_attributes WHERE session_id NOT IN (SELECT id FROM app_sessions)"
    )
    assert database.execute(orphans) == [(0,)]


_CLIENTS = """
import sys, threading, uuid
import pgsession
config = pgsession.Config(schema_name=sys.argv[2], max_sessions=3)
with pgsession.SessionManager(sys.argv[1], config) as sessions:
    print("open", flush=True)
    for line in sys.stdin:
        chosen, if_exists = line.split()
        made = []
        barrier = threading.Barrier(5)
        def create():
            barrier.wait(30)
            try:
                session = sessions.create_session("alice", session_id=chosen, if_exists=if_exists)
            except pgsession.SessionExistsError:
                made.append("exists")
            else:
                made.append(str(session.version))
        threads = [threading.Thread(target=create) for _ in range(5)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        print(*made, flush=True)
"""


def test_of_twenty_clients_in_four_processes_one_creates_it(dsn: str, schema: str) -> None:
    database = Database(dsn, schema, "")
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CLIENTS, dsn, schema],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    try:
        for process in processes:
            assert process.stdout is not None and process.stdout.readline() == "open\n"
        for if_exists in ("error", "return", "replace") * 3:
            chosen = uuid.uuid4()
            made: list[str] = []
            for process in processes:
                assert process.stdin is not None
                process.stdin.write(f"{chosen} {if_exists}\n")
                process.stdin.flush()
            for process in processes:
                assert process.stdout is not None
                made += process.stdout.readline().split()
            versions = {version for version in made if version != "exists"}
            assert len(made) == 20
            assert len(versions) == (20 if if_exists == "replace" else 1)
            assert made.count("exists") == (19 if if_exists == "error" else 0)
            assert str(database.version(chosen.hex)) == max(versions, key=int)
    finally:
        for process in processes:
            process.communicate(timeout=60)
        database.close()
    assert [process.returncode for process in processes] == [0] * 4
