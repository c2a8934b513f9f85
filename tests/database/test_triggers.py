"""C12: a change by plain SQL reaches every node, and no version stands for two contents (C4)."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgsession._protocol.events import PLAIN_SQL, Changed, Deleted, Everything, parse

from .conftest import HOUR, Database


def raised(database: Database, ear: Any, *sessions: str) -> None:
    """Each session is at a new version, and the last thing said about it is that version."""
    last: dict[bytes, int] = {}
    for item in ear.items():
        assert isinstance(item, Changed)
        last[item.key] = item.version
    assert last == {bytes.fromhex(session): database.version(session) for session in sessions}
    assert all(version > 1 for version in last.values())


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE app_sessions SET expires_at = now() + interval '1 hour' WHERE id = '{0}'",
        "UPDATE app_sessions SET last_accessed = now() WHERE id = '{0}'",
        "UPDATE app_sessions SET user_id = 'bob' WHERE id = '{0}'",
        "UPDATE app_sessions SET group_id = 'other' WHERE id = '{0}'",
        "UPDATE app_sessions SET version = 1 WHERE id = '{0}'",
        "INSERT INTO app_sessions (id, user_id, expires_at) VALUES ('{0}', 'bob', now() + interval '1 day')"
        " ON CONFLICT (id) DO UPDATE SET user_id = excluded.user_id",
        "UPDATE app_session_attributes SET value = '2' WHERE session_id = '{0}' AND key = 'a'",
        "UPDATE app_session_attributes SET expires_at = now() WHERE session_id = '{0}'",
        "UPDATE app_session_attributes SET key = 'z' WHERE session_id = '{0}' AND key = 'a'",
        "INSERT INTO app_session_attributes (session_id, key, value) VALUES ('{0}', 'new', '1')",
        "INSERT INTO app_session_attributes (session_id, key, value) VALUES ('{0}', 'a', '3')"
        " ON CONFLICT (session_id, key) DO UPDATE SET value = excluded.value",
        "DELETE FROM app_session_attributes WHERE session_id = '{0}' AND key = 'a'",
    ],
)
def test_an_edit_raises_the_version_and_is_announced(database: Database, edit: str, role: str) -> None:
    session, other = database.create(attributes={"a": 1, "b": 1}), database.create(attributes={"a": 1})
    ear = database.ear()
    database.execute(f"SET session_replication_role = {role}")
    database.execute(edit.format(session))
    raised(database, ear, session)
    assert database.version(other) == 1
    # The attributes that were written carry the version that wrote them, so that old checks fail.
    written = "SELECT max(version) FROM app_session_attributes WHERE session_id = %s"
    if "INTO app_session_attributes" in edit or "UPDATE app_session_attributes" in edit:
        assert database.execute(written, session) == [(database.version(session),)]
    database.execute("RESET session_replication_role")
    refused = ["taken"] if "user_id = " in edit else ["session", database.version(session)]
    assert database.update(session, 1, check="session") == refused


@pytest.mark.parametrize("role", ["origin", "replica"])
def test_a_delete_takes_the_attributes_and_locks_along(database: Database, role: str) -> None:
    sessions = [database.create(attributes={"a": 1}) for _ in range(3)]
    ear = database.ear()
    database.execute(f"SET session_replication_role = {role}")
    database.execute("DELETE FROM app_sessions WHERE user_id = 'ann'")
    assert set(ear.items()) == {Deleted(bytes.fromhex(session)) for session in sessions}
    assert database.execute("SELECT count(*) FROM app_session_attributes") == [(0,)]


def test_truncate(database: Database) -> None:
    session = database.create(attributes={"a": 1})
    ear = database.ear()
    database.execute("TRUNCATE app_session_attributes")
    assert ear.items() == [Everything()]
    assert database.version(session) == 2 and database.attributes(session) == {}
    database.update(session, 2, {"a": 1})
    ear.items()
    database.execute("TRUNCATE app_sessions")
    assert ear.items() == [Everything()]
    assert database.execute("SELECT count(*) FROM app_session_attributes") == [(0,)]


def test_an_edit_of_many_rows_fits_its_payloads(database: Database) -> None:
    database.fill(1000, attributes=2)
    ear = database.ear()
    database.execute("UPDATE app_sessions SET group_id = 'x'")
    payloads = ear.payloads()
    assert len(payloads) <= 9 and max(map(len, payloads)) <= 7999
    events = [parse(payload) for payload in payloads]
    assert all(event.origin == PLAIN_SQL and not event.malformed for event in events)
    assert {item.version for event in events for item in event.items} == {2}  # type: ignore[union-attr]
    assert sum(len(event.items) for event in events) == 1000
    with database.connection.transaction():
        database.execute("DELETE FROM app_sessions WHERE id IN (SELECT id FROM app_sessions LIMIT 500)")
        database.execute("DELETE FROM app_sessions")
    assert len(ear.items()) == 1000


def test_an_edit_of_very_many_rows_is_told_shortly(database: Database) -> None:
    database.fill(1000)
    ear = database.ear()
    with database.connection.transaction():
        database.execute(
            "SELECT set_config('pgsession.noted_payloads', '499', true)"
        )  # as if so many were sent
        database.execute("UPDATE app_sessions SET group_id = 'x'")
        database.execute("UPDATE app_sessions SET group_id = 'y'")
    payloads = ear.payloads()
    assert len(payloads) == 2 and parse(payloads[1]).items == (Everything(),)
    database.execute(
        "UPDATE app_sessions SET group_id = 'z' WHERE id = (SELECT id FROM app_sessions LIMIT 1)"
    )
    assert len(ear.items()) == 1  # the next transaction counts anew


def test_what_is_rolled_back_is_not_told(database: Database) -> None:
    first, second = database.create(), database.create()
    ear = database.ear()
    with database.connection.transaction():
        database.execute("UPDATE app_sessions SET group_id = 'x' WHERE id = %s", first)
        with database.connection.transaction():
            database.execute("UPDATE app_sessions SET group_id = 'x' WHERE id = %s", second)
            raise psycopg.Rollback
    assert ear.items() == [Changed(bytes.fromhex(first), 2)]


def test_what_cannot_be_is_refused(database: Database) -> None:
    session = database.create(attributes={"a": 1})
    with pytest.raises(psycopg.errors.IntegrityError):
        database.execute("UPDATE app_sessions SET id = gen_random_uuid() WHERE id = %s", session)
    for time in ("created_at", "updated_at", "last_accessed", "expires_at", "previous_until", "rotated_at"):
        for infinite in ("infinity", "-infinity"):
            query = sql.SQL("UPDATE app_sessions SET {} = %s WHERE id = %s").format(sql.Identifier(time))
            with pytest.raises(psycopg.errors.CheckViolation):
                database.execute(query, infinite, session)


def test_our_own_writes_are_told_once_by_ourselves(database: Database) -> None:
    session = database.create(attributes={"a": 1, "b": 2})
    ear = database.ear()
    database.update(session, 1, {"a": 2, "c": 1}, deletes=["b"])
    payloads = ear.payloads()
    assert [parse(payload).origin for payload in payloads] == [database.node]
    # The setting that keeps the triggers quiet ends with the transaction.
    database.execute("UPDATE app_sessions SET group_id = 'x'")
    assert len(ear.payloads()) == 1 and database.version(session) == 3


def test_a_copy_in_is_announced(database: Database, open_database: Callable[..., Database]) -> None:
    ear = database.ear()
    session = "ab" * 16
    with database.connection.cursor().copy("COPY app_sessions (id, user_id, expires_at) FROM STDIN") as copy:
        copy.write_row((session, "ann", "2100-01-01"))
    assert ear.items() == [Changed(bytes.fromhex(session), database.version(session))]


@pytest.mark.parametrize("role", ["origin", "replica"])
@pytest.mark.parametrize("version", ["DEFAULT", "1", "{0}"])
def test_a_session_that_is_inserted_again_goes_on_above_its_old_versions(
    database: Database, role: str, version: str
) -> None:
    """Otherwise a version could stand for two sessions; who held the first is never taken for the second's owner."""
    session = uuid.uuid4().hex
    insert = "INSERT INTO app_sessions (id, version, owner_since, user_id, expires_at)"
    insert += " VALUES (%s, {}, 1, %s, '2100-01-01')"
    ear = database.ear()
    database.execute(f"SET session_replication_role = {role}")
    database.execute(insert.format("DEFAULT"), session, "alice")
    database.execute("UPDATE app_sessions SET group_id = 'g'")
    first = database.version(session)
    assert abs(first - database.now()) < 60_000_000, "the database's clock"
    database.execute("DELETE FROM app_sessions")
    database.execute(insert.format(version.format(first)), session, "bob")
    second = database.version(session)
    assert second > first
    assert database.execute("SELECT owner_since FROM app_sessions") == [(second,)]
    assert ear.items()[-1] == Changed(bytes.fromhex(session), second)
    # A subscriber of logical replication applies the publisher's, which may be lower.
    database.execute("UPDATE app_sessions SET owner_since = 1, version = 1")
    assert database.version(session) == second + 1
    assert database.execute("SELECT owner_since FROM app_sessions") == [(second,)]
    database.execute("UPDATE app_sessions SET user_id = 'carol'")
    third = database.version(session)
    assert third > second + 1 and abs(third - database.now()) < 60_000_000, "the database's clock"
    assert database.execute("SELECT owner_since FROM app_sessions") == [(third,)]


def test_a_version_above_the_clock_is_kept(database: Database) -> None:
    """A dump of a server whose clock was ahead; what was held and signed there says no more than this."""
    ahead = database.now() + HOUR
    database.execute(
        "INSERT INTO app_sessions (version, user_id, expires_at) VALUES (%s, 'ann', '2100-01-01')", ahead
    )
    assert database.execute("SELECT version, owner_since FROM app_sessions") == [(ahead, ahead)]


def test_an_attribute_that_came_before_its_session_has_a_version(database: Database) -> None:
    """0 means that there is none: a check would take its removal for nothing."""
    session = uuid.uuid4().hex
    database.execute(
        "INSERT INTO app_session_attributes (session_id, key, value) VALUES (%s, 'a', '1')", session
    )
    assert database.execute("SELECT version FROM app_session_attributes") == [(1,)]
