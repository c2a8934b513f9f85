# Generated from tests/aio/test_admin.py by tools/async_to_sync.py: never edit.

"""Operators and admin pages: what they see, what they end, and that the nodes hear of it."""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo
from psycopg_pool import ConnectionPool

import pgsession
from tests.crew import Crew
from tests.fault_proxy import FaultProxy
from tests.leftovers import Leftovers
from tests.tables import Tables

from .conftest import OpenAsyncManager
from .helpers import create_many, eventually


@pytest.fixture
def config(schema: str) -> pgsession.Config:
    return pgsession.Config(schema_name=schema)


@pytest.fixture
def admin(dsn: str, config: pgsession.Config) -> pgsession.Admin:
    return pgsession.Admin(dsn, config)


class Odd(int):
    """A number that says something else of itself."""

    def __str__(self) -> str:
        return "none"


def test_a_limit_is_the_number_that_it_is(open_manager: OpenAsyncManager, admin: pgsession.Admin) -> None:
    manager = open_manager(max_sessions=Odd(3))
    create_many(manager, 3)
    with manager.lock("a"), manager.lock("b", max_retries=Odd(1)):
        assert len(admin.list_sessions(limit=Odd(2))) == 2
        assert len(admin.list_locks(limit=Odd(1))) == 1
    assert len(manager.list_user_sessions("u", limit=Odd(1))) == 1


# -- what is seen ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("year", [9999, 200000])
def test_a_session_that_ends_after_all_datetimes_is_shown_like_others(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, tables: Tables, year: int
) -> None:
    """The server counts by 32 microseconds at the end of 9999, and goes on after it."""
    manager = open_manager()
    last = datetime.max.replace(tzinfo=UTC)
    session = manager.create_session("u", {"a": 1}, expires_at=last)
    assert session.expires_at == last
    if year > 9999:
        tables.run("UPDATE {sessions} SET expires_at = make_timestamptz(%s, 1, 1, 0, 0, 0)", year)
    manager.clear_cache()
    found = manager.get_session(session.id)
    assert found is not None and found.expires_at == last
    listed = [*manager.list_user_sessions("u"), *admin.list_sessions()]
    assert [one.expires_at for one in listed] == [last, last]


def test_sessions_are_shown_without_their_values(
    open_manager: OpenAsyncManager, admin: pgsession.Admin
) -> None:
    manager = open_manager()
    session = manager.create_session("ann", {"secret": [1]}, group_id="g", include_inactivity=False)
    (seen,) = admin.list_sessions()
    assert seen == pgsession.SessionInfo(
        id=session.id, user_id="ann", group_id="g", version=session.version, created_at=session.created_at,
        updated_at=session.updated_at, last_accessed=session.last_accessed, expires_at=session.expires_at,
        include_inactivity=False, inactivity=None, attributes=None,
    )  # fmt: skip
    assert abs(datetime.now(UTC) - seen.created_at) < timedelta(minutes=1)
    assert "ann" not in repr(seen) and str(session.id) not in repr(seen)
    session.set("soon over", 1, expires_in=timedelta(microseconds=1))
    manager.update_session(session)
    (seen,) = admin.list_sessions(with_values=True)
    assert seen.attributes == {"secret": [1]}
    empty = manager.create_session("bob")
    (seen,) = admin.list_sessions(user_id="bob", with_values=True)
    assert seen.id == empty.id and seen.attributes == {}


def test_sessions_are_chosen_by_all_that_is_given(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, tables: Tables
) -> None:
    manager = open_manager(max_sessions=0)
    old, idle, both, ended = [session.id for session in create_many(manager, 4, "u", group_id="g")]
    other = (manager.create_session("v", group_id="g")).id
    tables.run("UPDATE {sessions} SET created_at = now() - interval '2 h' WHERE id = ANY(%s)", [old, both])
    tables.run(
        "UPDATE {sessions} SET last_accessed = now() - interval '1 h' WHERE id = ANY(%s)", [idle, both]
    )
    tables.run("UPDATE {sessions} SET expires_at = now() WHERE id = %s", ended)
    hour = timedelta(hours=1)
    wanted: list[tuple[dict[str, Any], set[uuid.UUID]]] = [
        ({}, {old, idle, both, other}),
        ({"user_id": "u"}, {old, idle, both}),
        ({"group_id": "g", "user_id": "v"}, {other}),
        ({"older_than": hour}, {old, both}),
        ({"older_than": 0, "user_id": "u"}, {old, idle, both}),
        ({"active_within": 600}, {old, other}),
        ({"active_within": 600, "older_than": hour, "group_id": "g"}, {old}),
        ({"group_id": "nobody's"}, set()),
        ({"session_id": idle}, {idle}),
        ({"session_id": str(old), "user_id": "v"}, set()),
        ({"session_id": ended}, set()),
    ]
    for choice, expected in wanted:
        assert {seen.id for seen in admin.list_sessions(**choice)} == expected, choice
        assert admin.count(**choice) == len(expected), choice


def test_pages_of_sessions_and_locks(open_manager: OpenAsyncManager, admin: pgsession.Admin) -> None:
    manager = open_manager(max_sessions=0)
    ids = sorted(session.id for session in create_many(manager, 25))
    seen: list[uuid.UUID] = []
    after: uuid.UUID | None = None
    while page := admin.list_sessions(limit=10, after=after):
        seen += [session.id for session in page]
        after = seen[-1]
        assert manager.delete_session(after), "the next page begins behind it all the same"
    assert seen == ids
    locks = [manager.lock(f"r{n}") for n in range(5)]
    for lock in locks:
        assert lock.acquire()
    first = admin.list_locks(limit=3)
    second = admin.list_locks(limit=3, after=first[-1].resource)
    assert [lock.resource for lock in (*first, *second)] == ["r0", "r1", "r2", "r3", "r4"]
    for lock in locks:
        lock.release()


def test_locks_and_nodes_are_shown(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, tables: Tables
) -> None:
    manager = open_manager()
    session = manager.create_session("u")
    with manager.lock("tied", session_id=session.id, lease_time=60) as lock:
        with manager.lock("free"):
            free, tied = admin.list_locks()
        assert (tied.resource, tied.token, tied.session_id) == ("tied", lock.token, session.id)
        assert timedelta(0) < tied.expires_at - tied.acquired_at <= timedelta(seconds=61)
        assert (free.resource, free.session_id) == ("free", None)
        assert [held.resource for held in admin.list_locks()] == ["tied"]
        tables.run_unheard("UPDATE {session_locks} SET expires_at = now()")
        assert admin.list_locks() == [], "nobody holds it"
        tables.run_unheard("UPDATE {session_locks} SET expires_at = now() + interval '1 h'")
    tables.run_unheard(
        "INSERT INTO {schema}.session_nodes (node, serves_for) VALUES ('0123456789abcdef', '10 s')"
    )
    (node,) = [node for node in admin.nodes() if node.node == "0123456789abcdef"]
    assert node.serves_for == timedelta(seconds=10)
    assert abs(datetime.now(UTC) - node.registered_at) < timedelta(minutes=1)


# -- what is ended -----------------------------------------------------------------------------------------------


def test_what_is_revoked_ends_on_every_node(open_manager: OpenAsyncManager, admin: pgsession.Admin) -> None:
    a, b = open_manager(max_sessions=0), open_manager()
    sessions = create_many(a, 30, "u")
    kept = a.create_session("v", group_id="g")
    assert len(b.load_sessions([session.id for session in (*sessions, kept)])) == 31
    lock = a.lock("r", session_id=sessions[0].id)
    assert lock.acquire()
    assert admin.revoke(user_id="u", group_id="g") == 0
    assert admin.revoke(user_id="u") == 30
    assert lock.lost.wait(20)

    def dropped() -> bool:
        return a.stats().cached_sessions <= 1 and b.stats().cached_sessions == 1

    eventually(dropped)
    assert b.get_session(sessions[0].id) is None
    assert b.get_session(kept.id) is not None
    with pytest.raises(ValueError, match="one of them is needed"):
        admin.revoke()
    assert admin.revoke(session_id=sessions[0].id) == 0
    assert admin.revoke(older_than=timedelta(hours=1)) == 0
    assert admin.revoke(older_than=0) == 1


def test_more_than_a_step_is_revoked(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, tables: Tables
) -> None:
    open_manager()
    tables.run(
        "INSERT INTO {sessions} (user_id, expires_at) SELECT 'u', now() + interval '1 d' FROM generate_series(1, 1200)"
    )
    assert admin.revoke(user_id="u") == 1200
    assert tables.count() == 0


def test_a_broken_lock_is_lost_and_another_has_it(
    open_manager: OpenAsyncManager, admin: pgsession.Admin
) -> None:
    a, b = open_manager(), open_manager()
    lock, other = a.lock("r"), b.lock("r", retry_delay=60)
    assert lock.acquire()
    crew = Crew()
    crew.start(other.acquire, True, 60)

    def waits() -> bool:
        return "r" in b._open_runtime().lock_renewal._waiting

    eventually(waits)
    assert admin.break_lock("r")
    assert lock.lost.wait(20) and crew.join(20) == [True]
    with pytest.raises(pgsession.LockExpiredError):
        lock.release()
    assert other.locked
    other.release()
    assert not admin.break_lock("r")


def test_the_nodes_go_on_after_the_secret_has_changed(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, caplog: pytest.LogCaptureFixture
) -> None:
    a, b = open_manager(), open_manager()
    session = a.create_session("u")
    assert b.get_session(session.id) is not None
    losses = [node.stats().listener_losses for node in (a, b)]
    admin.rotate_secret()

    def moved() -> bool:
        return all(
            node.stats().listener_losses > before and node._coherence.in_sync
            for node, before in zip((a, b), losses, strict=True)
        )

    eventually(moved)
    assert not [record for record in caplog.records if "lost its connection" in record.getMessage()]
    assert a.delete_session(session.id)

    def gone() -> bool:
        return b.get_cached_session(session.id) is None

    eventually(gone)


# -- connections and time ----------------------------------------------------------------------------------------

Call = Callable[[pgsession.Admin], Awaitable[Any]]
READS: dict[str, Call] = {
    "list_sessions": lambda admin: admin.list_sessions(with_values=True),
    "count": lambda admin: admin.count(),
    "list_locks": lambda admin: admin.list_locks(),
    "nodes": lambda admin: admin.nodes(),
}
WRITES: dict[str, Call] = {
    "revoke": lambda admin: admin.revoke(user_id="u"),
    "break_lock": lambda admin: admin.break_lock("r"),
    "rotate_secret": lambda admin: admin.rotate_secret(),
}


def test_every_method_has_a_row() -> None:
    methods = {name for name in vars(pgsession.Admin) if not name.startswith("_")}
    assert methods == set(READS) | set(WRITES) | {"diagnose"}


def test_a_pool_of_the_callers_is_borrowed_from(
    open_manager: OpenAsyncManager, dsn: str, config: pgsession.Config
) -> None:
    manager = open_manager()
    manager.create_session("u")
    with ConnectionPool(dsn, min_size=1, max_size=1, open=False) as pool:  # not in autocommit
        admin = pgsession.Admin(pool, config)
        for call in (*READS.values(), *WRITES.values()):
            call(admin)
        assert {finding.level for finding in admin.diagnose()} == {"well"}
        with pool.connection() as connection:
            assert not connection.autocommit
    assert manager.count_sessions() == 0


def test_nothing_is_left_of_a_call(
    open_manager: OpenAsyncManager, dsn: str, config: pgsession.Config
) -> None:
    (open_manager()).close()
    with Leftovers(dsn) as left:
        admin = pgsession.Admin(left.conninfo, config)
        for call in (*READS.values(), *WRITES.values()):
            call(admin)


@pytest.mark.parametrize("name", [*READS, *WRITES])
def test_no_call_waits_for_a_silent_server(
    open_manager: OpenAsyncManager, dsn: str, schema: str, name: str
) -> None:
    open_manager()
    limit = 0.5
    config = pgsession.Config(schema_name=schema, operation_timeout=limit)
    call = (READS | WRITES)[name]
    with FaultProxy(dsn) as proxy:
        admin = pgsession.Admin(proxy.conninfo, config)
        call(admin)
        proxy.freeze()
        began = time.monotonic()
        with pytest.raises(pgsession.OperationTimeout):
            call(admin)  # it cannot even connect
        assert time.monotonic() - began < 3 * limit + 2
        proxy.forward()
        with ConnectionPool(proxy.conninfo, min_size=1, max_size=1, open=False) as pool:
            pool.wait()
            proxy.freeze()
            expected = pgsession.OperationTimeout if name in READS else pgsession.WriteOutcomeUnknown
            began = time.monotonic()
            with pytest.raises(expected):
                call(pgsession.Admin(pool, config))
            assert time.monotonic() - began < 3 * limit + 2
            proxy.forward()


def test_rows_that_somebody_holds_are_waited_for_in_vain(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    manager = open_manager()
    manager.create_session("u")
    admin = pgsession.Admin(dsn, pgsession.Config(schema_name=schema, operation_timeout=0.5))
    with tables.locked("SELECT FROM {sessions} FOR UPDATE"):
        with pytest.raises(pgsession.OperationTimeout) as caught:
            admin.revoke(user_id="u")
        assert caught.value.done == 0
        assert admin.count() == 1
    assert admin.revoke(user_id="u") == 1


def test_what_refuses_is_heard_at_once(dsn: str, config: pgsession.Config) -> None:
    with pytest.raises(psycopg.OperationalError, match="does not exist"):
        pgsession.Admin(make_conninfo(dsn, dbname="no such database"), config).count()
    with pytest.raises(psycopg.OperationalError):
        pgsession.Admin("host=/nowhere", config).count()
    with pytest.raises(psycopg.errors.UndefinedTable):
        pgsession.Admin(dsn, config).nodes()


def test_what_keeps_nodes_from_memory_is_named(
    open_manager: OpenAsyncManager, admin: pgsession.Admin, tables: Tables
) -> None:
    """`tests/cli/test_doctor.py` makes each cause."""
    open_manager()
    assert {finding.level for finding in admin.diagnose()} == {"well"}
    tables.run("ALTER TABLE {sessions} DISABLE TRIGGER pgsession_2_note")
    (found,) = [finding for finding in admin.diagnose() if finding.level != "well"]
    assert found.cause == "triggers" and found.level == "problem"
    assert "pgsession_2_note" in found.message and found.remedy is not None and "init" in found.remedy


@pytest.mark.parametrize("kind", ["conninfo", "pool"])
def test_a_silent_server_is_a_finding(dsn: str, schema: str, kind: str) -> None:
    config = pgsession.Config(schema_name=schema, operation_timeout=0.5)
    with FaultProxy(dsn) as proxy:
        with ConnectionPool(proxy.conninfo, min_size=1, max_size=1, open=False) as pool:
            pool.wait()
            proxy.freeze()
            began = time.monotonic()
            admin = pgsession.Admin(proxy.conninfo if kind == "conninfo" else pool, config)
            found = {finding.cause: finding.level for finding in admin.diagnose()}
            assert time.monotonic() - began < 3 * 3 * 2  # libpq takes 2 s to connect at least
            assert found.pop("connection") == "problem" and set(found.values()) == {"unknown"}
            proxy.forward()
