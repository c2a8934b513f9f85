"""What stays as it is when Citus moves a shard, what is refused, and what is made anew."""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

import pgsession
from pgsession._async.citus_place import ASKED_AGAIN, AsyncCitusPlace
from pgsession._async.server import AsyncServer
from pgsession._database.shard_mark import ShardMark
from pgsession._database.statements import Statements
from pgsession._database.templates import Placed, file, names_of, render
from tests.citus.cluster import CitusCluster
from tests.citus.conftest import SHARDS
from tests.fault_proxy import FaultProxy

KEY = b"k" * 32
PAGE = Path(__file__).resolve().parents[2] / "docs" / "citus.md"


def config_of(cluster: CitusCluster, **options: object) -> pgsession.Config:
    name = cluster.schemas[0].rpartition("_")[0]
    given = {"create_schema_if_missing": True, "max_staleness": 2, **options}
    return pgsession.Config(schema_name=name, **given)  # type: ignore[arg-type]


def shards_of(cluster: CitusCluster) -> pgsession.CitusShards:
    return pgsession.CitusShards(cluster.primary.conninfo, SHARDS)


def in_shard(manager: pgsession.AsyncShardedSessionManager, number: int) -> str:
    """A user of that shard."""
    return next(str(user) for user in range(10_000) if manager.shard_of_user(user) == number)


async def move(cluster: CitusCluster, number: int) -> None:
    await asyncio.to_thread(cluster.move, number, cluster.others(number)[0])


async def again(call: Callable[[], object]) -> object:
    """What a call gives that may meet the end of a move: then nothing was done."""
    while True:
        try:
            return await call()  # type: ignore[misc]
        except (psycopg.errors.ReadOnlySqlTransaction, pgsession.DatabaseUnavailable):
            await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    """Waits for what is to come about by itself; the limit is the failure's."""
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110 - no event tells of it
            await asyncio.sleep(0.01)


async def test_sessions_and_tokens_move_with_their_shard(cluster: CitusCluster) -> None:
    signer = pgsession.Signer(KEY)
    async with (
        pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster), signer=signer) as a,
        pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster), signer=signer) as b,
    ):
        user = in_shard(a, 0)
        session = await a.create_session(user, {"n": 1})
        token = a.token(session)
        assert token is not None
        await move(cluster, 0)
        read = await again(lambda: b.get_session(session.id))
        assert isinstance(read, pgsession.Session) and read["n"] == 1
        read["n"] = 2
        await again(lambda: b.update_session(read))
        assert (await b.open_token(token)).state == "current"
        # One that has heard nothing of the move yet is in sync by its last proof, for `max_staleness`.
        seen = await again(lambda: a.get_session(session.id))
        async with asyncio.timeout(30):
            while not isinstance(seen, pgsession.Session) or seen["n"] != 2:
                await asyncio.sleep(0.01)
                seen = await again(lambda: a.get_session(session.id))
        assert await again(lambda: a.delete_session(session.id))
        assert await b.get_session(session.id, refresh=True) is None


async def test_a_node_that_hears_of_nothing_empties_its_memory(cluster: CitusCluster) -> None:
    async with (
        pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)) as a,
        pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)) as b,
    ):
        session = await a.create_session(in_shard(a, 0), {"n": 1})
        assert await b.get_session(session.id) is not None
        before = b.stats_by_shard()[0].resyncs
        await move(cluster, 0)
        # Nobody calls it: its own beacons find out.
        await until(lambda: b.stats_by_shard()[0].resyncs > before and b.stats_by_shard()[0].in_sync)
        assert b.get_cached_session(session.id) is None


async def test_fencing_tokens_rise_from_server_to_server(cluster: CitusCluster) -> None:
    """The sequence of a server does not move with the locks."""
    async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)) as manager:
        resource = next(name for name in map(str, range(10_000)) if manager.shard_of_user(name) == 0)
        tokens = []
        for _ in range(3):
            for _ in range(2):
                async with manager.lock(resource) as lock:
                    tokens.append(lock.token or 0)
            await move(cluster, 0)
        assert tokens == sorted(tokens) and len(set(tokens)) == 6


@pytest.mark.parametrize("call", ["delete_user_sessions", "evict_user_sessions"])
async def test_a_call_that_meets_the_end_of_a_move_is_made_once_more(
    cluster: CitusCluster, call: str
) -> None:
    async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)) as manager:
        user = in_shard(manager, 0)
        session = await manager.create_session(user)
        await move(cluster, 0)
        await getattr(manager, call)(user)
        assert manager.get_cached_session(session.id) is None


@pytest.mark.parametrize(("owner", "step"), [(AsyncCitusPlace, "_find"), (AsyncServer, "open")])
async def test_a_shard_may_move_while_a_node_opens(
    cluster: CitusCluster, monkeypatch: pytest.MonkeyPatch, owner: type, step: str
) -> None:
    """After it was found, and after the pool and the listener have connected to where it was."""
    shards = pgsession.CitusShards(cluster.primary.conninfo, 1)
    async with pgsession.AsyncShardedSessionManager(shards, config_of(cluster)) as manager:
        session = await manager.create_session("u", {"n": 1})
    do, moves = getattr(owner, step), iter([0])

    async def then_it_moves(it: object) -> object:
        done = await do(it)
        for number in moves:
            await move(cluster, number)
        return done

    monkeypatch.setattr(owner, step, then_it_moves)
    async with pgsession.AsyncShardedSessionManager(shards, config_of(cluster)) as manager:
        read = await manager.get_session(session.id)
        assert read is not None and read["n"] == 1
        await until(lambda: manager.stats().in_sync)


async def test_a_server_that_was_left_answers_nothing(cluster: CitusCluster) -> None:
    """Neither while its tables are still there nor after they were dropped, nor where they have come back unadopted."""
    async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)):
        old = cluster.where(0)
    fence = sql.SQL("SELECT {}()").format(sql.Identifier(f"{cluster.schemas[0]}_local", "session_fence_1"))
    with psycopg.connect(
        cluster.primary.conninfo, host=old.host, port=old.port, autocommit=True
    ) as connection:
        assert connection.execute(fence).fetchall() == [(True,)]
        cluster.move(0, cluster.others(0)[0])
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="has moved to another server"):
            connection.execute(fence)
        cluster.execute("CALL citus_cleanup_orphaned_resources()")
        with pytest.raises(psycopg.Error):
            connection.execute(fence)
        cluster.move(0, old)
        with pytest.raises(psycopg.errors.ReadOnlySqlTransaction, match="has moved to another server"):
            connection.execute(fence)


async def test_plain_sql_through_the_coordinator_is_heard(cluster: CitusCluster) -> None:
    async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)) as manager:
        session = await manager.create_session(in_shard(manager, 0), {"n": 1})
        await move(cluster, 0)
        assert await again(lambda: manager.get_session(session.id)) is not None
        await until(lambda: manager.stats().in_sync)
        assert await manager.get_session(session.id) is not None
        cluster.execute(f"DELETE FROM {cluster.schemas[0]}.sessions WHERE id = %s", session.id)
        await until(lambda: manager.get_cached_session(session.id) is None)
        assert await manager.get_session(session.id) is None


def test_threads_find_a_shard_again(cluster: CitusCluster) -> None:
    with pgsession.ShardedSessionManager(shards_of(cluster), config_of(cluster)) as manager:
        users = [
            next(str(u) for u in range(99) if manager.shard_of_user(u) == number) for number in range(SHARDS)
        ]
        sessions = [manager.create_session(user, {"user": user}) for user in users]
        for number in range(SHARDS):
            cluster.move(number, cluster.others(number)[0], "block_writes")
        for user, session in zip(users, sessions, strict=True):
            read = manager.get_session(session.id, refresh=True)
            assert read is not None and read["user"] == user


async def test_another_number_of_shards_is_refused(cluster: CitusCluster) -> None:
    async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)):
        pass
    other = pgsession.CitusShards(cluster.primary.conninfo, SHARDS - 1)
    with pytest.raises(pgsession.ConfigError, match="shard 0 of 2"):
        async with pgsession.AsyncShardedSessionManager(other, config_of(cluster)):
            pass


async def test_a_schema_that_is_not_there_is_not_made_unasked(cluster: CitusCluster) -> None:
    config = config_of(cluster, create_schema_if_missing=False)
    with pytest.raises(pgsession.SchemaError, match="set create_schema_if_missing"):
        async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config):
            pass


async def test_a_schema_that_citus_does_not_distribute_is_refused(cluster: CitusCluster) -> None:
    cluster.execute(f"CREATE SCHEMA {cluster.schemas[0]}")
    with pytest.raises(pgsession.ConfigError, match="Citus does not distribute it"):
        async with pgsession.AsyncShardedSessionManager(shards_of(cluster), config_of(cluster)):
            pass


@pytest.mark.parametrize("fails", [FaultProxy.refuse, FaultProxy.freeze], ids=["down", "silent"])
async def test_shards_do_without_a_coordinator_that_is_down(
    cluster: CitusCluster, fails: Callable[[FaultProxy], None]
) -> None:
    """Also for new connections."""
    with FaultProxy(cluster.primary.conninfo) as coordinator:
        shards = pgsession.CitusShards(coordinator.conninfo, SHARDS)
        config = config_of(cluster, pool_max_size=2)
        async with pgsession.AsyncShardedSessionManager(shards, config) as manager:
            session = await manager.create_session(in_shard(manager, 0), {"n": 1})
            fails(coordinator)
            here = cluster.where(0)
            with psycopg.connect(
                cluster.primary.conninfo, host=here.host, port=here.port, autocommit=True
            ) as connection:
                await asyncio.sleep(ASKED_AGAIN)  # for an answer of before to be too old
                connection.execute(
                    "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
                    " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
                    " AND query LIKE '%%' || %s || '%%'", (f"{cluster.schemas[0]}_local",),
                )  # fmt: skip
            read = await again(lambda: manager.get_session(session.id, refresh=True))
            assert isinstance(read, pgsession.Session) and read["n"] == 1


async def test_a_coordinator_that_goes_silent_in_a_statement_holds_nobody_up(cluster: CitusCluster) -> None:
    """Nor does it keep a manager from being closed."""
    timeout = 2
    with FaultProxy(cluster.primary.conninfo) as coordinator:
        shards = pgsession.CitusShards(coordinator.conninfo, SHARDS)
        config = config_of(cluster, operation_timeout=timeout, pool_max_size=2)
        manager = pgsession.AsyncShardedSessionManager(shards, config)
        async with manager:
            moved, stays = [
                await manager.create_session(in_shard(manager, number), {"n": number}) for number in (0, 1)
            ]
            resource = next(name for name in map(str, range(10_000)) if manager.shard_of_user(name) == 0)
            coordinator.refuse()
            await move(cluster, 0)
            with psycopg.connect(cluster.primary.conninfo) as holder:
                holder.execute("LOCK TABLE pg_dist_placement IN ACCESS EXCLUSIVE MODE")
                coordinator.forward()
                await until(lambda: waits_for_a_lock(cluster))
                coordinator.freeze()
            # Each by `operation_timeout`; the guard is three times that.
            for call in (
                lambda: manager.get_session(moved.id, refresh=True),
                lambda: manager.update_session(moved, expires_in=100),
                lambda: manager.lock(resource).acquire(),
                lambda: manager.count_sessions(),
            ):
                async with asyncio.timeout(3 * timeout):
                    with pytest.raises((psycopg.Error, pgsession.PgSessionError)):
                        await call()
            read = await manager.get_session(stays.id, refresh=True)
            assert read is not None and read["n"] == 1
            async with asyncio.timeout(3 * timeout):
                await manager.close(timeout)
        async with asyncio.timeout(30):
            with pytest.raises((psycopg.Error, pgsession.PgSessionError)):
                await pgsession.AsyncShardedSessionManager(shards, config).open()
        coordinator.forward()
        async with pgsession.AsyncShardedSessionManager(shards, config) as manager:
            again = await manager.get_session(moved.id)
            assert again is not None and again["n"] == 0


def waits_for_a_lock(cluster: CitusCluster) -> bool:
    """True once a node waits for what the coordinator is to say of a shard."""
    return bool(
        cluster.execute(
            "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%%pg_dist_shard s%%'"
        )
    )


async def test_the_snippet_of_the_page(cluster: CitusCluster) -> None:
    sessions = snippet()
    here = pgsession.CitusShards(cluster.primary.conninfo, SHARDS)
    with type(sessions)(here, config_of(cluster)) as opened:
        assert opened.create_session("alice").user_id == "alice"


# Without a cluster


def snippet() -> pgsession.ShardedSessionManager:
    [text] = re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    names: dict[str, object] = {}
    exec(text, names)  # unopened, as it stands
    sessions = names["sessions"]
    assert isinstance(sessions, pgsession.ShardedSessionManager)
    return sessions


def test_the_snippet_makes_a_manager() -> None:
    assert "new" in repr(snippet()) and "16 shards" in repr(snippet())


async def test_a_server_without_citus_is_refused(dsn: str) -> None:
    shards = pgsession.CitusShards(dsn, 2)
    with pytest.raises(pgsession.ConfigError, match="the coordinator has no Citus"):
        async with pgsession.AsyncShardedSessionManager(
            shards, pgsession.Config(create_schema_if_missing=True)
        ):
            pass


@pytest.mark.parametrize(
    ("config", "why"),
    [
        ({"synchronous_commit": False}, "synchronous_commit: a move"),
        ({"listener_conninfo": "host=x"}, "listener_conninfo"),
        ({"shared_cache": "/tmp/x"}, "shared_cache"),
    ],
)
def test_what_cannot_work_is_refused(config: dict[str, object], why: str) -> None:
    shards = pgsession.CitusShards("host=nowhere", 2)
    with pytest.raises(pgsession.ConfigError, match=why):
        pgsession.ShardedSessionManager(shards, pgsession.Config(**config))  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [0, 4097])
def test_the_number_of_shards_has_bounds(count: int) -> None:
    with pytest.raises(ValueError, match="shards"):
        pgsession.ShardedSessionManager(pgsession.CitusShards("host=nowhere", count))


def test_every_statement_passes_the_fence() -> None:
    """But those that say nothing of sessions, and those whose function does, for they notify."""
    statements = Statements("s_0_local", "", Placed("s_0", 1, 2, 3))
    texts = {name: text for name, text in vars_of(statements).items() if isinstance(text, str)}
    unfenced = {name for name, text in texts.items() if "session_fence_1" not in text}
    assert unfenced == {"schema", "prefix", "identity", "notify", "ask_nodes", "silent_nodes", "listen"}
    for script in (
        statements.register("n", 1),
        statements.acquire("r", "o", 1, None),
        statements.delete_all("n"),
    ):
        assert script.steps[1].statement == b'SELECT "s_0_local"."session_fence_1"()', (
            "before anything is locked"
        )
    names = names_of("s_0_local", "", Placed("s_0", 1, 2, 3))
    for function in ("send", "ask_nodes", "send_beacon", "announce_many"):
        assert "session_fence_1" in render(file("functions", f"{function}.sql"), names).as_string()
    # Else nothing of this is there.
    assert "fence" not in Statements("s").read


def test_what_a_lock_is_released_by_is_durable() -> None:
    """A move takes along what is written when the fence lets it pass; a commit that is not yet stays behind."""
    [_, _, call, *_] = Statements("s_0_local", "", Placed("s_0", 1, 2, 3)).release("n", "r", "o").steps
    assert b"'synchronous_commit', 'off'" not in call.statement
    [_, call, *_] = Statements("s").release("n", "r", "o").steps
    assert b"'synchronous_commit', 'off'" in call.statement  # else it spares the wait


def vars_of(statements: Statements) -> dict[str, object]:
    return {name: getattr(statements, name) for name in dir(statements) if not name.startswith("_")}


def test_its_password_is_not_shown() -> None:
    assert repr(pgsession.CitusShards("password=secret", 3)) == "CitusShards(count=3)"


async def test_what_an_error_means_is_said_by_its_state() -> None:
    place = AsyncCitusPlace(
        "host=nowhere", "s_0", "", ShardMark(0, 2), creates=False, logger=logging.getLogger("test")
    )
    assert isinstance(
        place.meant(None, psycopg.errors.UndefinedTable()),  # type: ignore[arg-type]
        psycopg.errors.ReadOnlySqlTransaction,
    )
    for error in (psycopg.errors.ReadOnlySqlTransaction(), psycopg.errors.UniqueViolation()):
        assert place.meant(None, error) is error  # type: ignore[arg-type]
