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
    shards = [empty_shards[0], pgsession.Shard(database=gone, schema_name="s"), *empty_shards[2:]]
    file = file_of(shards, tmp_path / "shards.toml")
    said = run("sessions", "count", "--shards", file, "--timeout", "3", status=4)
    assert "not done on 1 shard (1), done on 0, 2, 3" in said.err and "; 0 on those that answered" in said.err
    said = run("check", "--shards", file, "--timeout", "3", status=4)
    assert "well, for a service" in said.out and "shard 1: the database does not answer" in said.err
    error = json.loads(run("check", "--shards", file, "--timeout", "3", "--json", status=4).err)
    assert error["error"]["message"].startswith("shard 1: ")
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


def test_the_environment_names_the_file(
    run: Run, dsn: str, empty_shards: Shards, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A DATABASE that is given comes first."""
    monkeypatch.setenv("PGSESSION_SHARDS", file_of(empty_shards, tmp_path / "shards.toml"))
    assert run("sessions", "count").out == "0\n"
    assert "there are no tables" in run("sessions", "count", dsn, status=1).err
