"""An admin of several servers: which shards it asks, what it makes of their answers, and a server that is down."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.fault_proxy import FaultProxy
from tests.sharded import Shards, make_shards


def user_in(manager: pgsession.AsyncShardedSessionManager, number: int) -> str:
    """A user of that shard."""
    return next(str(user) for user in range(10_000) if manager.shard_of_user(user) == number)


async def test_all_shards_are_one(empty_shards: Shards) -> None:
    admin = pgsession.AsyncShardedAdmin(empty_shards)
    assert repr(admin) == "<AsyncShardedAdmin of 4>"
    async with pgsession.AsyncShardedSessionManager(empty_shards) as manager:
        users = [user_in(manager, number) for number in range(4)]
        sessions = [
            await manager.create_session(user, {"n": n}, group_id="g") for user in users for n in range(3)
        ]
        ids = sorted(session.id for session in sessions)
        assert [each.id for each in await admin.list_sessions()] == ids
        pages = [await admin.list_sessions(limit=5, after=after) for after in (None, ids[4], ids[9])]
        assert [each.id for page in pages for each in page] == ids
        [shown] = await admin.list_sessions(session_id=ids[0], with_values=True)
        assert shown.attributes is not None and shown.attributes["n"] in (0, 1, 2)
        assert await admin.list_sessions(session_id=uuid.uuid4()) == []
        assert await admin.count() == await admin.count(group_id="g") == 12
        assert await admin.count(user_id=users[2]) == 3 == len(await admin.list_sessions(user_id=users[2]))
        assert await admin.count(user_id=users[2], session_id=sessions[0].id) == 0

        resources = [f"r{number}" for number in range(8)]
        locks = [manager.lock(resource) for resource in resources]
        tied = manager.lock(f"cart:{ids[5]}", session_id=ids[5])
        for lock in (*locks, tied):
            assert await lock.acquire()
        assert [each.resource for each in await admin.list_locks()] == [f"cart:{ids[5]}", *resources]
        assert [each.resource for each in await admin.list_locks(after="r1", limit=2)] == ["r2", "r3"]
        for resource in (*resources, f"cart:{ids[5]}"):
            assert await admin.break_lock(resource) and not await admin.break_lock(resource)

        assert len(await admin.nodes()) == 4
        found = await admin.diagnose()
        assert {each.message[:8] for each in found} == {f"shard {number}:" for number in range(4)}
        await admin.rotate_secret()
        assert await admin.revoke(user_id=users[0]) == 3
        with pytest.raises(ValueError, match="one of them is needed"):
            await admin.revoke()
        assert await admin.revoke(older_than=0) == 9 == 12 - 3
        assert await manager.count_sessions() == 0
        for lock in (*locks, tied):
            with pytest.raises(pgsession.LockError):
                await lock.release()


async def test_the_legacy_shard_is_asked_too(empty_shards: Shards, dsn: str, schema: str) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    async with pgsession.AsyncSessionManager(dsn, config) as before:
        old = await before.create_session("alice")
        shards = [*empty_shards, pgsession.Shard(database=dsn, schema_name=schema, legacy=True)]
        admin = pgsession.AsyncShardedAdmin(shards)
        assert await admin.count(user_id="alice") == 1
        assert [each.id for each in await admin.list_sessions(session_id=old.id)] == [old.id]
        assert await admin.revoke(session_id=old.id) == 1


async def test_a_server_that_is_down(own_server: Callable[..., EmbeddedServer]) -> None:
    up, down = own_server(settings={"fsync": "off"}), own_server(settings={"fsync": "off"})
    shards = make_shards([up.conninfo, down.conninfo], "s", 4)
    config = pgsession.Config(operation_timeout=3)
    admin = pgsession.AsyncShardedAdmin(shards, config)
    async with pgsession.AsyncShardedSessionManager(shards, config) as manager:
        users = [user_in(manager, number) for number in range(4)]
        for user in users:
            await manager.create_session(user)
        down.run("pg_ctl", "-D", down.folder, "-m", "immediate", "-w", "stop")
        for call in (admin.count, admin.list_sessions, admin.nodes, admin.list_locks):
            with pytest.raises(pgsession.ShardsFailed) as failed:
                await call()  # type: ignore[operator]
            assert list(failed.value.done) == [0, 2] and list(failed.value.failed) == [1, 3]
        assert await admin.count(user_id=users[0]) == 1
        with pytest.raises(psycopg.OperationalError):
            await admin.count(user_id=users[1])
        with pytest.raises(pgsession.ShardsFailed) as failed:
            await admin.revoke(older_than=0)
        assert failed.value.done == {0: 1, 2: 1}
        assert {"shard 1:", "shard 0:"} <= {each.message[:8] for each in await admin.diagnose()}


async def test_it_refuses_what_an_admin_refuses(empty_shards: Shards) -> None:
    """Also where no shard would be asked; and nothing was done on any."""
    admin = pgsession.AsyncShardedAdmin(empty_shards)
    nowhere = uuid.uuid4()
    for wrong in ({"limit": 0}, {"limit": "x"}, {"with_values": 1}, {"after": "x"}, {"older_than": -1}):
        with pytest.raises((TypeError, ValueError), match=f"^{next(iter(wrong))}: "):
            await admin.list_sessions(session_id=nowhere, **wrong)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"^older_than: "):
        await admin.revoke(session_id=nowhere, older_than=-1)
    with pytest.raises(ValueError, match=r"^limit: "):
        await admin.list_locks(limit=1001)


async def test_a_shard_that_answers_with_an_error_is_not_in_the_way_of_its_servers_others(
    empty_shards: Shards, schema: str
) -> None:
    """Which a server that is down is: see below."""
    shards = [*empty_shards[:3], msgspec.structs.replace(empty_shards[1], schema_name=f"no_{schema}")]
    shards[1], shards[3] = shards[3], empty_shards[1]
    admin = pgsession.AsyncShardedAdmin(shards, pgsession.Config(operation_timeout=5))
    with psycopg.connect(str(empty_shards[0].database)) as connection:
        connection.execute(
            sql.SQL("LOCK TABLE {}").format(sql.Identifier(str(empty_shards[0].schema_name), "sessions"))
        )
        limited = [
            msgspec.structs.replace(
                shard, database=make_conninfo(str(shard.database), options="-c lock_timeout=100")
            )
            for shard in empty_shards
        ]
        with pytest.raises(pgsession.ShardsFailed) as failed:
            await pgsession.AsyncShardedAdmin(limited).count()
        assert list(failed.value.failed) == [0] and list(failed.value.done) == [1, 2, 3]
    with pytest.raises(pgsession.ShardsFailed) as failed:
        await admin.count()
    assert list(failed.value.failed) == [1] and list(failed.value.done) == [0, 2, 3]


async def test_a_server_that_is_silent_is_looked_at_once(empty_shards: Shards) -> None:
    with FaultProxy(str(empty_shards[1].database)) as proxy:
        proxy.freeze()
        shards = [
            msgspec.structs.replace(shard, database=proxy.conninfo) if number % 2 else shard
            for number, shard in enumerate(empty_shards)
        ]
        alone = await pgsession.AsyncAdmin(proxy.conninfo, pgsession.Config(operation_timeout=1)).diagnose()
        found = await pgsession.AsyncShardedAdmin(shards, pgsession.Config(operation_timeout=1)).diagnose()
        of = {
            number: [each for each in found if each.message.startswith(f"shard {number}: ")]
            for number in range(4)
        }
        assert [len(each) for each in of.values()] == [len(alone)] * 4
        assert [each.message[9:] for each in of[1]] == [each.message[9:] for each in of[3]]
        assert {each.level for each in of[1]} >= {"problem", "unknown"} and of[1][0].level == "problem"


GOOD = """
[[shards]]
database = "host=a dbname=app"
schema_name = "sessions_0"
legacy = true

[[shards]]
database = "host=b dbname=app"
listener_conninfo = "host=c dbname=app"
"""


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (GOOD, None),
        ("shards = 3", r"must have \[\[shards\]\]"),
        (GOOD + "[other]\n", "and nothing else"),
        ("[[shards]]\nschema_name = 's'", "number 0 has no database"),
        ("[[shards]]\ndatabase = 's'\nschema = 's'", "schema of number 0"),
        ("[[shards]]\ndatabase = 3", "database of number 0 is no field of one, or no str"),
        ("[[shards]]\ndatabase = secret", "is not TOML"),
        ("a = " + "[" * 100_000, "is not TOML"),
        ("#" * 5_000_000, "at most 4,000,000 bytes"),
        ("[[shards]]\ndatabase = ''\n'postgresql://u:secret@h' = ''", "something of number 0 is no field"),
    ],
)
def test_a_file_lists_the_shards(tmp_path: Path, text: str, words: Any) -> None:
    path = tmp_path / "shards.toml"
    path.write_text(text)
    if words is None:
        assert pgsession.read_shards(path) == [
            pgsession.Shard(database="host=a dbname=app", schema_name="sessions_0", legacy=True),
            pgsession.Shard(database="host=b dbname=app", listener_conninfo="host=c dbname=app"),
        ]
    else:
        with pytest.raises(pgsession.ConfigError, match=words) as caught:
            pgsession.read_shards(path)
        assert "secret" not in str(caught.value)


def test_a_path_is_one(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        pgsession.read_shards(0)  # type: ignore[arg-type]  # which is standard input
    with pytest.raises(pgsession.ConfigError, match="NUL"):
        pgsession.read_shards("a\0b")
