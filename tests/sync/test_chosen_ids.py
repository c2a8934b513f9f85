# Generated from tests/aio/test_chosen_ids.py by tools/async_to_sync.py: never edit.

"""Sessions with ids that the caller has chosen: what comes of a second one, and of what is held of the first."""

from __future__ import annotations

import uuid
from typing import Any

import psycopg
import pytest
from psycopg import Connection, sql

import pgsession
from pgsession import Signer
from pgsession._database import script, statements
from tests.crew import Crew
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import eventually

SIGNER = Signer(b"k" * 32)
ID = uuid.UUID("8d3c5a1e-0f7b-4c2d-9e6a-3b1f00c0ffee")


@pytest.mark.parametrize("given", [ID, str(ID), ID.bytes])
def test_the_id_is_the_one_that_was_chosen(open_manager: OpenAsyncManager, given: Any) -> None:
    manager = open_manager()
    session = manager.create_session("alice", {"n": 1}, session_id=given)
    assert session.id == ID and dict(session) == {"n": 1}
    read = manager.get_session(ID, refresh=True)
    assert read is not None and (read.user_id, read.version, dict(read)) == (
        "alice",
        session.version,
        {"n": 1},
    )


def test_there_is_no_second_one(open_manager: OpenAsyncManager) -> None:
    here, there = open_manager(), open_manager()
    first = here.create_session("alice", {"n": 1}, session_id=ID)
    for manager in (here, there):
        for user in ("alice", "bob", None):
            with pytest.raises(pgsession.SessionExistsError) as caught:
                manager.create_session(user, {"n": 2}, session_id=ID)
            assert caught.value.session_id == ID and str(ID) not in str(caught.value)
        read = manager.get_session(ID)
        assert read is not None and (read.version, dict(read)) == (first.version, {"n": 1})


def test_the_one_that_is_there_is_returned(open_manager: OpenAsyncManager) -> None:
    here, there = open_manager(signer=SIGNER), open_manager(signer=SIGNER)
    first = here.create_session("alice", {"n": 1}, group_id="g", session_id=ID, if_exists="return")
    first["n"] = 2
    here.update_session(first)
    second = there.create_session("alice", {"n": 3, "m": 4}, session_id=ID, if_exists="return")
    assert (second.version, second.group_id, dict(second)) == (first.version, "g", {"n": 2})
    assert second.created_at == first.created_at and there.token(second) == here.token(first)
    assert second.last_accessed > first.last_accessed, "that is an access"
    assert there.get_cached_session(ID) is not None
    second["n"] = 5
    assert (there.update_session(second)).version == first.version + 1


def test_who_is_told_of_a_session_reads_nothing_older(open_manager: OpenAsyncManager, tables: Tables) -> None:
    """Although nobody has told this node of the change."""
    manager = open_manager()
    manager.create_session("alice", session_id=ID)
    for if_exists in ("error", "return"):
        tables.run_unheard(
            "UPDATE {sessions} SET version = version + 1, user_id = 'bob', owner_since = version + 1"
        )
        with pytest.raises(pgsession.SessionExistsError):
            manager.create_session("alice", session_id=ID, if_exists=if_exists)  # type: ignore[arg-type]
        read = manager.get_session(ID)
        assert read is not None and read.user_id == "bob"


def test_a_visitors_session_is_a_visitors(open_manager: OpenAsyncManager) -> None:
    manager = open_manager()
    first = manager.create_session(None, {"n": 1}, session_id=ID)
    again = manager.create_session(session_id=ID, if_exists="return")
    assert again.version == first.version and again.user_id is None
    with pytest.raises(pgsession.SessionExistsError):
        manager.create_session("alice", session_id=ID, if_exists="return")


def test_another_users_session_is_never_returned(open_manager: OpenAsyncManager) -> None:
    here, there = open_manager(), open_manager()
    here.create_session("alice", session_id=ID)
    for user in ("bob", None):
        with pytest.raises(pgsession.SessionExistsError):
            there.create_session(user, session_id=ID, if_exists="return")
    assert there.get_cached_session(ID) is None


def test_a_replaced_session_leaves_nothing(open_manager: OpenAsyncManager, tables: Tables) -> None:
    here, there = open_manager(signer=SIGNER), open_manager(signer=SIGNER)
    first = here.create_session("alice", {"a": 1, "b": 2}, group_id="g", session_id=ID)
    first = here.rotate_session(first)
    tokens = [here.token(first)]
    held = there.get_session(ID)
    lock = there.lock("r", session_id=ID)
    assert held is not None and lock.acquire()
    second = here.create_session("bob", {"b": 3}, session_id=ID, if_exists="replace")
    assert second.version > first.version and dict(second) == {"b": 3}
    assert (second.user_id, second.group_id) == ("bob", None)

    def seen() -> bool:
        read = there.get_cached_session(ID)
        return read is None or read.user_id == "bob"

    eventually(seen, "the other node drops the former user's session")
    read = there.get_session(ID)
    assert read is not None and (read.user_id, read.version, dict(read)) == ("bob", second.version, {"b": 3})
    eventually(lambda: _true(lock.lost.is_set()), "its lock ends")
    for token in tokens:
        assert token is not None
        assert (there.open_token(token)).state == (here.open_token(token)).state == "ended"
    token = here.token(second)
    assert token is not None and (there.open_token(token)).state == "current"
    for check in (None, "session", "attributes"):
        held["a"] = 9
        with pytest.raises(pgsession.SessionNotFoundError):
            there.update_session(held, check=check)  # type: ignore[arg-type]
    assert here.delete_user_sessions("alice") == 0 and here.delete_group_sessions("g") == 0
    stored = "SELECT user_id, owner_since = version, previous_generation, previous_until, rotated_at FROM {sessions}"
    assert tables.run(stored) == [("bob", True, None, None, None)]
    assert tables.run("SELECT key, value FROM {session_attributes}") == [("b", 3)]
    with pytest.raises(pgsession.LockError):
        lock.release()


def _true(value: bool) -> bool:
    return value


def test_what_is_held_of_a_replaced_session_of_the_same_user_is_not_saved(
    open_manager: OpenAsyncManager,
) -> None:
    here, there = open_manager(), open_manager()
    here.create_session("alice", {"a": 1}, session_id=ID)
    held = there.get_session(ID)
    assert held is not None
    here.create_session("alice", session_id=ID, if_exists="replace")
    held["a"] = 2
    with pytest.raises(pgsession.SessionNotFoundError):
        there.update_session(held)
    read = there.get_session(ID)
    assert read is not None and dict(read) == {}


def test_the_version_is_above_that_of_before_whatever_the_clock_says(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    here, there = open_manager(), open_manager()
    first = here.create_session("alice", {"a": 1}, session_id=ID)
    ahead = first.version + 3_600_000_000
    tables.run("UPDATE {sessions} SET version = %s", ahead)  # as where the clock was set back
    second = here.create_session("bob", {"a": 2}, session_id=ID, if_exists="replace")
    assert second.version == ahead + 1 and second.attribute("a").version == ahead + 1
    read = there.get_session(ID, min_version=second.version)
    assert read is not None and (read.version, read.attribute("a").version) == (ahead + 1, ahead + 1)


@pytest.mark.parametrize("if_exists", ["error", "return", "replace"])
def test_what_has_expired_counts_as_absent(
    open_manager: OpenAsyncManager, tables: Tables, if_exists: Any
) -> None:
    manager = open_manager(max_sessions=1, max_sessions_policy="reject")
    first = manager.create_session("alice", {"a": 1}, session_id=ID)
    tables.run("UPDATE {sessions} SET expires_at = clock_timestamp()")
    for user in ("alice", "bob"):
        session = manager.create_session(user, {"b": 1}, session_id=ID, if_exists=if_exists)
        assert session.version > first.version and (session.user_id, dict(session)) == (user, {"b": 1})
        assert tables.run("SELECT key FROM {session_attributes}") == [("b",)]
        tables.run("UPDATE {sessions} SET expires_at = clock_timestamp()")


def test_what_is_inactive_may_be_active_elsewhere(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(inactivity_duration=3600)
    manager.create_session("alice", session_id=ID)
    tables.run("UPDATE {sessions} SET last_accessed = last_accessed - interval '2 hours'")
    for if_exists in ("error", "return"):
        with pytest.raises(pgsession.SessionExistsError):
            manager.create_session("alice", session_id=ID, if_exists=if_exists)  # type: ignore[arg-type]
    manager.create_session("alice", session_id=ID, if_exists="replace")
    assert manager.get_session(ID, refresh=True) is not None


def test_only_chosen_ids_can_exist(open_manager: OpenAsyncManager) -> None:
    manager = open_manager()
    for if_exists in ("return", "replace"):
        with pytest.raises(ValueError, match=r"^if_exists: must be 'error' where no session_id is given"):
            manager.create_session("alice", if_exists=if_exists)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^session_id: "):
        manager.create_session("alice", session_id="alice")


def test_an_id_is_of_use_again_once_its_session_is_gone(open_manager: OpenAsyncManager) -> None:
    here, there = open_manager(), open_manager()
    version = 0
    for number in range(3):
        session = here.create_session("alice", {"n": number}, session_id=ID)
        assert session.version > version
        version = session.version
        read = there.get_session(ID, min_version=version)
        assert read is not None and dict(read) == {"n": number}
        assert there.delete_session(ID)


# ---- limits ----


def test_room_is_made_only_for_what_is_created(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_sessions=2)
    other = manager.create_session("alice")
    manager.create_session("alice", session_id=ID)
    for if_exists in ("error", "return"):
        for user in ("alice", "bob"):
            try:
                manager.create_session(user, session_id=ID, if_exists=if_exists)  # type: ignore[arg-type]
            except pgsession.SessionExistsError:
                pass
    assert manager.get_session(other.id, refresh=True, touch=False) is not None
    manager.create_session("alice", session_id=ID, if_exists="replace")
    assert manager.get_session(other.id, refresh=True, touch=False) is not None, "it takes no more room"
    manager.create_session("alice", session_id=uuid.uuid4())
    assert manager.get_session(other.id, refresh=True, touch=False) is None
    assert manager.count_sessions(user_id="alice") == 2


def test_a_replacement_makes_room_at_its_new_user(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(max_sessions=1)
    manager.create_session("alice", session_id=ID)
    bobs = manager.create_session("bob")
    manager.create_session("bob", session_id=ID, if_exists="replace")
    assert manager.get_session(bobs.id, refresh=True) is None
    assert [manager.count_sessions(user_id=user) for user in ("alice", "bob")] == [0, 1]


def test_who_has_no_room_replaces_nothing(open_manager: OpenAsyncManager, tables: Tables) -> None:
    manager = open_manager(max_sessions=1, max_sessions_policy="reject")
    alices = manager.create_session("alice", {"a": 1}, session_id=ID)
    manager.create_session("bob")
    with pytest.raises(pgsession.TooManySessionsError):
        manager.create_session("bob", session_id=ID, if_exists="replace")
    with pytest.raises(pgsession.TooManySessionsError):
        manager.create_session("bob", session_id=uuid.uuid4(), if_exists="return")
    read = manager.get_session(ID, refresh=True)
    assert read is not None and (read.version, dict(read)) == (alices.version, {"a": 1})
    assert tables.run("SELECT count(*) FROM {sessions}") == [(2,)]
    again = manager.create_session("alice", session_id=ID, if_exists="replace")
    assert again.version > alices.version and dict(again) == {}


# ---- many at once ----


def create(manager: pgsession.SessionManager, chosen: uuid.UUID, number: int, if_exists: Any) -> Any:
    """The session, or None where there is one."""
    try:
        return manager.create_session("alice", {"by": number}, session_id=chosen, if_exists=if_exists)
    except pgsession.SessionExistsError:
        return None


@pytest.mark.parametrize("if_exists", ["error", "return", "replace"])
def test_of_twenty_with_one_id_one_creates_it(open_manager: OpenAsyncManager, if_exists: Any) -> None:
    nodes = [open_manager(max_sessions=3) for _ in range(2)]
    for _ in range(4):
        chosen = uuid.uuid4()
        crew = Crew()
        for number in range(20):
            crew.start(create, nodes[number % 2], chosen, number, if_exists)
        made = [session for session in crew.join() if session is not None]
        assert len(made) == (1 if if_exists == "error" else 20)
        contents = {session.version: dict(session) for session in made}
        assert len(contents) == (20 if if_exists == "replace" else 1)
        read = nodes[0].get_session(chosen, refresh=True)
        assert read is not None and read.version == max(contents) and contents[read.version] == dict(read)
    assert nodes[0].count_sessions(user_id="alice") == 3


def test_what_one_node_asks_for_is_done_in_order(open_manager: OpenAsyncManager) -> None:
    """Writes of one id that wait for the same batch: each has one of its own."""
    manager = open_manager()
    done: list[Any] = []

    def one(number: int) -> None:
        try:
            if number % 2:
                done.append(manager.delete_session(ID))
            else:
                done.append((manager.create_session("alice", {"n": number}, session_id=ID)).version)
        except pgsession.SessionExistsError:
            done.append(None)

    crew = Crew()
    for number in range(12):
        crew.start(one, number)
    crew.join()
    created = [version for version in done if version is not None and version is not True and version]
    deleted = done.count(True)
    assert created == sorted(set(created)) and len(created) - deleted in (0, 1)
    read, fresh = manager.get_session(ID), manager.get_session(ID, refresh=True)
    assert (read is not None) == (fresh is not None) == (len(created) > deleted)
    if read is not None and fresh is not None:
        assert read.version == fresh.version == created[-1] and dict(read) == dict(fresh)


def test_an_update_beside_a_replacement_never_crosses_owners(open_manager: OpenAsyncManager) -> None:
    nodes = [open_manager() for _ in range(2)]
    for attempt in range(10):
        chosen = uuid.uuid4()
        nodes[0].create_session("alice", {"owner": "alice"}, session_id=chosen)
        held = [node.get_session(chosen) for node in nodes]
        crew = Crew()

        def save(number: int, held: list[Any] = held) -> None:
            held[number]["owner"] = "alice, still"
            try:
                nodes[number].update_session(held[number])
            except pgsession.SessionNotFoundError:
                pass

        def replace(number: int, chosen: uuid.UUID = chosen) -> None:
            nodes[number].create_session("bob", {"owner": "bob"}, session_id=chosen, if_exists="replace")

        crew.start(save, 0)
        crew.start(replace, attempt % 2)
        crew.start(save, 1)
        crew.join()
        for node in nodes:
            read = node.get_session(chosen, refresh=True)
            assert read is not None and read.user_id == "bob" and dict(read) == {"owner": "bob"}


# ---- what others have begun, and what comes to no good end ----


def begin(foreign: Connection[Any], schema: str, chosen: uuid.UUID) -> None:
    """An insert of that id, by plain SQL, that is not committed."""
    insert = sql.SQL(
        "INSERT INTO {}.sessions (id, user_id, expires_at) VALUES (%s, 'theirs', now() + interval '1 day')"
    )
    foreign.execute(insert.format(sql.Identifier(schema)), (chosen,))


def test_a_foreign_insert_is_waited_for_and_nobody_else_waits(
    open_manager: OpenAsyncManager, dsn: str, schema: str
) -> None:
    manager = open_manager()
    with Connection.connect(dsn) as foreign, Crew() as crew:
        begin(foreign, schema, ID)
        crew.start(create, manager, ID, 1, "error")

        def waits() -> bool:
            waiting = "SELECT FROM pg_locks WHERE NOT granted AND transactionid IS NOT NULL"
            with Connection.connect(dsn) as other:
                return ((other.execute(waiting)).fetchone()) is not None

        eventually(waits)
        for number in range(5):
            manager.create_session("others", {"n": number})
            assert create(manager, uuid.uuid4(), number, "error") is not None
        foreign.commit()
        assert crew.join() == [None]
    read = manager.get_session(ID)
    assert read is not None and read.user_id == "theirs"


def test_the_wait_is_bounded(open_manager: OpenAsyncManager, dsn: str, schema: str) -> None:
    manager = open_manager(operation_timeout=1)
    with Connection.connect(dsn) as foreign:
        begin(foreign, schema, ID)
        for if_exists in ("error", "return", "replace"):
            with pytest.raises(pgsession.OperationTimeout):
                manager.create_session("alice", session_id=ID, if_exists=if_exists)  # type: ignore[arg-type]
        foreign.rollback()
    assert (manager.create_session("alice", session_id=ID)).user_id == "alice"


def test_of_an_unknown_outcome_nothing_of_before_is_shown(
    open_manager: OpenAsyncManager, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That there was a session of this id before says nothing of what became of the write."""
    manager = open_manager(signer=SIGNER, max_staleness=60)
    alices = manager.create_session("alice", {"n": 0}, session_id=ID)
    with monkeypatch.context() as patched:
        patched.setattr(statements, "_DURABLE", script.step("SELECT 1 / 0"))
        with pytest.raises(pgsession.WriteOutcomeUnknown, match="perhaps not durable"):
            manager.create_session("bob", {"n": 1}, session_id=ID, if_exists="replace")
    assert manager.get_cached_session(ID) is None
    read = manager.get_session(ID)
    assert read is not None and (read.user_id, dict(read)) == ("bob", {"n": 1})
    token = manager.token(alices)
    assert token is not None and (manager.open_token(token)).session is None


def test_what_is_known_not_to_be_done_replaces_nothing(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    """An error of the commit itself, which comes after all statements."""
    manager = open_manager(signer=SIGNER)
    alices = manager.create_session("alice", {"n": 0}, session_id=ID)
    token = manager.token(alices)
    tables.run(
        "CREATE FUNCTION {schema}.refuse() RETURNS trigger LANGUAGE plpgsql AS"
        " $$BEGIN RAISE EXCEPTION 'no' USING ERRCODE = 'check_violation'; END$$"
    )
    tables.run(
        "CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON {sessions} DEFERRABLE INITIALLY DEFERRED"
        " FOR EACH ROW WHEN (NEW.user_id = 'bob') EXECUTE FUNCTION {schema}.refuse()"
    )
    with pytest.raises(psycopg.errors.CheckViolation):
        manager.create_session("bob", session_id=ID, if_exists="replace")
    assert token is not None
    for fresh in (False, True):
        opened = manager.open_token(token, refresh=fresh)
        assert opened.session is not None and dict(opened.session) == {"n": 0}


def test_what_a_security_log_is_told(open_manager: OpenAsyncManager, tables: Tables) -> None:
    heard: list[pgsession.AuditEvent] = []
    manager = open_manager(max_sessions=1, on_audit_event=heard.append)
    manager.create_session("alice", group_id="g", session_id=ID)
    manager.create_session("alice", session_id=ID, if_exists="return")
    with pytest.raises(pgsession.SessionExistsError):
        manager.create_session("bob", session_id=ID)
    evicted = manager.create_session("bob")
    manager.create_session("bob", session_id=ID, if_exists="replace")
    tables.run("UPDATE {sessions} SET expires_at = clock_timestamp()")
    manager.create_session(session_id=ID)

    def all_there() -> bool:
        return len(heard) >= 7

    eventually(all_there, f"seven events, not {heard},")
    assert [(event.kind, event.reason, event.user_id, event.group_id) for event in heard] == [
        ("session_created", None, "alice", "g"),
        ("session_created", None, "bob", None),
        ("session_expired", "replaced", "alice", "g"),
        ("session_created", None, "bob", None),
        ("session_expired", "evicted", "bob", None),
        ("session_expired", "expired", "bob", None),
        ("session_created", None, None, None),
    ]
    assert {event.session_id for event in heard} == {ID, evicted.id}
