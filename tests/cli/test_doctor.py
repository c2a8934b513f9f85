"""Each cause that keeps a node from memory is made on a real server, and `doctor` names that and no other."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession import schema as schema_module
from pgsession._protocol import diagnosis as decisions
from pgsession._protocol import diagnosis_facts as facts
from pgsession._sync import diagnosis
from tests.aio.test_hostile_defaults import SETTINGS
from tests.chaos.cluster import Cluster
from tests.conftest import needs_postgres, start_server
from tests.fault.pgbouncer import PgBouncer
from tests.roles import Roles
from tests.tables import Tables

from .conftest import Run
from .ways import Mute, Tls

Doctor = Callable[..., dict[str, str]]


@pytest.fixture(scope="module")
def server() -> Iterator[Any]:
    """One for this file, whose settings may be changed."""
    needs_postgres()
    with start_server(tcp=True, settings={"max_connections": 60}) as started:
        yield started


@pytest.fixture(scope="module")
def dsn(server: Any) -> str:
    return str(server.conninfo)


@pytest.fixture
def doctor(run: Run, dsn: str) -> Doctor:
    """`doctor("pooler", "problem")`: that is what it finds, and nothing else."""

    def ask(
        cause: str | None = None, level: str = "problem", *options: str, database: str = dsn
    ) -> dict[str, str]:
        status = 0 if cause is None else {"problem": 1, "warning": 3}[level]
        found = {
            finding["cause"]: finding
            for finding in run("doctor", "--json", *options, database=database, status=status).json
        }
        assert list(found) == list(decisions.causes())
        wrong = {
            name: finding["level"]
            for name, finding in found.items()
            if finding["level"] in ("problem", "warning")
        }
        assert wrong == ({} if cause is None else {cause: level}), {name: found[name] for name in wrong}
        assert all((finding["remedy"] is not None) == (name in wrong) for name, finding in found.items())
        return (
            found[cause] if cause is not None else {name: finding["level"] for name, finding in found.items()}
        )

    return ask


@pytest.fixture
def admin(dsn: str, run: Run) -> Iterator[Callable[[LiteralString], Any]]:
    """Runs statements as who may do all, once the tables are there; `{}` is their schema."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        run("init")
        yield lambda statement: connection.execute(statement)


@pytest.fixture
def setting(dsn: str) -> Iterator[Callable[[str, str], None]]:
    """Changes settings of the server for the test."""

    def reload(connection: psycopg.Connection[Any], name: str, value: str) -> None:
        connection.execute("SELECT pg_reload_conf()")
        end = time.monotonic() + 20
        while value not in ("", _shown(dsn, name)):
            assert time.monotonic() < end
            time.sleep(0.01)

    with ExitStack() as changed, psycopg.connect(dsn, autocommit=True) as connection:

        def change(name: str, value: str) -> None:
            command = sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), sql.Literal(value))
            changed.callback(reload, connection, name, "")
            changed.callback(
                connection.execute, sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name))
            )
            connection.execute(command)
            reload(connection, name, value)

        try:
            yield change
        finally:
            changed.close()


def _shown(dsn: str, name: str) -> str:
    with psycopg.connect(dsn) as connection:
        ((value,),) = connection.execute("SELECT current_setting(%s)", [name]).fetchall()
    return str(value)


def test_nothing_is_found_where_nothing_is_wrong(
    run: Run, doctor: Doctor, node: pgsession.SessionManager
) -> None:
    levels = doctor()
    assert set(levels.values()) == {"well"}


def test_people_are_told_the_same(run: Run, dsn: str) -> None:
    told = run("doctor", database=dsn, status=1).out
    assert all(f" {name} " in told for name in decisions.causes())
    assert (
        told.count("PROBLEM  schema_missing ") == 1
        and told.count("remedy: run `python -m pgsession init ") == 1
    )


@pytest.mark.parametrize("kind", ["strings", "transactions"])
def test_a_roles_settings_and_its_search_path_are_no_cause(
    doctor: Doctor, run: Run, dsn: str, admin: Callable[[LiteralString], Any], tables: Tables, kind: str
) -> None:
    tables.run(
        "CREATE FUNCTION {schema}.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz'"
    )
    given = (
        SETTINGS[kind]
        | SETTINGS["spellings"]
        | SETTINGS["plans"]
        | {"search_path": f"{tables.schema},pg_catalog", "lock_timeout": "0"}
    )
    options = " ".join(f"-c {name}={value.replace(' ', chr(92) + ' ')}" for name, value in given.items())
    assert set(doctor(database=make_conninfo(dsn, options=options)).values()) == {"well"}


def test_a_service_may_ask(doctor: Doctor, roles: Roles, run: Run) -> None:
    run("init", "--grant-to", roles.service, database=roles.dsn("owner"))
    levels = doctor(database=roles.dsn("service"))
    assert {name for name, level in levels.items() if level != "well"} == {"long_transactions"}
    assert levels["long_transactions"] == "unknown"


# -- the server --------------------------------------------------------------------------------------------------


def test_connection(doctor: Doctor) -> None:
    assert "/nowhere" in doctor("connection", database="host=/nowhere")["message"]


def test_connections(
    doctor: Doctor, dsn: str, roles: Roles, run: Run, admin: Callable[[LiteralString], Any]
) -> None:
    with psycopg.connect(dsn, autocommit=True) as connection:
        for command in (
            "ALTER ROLE {} CONNECTION LIMIT 7",
            "GRANT pg_read_all_stats TO {}",
            "ALTER ROLE {} PASSWORD 'p'",
        ):
            connection.execute(sql.SQL(command).format(sql.Identifier(roles.service)))
    run("init", "--grant-to", roles.service)
    service = make_conninfo(dsn, user=roles.service, password="p")
    found = doctor("connections", "warning", database=service)
    assert "only 6 connections" in found["message"] and "9 at most" in found["remedy"]
    with ExitStack() as others:
        for _ in range(7):
            others.enter_context(psycopg.connect(service))
        assert "no connection left" in doctor("connections", database=service)["message"]


def test_server_version() -> None:
    """There is none so old here: what is decided of what it would say."""
    server = facts.Server(
        version="13.1", version_number=130001, role="r", standby=False, now=0, place="", connections_left=50,
        sees_transactions=True, transactions=[], locks=[], autovacuum=True, not_vacuumed=[], synchronous_standbys="",
        queue_usage=0,
    )  # fmt: skip
    found = decisions.findings(facts.Facts(needed=9, server=server, clock=(0, 0), held=[]))
    assert [finding.cause for finding in found if finding.level == "problem"] == ["server_version"]


def test_standby_and_synchronous_standbys(doctor: Doctor, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    if sys.platform == "win32":
        pytest.skip("the servers of a cluster are reached by Unix sockets")
    monkeypatch.setattr(diagnosis, "PATIENCE", 1.0)
    with Cluster() as cluster:
        primary, standby = cluster.primary.conninfo, cluster.standby.conninfo
        run("init", database=primary)
        assert set(doctor(database=primary).values()) == {"well"}
        assert "the server is a standby" in doctor("standby", database=standby)["message"]
        found = doctor("standby", "problem", "--listener-conninfo", standby, database=primary)
        assert "the listener's server is a standby" in found["message"]
        hosts = [psycopg.conninfo.conninfo_to_dict(each)["host"] for each in (standby, primary)]
        both = make_conninfo(primary, host=",".join(map(str, hosts)))
        assert set(doctor(database=both).values()) == {"well"}
        cluster.standby.stop("immediate")
        assert "chaos" in doctor("synchronous_standbys", database=primary)["message"]


def test_tls_is_not_used(doctor: Doctor, dsn: str, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """On an address of this machine that is taken for another's."""
    monkeypatch.setattr(diagnosis, "_is_local", lambda info: False)
    found = doctor("tls", "warning", database=make_conninfo(dsn, sslmode="disable"))
    assert "in clear" in found["message"]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """One for this machine, which signs itself, and its key."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("needs the program openssl")
    certificate, key = (tmp_path_factory.mktemp("tls") / name for name in ("server.crt", "server.key"))
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
         "-keyout", key, "-out", certificate, "-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"],
        check=True, capture_output=True, timeout=60,
    )  # fmt: skip
    return certificate, key


def test_tls_verifies_nothing(
    doctor: Doctor, dsn: str, admin: Any, certificate: tuple[Path, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnosis, "_is_local", lambda info: False)
    with Tls(dsn, *certificate, sslmode="require") as way:
        assert (
            "sslmode=require verifies nothing" in doctor("tls", "warning", database=way.conninfo)["message"]
        )
    with Tls(dsn, *certificate, sslmode="verify-full", sslrootcert=str(certificate[0])) as way:
        assert set(doctor(database=way.conninfo).values()) == {"well"}
        monkeypatch.setenv("PGSESSION_LISTENER_CONNINFO", make_conninfo(dsn, sslmode="disable"))
        assert (
            "the listener's connection is in clear"
            in doctor("tls", "warning", database=way.conninfo)["message"]
        )


@pytest.mark.parametrize(("apart", "word"), [(5, "ahead of"), (-5, "behind")])
def test_clock(doctor: Doctor, admin: Any, monkeypatch: pytest.MonkeyPatch, apart: int, word: str) -> None:
    now = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now() + apart * 1_000_000_000)
    assert word in doctor("clock", "warning")["message"]


def test_long_transactions(doctor: Doctor, dsn: str, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    with psycopg.connect(dsn) as other:
        other.execute("SELECT 1")
        assert set(doctor().values()) == {"well"}
        monkeypatch.setattr(diagnosis, "LONG_TRANSACTION", 0)
        found = doctor("long_transactions", "warning")
        process = other.info.backend_pid
    assert f"process {process} " in found["message"] and "idle in transaction" in found["message"]


def test_autovacuum_of_the_server(doctor: Doctor, admin: Any, setting: Callable[[str, str], None]) -> None:
    setting("autovacuum", "off")
    assert "autovacuum is off" in doctor("autovacuum", "warning")["message"]


def test_autovacuum_of_a_table(doctor: Doctor, admin: Any, tables: Tables) -> None:
    tables.run("ALTER TABLE {sessions} SET (autovacuum_enabled = no)")
    assert "turned off for sessions" in doctor("autovacuum", "warning")["message"]


# -- the tables --------------------------------------------------------------------------------------------------


def test_schema_missing(doctor: Doctor) -> None:
    doctor("schema_missing")


def test_schema_older(doctor: Doctor, admin: Any, tables: Tables, monkeypatch: pytest.MonkeyPatch) -> None:
    tables.run("DROP FUNCTION {schema}.session_unregister_1")
    monkeypatch.setattr(schema_module, "latest_version", lambda: 2)
    assert "at version 1, and must be at 2" in doctor("schema_older")["message"]


def test_schema_newer(doctor: Doctor, admin: Any, tables: Tables) -> None:
    tables.run(
        "SET pgsession.own = 'on'; INSERT INTO {schema}.session_schema_version (version, name, serves_from)"
        " VALUES (9, 'later', 8)"
    )
    assert "pgsession" in doctor("schema_newer")["remedy"]


@pytest.mark.parametrize(
    "command",
    [
        "DROP FUNCTION {schema}.session_lock_acquire_1",
        "DROP TABLE {schema}.session_nodes",
        "DROP TRIGGER pgsession_3_send ON {sessions}",
    ],
)
def test_incomplete(doctor: Doctor, admin: Any, tables: Tables, command: LiteralString) -> None:
    tables.run(command)
    doctor("incomplete")


def test_ownership(doctor: Doctor, run: Run, dsn: str, roles: Roles, tables: Tables) -> None:
    """Tables that whoever may create in that schema could have made."""
    with psycopg.connect(dsn, autocommit=True) as connection:
        for command in (
            "ALTER SCHEMA {schema} OWNER TO postgres",
            "GRANT CREATE, USAGE ON SCHEMA {schema} TO PUBLIC",
        ):
            connection.execute(sql.SQL(command).format(schema=sql.Identifier(tables.schema)))
    run("init", "--grant-to", roles.service, database=roles.dsn("stranger"))
    found = doctor("ownership", database=roles.dsn("service"))
    assert "a stranger" in found["message"] and "REVOKE CREATE" in found["remedy"]


def test_rights(doctor: Doctor, run: Run, roles: Roles) -> None:
    run("init", database=roles.dsn("owner"))
    assert f"--grant-to {roles.service}" in doctor("rights", database=roles.dsn("service"))["remedy"]


@pytest.mark.parametrize("state", ["DISABLE", "ENABLE", "ENABLE REPLICA"])
def test_triggers(doctor: Doctor, run: Run, admin: Any, tables: Tables, state: LiteralString) -> None:
    tables.run("ALTER TABLE {sessions} " + state + " TRIGGER pgsession_2_note")
    assert "pgsession_2_note" in doctor("triggers")["message"]
    run("init")
    assert set(doctor().values()) == {"well"}


def test_public_functions(doctor: Doctor, run: Run, admin: Any, tables: Tables) -> None:
    tables.run("GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA {schema} TO PUBLIC")
    doctor("public_functions")
    run("init")
    assert set(doctor().values()) == {"well"}


def test_incarnation(doctor: Doctor, admin: Any, tables: Tables) -> None:
    tables.run("DELETE FROM {schema}.session_incarnation")
    doctor("incarnation", "warning")


@pytest.mark.parametrize("table", ["sessions", "session_schema_version", "session_incarnation"])
def test_locked_tables(doctor: Doctor, dsn: str, admin: Any, tables: Tables, table: LiteralString) -> None:
    with psycopg.connect(dsn) as other:
        other.execute(tables.query("LOCK TABLE {schema}." + table))
        assert f"{table} AccessExclusiveLock {other.info.backend_pid}" in doctor("locked_tables")["message"]


def test_a_lock_that_hinders_nobody_is_no_cause(doctor: Doctor, dsn: str, admin: Any, tables: Tables) -> None:
    with psycopg.connect(dsn) as other:
        other.execute(tables.query("LOCK TABLE {sessions} IN SHARE UPDATE EXCLUSIVE MODE"))  # as vacuum does
        assert set(doctor().values()) == {"well"}


# -- the listener ------------------------------------------------------------------------------------------------


def test_listener_connection(doctor: Doctor, admin: Any) -> None:
    doctor("listener_connection", "problem", "--listener-conninfo", "host=/nowhere")


def test_pooler(doctor: Doctor, dsn: str, admin: Any) -> None:
    with PgBouncer(dsn) as bouncer:
        assert "Config.listener_conninfo" in doctor("pooler", database=bouncer.conninfo)["remedy"]


def test_a_pooler_that_the_listener_goes_past_is_no_cause(
    doctor: Doctor, dsn: str, admin: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGSESSION_LISTENER_CONNINFO", dsn)
    with PgBouncer(dsn) as bouncer:
        assert set(doctor(database=bouncer.conninfo).values()) == {"well"}


def test_other_database(
    doctor: Doctor, admin: Any, dsn: str, schema: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    admin(f"CREATE DATABASE {schema}")  # type: ignore[arg-type]
    try:
        monkeypatch.setenv("PGSESSION_LISTENER_CONNINFO", make_conninfo(dsn, dbname=schema))
        doctor("other_database")
    finally:
        admin(f"DROP DATABASE {schema} WITH (FORCE)")  # type: ignore[arg-type]


def test_notifications(doctor: Doctor, dsn: str, admin: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(diagnosis, "PATIENCE", 1.0)
    with Mute(dsn) as way:
        monkeypatch.setenv("PGSESSION_LISTENER_CONNINFO", way.conninfo)
        assert "had not arrived" in doctor("notifications")["message"]


@pytest.mark.parametrize(("share", "level"), [(0.3, "warning"), (1, "problem")])
def test_notification_queue(
    doctor: Doctor, run: Run, own_server: Callable[..., Any], server: Any, share: float, level: str
) -> None:
    """A session that listens, and stays in a transaction."""
    if int(_shown(server.conninfo, "server_version_num")) < 170_000:
        pytest.skip("the queue of PostgreSQL 14 to 16 has 8 GB, always")
    small = own_server(settings={"max_notify_queue_pages": 64})
    run("init", database=small.conninfo)
    with (
        psycopg.connect(small.conninfo, autocommit=True) as reader,
        psycopg.connect(small.conninfo, autocommit=True) as writer,
    ):
        reader.execute("LISTEN c")
        reader.execute("BEGIN")
        reader.execute("SELECT 1")
        try:
            for number in range(int(64 * share)):
                writer.execute("SELECT pg_notify('c', repeat('x', 7900) || %s)", [number])
        except psycopg.errors.ProgramLimitExceeded:
            assert share == 1
        doctor("notification_queue", level, database=small.conninfo)


def test_each_cause_is_made() -> None:
    """Or is the one that cannot be."""
    made = set(re.findall(r'\bdoctor\(\s*"(\w+)"', Path(__file__).read_text(encoding="utf-8")))
    assert made | {"server_version"} == set(decisions.causes())
