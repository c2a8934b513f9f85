"""What we do does not depend on what the session that it runs in was told, nor on who else may create in its path."""

from __future__ import annotations

import secrets
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from pgsession import schema as schema_module
from pgsession._database.arrays import NONE, integer_array, uuid_array
from pgsession._database.connections import lost_durability
from pgsession._database.statements import NIL, Statements, write_arguments
from pgsession._database.templates import FUNCTIONS, parameter_types
from pgsession._protocol.events import Changed

from .conftest import DAY, HOUR, Database, run, with_answer_of

# Functions and operators that match our calls exactly, or better than the server's own polymorphic ones do.
TRAPS = """
CREATE TABLE {evil}.caught (what text);
CREATE FUNCTION {evil}.caught(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN INSERT INTO {evil}.caught VALUES (what); END $$;
CREATE FUNCTION {evil}.cardinality(text[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('cardinality'); RETURN pg_catalog.cardinality($1); END $$;
CREATE FUNCTION {evil}.cardinality(bigint[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('cardinality'); RETURN pg_catalog.cardinality($1); END $$;
CREATE FUNCTION {evil}.cardinality(uuid[]) RETURNS integer LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('cardinality'); RETURN pg_catalog.cardinality($1); END $$;
CREATE FUNCTION {evil}.times(bigint, interval) RETURNS interval LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('*'); RETURN $1::double precision OPERATOR(pg_catalog.*) $2; END $$;
CREATE OPERATOR {evil}.* (LEFTARG = bigint, RIGHTARG = interval, FUNCTION = {evil}.times);
CREATE FUNCTION {evil}.scaled(numeric, integer) RETURNS numeric LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('*'); RETURN $1 OPERATOR(pg_catalog.*) $2::numeric; END $$;
CREATE OPERATOR {evil}.* (LEFTARG = numeric, RIGHTARG = integer, FUNCTION = {evil}.scaled);
CREATE FUNCTION {evil}.joined(text, text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('||'); RETURN pg_catalog.concat($1, $2); END $$;
CREATE OPERATOR {evil}.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = {evil}.joined);
CREATE FUNCTION {evil}.later(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('>'); RETURN true; END $$;
CREATE OPERATOR {evil}.> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = {evil}.later);
CREATE FUNCTION {evil}.same(uuid, uuid) RETURNS boolean LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('='); RETURN true; END $$;
CREATE OPERATOR {evil}.= (LEFTARG = uuid, RIGHTARG = uuid, FUNCTION = {evil}.same);
CREATE FUNCTION {evil}.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('set_config'); RETURN ''; END $$;
CREATE FUNCTION {evil}.current_setting(text, boolean) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('current_setting'); RETURN 'on'; END $$;
CREATE FUNCTION {evil}.current_setting(text) RETURNS text LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('current_setting'); RETURN 'on'; END $$;
CREATE FUNCTION {evil}.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('pg_notify'); END $$;
CREATE FUNCTION {evil}.clock_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('clock_timestamp'); RETURN '2000-01-01'; END $$;
CREATE FUNCTION {evil}.statement_timestamp() RETURNS timestamptz LANGUAGE plpgsql AS $$
BEGIN PERFORM {evil}.caught('statement_timestamp'); RETURN '2000-01-01'; END $$;
CREATE DOMAIN {evil}.uuid AS text;
CREATE DOMAIN {evil}.text AS bytea;
"""


@pytest.fixture
def path(database: Database) -> Iterator[str]:
    """A `search_path` on which another role's traps come before everything."""
    name = f"evil_{secrets.token_hex(4)}"
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE SCHEMA {}").format(sql.Identifier(name)))
        connection.execute(sql.SQL(TRAPS).format(evil=sql.Identifier(name)))
        yield f"{name}, pg_catalog, {database.schema}"
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(name)))


def caught(database: Database, path: str) -> list[Any]:
    """The traps that were stepped on."""
    return database.execute(f"SELECT DISTINCT what FROM {path.split(',')[0]}.caught")


def test_every_statement_calls_what_it_names(database: Database, path: str) -> None:
    statements, node = database.statements, database.node
    session, _, third = (database.create("ann", {"a": 1}, group="g") for _ in range(3))
    connection = database.connect(search_path=path)
    ear = database.ear()

    def call(script: Any) -> Any:
        return run(connection, script)

    assert database.write(connection, update=[database.change(session, 1, {"a": 2})])["update"][0][1] == "ok"
    assert ear.items() == [Changed(bytes.fromhex(session), 2)]
    checked = database.change(session, 1, {"a": 3}, check="attributes")
    assert database.write(connection, update=[checked])["update"][0][1] == "attributes"
    item = database.new("ann", {"b": 1}, limit=3)
    assert database.write(connection, create=[item])["create"][0][1] == "ok"
    assert database.write(connection, delete=[[0, third], [1, "c" * 32]])["delete"][0][1] in ("ok", "gone")
    owner = uuid.uuid4().hex
    assert call(statements.acquire("r", owner, HOUR, item[1]))[0] is True
    assert call(statements.renew("r", owner, 2 * HOUR)) is not None
    assert call(statements.release(node, "r", owner))[0] is True
    call(statements.write_accesses(uuid_array([bytes.fromhex(session)]), integer_array([database.now()])))
    call(statements.drop_attribute(node, "ann", "b"))
    for what in ("expired", "inactive", "attributes", "locks", "nodes"):
        call(statements.cleanup(node, what, 0))  # type: ignore[arg-type]
    call(statements.incarnate())
    assert call(statements.register(node, HOUR))[:2] == (1, HOUR)
    incarnation, asked, _, serving = connection.execute(statements.ask_nodes, (node,)).fetchone() or ()
    assert serving == f'{{ "{node}" : {HOUR} }}'
    silent = statements.silent_nodes, (f'["{node}"]', asked)
    assert connection.execute(*silent).fetchone() == (incarnation, f'["{node}"]')
    call(statements.acknowledge(node, int(asked), incarnation))
    assert connection.execute(*silent).fetchone() == (incarnation, "[]")
    assert call(statements.send_beacon(node, 2**40, False))[1] is True
    call(statements.unregister(node))
    for query, parameters in (
        (statements.read, (item[1],)),
        (statements.list_user, ("ann", None, None, None, 100)),
        (statements.list_user, ("ann", 2**53, 2**53, "f" * 32, 100)),
        (statements.list_group, ("g", None, None, None, 100)),
        (statements.read_many, ("{" + session + "}",)),
        (statements.count, (None, None, "g", "g")),
        (statements.resync, (uuid_array([bytes.fromhex(session)]), integer_array([1]), integer_array([1]))),
        (statements.look, ()),
        (statements.where, ()),
        (statements.notify, (node, "A")),
    ):
        assert connection.execute(query, parameters).fetchone() is not None
    schema_module.check(connection, statements)
    assert database.read(item[1]) is not None
    call(statements.delete_user(node, "ann"))
    call(statements.delete_group(node, "g"))
    call(statements.delete_all(node, NIL))
    assert database.execute("SELECT count(*) FROM app_sessions") == [(0,)]
    assert caught(database, path) == []


@pytest.mark.parametrize(
    "edit",
    [
        "UPDATE {schema}.app_sessions SET group_id = 'x'",
        "DELETE FROM {schema}.app_sessions",
        "UPDATE {schema}.app_session_attributes SET value = '2'",
        "INSERT INTO {schema}.app_sessions (user_id, expires_at) VALUES ('bob', '2100-01-01')",
        "TRUNCATE {schema}.app_sessions",
        "DELETE FROM {schema}.app_session_locks",
    ],
)
def test_plain_sql_fires_only_our_own_functions(database: Database, path: str, edit: str) -> None:
    """Else they would run with the rights of whoever edits, a superuser, say."""
    session = database.create("ann", {"a": 1})
    database.run(database.statements.acquire("r", uuid.uuid4().hex, HOUR, session))
    ear = database.ear()
    connection = database.connect(search_path=path)
    connection.execute(edit.format(schema=database.schema))  # type: ignore[arg-type]
    assert ear.items() and caught(database, path) == []


def test_tables_are_made_of_the_servers_own_types(database: Database, path: str) -> None:
    schema_module.create(database.connect(search_path=path), database.schema, "more_")
    types = (
        "SELECT DISTINCT b.typnamespace::regnamespace::text FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " JOIN pg_type b ON b.oid = coalesce(nullif(t.typbasetype, 0), t.oid)"
        " WHERE a.attrelid = 'more_sessions'::regclass"
    )
    assert database.execute(types) == [("pg_catalog",)]
    domains = (
        "SELECT DISTINCT t.typnamespace FROM pg_attribute a JOIN pg_type t ON t.oid = a.atttypid"
        " WHERE a.attrelid = 'more_sessions'::regclass AND t.typtype = 'd'"
    )
    assert database.execute(f"SELECT n = %s::regnamespace FROM ({domains}) d(n)", database.schema) == [
        (True,)
    ]
    assert caught(database, path) == []


def test_every_function_has_a_path_of_its_own(database: Database) -> None:
    rows = database.execute(
        "SELECT proname, array_to_string(proconfig, ';') FROM pg_proc WHERE pronamespace = %s::regnamespace",
        database.schema,
    )
    assert len(rows) > 30
    assert [name for name, config in rows if "search_path=pg_catalog, pg_temp" not in (config or "")] == []


def test_null_in_an_array_means_null_to_nobody_but_us(database: Database) -> None:
    connection = database.connect(array_nulls="off")
    soon = database.now() + DAY
    items = [
        database.new("ann", i=0, group="g", values=[["a", "1", soon], ["b", "1", None]]),
        database.new("ann", i=1),
        database.new("ann", i=2, group="NULL"),
        database.new("ann", i=3, group=""),
    ]
    assert [one[1] for one in database.write(connection, create=items)["create"]] == ["ok"] * 4
    groups = [database.read(item[1])[3] for item in items]  # type: ignore[index]
    assert groups == ["g", None, "NULL", ""]
    ends = [attribute[2] for attribute in database.read(items[0][1])[9]]  # type: ignore[index]
    assert ends == [soon, None]
    one, two, three = (database.version(item[1]) for item in items[:3])
    updates = [
        database.change(items[0][1], one, group=None, expires=soon + HOUR, owner_since=one),
        database.change(items[1][1], two, {"c": 1}, i=1, attribute_expires=soon, group="h", owner_since=two),
        database.change(items[2][1], three, {"c": 1}, i=2, owner_since=three),
    ]
    assert [one[1] for one in database.write(connection, update=updates)["update"]] == ["ok"] * 3
    read = [database.read(item[1]) for item in items[:3]]
    assert [snapshot[3] for snapshot in read if snapshot] == [None, "h", "NULL"]
    assert read[0] is not None and read[0][7] == soon + HOUR
    assert read[2] is not None and read[2][9] == [["c", read[2][1], None, 1]] and read[2][7] == items[2][5]


def test_no_number_of_ours_stands_for_none(database: Database) -> None:
    assert database.execute(f"SELECT {NONE + 1} - 1 = '{NONE}'::bigint") == [(True,)]


@pytest.mark.parametrize("level", ["local", "off", "remote_write", "on", "remote_apply"])
@pytest.mark.parametrize("commit", ["split", "plain"])
def test_no_default_makes_a_commit_less_durable(database: Database, level: str, commit: Any) -> None:
    """Nor hides the warning of a commit that stopped waiting for its standbys."""
    connection = database.connect(synchronous_commit=level, client_min_messages="error")
    script = database.script(update=[database.change(database.create(), 1, {"a": 1})], commit=commit)
    settings = "SELECT current_setting('synchronous_commit') || ' ' || current_setting('client_min_messages')"
    row = run(connection, with_answer_of(script, len(script.steps) - 1, settings))
    expected = "on" if level in ("local", "off") else level
    assert row == (f"{expected} warning",)
    assert connection.execute("SHOW client_min_messages").fetchone() == ("error",)


def test_a_cancelled_wait_for_a_standby_is_heard_whatever_messages_are_wanted(
    own_server: Callable[..., Any],
) -> None:
    server = own_server(settings={"synchronous_standby_names": "nobody"})
    statements = Statements()
    with (
        psycopg.connect(server.conninfo, autocommit=True) as connection,
        psycopg.connect(server.conninfo, autocommit=True) as operator,
    ):
        connection.execute("SET synchronous_commit = local")
        schema_module.create(connection)
        connection.execute("SET client_min_messages = error")
        doubts: list[Any] = []
        connection.add_notice_handler(lambda diagnostic: doubts.append(lost_durability(diagnostic)))
        writer = threading.Thread(
            target=run, args=(connection, statements.write("0" * 16, "m", write_arguments(False)))
        )
        writer.start()
        waiting = (
            "SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE pid = %s AND wait_event = 'SyncRep'"
        )
        while not operator.execute(waiting, (connection.info.backend_pid,)).fetchall():
            assert writer.is_alive(), "it did not wait for the standby"
        writer.join(30)
        assert doubts == [True]


def test_nothing_that_a_write_carries_is_in_the_servers_log_or_its_activity(
    own_server: Callable[..., Any],
) -> None:
    server = own_server(settings={"log_min_error_statement": "error"})
    with psycopg.connect(server.conninfo, autocommit=True) as connection:
        schema_module.create(connection)
    database = Database(server.conninfo, "public", "")
    session = database.create("secret-user", {"key": "secret-value"})
    locked = database.connect()
    with locked.transaction():
        locked.execute("SELECT FROM sessions FOR UPDATE")
        item = database.change(session, 1, {"key": "secret-value"})
        with pytest.raises(psycopg.errors.LockNotAvailable):
            database.write(update=[item], wait=True, lock_timeout=10)
        database.execute("ROLLBACK")
    log = (Path(server.folder) / "log").read_text()
    activity = str(locked.execute("SELECT query FROM pg_stat_activity").fetchall())
    database.close()
    assert "lock timeout" in log and "session_write_1(" in log
    for text in (log, activity):
        assert "secret" not in text and session not in text


def test_no_overload_in_our_own_schema_fits_better(database: Database) -> None:
    """Whoever may create there, as all may in `public` before PostgreSQL 15: ours are called by their exact types."""
    names = [database.statements._names[name].as_string() for name in FUNCTIONS]
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        for name, short in zip(names, FUNCTIONS, strict=True):
            types = parameter_types(short, database.statements._names)
            count = len(types)
            for least in {count, count - 1} - {0, -1}:
                if types == ["pg_catalog.text"] * least:
                    continue  # that is ours
                connection.execute(
                    f"CREATE FUNCTION {name}({', '.join(['text'] * least)}) RETURNS text LANGUAGE plpgsql AS"
                    f" $$ BEGIN RAISE EXCEPTION 'the stranger was called'; END $$"
                )
        connection.execute(
            f"CREATE FUNCTION {names[list(FUNCTIONS).index('announce')]}(text, text[]) RETURNS void"
            " LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'the stranger was called'; END $$"
        )
    fresh = database.connect()
    statements, node = database.statements, database.node
    session = database.create("ann", {"a": 1}, group="g")
    assert database.write(fresh, update=[database.change(session, 1, {"a": 2})])["update"][0][1] == "ok"
    item = database.new("ann", {"b": 1}, limit=1)
    assert database.write(fresh, create=[item])["evicted"] == [session]
    owner = uuid.uuid4().hex
    assert run(fresh, statements.acquire("r", owner, HOUR, item[1]))[0] is True
    assert run(fresh, statements.renew("r", owner, 2 * HOUR)) is not None
    assert run(fresh, statements.release(node, "r", owner))[0] is True
    run(fresh, statements.drop_attribute(node, "ann", "b"))
    for what in ("expired", "inactive", "attributes", "locks", "nodes"):
        run(fresh, statements.cleanup(node, what, 0))  # type: ignore[arg-type]
    assert run(fresh, statements.delete_user(node, "ann"))[1] == 1
