"""The group commit: what each item is answered, and that no item's failure concerns another."""

from __future__ import annotations

import time
import uuid
from datetime import timedelta
from typing import Any

import psycopg
import pytest

from pgsession._protocol.answer_format import answers_of
from pgsession._protocol.events import Changed, Deleted

from .conftest import DAY, HOUR, Database, with_answer_of

HUGE = "x" * 100_000
ABSENT = "c" * 32


def key(session: str) -> bytes:
    return bytes.fromhex(session)


def test_a_created_session_is_read_back_as_it_was_answered(database: Database) -> None:
    soon = time.time_ns() // 1000 + HOUR + 7  # not a whole number of milliseconds
    item = database.new(
        'ann "the" $pgsession$ ü\\',
        group="g'1",
        inactivity=None,
        values=[
            ["z", '{"a":  1.50}', None],
            ["\u00e9", "[1, null]", soon],
            ["a", '"\\u0000"', None],
            ["old", "1", 5],
        ],
    )
    answer = database.write(create=[item])
    ((i, verdict, answered),) = answer["create"]
    assert (i, verdict) == (0, "ok")
    snapshot = database.read(item[1])
    assert snapshot is not None
    session, version, user, group, created, updated, accessed, expires, inactivity, attributes, *identity = (
        snapshot
    )
    assert uuid.UUID(session).hex == item[1]
    assert (user, group, inactivity) == (item[3], "g'1", None)
    assert version == answered == created == updated == accessed <= database.now()
    assert expires == item[5]
    assert identity == [item[2], version, None]
    assert attributes == [
        ["a", version, None, "\0"],
        ["z", version, None, {"a": 1.5}],
        ["\u00e9", version, soon, [1, None]],
    ]
    # The values are kept as they were spelled, for psql.
    assert database.execute("SELECT value::text FROM app_session_attributes WHERE key = 'z'") == [
        ('{"a":  1.50}',)
    ]


@pytest.mark.parametrize("us", [0, 1, 1_795_461_219_714_239, 4_102_444_800_000_001, 9_000_000_000_000_001])
def test_times_are_exact_to_the_microsecond(database: Database, us: int) -> None:
    session = database.create(expires=us)
    stored = database.execute(
        "SELECT (extract(epoch FROM expires_at) * 1000000)::bigint FROM app_sessions WHERE id = %s", session
    )
    assert stored == [(us,)]


def test_an_update_writes_deletes_and_answers_the_new_version(database: Database) -> None:
    ear = database.ear()
    session = database.create(attributes={"a": 1, "b": 2})
    before = database.read(session)
    verdict, version, updated, snapshot = database.update(session, 1, {"a": [3]}, deletes=["b"])
    assert (verdict, version, snapshot) == ("ok", 2, None)
    after = database.read(session)
    assert before is not None and after is not None
    assert after[9] == [["a", 2, None, [3]]]
    assert after[:10] == [*before[:1], 2, *before[2:5], updated, updated, *before[7:9], after[9]]
    assert updated >= before[5]
    # Nobody can know a new id: a create is not announced.
    assert ear.items() == [Changed(key(session), 2)]


def test_an_update_based_on_another_version_answers_the_snapshot(database: Database) -> None:
    session = database.create(attributes={"a": 1})
    database.update(session, 1, {"b": 2})
    verdict, version, *_times, snapshot = database.update(session, 1, {"c": 3})
    assert (verdict, version) == ("ok", 3)
    assert snapshot == database.read(session)
    assert [attribute[:2] for attribute in snapshot[9]] == [["a", 1], ["b", 2], ["c", 3]]


def test_each_update_of_a_batch_gets_its_own_snapshot(database: Database) -> None:
    sessions = [database.create(attributes={"a": number}) for number in range(3)]
    for session in sessions[1:]:
        database.update(session, 1, {"b": 2})
    batch = [database.change(session, 1, {"c": 3}, i=i) for i, session in enumerate(sessions)]
    answers = database.write(update=batch)["update"]
    assert [answer[4] for answer in answers] == [None, *(database.read(session) for session in sessions[1:])]


def test_an_attribute_that_is_set_anew_has_its_new_expiry(database: Database) -> None:
    session = database.create(attributes={"a": 1})
    later = database.now() + DAY
    for version, expires in enumerate((later, None, later + 1), 1):
        database.update(session, version, {"a": version}, attribute_expires=expires)
        snapshot = database.read(session)
        assert snapshot is not None and snapshot[9] == [["a", version + 1, expires, version]]


def test_what_checks_nothing_has_no_conflict_beside_what_does(database: Database) -> None:
    checked, unchecked = (database.create(attributes={"a": 1}) for _ in range(2))
    base = database.version(unchecked)
    database.update(unchecked, base, {"a": 2})
    batch = [
        database.change(checked, database.version(checked), {"a": 3}, check="attributes"),
        database.change(unchecked, base, {"a": 3}, i=1),
    ]
    assert [answer[1] for answer in database.write(update=batch)["update"]] == ["ok", "ok"]


def test_an_update_changes_expiry_inactivity_and_group(database: Database) -> None:
    session = database.create(group="old")
    later = database.now() + 5 * DAY
    assert database.update(session, 1, expires=later, inactivity=None, group="new")[0] == "ok"
    snapshot = database.read(session)
    assert snapshot is not None
    assert snapshot[3] == "new" and snapshot[7:9] == [later, None]
    assert database.update(session, 2, inactivity=7 * HOUR, group=None)[0] == "ok"
    snapshot = database.read(session)
    assert snapshot is not None
    assert snapshot[3] is None and snapshot[7:9] == [later, 7 * HOUR]


def test_not_announced_unless_asked_but_a_change_of_group_always(database: Database) -> None:
    ear = database.ear()
    session = database.create(group="g")
    database.update(session, 1, {"a": 1}, notify=False)
    assert ear.items() == []
    database.update(session, 2, group="g", notify=False)
    assert ear.items() == []
    database.update(session, 3, group="h", notify=False)
    assert ear.items() == [Changed(key(session), 4)]
    database.update(session, 1, check="session")
    assert ear.items() == []
    database.update(session, 1, check="session", notify_on_conflict=True)
    assert ear.items() == [Changed(key(session), 4)]


@pytest.mark.parametrize("neighbours", [0, 3])
def test_conflicts_change_nothing_and_name_what_conflicts(database: Database, neighbours: int) -> None:
    others = [database.create() for _ in range(neighbours)]

    def update(*arguments: Any, **options: Any) -> Any:
        items = [database.change(*arguments, **options)]
        items += [
            database.change(other, database.version(other), {"n": 1}, i=i + 1)
            for i, other in enumerate(others)
        ]
        answer = database.write(update=items)["update"]
        assert all(other[1] == "ok" for other in answer[1:])
        return answer[0][1:]

    session = database.create(attributes={"a": 1, "b": 1})
    update(session, 1, {"a": 2})
    before = database.read(session)
    assert update(session, 1, {"x": 1}, check="session") == ["session", 2]
    answer = update(session, 1, {"a": 3, "b": 3, "n": 3}, deletes=["m"], check="attributes", bases={"n": 1})
    assert answer[0] == "attributes" and sorted(answer[1]) == ["a", "m", "n"]
    assert database.read(session) == before
    # What nobody else changed passes, whatever the session's version is.
    answer = update(session, 1, {"b": 3, "n": 3}, check="attributes", bases={"b": 1, "n": 0})
    assert answer[:2] == ["ok", 3]
    assert update(session, 3, {"a": 4}, check="session")[:2] == ["ok", 4]


@pytest.mark.parametrize("check", ["session", "attributes"])
def test_an_update_that_is_refused_removes_no_attribute(database: Database, check: str) -> None:
    session, other = (database.create(attributes={"a": 1, "b": 1}) for _ in range(2))
    database.update(session, 1, {"a": 2})
    batch = [
        database.change(session, 1, {"n": 1}, deletes=["a", "b"], check=check),
        database.change(other, 1, deletes=["b"], check=check, i=1),
    ]
    refused, written = database.write(update=batch)["update"]
    assert refused[1] == check and written[1] == "ok"
    assert database.attributes(session) == {"a": 2, "b": 1} and database.attributes(other) == {"a": 1}


def test_an_attribute_version_never_comes_back(database: Database) -> None:
    """Defects 3 and 10: deleted and set again, an attribute passes no old check."""
    session = database.create(attributes={"a": 1})
    database.update(session, 1, deletes=["a"])
    assert database.attributes(session) == {}
    database.update(session, 2, {"a": 1})
    assert database.attributes(session) == {"a": 1}
    assert database.update(session, 3, {"a": 2}, check="attributes", bases={"a": 1}) == ["attributes", ["a"]]
    assert database.update(session, 3, {"a": 2}, check="attributes", bases={"a": 3})[0] == "ok"


def test_an_expired_attribute_counts_as_absent_or_as_itself(database: Database) -> None:
    session = database.create()
    past = database.now() - 1
    for base in (0, 2):
        database.update(session, database.version(session), {"a": 1}, attribute_expires=past)
        written = database.version(session)
        assert database.attributes(session) == {}
        bases = {"a": base and written}
        assert database.update(session, written, {"a": 2}, check="attributes", bases=bases)[0] == "ok"
    database.update(session, database.version(session), {"b": 1}, attribute_expires=past)
    assert database.update(session, 5, {"b": 2}, check="attributes", bases={"b": 1}) == ["attributes", ["b"]]


def test_what_is_gone_expired_or_inactive_cannot_be_updated(database: Database) -> None:
    """Defect 1, and no resurrection (C7)."""
    expired = database.create(expires=database.now() - 1)
    inactive, exempt, deleted = (
        database.create(),
        database.create(inactivity=None),
        database.create(),
    )
    database.execute("UPDATE app_sessions SET last_accessed = now() - interval '2 days'")
    assert database.write(delete=[[0, deleted], [1, ABSENT]])["delete"] == [[0, "gone"], [1, "gone"]]
    for session in (expired, inactive, deleted, ABSENT):
        assert database.read(session) is None
        assert database.update(session, 1, {"a": 1}, expires=database.now() + DAY) == ["gone"]
        assert database.execute("SELECT 1 FROM app_session_attributes WHERE session_id = %s", session) == []
    assert database.update(exempt, 1, {"a": 1})[0] == "ok"


def test_delete_announces_and_leaves_nothing(database: Database) -> None:
    ear = database.ear()
    session, kept = database.create(attributes={"a": 1}), database.create(attributes={"a": 1})
    assert database.write(delete=[[7, session], [8, ABSENT]])["delete"] == [
        [7, "ok", "ann", None],
        [8, "gone"],
    ]
    assert ear.items() == [Deleted(key(session))]
    assert database.execute("SELECT session_id FROM app_session_attributes") == [(uuid.UUID(kept),)]


def test_rows_locked_by_others_are_skipped_or_waited_for(database: Database) -> None:
    """[run] One foreign lock held a batch of 64 for two seconds."""
    first, locked, last = (database.create(attributes={"a": 1}) for _ in range(3))
    other = database.connect()
    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR UPDATE", (locked,))
        items = [
            database.change(session, 1, {"a": 2}, i=i)
            for i, session in enumerate((first, locked, last, ABSENT))
        ]
        verdicts = [item[:2] for item in database.write(update=items)["update"]]
        assert verdicts == [[0, "ok"], [1, "locked"], [2, "ok"], [3, "gone"]]
        assert database.write(delete=[[0, locked], [1, first]])["delete"] == [
            [0, "locked"],
            [1, "ok", "ann", None],
        ]
        # Alone, too: then there is no row held at all.
        assert database.write(update=items[1:2])["update"] == [[1, "locked"]]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.write(update=items[1:2], wait=True, lock_timeout=20)
        database.execute("ROLLBACK")
    assert database.write(update=items[1:2], wait=True, lock_timeout=20)["update"][0][1] == "ok"
    # A foreign key check or a lock of ours on the session does not stop an update.
    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR KEY SHARE", (locked,))
        assert database.update(locked, 2, {"a": 3})[0] == "ok"


def test_everything_at_once_in_one_batch(database: Database) -> None:
    ear = database.ear()
    updated, deleted = database.create(attributes={"a": 1}), database.create()
    answer = database.write(
        create=[database.new("bob", {"x": HUGE}, i=i) for i in range(3)],
        update=[database.change(updated, 1, {"a": 2}, i=5)],
        delete=[[9, deleted]],
    )
    assert [item[:2] for item in answer["create"]] == [[0, "ok"], [1, "ok"], [2, "ok"]]
    assert [item[:3] for item in answer["update"]] == [[5, "ok", 2]]
    assert answer["delete"] == [[9, "ok", "ann", None]]
    assert set(ear.items()) == {Changed(key(updated), 2), Deleted(key(deleted))}
    assert database.write()["update"] == []


def test_payloads_stay_within_bounds(database: Database) -> None:
    database.fill(1000)
    sessions = [row[0].hex for row in database.execute("SELECT id FROM app_sessions")]
    database.execute("SET pgsession.own = 'on'")
    database.execute(f"UPDATE app_sessions SET version = {2**62}")
    database.execute("RESET pgsession.own")
    ear = database.ear()
    answer = database.write(
        update=[database.change(session, 2**62, i=i) for i, session in enumerate(sessions)]
    )
    assert all(item[1:3] == ["ok", 2**62 + 1] and item[4] is None for item in answer["update"])
    payloads = ear.payloads()
    assert max(map(len, payloads)) <= 7999 and len(payloads) == 8
    database.write(delete=[[i, session] for i, session in enumerate(sessions)])
    assert len(ear.items()) == 1000


@pytest.mark.parametrize("policy", ["evict", "reject"])
def test_max_sessions(database: Database, policy: str) -> None:
    ear = database.ear()
    old = [database.create("bob") for _ in range(3)]
    database.create("eve")
    options = {"limit": 3, "policy": policy}
    if policy == "reject":
        answer = database.write(
            create=[database.new("bob", i=0, **options), database.new("eve", i=1, **options)]
        )
        assert [item[:2] for item in answer["create"]] == [[0, "too_many"], [1, "ok"]]
        many = database.write(create=[database.new("eve", i=i, **options) for i in range(5)])["create"]
        assert [item[1] for item in many] == ["ok", "too_many", "too_many", "too_many", "too_many"]
        assert ear.items() == []
        return
    # The least recently used leaves; what this node knows of accesses counts.
    touches = [[old[0], database.now()]]
    database.create("bob", touches=touches, **options)
    assert ear.items() == [Deleted(key(old[1]))]
    assert database.read(old[1]) is None and database.read(old[0]) is not None
    items = [database.new("bob", i=i, **options) for i in range(5)]
    assert [item[1] for item in database.write(create=items)["create"]] == ["ok"] * 5
    assert [database.read(item[1]) is not None for item in items] == [
        False,
        False,
        True,
        True,
        True,
    ]
    assert database.execute("SELECT count(*) FROM app_sessions WHERE user_id = 'bob'") == [(3,)]


def test_expired_and_inactive_sessions_take_no_place(database: Database) -> None:
    database.create("bob", expires=database.now() - 1)
    inactive = database.create("bob")
    database.execute(
        "UPDATE app_sessions SET last_accessed = now() - interval '2 days' WHERE id = %s", inactive
    )
    options = {"limit": 1, "policy": "reject"}
    assert database.write(create=[database.new("bob", **options)])["create"][0][1] == "ok"
    database.execute("DELETE FROM app_sessions WHERE id <> %s", inactive)
    # Inactive in the database, but this node knows better.
    touched = database.new("bob", touches=[[inactive, database.now()]], **options)
    assert database.write(create=[touched])["create"] == [[0, "too_many"]]


def test_a_session_in_use_is_not_evicted(database: Database) -> None:
    oldest, newest = database.create("bob"), database.create("bob")
    other = database.connect()
    with other.transaction():
        other.execute("SELECT FROM app_sessions WHERE id = %s FOR NO KEY UPDATE", (oldest,))
        database.create("bob", limit=2)
        assert database.read(newest) is None
        other.execute("SELECT FROM app_sessions FOR NO KEY UPDATE")
        items = [database.new("bob", limit=2), database.new("eve", i=1, limit=2)]
        assert [item[:2] for item in database.write(create=items)["create"]] == [[0, "locked"], [1, "ok"]]
    assert database.execute("SELECT count(*) FROM app_sessions WHERE user_id = 'bob'") == [(2,)]


def test_a_login_waits_for_another_ones_bucket_alone(database: Database) -> None:
    """Whoever holds it: the others of the batch are made at once."""
    bucket = "(hashtextextended('bob', 0) & 1023)::integer"
    other = database.connect()
    items = [
        database.new("bob", limit=2),
        database.new("eve", i=1, limit=2),
        database.new("bob", i=2, limit=2),
    ]
    with other.transaction():
        other.execute(f"SELECT FROM app_session_user_buckets WHERE bucket = {bucket} FOR UPDATE")
        answer = database.write(create=items)["create"]
        assert [item[:2] for item in answer] == [[0, "locked"], [1, "ok"], [2, "locked"]]
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.write(create=items[:1], wait=True, lock_timeout=20)
        database.execute("ROLLBACK")
    assert database.write(create=items[:1], wait=True, lock_timeout=20)["create"][0][1] == "ok"
    assert database.execute("SELECT user_id FROM app_sessions ORDER BY 1") == [("bob",), ("eve",)]


def test_buckets_that_somebody_removed_come_back(database: Database) -> None:
    database.execute("DELETE FROM app_session_user_buckets")
    item = database.new("bob", limit=2)
    assert database.write(create=[item])["create"] == [[0, "locked"]]
    assert database.write(create=[item], wait=True)["create"][0][1] == "ok"
    assert database.write(create=[database.new("bob", limit=2)])["create"][0][1] == "ok"
    assert database.run(database.statements.cleanup(database.node, "expired", 0))[2] is True
    assert database.run(database.statements.cleanup(database.node, "expired", 0))[2] is False


def test_no_login_waits_for_what_it_would_evict(database: Database) -> None:
    """It would have its bucket locked meanwhile, in which other users' logins are: its caller tries again."""
    oldest = database.create("bob")
    other = database.connect()
    item = database.new("bob", limit=1)
    with other.transaction():
        other.execute("SELECT FROM app_sessions FOR UPDATE")
        for wait in (False, True):
            assert database.write(create=[item], wait=wait, lock_timeout=20)["create"] == [[0, "locked"]]
        assert database.execute("SELECT count(*) FROM app_sessions") == [(1,)]
    assert database.write(create=[item], wait=True, lock_timeout=1000)["evicted"] == [oldest]


def test_without_an_incarnation_every_batch_says_so(database: Database) -> None:
    """After a crash, until somebody has made one: a node that comes, or the first who announces something."""
    session, other = database.create(), database.create()
    database.execute("DELETE FROM app_session_incarnation")
    for batch in (
        {"create": [database.new()]},
        {"update": [database.change(session, 1)]},
        {"delete": [[0, other]]},
        {},
    ):
        answers = answers_of(database.run(database.script(**batch))[0])
        assert answers.incarnation != database.incarnation
        assert bool(answers.created_at) == ("create" in batch) and len(answers.delete) == ("delete" in batch)


def test_what_a_session_is_created_with(database: Database) -> None:
    first, second = database.create("ann"), database.create("ann", inactivity=None)
    row = database.execute(
        "SELECT generation, owner_since, inactivity, previous_generation, previous_until, rotated_at"
        " FROM app_sessions WHERE id = %s",
        first,
    )[0]
    assert row[1:] == (1, timedelta(days=1), None, None, None)
    others = database.execute("SELECT generation, inactivity FROM app_sessions WHERE id = %s", second)
    assert others[0][0] != row[0] and others[0][1] is None
    database.update(second, 1, inactivity=DAY)
    database.update(first, 1, inactivity=None)
    stored = "SELECT inactivity FROM app_sessions WHERE id = %s"
    assert database.execute(stored, first) == [(None,)]
    assert database.execute(stored, second) == [(timedelta(days=1),)]
    # A user's change is what a held copy must not write over, whoever makes it.
    database.execute("UPDATE app_sessions SET user_id = 'bob' WHERE id = %s", first)
    [(owner_since, version)] = database.execute(
        "SELECT owner_since, version FROM app_sessions WHERE id = %s", first
    )
    assert owner_since == version and abs(version - database.now()) < 60_000_000, "the database's clock"


@pytest.mark.parametrize(
    ("poison", "error"),
    [
        ({"values": [["a", "{", None]]}, psycopg.errors.InvalidTextRepresentation),
        ({"values": [["a\0", "1", None]]}, psycopg.DataError),
        ({"values": [["a" * 513, "1", None]]}, psycopg.errors.CheckViolation),
        ({"group": "g" * 513}, psycopg.errors.CheckViolation),
    ],
)
def test_poison_fails_the_batch_as_a_data_error_and_changes_nothing(
    database: Database, poison: dict[str, Any], error: type[Exception]
) -> None:
    ear = database.ear()
    good, bad = database.create(), database.create()
    items = [database.change(good, 1, {"a": 1}), database.change(bad, 1, i=1, **poison)]
    if "group" not in poison:
        items[1][7] = [[*value, 0] for value in poison["values"]]
    with pytest.raises(error) as caught:
        database.write(update=items)
    assert isinstance(caught.value, psycopg.DataError | psycopg.IntegrityError)
    database.execute("ROLLBACK")
    assert database.version(good) == 1 and ear.items() == []
    assert database.update(good, 1, {"a": 1})[0] == "ok"


@pytest.mark.parametrize("isolation", ["repeatable read", "serializable"])
def test_works_whatever_the_defaults_are(database: Database, isolation: str) -> None:
    connection = database.connect(
        default_transaction_isolation=isolation,
        default_transaction_read_only="on",
        synchronous_commit="off",
        standard_conforming_strings="off",
    )
    session = database.create(attributes={"a": "\\'"})
    assert database.update(session, 1, {"a": "'\\\n"}, connection=connection)[0] == "ok"
    assert database.attributes(session) == {"a": "'\\\n"}


@pytest.mark.parametrize("commit", ["split", "plain", "off"])
def test_durable_when_answered(database: Database, commit: Any) -> None:
    """The flushed position is past the commit, also where a role's default is synchronous_commit = off."""
    connection = database.connect(synchronous_commit="off")
    session = database.create()
    flushed = []
    for base in range(1, 30):
        script = database.script(update=[database.change(session, base, {"a": base})], commit=commit)
        position = database.run(
            with_answer_of(script, script.answer + 1, "SELECT pg_current_wal_insert_lsn()::text"), connection
        )[0]
        row = connection.execute("SELECT pg_current_wal_flush_lsn() > %s::pg_lsn", (position,)).fetchone()
        assert row is not None
        flushed.append(row[0])
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("off",)
    assert all(flushed) == (commit != "off")


def test_the_mark_tells_whether_the_first_commit_happened(database: Database) -> None:
    session = database.create()
    connection = database.connect()
    script = database.script(mark="mark-1", update=[database.change(session, 1, {"a": 1})])
    with pytest.raises(psycopg.errors.DivisionByZero):
        database.run(with_answer_of(script, script.answer + 2, "SELECT 1 / 0"), connection)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT current_setting('pgsession.batch', true)").fetchone() == ("mark-1",)
    assert database.version(session) == 2
    script = database.script(mark="mark-2", update=[database.change(session, 2, {"a": 1})])
    with pytest.raises(psycopg.errors.DivisionByZero):
        database.run(with_answer_of(script, script.answer + 1, "SELECT 1 / 0"), connection)
    connection.execute("ROLLBACK")
    assert connection.execute("SELECT current_setting('pgsession.batch', true)").fetchone() == ("mark-1",)
    assert database.version(session) == 2
