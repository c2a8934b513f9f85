"""The snippets of shards.md, on two servers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import msgspec
import psycopg
import pytest
from psycopg import sql

import pgsession
from benchmarks.shards import RECORDED, page_of, table
from pgsession.embedded import EmbeddedServer
from tests.docs.test_other_snippets import blocks, run
from tests.sharded import Shards

PAGE = "docs/shards.md"


def test_the_page(all_shards: Shards, dsn: str) -> None:
    one, two = dsn, str(all_shards[1].database)
    config = pgsession.Config(create_schema_if_missing=True)
    first, second = blocks(PAGE, "python")
    name = f"of_{Path(PAGE).stem}"
    try:
        for shown, real in (("postgresql://app@db1/app", one), ("postgresql://app@db2/app", two)):
            assert shown in first
            first = first.replace(shown, real)
        run(first.replace("sessions_", f"{name}_"), {"key": b"k" * 32})
        plain = pgsession.Config(create_schema_if_missing=True, schema_name=name)
        with pgsession.SessionManager(one, plain) as before:
            old_id = before.create_session("alice").id
        second = second.replace('"public"', f'"{name}"').replace("sessions_1", f"{name}_9")
        run(second, {"pgsession": pgsession, "one": one, "two": two, "config": config, "old_id": old_id})
    finally:
        for server in (one, two):
            with psycopg.connect(server, autocommit=True) as connection:
                connection.execute("SET client_min_messages = warning")
                for schema in (name, *(f"{name}_{number}" for number in (0, 1, 2, 3, 9))):
                    connection.execute(
                        sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(schema))
                    )


def test_the_figures_are_those_of_the_recorded_run() -> None:
    text = Path(PAGE).read_text(encoding="utf-8")
    run = json.loads(RECORDED.read_text(encoding="utf-8"))
    assert page_of(text, run) == text and table(run) in text


def test_a_shard_moves(own_server: Callable[..., EmbeddedServer], programs: Path, tmp_path: Path) -> None:
    """By the commands of the page: what was begun on the old server goes on on the new one."""
    old, new = own_server(settings={"fsync": "off"}), own_server(settings={"fsync": "off"})
    shards = [pgsession.Shard(database=old.conninfo, schema_name=f"sessions_{number}") for number in range(4)]
    moved = [*shards[:2], msgspec.structs.replace(shards[2], database=new.conninfo), shards[3]]
    config = pgsession.Config(create_schema_if_missing=True)
    signer = pgsession.Signer(b"k" * 32)
    with pgsession.ShardedSessionManager(shards, config, signer=signer) as manager:
        user = next(f"u{n}" for n in range(100) if manager.shard_of_user(f"u{n}") == 2)
        other = next(f"u{n}" for n in range(100) if manager.shard_of_user(f"u{n}") == 1)
        resource = next(f"r{n}" for n in range(100) if manager.shard_of_user(f"r{n}") == 2)
        tokens = {
            each: manager.token(manager.create_session(each, {"cart": [each]})) for each in (user, other)
        }
        with manager.lock(resource) as lock:
            fencing = lock.token
    (commands,) = blocks(PAGE, "sh")
    for shown, real in (
        ("postgresql://app@db1/app", old.conninfo),
        ("postgresql://app@db3/app", new.conninfo),
    ):
        assert shown in commands
        commands = commands.replace(shown, f"'{real}'")
    done = subprocess.run(
        ["sh", "-ec", f'PATH="{programs}:$PATH"\n{commands}'], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    with pgsession.ShardedSessionManager(moved, signer=signer) as manager:
        for each, token in tokens.items():
            session = manager.get_session_by_token(str(token))
            assert session is not None and session["cart"] == [each]
            session["more"] = 1
            manager.update_session(session)
        assert manager.count_sessions(user_id=user) == 1
        with manager.lock(resource) as lock:
            assert lock.token is not None and fencing is not None and lock.token > fencing
        assert manager.check_health().healthy
        manager.create_session(user)
        assert manager.delete_user_sessions(user) == 2
    with pytest.raises(pgsession.SchemaError, match="no tables"), pgsession.ShardedSessionManager(shards):
        pass
