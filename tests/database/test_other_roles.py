"""What other roles of the database can hear, forge and hold up: nothing that they were not given."""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from tests.leftovers import UNRELEASED
from tests.roles import Roles

pytestmark = UNRELEASED

NAME = re.compile(r"\b(?:p_[0-9a-f]{32}|pgsession_[0-9a-f]{16}(?:_[0-9a-f]+)?)")
"""What looks like the name of a channel of ours, also of former versions."""

PATIENCE = 30  # seconds


@pytest.fixture
def config(schema: str) -> pgsession.Config:
    return pgsession.Config(schema_name=schema, max_staleness=0.6, create_schema_if_missing=True)


@pytest.fixture
def node(roles: Roles, config: pgsession.Config) -> Iterator[pgsession.SessionManager]:
    """A manager of the tables' owner, in sync."""
    with pgsession.SessionManager(roles.dsn("owner"), config) as node:
        yield node


def until(condition: Callable[[], bool], what: str) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited for {what}"
        time.sleep(0.005)


def all_is_delivered(node: pgsession.SessionManager) -> None:
    """Two more proofs are back: what was committed before is delivered."""
    before = node.stats().proofs
    until(lambda: node.stats().proofs > before + 1, "proofs")


def until_cached(node: pgsession.SessionManager, session_id: Any) -> None:
    until(lambda: (read := node.get_session(session_id)) is not None and read.from_cache, "the cache")


def guesses(roles: Roles, schema: str) -> list[str]:
    """Every name that a role can compute, or finds in what it may look at."""
    space = hashlib.sha256(f"{schema}.".encode()).hexdigest()[:16]
    texts = roles.execute(
        "stranger",
        "SELECT prosrc FROM pg_proc UNION ALL SELECT query FROM pg_stat_activity"
        " UNION ALL SELECT pg_get_triggerdef(oid) FROM pg_trigger UNION ALL SELECT setting FROM pg_settings",
    )
    found = {name for (text,) in texts for name in NAME.findall(text or "")}
    return sorted(found | {f"pgsession_{space}"})


def live(node: pgsession.SessionManager) -> None:
    """Whatever is announced."""
    first, second = (node.create_session("ann", {"n": 1}, group_id="g") for _ in range(2))
    first["n"] = 2
    node.update_session(first)
    with node.lock("r", session_id=second.id):
        pass
    node.delete_session(first.id)
    node.clear_cache()
    node.evict_user_sessions("ann")
    node.delete_all_sessions()


def test_who_may_connect_hears_nothing(roles: Roles, schema: str, node: pgsession.SessionManager) -> None:
    with psycopg.connect(roles.dsn("stranger"), autocommit=True) as ear:
        for name in guesses(roles, schema):
            ear.execute(f'LISTEN "{name}"')
        live(node)
        ear.execute("LISTEN mine")
        ear.execute("NOTIFY mine")  # comes after all that was committed before it
        assert [notify.channel for notify in ear.notifies(timeout=PATIENCE, stop_after=1)] == ["mine"]


def test_who_may_connect_forges_nothing(roles: Roles, schema: str, node: pgsession.SessionManager) -> None:
    session = node.create_session("ann")
    until_cached(node, session.id)
    lock = node.lock("r")
    lock.acquire()
    before = node.stats()
    forged = [
        "garbage",
        "0" * 16 + " 7 A",
        "0" * 16 + f" 7 L{b'r'.hex()}:{lock.token}",
        f"{'1' * 16} 7 d{session.id.hex}",
        f"{'1' * 16} {2**62}",
    ]
    with psycopg.connect(roles.dsn("stranger"), autocommit=True) as stranger:
        for name in guesses(roles, schema):
            for channel in (name, f"{name}_{node._node}"):
                for payload in forged:
                    stranger.execute("SELECT pg_notify(%s, %s)", (channel, payload))
    all_is_delivered(node)
    after = node.stats()
    assert (after.events, after.malformed_events, after.nodes) == (before.events, 0, before.nodes)
    assert not lock.lost.is_set() and node.get_cached_session(session.id) is not None


def test_who_may_connect_holds_up_nothing(roles: Roles, schema: str, node: pgsession.SessionManager) -> None:
    """There is no lock of ours that it could take: no advisory one, and none on a table."""
    with psycopg.connect(roles.dsn("owner")) as writer, psycopg.connect(roles.dsn("stranger")) as stranger:
        session = node.create_session("ann", {"n": 1})
        writer.execute(f"DELETE FROM {schema}.sessions")  # type: ignore[arg-type]
        locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"
        assert stranger.execute(locks).fetchone() == (0,)
        writer.rollback()
        for table in ("sessions", "session_locks", "session_user_buckets", "session_incarnation"):
            for statement in (
                "LOCK TABLE {} IN ACCESS SHARE MODE",
                "SELECT FROM {} FOR KEY SHARE",
                # These lock before they look for a right on the table: USAGE of its schema is what he must not have.
                "PREPARE held AS DELETE FROM {}",
                "CREATE RULE held AS ON INSERT TO {} DO ALSO NOTHING",
            ):
                with pytest.raises(psycopg.errors.InsufficientPrivilege), stranger.transaction():
                    stranger.execute(statement.format(f"{schema}.{table}"))  # type: ignore[arg-type]
        assert node.delete_session(session.id)


def trigger_functions(roles: Roles, schema: str) -> list[str]:
    rows = roles.execute(
        "owner",
        "SELECT proname FROM pg_proc WHERE prorettype = 'trigger'::regtype"
        f" AND pronamespace = '{schema}'::regnamespace",
    )
    assert len(rows) > 6
    return [name for (name,) in rows]


def forge(stranger: psycopg.Connection[Any], table: str, trigger: str) -> None:
    """Fires a trigger on a table of the stranger's."""
    with stranger.transaction():
        stranger.execute(f"CREATE TRIGGER {trigger}('sessions')")  # type: ignore[arg-type]
        stranger.execute("SELECT set_config('pgsession.noted', %s, true)", (" A",))
        stranger.execute(f"INSERT INTO {table} VALUES (gen_random_uuid(), 1, 'r', 1)")  # type: ignore[arg-type]
        stranger.execute(f"UPDATE {table} SET version = 2")  # type: ignore[arg-type]
        stranger.execute(f"DELETE FROM {table}")  # type: ignore[arg-type]


@pytest.mark.parametrize("temporary", [True, False])
@pytest.mark.parametrize("granted", [True, False])
def test_a_trigger_function_of_ours_serves_no_other_table(
    roles: Roles, schema: str, node: pgsession.SessionManager, granted: bool, temporary: bool
) -> None:
    """Not to a role that may create in our schema, nor where somebody has granted it too much."""
    lock = node.lock("r")
    lock.acquire()
    all_is_delivered(node)
    before = node.stats()
    roles.execute("owner", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}")
    functions = trigger_functions(roles, schema)
    if granted:
        roles.execute("owner", f"GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO {roles.stranger}")
    with psycopg.connect(roles.dsn("stranger"), autocommit=True) as stranger:
        table = "pg_temp.sessions" if temporary else f"{schema}.theirs"
        for function in functions:
            stranger.execute(f"CREATE TABLE {table} (id uuid, version bigint, resource text, token bigint,"  # type: ignore[arg-type]
                             " session_id uuid, user_id text, updated_at timestamptz)")  # fmt: skip
            for when in ("BEFORE INSERT", "AFTER UPDATE", "AFTER DELETE"):
                with pytest.raises(psycopg.errors.InsufficientPrivilege):
                    forge(
                        stranger,
                        table,
                        f"t {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {schema}.{function}",
                    )
            stranger.execute(f"DROP TABLE {table}")  # type: ignore[arg-type]
    all_is_delivered(node)
    assert node.stats().events == before.events and not lock.lost.is_set()


def test_no_function_of_ours_is_everybodys(roles: Roles, schema: str, node: pgsession.SessionManager) -> None:
    roles.execute("owner", f"GRANT USAGE, CREATE ON SCHEMA {schema} TO {roles.stranger}")
    calls = roles.execute(
        "stranger",
        "SELECT concat(oid::regproc, '(', array_to_string(ARRAY(SELECT 'NULL::' || format_type(t, NULL)"
        f" FROM unnest(proargtypes) t), ', '), ')') FROM pg_proc WHERE pronamespace = '{schema}'::regnamespace"
        " AND prorettype <> 'trigger'::regtype",
    )
    assert len(calls) > 20
    for (call,) in calls:
        with pytest.raises(psycopg.errors.InsufficientPrivilege, match="permission denied for function"):
            roles.execute("stranger", f"SELECT {call}")


@pytest.fixture
def operator(roles: Roles, schema: str, node: pgsession.SessionManager) -> psycopg.Connection[Any]:
    """Who may delete sessions, and nothing else."""
    roles.execute("owner", f"GRANT USAGE ON SCHEMA {schema} TO {roles.operator}")
    roles.execute("owner", f"GRANT SELECT, DELETE ON {schema}.sessions TO {roles.operator}")
    return psycopg.connect(roles.dsn("operator"), autocommit=True)


def test_who_may_delete_sessions_can_and_is_heard(
    roles: Roles, schema: str, node: pgsession.SessionManager, operator: psycopg.Connection[Any]
) -> None:
    session, other = (node.create_session("ann", {"n": 1}) for _ in range(2))
    lock = node.lock("r", session_id=session.id)
    lock.acquire()
    until_cached(node, session.id)
    with operator:
        operator.execute(f"DELETE FROM {schema}.sessions WHERE id = %s", (session.id,))  # type: ignore[arg-type]
        for forbidden in ("SELECT secret FROM {0}.session_incarnation", "DELETE FROM {0}.session_attributes"):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                operator.execute(forbidden.format(schema))  # type: ignore[arg-type]
    until(lambda: node.get_session(session.id) is None, "the deletion")
    until(lock.lost.is_set, "the end of its lock")
    left = roles.execute("owner", f"SELECT session_id FROM {schema}.session_attributes")
    assert left == [(other.id,)]


def test_who_may_delete_sessions_says_nothing_else(
    schema: str, node: pgsession.SessionManager, operator: psycopg.Connection[Any]
) -> None:
    """What a statement changed is collected in a setting, which anybody can set."""
    lock = node.lock("r")
    lock.acquire()
    with operator:
        for forged in (f" L{b'r'.hex()}:{lock.token}", f" d{'0' * 32} L{b'r'.hex()}:{lock.token}", " M"):
            operator.execute("SELECT set_config('pgsession.noted', %s, false)", (forged,))
            operator.execute(f"DELETE FROM {schema}.sessions WHERE false")  # type: ignore[arg-type]
    all_is_delivered(node)
    assert not lock.lost.is_set() and node.stats().listener_losses == 0


def test_who_fires_a_trigger_is_not_told_the_name(
    roles: Roles, schema: str, node: pgsession.SessionManager
) -> None:
    """Anybody may have the server report to him what it runs for him, inside of our functions too."""
    sessions = [node.create_session("ann", {"n": 1}) for _ in range(3)]
    for number, session in enumerate(sessions):
        node.lock(f"r{number}", session_id=session.id).acquire()
    tables = ("sessions", "session_attributes", "session_locks")
    roles.execute("owner", f"GRANT USAGE ON SCHEMA {schema} TO {roles.operator}")
    for table in tables:
        roles.execute("owner", f"GRANT ALL ON {schema}.{table} TO {roles.operator}")
    said: list[str] = []
    with psycopg.connect(roles.dsn("operator"), autocommit=True) as operator:
        operator.add_notice_handler(
            lambda notice: said.extend((notice.message_primary or "", notice.message_detail or ""))
        )
        operator.execute("SET client_min_messages = debug1")
        for setting in ("trace_notify", "debug_print_parse", "debug_print_rewritten", "debug_print_plan"):
            operator.execute(f"SET {setting} = on")  # type: ignore[arg-type]
        operator.execute(f"UPDATE {schema}.sessions SET group_id = 'g'")  # type: ignore[arg-type]
        operator.execute(f"DELETE FROM {schema}.sessions WHERE id = %s", (sessions[0].id,))  # type: ignore[arg-type]
        operator.execute(f"DELETE FROM {schema}.session_locks WHERE resource = 'r1'")  # type: ignore[arg-type]
        for table in reversed(tables):
            operator.execute(f"TRUNCATE {schema}.{table}")  # type: ignore[arg-type]
    words = " ".join(" ".join(said).split())
    assert "pg_notify" in words and "AtCommit_Notify" in words  # it was told something
    values = (
        bytes(int(number) & 255 for number in value.split())
        for value in re.findall(r"\[((?: -?\d+)+) \]", words)
    )
    words += b" ".join(values).decode(errors="replace")
    assert NAME.findall(words) == []


def test_no_name_of_a_channel_is_in_the_log_or_in_what_others_run(own_server: Callable[..., Any]) -> None:
    """Whatever is logged: not when listening, writing, proving, or moving to another name."""
    server = own_server(
        settings={"log_statement": "all", "log_min_duration_statement": "0", "log_lock_waits": "on"}
    )
    dsn = make_conninfo(server.conninfo, application_name="node")
    config = pgsession.Config(create_schema_if_missing=True, max_staleness=0.3)
    seen = set()
    with (
        pgsession.SessionManager(dsn, config) as node,
        psycopg.connect(server.conninfo, autocommit=True) as watch,
        pgsession.Listener(dsn) as shared,
    ):

        def look() -> None:
            rows = watch.execute(
                "SELECT query FROM pg_stat_activity WHERE application_name = 'node'"
            ).fetchall()
            seen.update(NAME.findall(str(rows)))

        with pgsession.SessionManager(dsn, config, listener=shared) as other:
            look()
            live(other)
            look()
            watch.execute("DELETE FROM sessions")
            watch.execute("TRUNCATE sessions")
        look()
        live(node)
        all_is_delivered(node)
        look()
        seen.update(NAME.findall(str(watch.execute("SELECT prosrc FROM pg_proc").fetchall())))
    assert seen == set() and NAME.findall((Path(server.folder) / "log").read_text()) == []
