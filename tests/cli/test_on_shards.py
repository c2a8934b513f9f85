"""The commands on several servers: what is one answer, what is said of each shard, and a server that is down."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.fault_proxy import FaultProxy
from tests.roles import Roles
from tests.sharded import Shards

from .conftest import Run, Said


def file_of(shards: Shards, path: Path) -> str:
    path.write_text(
        "".join(
            f"[[shards]]\ndatabase = {json.dumps(shard.database)}\nschema_name = {json.dumps(shard.schema_name)}\n"
            for shard in shards
        )
    )
    return str(path)


@pytest.fixture
def on_shards(run: Run, empty_shards: Shards, tmp_path: Path) -> Callable[..., Said]:
    """`on_shards("sessions", "list")`: the command with a file of the shards."""
    file = file_of(empty_shards, tmp_path / "shards.toml")
    return lambda *arguments, **options: run(*arguments, "--shards", file, **options)


@pytest.fixture
def manager(empty_shards: Shards) -> Iterator[pgsession.ShardedSessionManager]:
    with pgsession.ShardedSessionManager(empty_shards) as opened:
        yield opened


def test_sessions_and_locks_are_those_of_all(
    on_shards: Callable[..., Said], manager: pgsession.ShardedSessionManager
) -> None:
    sessions = [manager.create_session(f"u{number}", {"n": number}) for number in range(12)]
    assert on_shards("sessions", "count").out == "12\n"
    listed = on_shards("sessions", "list", "--json", "--full-ids").json
    assert [each["session_id"] for each in listed] == sorted(str(each.id) for each in sessions)
    assert on_shards("sessions", "show", str(sessions[5].id), "--values", "--json").json["attributes"] == {
        "n": 5
    }
    assert on_shards("sessions", "revoke", "--user", "u3").out == "1 ended\n"
    on_shards("sessions", "revoke", "--user", "u3", status=3)
    lock = manager.lock("r")
    assert lock.acquire()
    assert [each["resource"] for each in on_shards("locks", "list", "--json").json] == ["r"]
    on_shards("locks", "break", "r")
    with pytest.raises(pgsession.LockError):
        lock.release()
    on_shards("secret", "rotate")
    assert on_shards("sessions", "revoke", "--all", "--yes").out == "11 ended\n"


def test_each_shard_is_told_of(
    on_shards: Callable[..., Said], manager: pgsession.ShardedSessionManager, empty_shards: Shards
) -> None:
    for command in (
        ["check"],
        ["doctor"],
        ["stats"],
        ["nodes"],
        ["init"],
        ["init", "--sql"],
        ["drop", "--dry-run"],
    ):
        said = on_shards(*command, status=None)
        assert said.status in (0, 3), said
        for number, shard in enumerate(empty_shards):
            assert f"shard {number}, schema '{shard.schema_name}':" in said.out
        parts = [json.loads(line) for line in on_shards(*command, "--json", status=None).out.splitlines()]
        assert [part["shard"] for part in parts] == [0, 1, 2, 3] and all("found" in part for part in parts)
    alone = on_shards("check", "--shard", "2", "--json").json
    assert alone["schema"] == empty_shards[2].schema_name


def test_init_makes_tables_that_say_which_shard_they_are(
    run: Run, dsn: str, schema: str, tmp_path: Path
) -> None:
    shards = [pgsession.Shard(database=dsn, schema_name=f"{schema}_{number}") for number in range(2)]
    file = file_of(shards, tmp_path / "shards.toml")
    try:
        assert run("init", "--shards", file).out.count("made them shard") == 2
        assert "made them" not in run("init", "--shards", file).out
        turned = file_of(shards[::-1], tmp_path / "turned.toml")
        assert "say that they are shard" in run("init", "--shards", turned, status=2).err
        with pgsession.ShardedSessionManager(shards) as manager:
            manager.create_session("u")
        with pytest.raises(pgsession.ConfigError), pgsession.ShardedSessionManager(shards[:1]):
            pass
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            for shard in shards:
                connection.execute(f"DROP SCHEMA IF EXISTS {shard.schema_name} CASCADE".encode())


def test_check_says_which_shard_the_tables_are(
    run: Run, dsn: str, schema: str, roles: Roles, tmp_path: Path
) -> None:
    """And refuses those that are another one than they are given for, as `open` does."""
    shards = [pgsession.Shard(database=dsn, schema_name=f"{schema}_{number}") for number in range(2)]
    file = file_of(shards, tmp_path / "shards.toml")
    turned = file_of(shards[::-1], tmp_path / "turned.toml")
    service = [msgspec.structs.replace(shard, database=roles.dsn("service")) for shard in shards]
    as_service = file_of(service, tmp_path / "service.toml")
    try:
        for shard in shards:
            run("init", "--schema-name", str(shard.schema_name), "--grant-to", roles.service)
        said = run("check", "--shards", file)
        assert "they will be shard 0 of 2 once" in said.out and "they will be shard 1 of 2 once" in said.out
        assert run("check", "--shards", turned).out.count("they will be") == 2, "it has marked nothing"
        said = run("check", "--shards", as_service, status=1)
        assert said.err.count("do not say which shard they are: as their owner run") == 2
        run("init", "--shards", file)
        for given in (file, as_service):
            said = run("check", "--shards", given)
            assert (
                "; its tables are shard 0 of 2\n" in said.out
                and "; its tables are shard 1 of 2\n" in said.out
            )
        parts = [json.loads(line) for line in run("check", "--shards", file, "--json").out.splitlines()]
        assert [part["found"]["says"] for part in parts] == [
            "pgsession shard 0 of 2",
            "pgsession shard 1 of 2",
        ]
        assert run("check", "--schema-name", f"{schema}_0", "--json").json["says"] is None
        said = run("check", "--shards", turned, status=2)
        assert "the tables of number 0 say that they are shard 1 of 2, not 0 of 2" in said.err
        assert "the tables of number 1 say that they are shard 0 of 2, not 1 of 2" in said.err
        assert "well" not in said.out
        said = run("check", "--shards", turned, "--json", status=2)
        errors = [json.loads(line)["error"] for line in said.err.splitlines()]
        assert [error["message"].partition(":")[0] for error in errors] == ["shard 0", "shard 1"]
        assert not said.out
        run("check", "--shards", turned, "--shard", "1", status=2)
    finally:
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute("SET client_min_messages = warning")
            for shard in shards:
                connection.execute(f"DROP SCHEMA IF EXISTS {shard.schema_name} CASCADE".encode())


def test_a_server_that_is_down(
    run: Run, empty_shards: Shards, own_server: Callable[..., EmbeddedServer], tmp_path: Path
) -> None:
    down = own_server(settings={"fsync": "off"})
    gone = down.conninfo
    down.run("pg_ctl", "-D", down.folder, "-m", "immediate", "-w", "stop")
    shards = [
        msgspec.structs.replace(shard, database=gone) if number == 1 else shard
        for number, shard in enumerate(empty_shards)
    ]
    file = file_of(shards, tmp_path / "shards.toml")
    said = run("sessions", "count", "--shards", file, "--timeout", "3", status=4)
    assert "not done on 1 shard (1), done on 0, 2, 3" in said.err and "; 0 on those that answered" in said.err
    said = run("check", "--shards", file, "--timeout", "3", status=4)
    assert "well, for a service" in said.out and "shard 1: the database does not answer" in said.err
    error = json.loads(run("check", "--shards", file, "--timeout", "3", "--json", status=4).err)
    assert error["error"]["message"].startswith("shard 1: ") and error["error"]["shards"]["failed"] == [1]
    error = json.loads(run("sessions", "count", "--shards", file, "--timeout", "3", "--json", status=4).err)
    assert error["error"]["shards"] == {"done": [0, 2, 3], "failed": [1]}
    run("sessions", "count", "--shards", file, "--shard", "0")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["check", "--shard", "0"], "--shard: needs --shards"),
        (["check", "--shards", "{file}", "--shard", "4"], "there are 4, from 0"),
        (["check", "--shards", "{file}", "dbname=x"], "DATABASE: must not be given beside --shards"),
        (["watch", "--shards", "{file}"], "say which shard"),
        (["check", "--shards", "/nowhere"], "--shards: "),
    ],
)
def test_wrong_arguments(run: Run, empty_shards: Shards, tmp_path: Path, arguments: Any, words: str) -> None:
    file = file_of(empty_shards, tmp_path / "shards.toml")
    assert words in run(*(each.format(file=file) for each in arguments), status=2).err


@pytest.mark.parametrize(
    "command", [["check"], ["init"], ["stats"], ["doctor"], ["sessions", "count"], ["watch", "--shard", "0"]]
)
@pytest.mark.parametrize(
    "fields",
    [
        r'database = "a\u0000b"',
        'database = "host=x secret"',
        'database = "postgresql://u:secret@h/x?y=z"',
        'database = ""\nlistener_conninfo = "host=x secret"',
        f'database = ""\nschema_name = "{"x" * 70}"',
    ],
)
def test_what_leads_nowhere_is_refused_and_not_shown(
    run: Run, tmp_path: Path, command: list[str], fields: str
) -> None:
    """As for one database: libpq would quote what it cannot read, and a password may be in it."""
    path = tmp_path / "shards.toml"
    path.write_text(f"[[shards]]\n{fields}\n")
    said = run(*command, "--shards", str(path), status=2)
    assert "of number 0" in said.err and "secret" not in said.err + said.out


def test_what_a_role_may_not_do_is_said_with_its_remedy(
    run: Run, roles: Roles, schema: str, tmp_path: Path
) -> None:
    owner = [pgsession.Shard(database=roles.dsn("owner"), schema_name=schema)]
    run("init", "--shards", file_of(owner, tmp_path / "owner.toml"), "--grant-to", roles.service)
    twice = [
        pgsession.Shard(database=roles.dsn("service") + f" application_name=s{number}", schema_name=schema)
        for number in range(2)
    ]
    file = file_of(twice, tmp_path / "twice.toml")
    for command in (["locks", "list"], ["secret", "rotate"], ["sessions", "revoke", "--group", "g"]):
        said = run(*command, "--shards", file, status=1)
        assert "not done on 2 shards" in said.err and "grant the role what docs/cli.md lists" in said.err
    assert run("sessions", "count", "--shards", file).out == "0\n"


def test_no_name_of_a_schema_is_cut(run: Run, empty_shards: Shards, tmp_path: Path) -> None:
    path = tmp_path / "shards.toml"
    path.write_text(f"[[shards]]\ndatabase = {json.dumps(empty_shards[0].database)}\n")
    for command in (["check"], ["sessions", "count"]):
        said = run(*command, "--shards", str(path), "--schema-name", "x" * 63, status=2)
        assert "at most 63 bytes" in said.err


def test_a_silent_server_is_waited_for_once(
    run: Run, empty_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with FaultProxy(str(empty_shards[1].database)) as proxy:
        proxy.freeze()
        gone = [msgspec.structs.replace(shard, database=proxy.conninfo) for shard in empty_shards[1::2]]
        file = file_of([empty_shards[0], gone[0], empty_shards[2], gone[1]], tmp_path / "shards.toml")
        asked = []
        connect = psycopg.connect

        def counted(conninfo: str = "", **options: Any) -> Any:
            asked.append(conninfo)
            return connect(conninfo, **options)

        monkeypatch.setattr(psycopg, "connect", counted)
        said = run("check", "--shards", file, "--timeout", "2", "--json", status=4)
        assert [json.loads(line)["shard"] for line in said.out.splitlines()] == [0, 2]
        errors = [json.loads(line)["error"] for line in said.err.splitlines()]
        assert [error["shards"]["failed"] for error in errors] == [[1], [3]]
        assert asked.count(proxy.conninfo) == 1


def test_the_environment_names_the_file(
    run: Run, dsn: str, empty_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DATABASE that is given comes first."""
    monkeypatch.setenv("PGSESSION_SHARDS", file_of(empty_shards, tmp_path / "shards.toml"))
    assert run("sessions", "count").out == "0\n"
    assert "there are no tables" in run("sessions", "count", dsn, status=1).err
