"""Whatever a role's settings are by default, everything is stored, read and announced as by any other node."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

import pgsession
from tests.aio.conftest import OpenAsyncManager
from tests.aio.helpers import eventually
from tests.crew import AsyncCrew
from tests.tables import Tables

USER = "ünser 'Nutzer' \\n \\\\ NULL"
SETTINGS = {
    "spellings": {
        "array_nulls": "off",
        "bytea_output": "escape",
        "client_encoding": "LATIN1",
        "DateStyle": "German,DMY",
        "extra_float_digits": "-15",
        "IntervalStyle": "sql_standard",
        "TimeZone": "Asia/Kathmandu",
        "transform_null_equals": "on",
        "xmlbinary": "hex",
    },
    "strings": {
        "standard_conforming_strings": "off",
        "escape_string_warning": "on",
        "backslash_quote": "off",
        "quote_all_identifiers": "on",
    },
    "transactions": {
        "default_transaction_isolation": "serializable",
        "default_transaction_read_only": "on",
        "default_transaction_deferrable": "on",
        "lock_timeout": "1",
        "idle_in_transaction_session_timeout": "1000",
    },
    "plans": {
        "debug_parallel_query": "on",
        "enable_indexscan": "off",
        "enable_bitmapscan": "off",
        "enable_hashjoin": "off",
        "plan_cache_mode": "force_custom_plan",
        "row_security": "off",
        "session_replication_role": "replica",
        "check_function_bodies": "off",
    },
    "language": {
        "plpgsql.variable_conflict": "use_column",
        "plpgsql.extra_errors": "all",
        "plpgsql.extra_warnings": "all",
    },
    "variables": {"plpgsql.variable_conflict": "use_variable"},
}


TRAPS = """
CREATE SCHEMA {0};
CREATE TABLE {0}.caught (what text);
CREATE FUNCTION {0}.cardinality(text[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN INSERT INTO {0}.caught VALUES ('cardinality'); RETURN pg_catalog.cardinality($1); END $$;
CREATE FUNCTION {0}.times(bigint, interval) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN INSERT INTO {0}.caught VALUES ('*'); RETURN $1::double precision OPERATOR(pg_catalog.*) $2; END $$;
CREATE OPERATOR {0}.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = {0}.times);
CREATE FUNCTION {0}.joined(text, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN INSERT INTO {0}.caught VALUES ('||'); RETURN pg_catalog.concat($1, $2); END $$;
CREATE OPERATOR {0}.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = {0}.joined);
"""


def options(settings: dict[str, str]) -> str:
    return " ".join(f"-c {name}={value}" for name, value in settings.items())


@pytest.mark.parametrize("kind", SETTINGS)
async def test_everything_works_with_hostile_defaults(
    open_manager: OpenAsyncManager, dsn: str, tables: Tables, kind: str
) -> None:
    settings = dict(SETTINGS[kind])
    if not tables.run("SELECT FROM pg_settings WHERE name = 'debug_parallel_query'"):
        settings.pop("debug_parallel_query", None)  # of PostgreSQL 16
    other = await open_manager(last_access_update_interval=3600)
    node = await open_manager(
        make_conninfo(dsn, options=options(settings)), last_access_update_interval=0.05, max_sessions=3
    )
    session = await node.create_session(USER, {"ключ \\'": "värde \\ 'x'", "n": [1]})
    await node.create_session("NULL", {"a": 1}, group_id="NULL")
    read = await other.get_session(session.id)
    assert read is not None and (read.user_id, read.group_id) == (USER, None)
    assert dict(read) == {"ключ \\'": "värde \\ 'x'", "n": [1]} and read.expires_at == session.expires_at
    # Read again, and found by its user.
    again = await node.get_session(session.id, refresh=True)
    assert again is not None and dict(again) == dict(read) and again.user_id == USER
    assert [one.id for one in await node.list_user_sessions(USER)] == [session.id]
    assert [one.id for one in await other.list_user_sessions(USER)] == [session.id]
    # Changed, in both directions.
    again["n"].append(2)
    again.set("é", "ß", expires_in=1000)
    await node.update_session(again, check="attributes", group_id="grüppe")

    async def heard() -> bool:
        seen = await other.get_session(session.id)
        return seen is not None and seen.group_id == "grüppe" and seen.get("é") == "ß"

    await eventually(heard)
    assert [one.id for one in await other.list_group_sessions("grüppe")] == [session.id]
    read = await other.get_session(session.id)
    assert read is not None
    read["n"] = "other"
    await other.update_session(read)

    async def heard_back() -> bool:
        seen = await node.get_session(session.id)
        return seen is not None and seen["n"] == "other"

    await eventually(heard_back)
    again["n"] = 5
    with pytest.raises(pgsession.ConflictError):
        await node.update_session(again, check="session")
    # Locks, evictions, accesses, resyncs, ends.
    async with node.lock("schlüssel", session_id=session.id, lease_time=60) as lock:
        await lock.extend(100)
        assert not await other.lock("schlüssel").acquire(blocking=False)
    for _ in range(3):
        await node.create_session(USER)
    assert len(await node.list_user_sessions(USER)) == 3
    assert len(await other.list_user_sessions(USER)) == 3
    before = node.stats()

    async def written() -> bool:
        (newest, *_) = await node.list_user_sessions(USER)
        return node.stats().written_accesses > before.written_accesses or not await node.get_session(
            newest.id
        )

    await eventually(written)
    tables.run("SELECT pg_terminate_backend(%s)", node._open_runtime().listener.pid)

    async def resynced() -> bool:
        return node.stats().resyncs > before.resyncs and node._coherence.in_sync

    await eventually(resynced)
    await node.evict_user_sessions(USER)
    assert await node.delete_attribute_from_user_sessions("NULL", "a") == 1
    assert await node.delete_user_sessions(USER) == 3
    assert await node.delete_group_sessions("NULL") == 1
    assert await other.list_user_sessions(USER) == []
    assert node.stats().failed_writes == node.stats().malformed_events == other.stats().malformed_events == 0


async def test_a_strangers_functions_on_the_path_are_not_called(
    open_manager: OpenAsyncManager, dsn: str, schema: str, tables: Tables
) -> None:
    """Neither by the service nor by an operator's plain SQL: they would run with those rights."""
    evil = f"{schema}_evil"
    path = options({"search_path": f"{evil},pg_catalog"})
    with psycopg.connect(dsn, autocommit=True) as stranger:
        stranger.execute(TRAPS.format(evil))  # type: ignore[call-overload]
        try:
            node = await open_manager(make_conninfo(dsn, options=path), max_sessions=2)
            for _ in range(3):
                session = await node.create_session("u", {"a": 1})
            session["a"] = 2
            await node.update_session(session, check="attributes")
            async with node.lock("r", session_id=session.id):
                pass
            await node.list_user_sessions("u")
            await node.delete_session(session.id)
            with psycopg.connect(make_conninfo(dsn, options=path), autocommit=True) as operator:
                operator.execute(tables.query("UPDATE {session_attributes} SET value = '3'"))
                operator.execute(tables.query("DELETE FROM {sessions}"))
            assert stranger.execute(f"SELECT DISTINCT what FROM {evil}.caught").fetchall() == []  # type: ignore[call-overload]
            await node.close()
        finally:
            stranger.execute(f"SET client_min_messages = warning; DROP SCHEMA {evil} CASCADE")  # type: ignore[call-overload]


async def test_no_default_makes_a_write_less_durable_or_hides_that_it_may_be(
    open_manager: OpenAsyncManager, own_server: Callable[..., Any]
) -> None:
    server = own_server()
    path = make_conninfo(
        server.conninfo, options=options({"synchronous_commit": "local", "client_min_messages": "error"})
    )
    node = await open_manager(path, schema_name="public", cleanup_interval=0)
    session = await node.create_session("u", {"n": 1})
    session["n"] = 2
    crew = AsyncCrew()
    with psycopg.connect(server.conninfo, autocommit=True) as operator:
        operator.execute("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        operator.execute("SELECT pg_reload_conf()")
        begun = psycopg.connect(server.conninfo)
        while begun.execute("SHOW synchronous_standby_names").fetchone() != ("nobody",):
            begun.close()
            begun = psycopg.connect(server.conninfo)
        begun.close()
        crew.start(node.update_session, session)

        async def cancelled() -> bool:
            cancel = "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            return bool(operator.execute(cancel).fetchall())

        await eventually(cancelled, "a wait for the standby")
        with pytest.raises(pgsession.WriteOutcomeUnknown):
            await crew.join()
        operator.execute("ALTER SYSTEM RESET synchronous_standby_names")
        operator.execute("SELECT pg_reload_conf()")
