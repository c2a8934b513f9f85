"""`sessions`, `locks`, `nodes` and `stats`: what is seen of all nodes, and what is ended."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg import sql

import pgsession
from pgsession._short_names import short_name
from tests.roles import Roles
from tests.tables import Tables

from .conftest import Run


def test_sessions_are_listed_and_counted_by_what_is_given(run: Run, node: pgsession.SessionManager) -> None:
    ann = node.create_session("ann", {"secret": "value"}, group_id="g")
    bob = node.create_session("bob")
    listed = run("sessions", "list", "--json", "--user", "ann").json
    assert [session["session"] for session in listed] == [short_name(ann.id)]
    (seen,) = listed
    assert seen["session_id"] is None and seen["user_id"] == "ann" and seen["group_id"] == "g"
    assert seen["inactivity_seconds"] == 48 * 3600.0 and seen["version"] == ann.version
    for name in ("created_at", "updated_at", "last_accessed", "expires_at"):
        assert seen[name].endswith("Z") and len(seen[name]) == len("2026-01-01T00:00:00.000000Z")
        assert abs(datetime.fromisoformat(seen[name]) - datetime.now(UTC)) < timedelta(days=31)
    whole = run("sessions", "list", "--json", "--full-ids").json
    assert [each["session_id"] for each in whole] == sorted([str(ann.id), str(bob.id)])
    assert run("sessions", "count").out == "2\n"
    assert run("sessions", "count", "--group", "g", "--json").json == {"sessions": 1}
    assert run("sessions", "count", "--older-than", "PT1H", "--json").json == {"sessions": 0}
    assert run("sessions", "count", "--active-within", "3600", "--json").json == {"sessions": 2}
    said = run("sessions", "list", "--limit", "1")
    assert said.out.count("\n") == 2 and "there are more" in said.err
    assert run("sessions", "list", "--user", "nobody").out == "no live session fits\n"
    assert run("sessions", "list", "--user", "nobody", "--json").json == []


def test_no_value_and_no_whole_id_is_shown_unless_asked(
    run: Run, roles: Roles, node: pgsession.SessionManager
) -> None:
    session = node.create_session("ann", {"secret": "the value"})
    with node.lock(f"cart-{session.id}", session_id=session.id):
        for command in (
            ("sessions", "list"),
            ("sessions", "show", str(session.id)),
            ("locks", "list"),
            ("stats",),
        ):
            for option in ([], ["--json"]):
                said = run(*command, *option)
                assert "the value" not in said.out + said.err
                assert str(session.id) not in said.out and session.id.hex not in said.out
        assert str(session.id) in run("locks", "list", "--full-ids").out
        (lock,) = run("locks", "list", "--json").json
        assert lock["session"] == short_name(session.id) and lock["session_id"] is None
        assert lock["resource"] == f"cart-{short_name(session.id)}"
    shown = run("sessions", "show", str(session.id), "--values", "--full-ids", "--json").json
    assert shown["attributes"] == {"secret": "the value"} and shown["session_id"] == str(session.id)
    assert "the value" in run("sessions", "show", str(session.id), "--values").out


def test_a_session_that_is_not_there(run: Run, node: pgsession.SessionManager) -> None:
    missing = uuid.uuid4()
    said = run("sessions", "show", str(missing), status=3)
    assert said.err == f"pgsession: there is no live session {short_name(missing)}\n"
    assert '"status":3' in run("sessions", "show", str(missing), "--json", status=3).err
    assert run("sessions", "revoke", "--id", str(missing), "--json", status=3).json["ended"] == 0
    assert "ID" in run("sessions", "show", "x", status=2).err


def test_what_a_terminal_would_act_on_is_not_passed_on(run: Run, node: pgsession.SessionManager) -> None:
    node.create_session("\x1b[31mann\nbob\u202e")
    assert (
        "\x1b" not in run("sessions", "list").out
        and "\\x1b[31mann\\nbob\\u202e" in run("sessions", "list").out
    )
    assert run("sessions", "list", "--json").json[0]["user_id"] == "\x1b[31mann\nbob\u202e"


def test_sessions_are_revoked(run: Run, node: pgsession.SessionManager) -> None:
    one, two, three = (node.create_session("ann", group_id=group) for group in ("g", "g", "h"))
    bob = node.create_session("bob")
    assert run("sessions", "revoke", status=2).err.startswith("pgsession: say which sessions, or --all")
    run("sessions", "revoke", "--all", "--user", "ann", status=2)
    assert run("sessions", "revoke", "--user", "ann", "--dry-run").out == "3 live sessions would end\n"
    assert node.count_sessions() == 4
    assert run("sessions", "revoke", "--id", str(one.id)).out == "1 ended\n"
    assert run("sessions", "revoke", "--user", "ann", "--group", "g", "--json").json == {
        "dry_run": False, "ended": 1,
    }  # fmt: skip
    assert node.get_session(two.id, refresh=True) is None and node.get_session(three.id, refresh=True)
    assert "say --yes" in run("sessions", "revoke", "--all", status=2).err
    assert run("sessions", "revoke", "--all", "--yes").out == "2 ended\n"
    assert node.get_session(bob.id, refresh=True) is None
    run("sessions", "revoke", "--all", "--yes", status=3)


def test_locks_are_listed_and_broken(run: Run, node: pgsession.SessionManager) -> None:
    assert run("locks", "list").out == "no lock is held\n"
    lock = node.lock("report")
    assert lock.acquire()
    assert "report" in run("locks", "list").out
    (seen,) = run("locks", "list", "--json").json
    assert seen["resource"] == "report" and seen["token"] == lock.token and seen["session"] is None
    assert run("locks", "break", "report").out == "ended the lock on 'report'\n"
    assert lock.lost.wait(20)
    assert run("locks", "break", "report", "--json", status=3).json == {"resource": "report", "held": False}


def test_nodes_are_listed(run: Run, node: pgsession.SessionManager) -> None:
    (seen,) = run("nodes", "--json").json
    assert seen["serves_for_seconds"] == 10.0 and len(seen["node"]) == 16
    assert abs(datetime.fromisoformat(seen["last_sign_of_life"]) - datetime.now(UTC)) < timedelta(minutes=5)
    assert seen["node"] in run("nodes").out


def test_stats_are_of_all_nodes(run: Run, node: pgsession.SessionManager, tables: Tables) -> None:
    node.create_session("u")
    node.create_session()
    over, idle = node.create_session("v"), node.create_session("w")
    tables.run_unheard("UPDATE {sessions} SET expires_at = now() WHERE id = %s", over.id)
    tables.run_unheard("UPDATE {sessions} SET last_accessed = now() - interval '3 d' WHERE id = %s", idle.id)
    with node.lock("r"):
        found = run("stats", "--json").json
    sessions = found["sessions"]
    assert sessions["live"] == 2 and sessions["anonymous"] == 1
    assert sessions["expired_not_deleted"] == 1 and sessions["inactive_not_deleted"] == 1
    assert sessions["oldest_created_at"].endswith("Z")
    assert found["locks"] == {"held": 1} and found["nodes"] == {"registered": 1}
    assert set(found["tables"]) == {"sessions", "attributes", "locks"}
    assert all(table["table_bytes"] > 0 for table in found["tables"].values())
    server = found["server"]
    assert 0 <= server["notification_queue_usage"] <= 1
    assert 0 < server["connections"] <= server["max_connections"]
    out = run("stats").out
    assert "sessions live" in out and "notification queue usage" in out and out.count("\n") > 20


def test_an_operators_rights_are_enough(
    run: Run, roles: Roles, node: pgsession.SessionManager, dsn: str, schema: str
) -> None:
    """Those that the page about deploying grants."""
    node.create_session("u")
    with psycopg.connect(dsn, autocommit=True) as owner:
        for grant in (
            "GRANT USAGE ON SCHEMA {0} TO {1}",
            "GRANT SELECT ON {0}.sessions, {0}.session_locks, {0}.session_nodes TO {1}",
            "GRANT DELETE ON {0}.sessions, {0}.session_locks TO {1}",
        ):
            owner.execute(sql.SQL(grant).format(sql.Identifier(schema), sql.Identifier(roles.operator)))
    operator = roles.dsn("operator")
    for command in (
        ("sessions", "list"), ("sessions", "count"), ("locks", "list"), ("nodes",), ("stats",),
        ("sessions", "revoke", "--user", "u"),
    ):  # fmt: skip
        run(*command, database=operator)
    for command in (("sessions", "list"), ("locks", "list"), ("nodes",), ("stats",), ("locks", "break", "r")):
        said = run(*command, database=roles.dsn("stranger"), status=1)
        assert "permission denied" in said.err and "grant the role" in said.err and said.err.count("\n") == 1
