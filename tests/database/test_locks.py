"""The statements of the distributed lock."""

from __future__ import annotations

import random
import threading
import uuid
from typing import Any

import psycopg
import pytest

from pgsession._database.script import Script, step
from pgsession._protocol import events
from pgsession._protocol.events import Deleted, LockEnded, LockReleased

from .conftest import HOUR, Database, unfinished
from .test_races import SEEDS, at_once, until_blocked

MINUTE = 60_000_000


def acquire(
    database: Database,
    owner: str,
    resource: str = "res",
    lease: int = MINUTE,
    session: str | None = None,
    connection: psycopg.Connection[Any] | None = None,
) -> tuple[bool | None, int, int, int]:
    script = database.statements.acquire(resource, owner, lease, session)
    row: tuple[bool | None, int, int, int] = database.run(script, connection)[:4]
    return row


def test_one_holder_until_release(database: Database) -> None:
    ear = database.ear()
    one, two = uuid.uuid4().hex, uuid.uuid4().hex
    acquired, token, expires, now = acquire(database, one)
    assert acquired is True and expires - now <= MINUTE and abs(now - database.now()) < MINUTE
    assert acquire(database, two)[:3] == (False, None, expires)
    assert acquire(database, one)[0] is False  # not re-entrant
    assert database.run(database.statements.release(database.node, "res", two)) is None
    assert database.run(database.statements.renew("res", two, HOUR)) is None
    renewed, now = database.run(database.statements.renew("res", one, HOUR))[:2]
    assert expires < renewed <= now + HOUR
    assert database.run(database.statements.renew("res", one, 1))[0] == renewed  # never shorter
    assert ear.items() == []
    assert database.run(database.statements.release(database.node, "res", one))[0] is True
    assert ear.items() == [LockReleased("res")]
    assert database.run(database.statements.release(database.node, "res", one)) is None
    assert acquire(database, two)[1] > token


def test_an_expired_lease_is_taken_over_with_a_greater_token(database: Database) -> None:
    tokens = []
    for _ in range(5):
        owner = uuid.uuid4().hex
        acquired, token, *_ = acquire(database, owner, lease=0)
        assert acquired is True
        tokens.append(token)
        assert database.run(database.statements.renew("res", owner, HOUR)) is None
    assert database.run(database.statements.release(database.node, "res", owner))[0] is False  # too late
    assert tokens == sorted(set(tokens))
    database.execute("DELETE FROM app_session_locks")
    assert acquire(database, owner)[1] > tokens[-1]


def test_exactly_one_of_many_gets_it_and_tokens_grow_with_every_hand_over(database: Database) -> None:
    connections = [database.connect() for _ in range(4)]
    history: list[int] = []
    inside: list[str] = []

    def fight(connection: psycopg.Connection[Any], seed: int) -> None:
        choice = random.Random(seed)
        for _ in range(8):
            owner = uuid.UUID(int=choice.getrandbits(128)).hex
            while not (row := acquire(database, owner, connection=connection))[0]:
                pass
            inside.append(owner)
            history.append(row[1])
            assert inside == [owner], f"seed {seed}"
            inside.remove(owner)
            assert (
                database.run(database.statements.release(database.node, "res", owner), connection)[0] is True
            )

    for seed in range(0, SEEDS, 5):
        history.clear()
        at_once(*(lambda c=c, n=n, seed=seed: fight(c, seed + n) for n, c in enumerate(connections)))
        assert history == sorted(set(history)) and len(history) == 32, f"seed {seed}"


def test_of_two_at_the_same_moment_one_gets_an_expired_lock(database: Database) -> None:
    acquire(database, uuid.uuid4().hex, lease=0)
    first, second, answers = database.connect(), database.connect(), []
    script = database.statements.acquire("res", uuid.uuid4().hex, MINUTE, None)
    assert database.run(unfinished(script), first)[0] is True
    waiter = threading.Thread(
        target=lambda: answers.append(acquire(database, uuid.uuid4().hex, connection=second))
    )
    waiter.start()
    until_blocked(database, second)
    first.execute("COMMIT")
    waiter.join(30)
    assert answers[0][:2] == (False, None)


def test_an_expired_lock_that_is_removed_at_the_same_moment_is_free(database: Database) -> None:
    """By the cleanup, or by a late release of its holder."""
    acquire(database, uuid.uuid4().hex, lease=1)
    remover, second = database.connect(), database.connect()
    remover.execute("BEGIN")
    remover.execute("DELETE FROM app_session_locks")
    taken: list[bool | None] = []
    taker = threading.Thread(
        target=lambda: taken.append(acquire(database, uuid.uuid4().hex, connection=second)[0])
    )
    taker.start()
    until_blocked(database, second)
    remover.execute("COMMIT")
    taker.join(30)
    assert taken == [True]


def test_a_token_is_newer_than_all_that_were_drawn_before_the_row_was_locked(database: Database) -> None:
    """Somebody else's row goes while one waits for it, who has drawn his first token before that."""
    other, waiting = database.connect(), database.connect()
    database.run(unfinished(database.statements.acquire("res", uuid.uuid4().hex, MINUTE, None)), other)
    answers: list[tuple[bool | None, int, int, int]] = []
    waiter = threading.Thread(
        target=lambda: answers.append(acquire(database, uuid.uuid4().hex, connection=waiting))
    )
    waiter.start()
    until_blocked(database, waiting)
    ((newest,),) = database.execute("SELECT nextval('app_session_fencing')")
    other.execute("ROLLBACK")
    waiter.join(30)
    ((acquired, token, expires, now),) = answers
    assert acquired is True and token > newest
    assert now < expires <= now + MINUTE


def test_who_asks_for_a_held_lock_does_not_wait_for_its_renewal(database: Database) -> None:
    owner = uuid.uuid4().hex
    acquire(database, owner)
    renewing, asking = database.connect(), database.connect(statement_timeout="5s")
    database.run(unfinished(database.statements.renew("res", owner, HOUR)), renewing)
    assert acquire(database, uuid.uuid4().hex, connection=asking)[:2] == (False, None)


def test_a_lock_of_a_session_needs_it_alive_and_ends_with_it(database: Database) -> None:
    ear = database.ear()
    owner = uuid.uuid4().hex
    live, expired = database.create(), database.create(expires=database.now() - 1)
    for session in (expired, "c" * 32):
        assert acquire(database, owner, session=session)[0] is None
    acquired, token, *_ = acquire(database, owner, "rés", session=live)
    assert acquired is True and database.version(live) == 1
    assert database.write(delete=[[0, live]])["delete"][0][1] == "ok"
    assert sorted(map(repr, ear.items())) == sorted(
        map(repr, [LockEnded("rés", token), Deleted(bytes.fromhex(live))])
    )
    assert database.run(database.statements.renew("rés", owner, HOUR)) is None


@pytest.mark.parametrize("count", [1, 50])
def test_all_locks_of_deleted_sessions_end(database: Database, count: int) -> None:
    session = database.create("ann")
    resources = {f"{i:03}" + "\u00fc" * 254 for i in range(count)}  # 511 bytes each
    for resource in resources:
        assert acquire(database, uuid.uuid4().hex, resource, session=session)[0] is True
    ear = database.ear()
    database.run(database.statements.delete_user(database.node, "ann"))
    payloads = ear.payloads()
    assert max(map(len, payloads)) <= 7999

    items = [item for payload in payloads for item in events.parse(payload).items]
    assert {item.resource for item in items if isinstance(item, LockEnded)} == resources
    assert database.execute("SELECT count(*) FROM app_session_locks") == [(0,)]


def test_a_lock_being_taken_and_the_end_of_its_session_never_miss_each_other(database: Database) -> None:
    other = database.connect()
    session, owner = database.create(), uuid.uuid4().hex
    script = database.statements.acquire("res", owner, MINUTE, session)
    database.run(unfinished(script), other)
    assert database.write(delete=[[0, session]])["delete"] == [[0, "locked"]]
    other.execute("COMMIT")
    assert database.write(delete=[[0, session]])["delete"][0][1] == "ok"
    assert database.execute("SELECT count(*) FROM app_session_locks") == [(0,)]


def test_a_database_that_cannot_write_never_gives_a_lock(database: Database) -> None:
    """Defect 4."""
    connection = database.connect()
    script = database.statements.acquire("res", uuid.uuid4().hex, MINUTE, None)
    with pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        database.run(Script((step("BEGIN READ ONLY"), *script.steps[1:]), script.answer), connection)
    with pytest.raises(psycopg.errors.CheckViolation):
        acquire(database, uuid.uuid4().hex, "r" * 513)


def test_an_operator_who_removes_a_lock_tells_its_holder(database: Database) -> None:
    token = acquire(database, uuid.uuid4().hex)[1]
    ear = database.ear()
    database.execute("DELETE FROM app_session_locks")
    assert ear.items() == [LockEnded("res", token)]
