# Generated from tests/aio/test_shards.py by tools/async_to_sync.py: never edit.

"""Sessions on several servers: which shard has what, what a server that is down takes with it, and what is refused."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import psycopg
import pytest
from psycopg import sql

import pgsession
from pgsession.embedded import EmbeddedServer
from tests.sharded import EXCLUDED, EXCLUDED_FILES, Shards, make_shards

from .helpers import eventually

KEY = b"k" * 32


def user_in(manager: pgsession.ShardedSessionManager, number: int) -> str:
    """A user of that shard."""
    return next(str(user) for user in range(10_000) if manager.shard_of_user(user) == number)


def test_the_whole_surface_is_the_shards_own() -> None:
    """What was inherited as it is would use a runtime that there is not."""
    plain, sharded = pgsession.SessionManager, pgsession.ShardedSessionManager
    inherited = {
        name
        for name in vars(plain)
        if not name.startswith("_") and name not in vars(sharded) and callable(getattr(plain, name))
    }
    assert inherited == {
        "token",
        "list_user_sessions",
        "list_group_sessions",
    }  # these go by `_list` and by the signer


def test_what_is_excluded_is_there() -> None:
    """Of the manager's tests: see `tests.sharded`."""
    texts = {file.stem: file.read_text() for file in (Path(__file__).parents[1] / "aio").glob("test_*.py")}
    assert set(EXCLUDED_FILES) <= set(texts)
    assert [name for name in EXCLUDED if not any(f"def {name}(" in text for text in texts.values())] == []


def test_a_users_sessions_are_in_the_users_shard(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        for number in range(4):
            user = user_in(manager, number)
            session = manager.create_session(user, {"n": number})
            assert session.id.version == 8 and manager.shard_of_session(session.id) == number
            shard = empty_shards[number]
            with psycopg.connect(str(shard.database)) as connection:
                query = sql.SQL("SELECT user_id FROM {}").format(
                    sql.Identifier(str(shard.schema_name), "sessions")
                )
                assert connection.execute(query).fetchall() == [(user,)]
        assert manager.count_sessions() == 4


def test_the_hash_of_a_user_never_changes(empty_shards: Shards) -> None:
    """Stored sessions depend on it."""
    manager = pgsession.ShardedSessionManager(empty_shards)
    assert [manager.shard_of_user(user) for user in ("alice", "bob", "ü", 7)] == [0, 1, 3, 1]


def test_an_id_of_no_shard_is_absent_without_a_query(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        before = manager.stats()
        beyond = uuid.UUID("00000000-0000-8fff-8000-000000000000")
        for session_id in (beyond, uuid.uuid4()):
            assert manager.get_session(session_id) is None
            assert manager.get_cached_session(session_id) is None
            assert manager.shard_of_session(session_id) is None
            assert not manager.delete_session(session_id)
            assert manager.load_sessions([session_id]) == {}
        assert manager.stats().fills == before.fills


def test_a_login_moves_to_the_users_shard(empty_shards: Shards) -> None:
    signer = pgsession.Signer(KEY)
    with (
        pgsession.ShardedSessionManager(empty_shards, signer=signer) as a,
        pgsession.ShardedSessionManager(empty_shards, signer=signer) as b,
    ):
        visitor = a.create_session(None, {"cart": ["book"]})
        before, old_token = visitor.id, a.token(visitor)
        there = b.get_session(before)
        assert there is not None
        there["seen"] = True
        b.update_session(there)  # in another tab
        visitor["theme"] = "dark"
        number = (a.shard_of_session(before) or 0) + 1
        user = user_in(a, number % 4)
        session = a.rotate_session(visitor, user_id=user)
        assert session is visitor and session.user_id == user and session.id != before
        assert a.shard_of_session(session.id) == number % 4
        assert dict(session) == {"cart": ["book"], "seen": True, "theme": "dark"}
        assert a.get_session(before) is None
        assert (a.open_token(old_token)).session is None
        found = (b.open_token(a.token(session))).session
        assert found is not None and dict(found) == dict(session)
        session["more"] = 1
        a.update_session(session)
        assert a.count_sessions() == 1


def test_what_others_change_while_it_moves_is_copied_too(
    empty_shards: Shards, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        visitor = manager.create_session(None, {"cart": 0})
        number = ((manager.shard_of_session(visitor.id) or 0) + 1) % 4
        home = manager._all[number]
        write, others = home.write, iter((1, 2))

        def write_late(operation: Any) -> Any:
            if cart := next(others, None):
                other = manager.get_session(before, refresh=True)
                assert other is not None
                record = write(operation)
                other["cart"] = cart
                manager.update_session(other)
                return record
            return write(operation)

        before = visitor.id
        monkeypatch.setattr(home, "write", write_late)
        manager.rotate_session(visitor, user_id=user_in(manager, number))
        assert dict(visitor) == {"cart": 2} and manager.count_sessions() == 1


@pytest.mark.parametrize("how", ["rotate", "update", "modify"])
def test_what_a_login_sets_is_never_in_the_visitors_session(empty_shards: Shards, how: str) -> None:
    """Who has planted or seen the visitor's token would have it, if only for a moment, or if the login then fails."""
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        visitor = manager.create_session(None, {"cart": 1, "gone": 1})
        before, number = visitor.id, ((manager.shard_of_session(visitor.id) or 0) + 1) % 4
        shard, user = manager._all[number - 1], user_in(manager, number)
        written: list[Any] = []
        write = shard.write

        def write_and_look(operation: Any) -> Any:
            now = shard.get_session(before, refresh=True)
            written.append(None if now is None else dict(now))
            return write(operation)

        shard.write = write_and_look  # type: ignore[method-assign]

        def becomes_admin(session: pgsession.Session) -> None:
            session["role"] = "admin"
            del session["gone"]

        if how == "modify":
            session = manager.modify_session(before, becomes_admin, user_id=user, group_id="g")
        else:
            becomes_admin(visitor)
            save = manager.rotate_session if how == "rotate" else manager.update_session
            session = save(visitor, user_id=user, group_id="g")
        assert written == [{"cart": 1, "gone": 1}]
        assert dict(session) == {"cart": 1, "role": "admin"} and session.group_id == "g"
        stored = manager.get_session(session.id, refresh=True)
        assert stored is not None and dict(stored) == dict(session) and not session.is_modified


class Interrupt(BaseException):
    """Stands for a cancelled task, too."""


@pytest.mark.parametrize("error", [pgsession.WriteOutcomeUnknown("lost"), Interrupt()])
def test_a_login_of_unknown_outcome_loses_nothing(
    empty_shards: Shards, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    """If the visitor's session has ended, the user's is there, and the other way round."""
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        visitor = manager.create_session(None, {"cart": 1})
        before, number = visitor.id, ((manager.shard_of_session(visitor.id) or 0) + 1) % 4
        shard, user = manager._all[number - 1], user_in(manager, number)
        write = shard.write

        def write_unheard(operation: Any) -> Any:
            write(operation)
            raise error

        monkeypatch.setattr(shard, "write", write_unheard)
        with pytest.raises(type(error)):
            manager.rotate_session(visitor, user_id=user)
        assert manager.get_session(before, refresh=True) is None
        [session] = manager.list_user_sessions(user)
        assert dict(session) == {"cart": 1}


class Bound(pgsession.Codec):
    """What one session has sealed no other opens."""

    def seal(self, session_id: uuid.UUID, key: str, data: bytes) -> bytes:
        return f"{session_id} {key} ".encode() + data

    def open(self, session_id: uuid.UUID, key: str, data: bytes) -> bytes:
        head = f"{session_id} {key} ".encode()
        assert data.startswith(head), "another session's"
        return data.removeprefix(head)


def test_what_is_sealed_for_a_session_is_sealed_anew_where_it_moves(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards, pgsession.Config(codec=Bound())) as manager:
        visitor = manager.create_session(None, {"cart": [1], "theme": "dark"})
        number = ((manager.shard_of_session(visitor.id) or 0) + 1) % 4
        visitor["more"] = {"x": 1}
        session = manager.rotate_session(visitor, user_id=user_in(manager, number))
        stored = manager.get_session(session.id, refresh=True)
        assert stored is not None
        assert dict(stored) == dict(session) == {"cart": [1], "theme": "dark", "more": {"x": 1}}


@pytest.mark.parametrize("check", [None, "session", "attributes"])
def test_a_login_that_moves_is_checked_as_an_update(empty_shards: Shards, check: Any) -> None:
    """What has an end keeps it."""
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        ends = datetime.now(UTC) + timedelta(minutes=5)
        codes = {"n": 0, "code": pgsession.Attribute(7, expires_at=ends)}
        visitor = manager.create_session(None, codes, inactivity=60)
        user = user_in(manager, ((manager.shard_of_session(visitor.id) or 0) + 1) % 4)
        other = manager.get_session(visitor.id)
        assert other is not None
        other["n"] = 1
        manager.update_session(other)
        visitor["n"] = 2
        if check is None:
            session = manager.update_session(visitor, user_id=user, include_inactivity=True)
            assert session["n"] == 2 and session.attribute("code").expires_at == ends
            assert session.inactivity == timedelta(seconds=60)
            return
        with pytest.raises(pgsession.ConflictError):
            manager.update_session(visitor, user_id=user, check=check)
        assert visitor["n"] == 2 and visitor.is_modified and manager.count_sessions() == 1
        del visitor["n"]
        visitor["m"] = 3
        if check == "attributes":
            with pytest.raises(pgsession.AttributeVersionConflict) as caught:
                manager.update_session(visitor, user_id=user, check=check)
            assert caught.value.keys == ("n",)
            session = manager.modify_session(visitor.id, lambda it: it.set("n", it["n"] + 1), user_id=user)
            assert session["n"] == 2 and session.user_id == user


def test_chosen_ids_name_the_users_shard(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        given = uuid.uuid4()
        for user in ("alice", "bob", None):
            chosen = manager.id_for(given, user)
            assert chosen == manager.id_for(given, user)
            session = manager.create_session(user, session_id=chosen, if_exists="replace")
            assert session.id == chosen
        with pytest.raises(ValueError, match="must name a shard"):
            manager.create_session("alice", session_id=given)
        other = manager.id_for(given, user_in(manager, (manager.shard_of_user("alice") + 1) % 4))
        with pytest.raises(ValueError, match="and the user's sessions are in shard 0"):
            manager.create_session("alice", session_id=other)


def test_a_lock_is_tied_to_sessions_of_its_shard_only(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        number = manager.shard_of_user("resource")  # a resource is hashed as a user is
        near = manager.create_session(user_in(manager, number))
        far = manager.create_session(user_in(manager, (number + 1) % 4))
        with manager.lock("resource", session_id=near.id) as lock:
            assert lock.token is not None
            assert not manager.lock("resource").acquire(blocking=False)
        with pytest.raises(ValueError, match="no transaction ends a session and a lock on two servers"):
            manager.lock("resource", session_id=far.id)


def test_a_resource_that_a_session_names_is_in_its_shard(empty_shards: Shards, dsn: str, schema: str) -> None:
    """Whoever locks it, by a session or not; an id of before there were shards names one for a request's turn only."""
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        for number in range(4):
            session = manager.create_session(user_in(manager, number))
            lock = manager.lock(f"cart:{session.id}", session_id=session.id)
            assert lock.acquire(timeout=10)
            other = manager.lock(f"cart:{session.id}")
            assert not other.acquire(blocking=False)
            manager.delete_session(session.id)
            assert other.acquire(timeout=10)
            other.release()
            with pytest.raises(pgsession.LockError):
                lock.release()
        nowhere = manager.id_for(uuid.uuid4()).bytes
        nowhere = uuid.UUID(bytes=nowhere[:6] + b"\x8f\xff" + nowhere[8:])
        with manager.lock(f"cart:{nowhere}"):  # no shard has this number
            pass
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema)
    with pgsession.SessionManager(dsn, config) as before:
        old = before.create_session()
    shards = [pgsession.Shard(database=dsn), pgsession.Shard(database=dsn, schema_name=schema, legacy=True)]
    for given in (shards, [shards[0], msgspec.structs.replace(shards[1], legacy=False)]):
        with pgsession.ShardedSessionManager(given, config) as manager:
            name = next(name for n in range(100) if manager.shard_of_user(name := f"{n}:{old.id}") == 0)
            with manager.lock(name) as lock:
                assert lock.token is not None
            if given is shards:
                with manager.lock(f"pgsession.web:{old.id}", session_id=old.id):
                    pass
                with pytest.raises(ValueError, match="of another shard"):
                    manager.lock(name, session_id=old.id)
            else:
                with pytest.raises(ValueError, match="of another shard"):
                    manager.lock(f"pgsession.web:{old.id}", session_id=old.id)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(f"{schema}_0")))


def test_groups_are_walked_in_one_order_over_all_shards(empty_shards: Shards) -> None:
    with pgsession.ShardedSessionManager(empty_shards) as manager:
        made = [(manager.create_session(user, group_id="g")).id for user in range(11)]
        seen: list[uuid.UUID] = []
        after: uuid.UUID | pgsession.Session | None = None
        while page := manager.list_group_sessions("g", limit=3, after=after):
            seen += [session.id for session in page]
            after = page[-1] if len(seen) % 2 else page[-1].id
        assert seen == made[::-1]
        assert manager.count_sessions(group_id="g") == 11
        assert manager.delete_group_sessions("g") == 11


def test_the_tables_say_which_shard_they_are(empty_shards: Shards) -> None:
    swapped = [empty_shards[number] for number in (1, 0, 2, 3)]
    for wrong in (swapped, empty_shards[:3]):
        manager = pgsession.ShardedSessionManager(wrong)
        with pytest.raises(pgsession.ConfigError, match="say that they are shard"):
            manager.open()


@pytest.mark.parametrize(
    ("shards", "config", "words"),
    [
        ([], {}, "from 1 to 4096"),
        (["", ""], {}, None),
        ([pgsession.Shard(database="", schema_name="s")] * 2, {}, "the same schema"),
        ([""], {"listener_conninfo": ""}, "leads to one server"),
        ([""], {"shared_cache": "app"}, "the cache of one server's sessions only"),
        ([pgsession.Shard(database=name, legacy=True) for name in ("", "dbname=x")], {}, "only one of them"),
    ],
)
def test_what_cannot_be_right_is_refused(shards: Any, config: Any, words: str | None) -> None:
    if words is None:
        pgsession.ShardedSessionManager(shards, pgsession.Config(**config))
    else:
        with pytest.raises(pgsession.ConfigError, match=words):
            pgsession.ShardedSessionManager(shards, pgsession.Config(**config))


def test_sessions_of_before_there_were_shards(empty_shards: Shards, dsn: str, schema: str) -> None:
    config = pgsession.Config(create_schema_if_missing=True, schema_name=schema, max_sessions=3)
    with pgsession.SessionManager(dsn, config) as before:
        old = [before.create_session("alice", {"n": n}) for n in range(2)]
        visitor = before.create_session(None, {"cart": 1})
    shards = [pgsession.Shard(database=dsn, schema_name=schema, legacy=True), pgsession.Shard(database=dsn)]
    with pgsession.ShardedSessionManager(shards, config) as manager:
        assert manager.shard_of_session(old[0].id) == 0
        user = user_in(manager, 1)
        for session in old:
            there = manager.get_session(session.id)
            assert there is not None
            manager.update_session(there, user_id=user)
        assert manager.count_sessions(user_id=user) == 2
        moved = manager.list_user_sessions(user)
        assert {manager.shard_of_session(session.id) for session in moved} == {1}
        there = manager.get_session(visitor.id)
        assert there is not None and manager.delete_session(there.id)
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(f"{schema}_1")))


def test_a_server_that_is_down_takes_its_own_users_only(
    own_server: Callable[..., EmbeddedServer],
) -> None:
    """At run time, and when a node is opened meanwhile."""
    up, down = own_server(settings={"fsync": "off"}), own_server(settings={"fsync": "off"})
    shards = make_shards([up.conninfo, down.conninfo], "s", 4)
    config = pgsession.Config(operation_timeout=3)
    with pgsession.ShardedSessionManager(shards, config) as manager:
        users = [user_in(manager, number) for number in range(4)]
        here = [manager.create_session(user, group_id="g") for user in users]
        down.run("pg_ctl", "-D", down.folder, "-m", "immediate", "-w", "stop")
        for number in (0, 2):
            assert manager.get_session(here[number].id, refresh=True) is not None
            manager.create_session(users[number])
        for number in (1, 3):
            with pytest.raises((pgsession.PgSessionError, psycopg.Error)):
                manager.create_session(users[number])
        for _ in range(8):
            manager.create_session()  # a visitor goes where a server is
        with pytest.raises(pgsession.ShardsFailed) as failed:
            manager.delete_group_sessions("g")
        assert failed.value.done == {0: 1, 2: 1} and set(failed.value.failed) == {1, 3}
        health = manager.check_health()
        assert health.ready and not health.healthy and "shard 1" in str(health.reason)
        with pgsession.ShardedSessionManager(shards, config) as late:
            late.create_session(users[0])
            with pytest.raises(
                pgsession.DatabaseUnavailable, match="the server of shard 1 has not been reached"
            ):
                late.create_session(users[1])
            assert late.get_cached_session(here[1].id) is None
            assert (late.check_health()).ready
            down.restart()

            def is_back() -> bool:
                return (late.check_health()).healthy

            eventually(is_back, "the server's return", timeout=30)
            late.create_session(users[1])
