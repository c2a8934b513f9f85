"""Every statement reaches its rows by index on 200,000 sessions, also by plans made when the tables were small."""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest

from pgsession._database.arrays import integer_array, uuid_array
from pgsession._database.statements import NIL

from .conftest import Database

MANY = 200_000
FIRST_PAGE = (None, None, None, 100)
TABLE = re.compile(
    r"(?P<node>Seq Scan|Index Scan|Index Only Scan|Bitmap Heap Scan)( using \S+)? on \S*app_session\w*"
)


@contextmanager
def plans(connection: psycopg.Connection[Any]) -> Iterator[list[str]]:
    """The plans of everything that is executed, also inside functions."""
    seen: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        seen.append(diagnostic.message_primary or "")

    connection.add_notice_handler(note)
    connection.execute("SET auto_explain.log_min_duration = 0")
    yield seen
    connection.execute("SET auto_explain.log_min_duration = -1")
    connection.remove_notice_handler(note)


def walked(plan: str) -> list[str]:
    """The lines of a plan that read a whole table or a whole index of ours."""
    lines = plan.splitlines()
    found = []
    for number, line in enumerate(lines):
        match = TABLE.search(line)
        if match is None or re.search("app_session_(incarnation|schema_version)", line):
            continue
        if match["node"] == "Seq Scan" or (
            match["node"].startswith("Index")
            and not any("Index Cond" in following for following in lines[number + 1 : number + 3])
        ):
            found.append(line)
    return found


def exercise(database: Database, connection: psycopg.Connection[Any], ids: list[str]) -> dict[str, list[str]]:
    """Run every statement once on the connection; the plans of each."""
    statements, node = database.statements, database.node
    lock, owner = f"r {ids[0]}", uuid.uuid4().hex
    created = [database.new("user7", {"a": 1}, i=i, limit=3, group="g") for i in range(8)]
    chosen = [
        database.new("user9", {"a": 1}, i=i, limit=3, id=s, if_exists=how)
        for i, (s, how) in enumerate(zip(ids[81:87], ("error", "return", "replace") * 2, strict=True))
    ]
    updates = [
        database.change(s, 9, {"key1": 1, "new": 1}, i=i, deletes=["gone"]) for i, s in enumerate(ids[:64])
    ]
    lone = database.change(ids[91], 9, {"key1": 1, "new": 1})
    checked = [database.change(s, 9, {"key1": 1}, i=i, check="attributes") for i, s in enumerate(ids[:64])]
    times = integer_array([database.now()] * 64)
    keys = [bytes.fromhex(session) for session in ids[:64]]
    scripts: dict[str, Any] = {
        "create": lambda: database.write(connection, create=created),
        "create, chosen": lambda: database.write(connection, create=chosen),
        "update": lambda: database.write(connection, update=updates),
        "update, lone": lambda: database.write(connection, update=[lone]),
        "update, checked": lambda: database.write(connection, update=checked),
        "update, waiting": lambda: database.write(connection, update=updates, wait=True),
        "delete": lambda: database.write(connection, delete=[[i, s] for i, s in enumerate(ids[64:80])]),
        "delete, waiting": lambda: database.write(connection, delete=[[0, ids[80]]], wait=True),
        "touch": lambda: database.run(statements.write_accesses(uuid_array(keys), times), connection),
        "delete_user": lambda: database.run(statements.delete_user(node, "user5", size=100), connection),
        "delete_group": lambda: database.run(statements.delete_group(node, "g", size=3), connection),
        "delete_all": lambda: database.run(statements.delete_all(node, size=100), connection),
        "drop_attribute": lambda: database.run(statements.drop_attribute(node, "user6", "key1"), connection),
        "acquire": lambda: database.run(statements.acquire(lock, owner, 10**8, ids[90]), connection),
        "renew": lambda: database.run(statements.renew(lock, owner, 2 * 10**8), connection),
        "release": lambda: database.run(statements.release(node, lock, owner), connection),
        "read": lambda: connection.execute(statements.read, (ids[0],), prepare=True),
        "read_many": lambda: connection.execute(statements.read_many, (uuid_array(keys),), prepare=True),
        "list_user": lambda: connection.execute(statements.list_user, ("user8", *FIRST_PAGE), prepare=True),
        "list_group": lambda: connection.execute(statements.list_group, ("g", *FIRST_PAGE), prepare=True),
        "count": lambda: connection.execute(statements.count, ("user8", "user8", None, None), prepare=True),
        "resync": lambda: connection.execute(
            statements.resync, (uuid_array(keys), *[integer_array([1] * len(keys))] * 2)
        ),
    }
    for what in ("expired", "inactive", "attributes"):
        scripts[f"cleanup {what}"] = lambda what=what: database.run(
            statements.cleanup(node, what, 0, size=100), connection
        )
    seen = {}
    for name, call in scripts.items():
        with plans(connection) as made:
            call()
        seen[name] = [plan for plan in made if "app_session" in plan]
    return seen


@pytest.mark.parametrize("before", [0, 1, 30, 400])
def test_no_statement_walks_a_table(database: Database, before: int) -> None:
    """Whatever the tables held when the plans were made."""
    connection = database.connect()
    try:
        connection.execute("LOAD 'auto_explain'")
    except psycopg.Error:
        pytest.skip("needs auto_explain and the right to load it")
    for name, value in {"log_nested_statements": "on", "log_level": "notice"}.items():
        connection.execute("SELECT set_config(%s, %s, false)", (f"auto_explain.{name}", value))
    absent = [uuid.uuid4().hex for _ in range(100)]
    if before:
        database.fill(before)
    exercise(database, connection, absent)  # the plans that are made here stay with the connection
    database.fill(MANY, users=4000, analyze=False)
    rows = database.execute("SELECT id FROM app_sessions ORDER BY id DESC LIMIT 100")
    ids = [row[0].hex for row in rows]
    for attempt in ("plans of before", "fresh plans"):
        for name, made in exercise(database, connection, ids).items():
            assert made, f"{name}: no plan was seen"
            bad = [plan for plan in made if walked(plan)]
            assert not bad, "\n".join([f"{name}, {attempt}", *bad])
        database.execute(
            "VACUUM ANALYZE app_sessions, app_session_attributes, app_session_locks"
        )  # and so all plans are made anew


def test_many_accesses_are_not_compared_each_with_each(database: Database) -> None:
    """Their number is not known when the plan is made: a nested loop would take its square."""
    connection = database.connect()
    try:
        connection.execute("LOAD 'auto_explain'")
    except psycopg.Error:
        pytest.skip("needs auto_explain and the right to load it")
    for name, value in {"log_nested_statements": "on", "log_level": "notice", "log_analyze": "on"}.items():
        connection.execute("SELECT set_config(%s, %s, false)", (f"auto_explain.{name}", value))
    database.fill(500)
    keys = [row[0].bytes for row in database.execute("SELECT id FROM app_sessions")]
    script = database.statements.write_accesses(uuid_array(keys), integer_array([database.now()] * len(keys)))
    with plans(connection) as made:
        assert database.run(script, connection)[0] is None
    (plan,) = [plan for plan in made if "Update on" in plan]
    removed = map(int, re.findall(r"Rows Removed by Join Filter: (\d+)", plan))
    assert max(removed, default=0) <= len(keys), plan


def test_accesses_and_updates_are_hot(database: Database) -> None:
    sessions = [database.create(attributes={"a": 1}) for _ in range(20)]
    keys = uuid_array([bytes.fromhex(session) for session in sessions])
    for round_ in range(20):
        times = integer_array([database.now()] * 20)
        database.run(database.statements.write_accesses(keys, times))
        database.write(
            update=[database.change(s, round_ + 1, {"a": round_}, i=i) for i, s in enumerate(sessions)]
        )
    database.execute(
        "SELECT pg_stat_force_next_flush()"
    ) if database.connection.info.server_version >= 150000 else None
    # And the 20 by which the fixture has them begin at version 1.
    for table, updates in (("app_sessions", 820), ("app_session_attributes", 420)):
        row = database.execute(
            "SELECT n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE relid = %s::regclass", table
        )
        done, hot = row[0]
        assert done == updates and hot >= 0.9 * done, (table, row)


def test_a_hundred_thousand_sessions_of_a_user_leave_in_bounded_steps(database: Database) -> None:
    """Other writers go on meanwhile: a step holds its rows only, for one short transaction."""
    database.fill(100_000)
    other = database.create("other")
    after, deleted, base = NIL, 0, 1
    while True:
        step = database.statements.delete_user(database.node, "user0", None, after, size=2000)
        last, count, skipped = database.run(step)[:3]
        assert count <= 2000 and skipped == 0
        deleted += count
        assert database.update(other, base, {"n": base})[0] == "ok"
        base += 1
        if last is None:
            break
        after = last.hex
    assert deleted == 100_000 and base > 50
    assert database.execute("SELECT count(*) FROM app_session_attributes WHERE key <> 'n'") == [(0,)]
    assert json.loads(database.execute(database.statements.list_user, "user0", *FIRST_PAGE)[0][2]) == []
