"""What Flask-Session and starsessions keep in Redis is read as they have written it."""

from __future__ import annotations

import asyncio
import pickle
import secrets
import uuid
import warnings
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

pytest.importorskip("redis")
pytest.importorskip("flask")
pytest.importorskip("flask_session")
pytest.importorskip("starsessions")

import flask
import msgspec
import redis.asyncio
from markupsafe import Markup
from starsessions import JsonSerializer
from starsessions.stores.redis import RedisStore as StarsessionsStore

from pgsession import Config, Session, SessionManager
from pgsession.web.moving import entry_id, key_in, moved_id
from pgsession.web.session import MAX_AGE
from tests.tables import Tables
from tests.web.moving.command import call
from tests.web.moving.sites import flask_after, flask_before

HOUR = 3600
DAY = timedelta(days=1)
VALUES = {
    "_user_id": "7", "cart": [{"sku": "book", "n": 2}], "text": "é\u2028\"'", "none": None, "price": 1.5, "yes": True,
    "large": 2**53 + 1,
}  # fmt: skip


@pytest.fixture
def client(redis_url: str) -> Iterator[redis.Redis]:
    with redis.Redis.from_url(redis_url) as opened:
        yield opened


@pytest.fixture
def prefix() -> str:
    """With what Redis' patterns have a meaning for."""
    return f"s*[{secrets.token_hex(4)}]?\\:"


class Move:
    """The command; what it has brought."""

    def __init__(self, dsn: str, config: Config, manager: SessionManager, url: str, prefix: str) -> None:
        self._manager = manager
        self._variables = {
            "PGSESSION_DATABASE": dsn, "PGSESSION_SCHEMA_NAME": config.schema_name, "REDIS_URL": url,
        }  # fmt: skip
        self._prefix = prefix

    def __call__(self, kind: str, *options: str, **variables: str) -> tuple[int, str]:
        return call(kind, "--key-prefix", self._prefix, *options, **self._variables | variables)()

    def found(self, key: str) -> Session | None:
        return self._manager.get_session(moved_id(entry_id(key)))


@pytest.fixture
def move(
    dsn: str, config: Config, manager: SessionManager, tables: Tables, redis_url: str, prefix: str
) -> Move:
    return Move(dsn, config, manager, redis_url, prefix)


@pytest.mark.parametrize("form", ["msgpack", "json"])
@pytest.mark.parametrize("signed", [False, True], ids=["plain", "signed"])
def test_flask_session(
    move: Move, redis_url: str, client: redis.Redis, prefix: str, form: str, signed: bool
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of the signed form
        app = flask_before(redis_url, prefix, form, signed)
    browser = app.test_client()
    browser.post("/do", json=[["set", key, value] for key, value in VALUES.items()])
    client.set("unrelated", "x")
    key = key_in(browser.get_cookie("session").value)
    assert key is not None and client.exists(prefix + key)
    before = client.get(prefix + key), client.ttl(prefix + key)
    status, said = move("flask-session")
    assert status == 0 and "1 live sessions" in said, said
    session = move.found(key)
    assert session is not None and session.user_id == "7"
    assert dict(session) == VALUES | {MAX_AGE: 31 * 24 * HOUR}
    lasts = app.permanent_session_lifetime
    assert abs(session.expires_at - session.created_at - lasts).total_seconds() < 60
    assert client.get(prefix + key) == before[0] and before[1] - 60 < client.ttl(prefix + key) <= before[1]


def test_a_pickle_is_loaded_only_where_that_is_asked_for(
    move: Move, client: redis.Redis, prefix: str
) -> None:
    """Flask-Session has made pickles before 0.7."""
    key, attack = str(uuid.uuid4()), str(uuid.uuid4())
    client.set(prefix + key, pickle.dumps(VALUES), ex=HOUR)
    client.set(prefix + attack, pickle.dumps(Boom(), protocol=2), ex=HOUR)
    status, said = move("flask-session")
    assert status == 3 and "2  left behind: it is a pickle" in said and move.found(key) is None
    assert Boom.exploded == 0
    status, said = move("flask-session", "--unpickle")
    assert status == 3 and "1  new here" in said and "it is no dict of values: int" in said, said
    assert Boom.exploded == 1
    session = move.found(key)
    assert session is not None and dict(session) == VALUES | {MAX_AGE: 0}


def test_what_flask_tags_is_what_it_was(
    move: Move, client: redis.Redis, prefix: str, dsn: str, config: Config
) -> None:
    values = {
        "pair": (1, ("a", b"b")), "html": Markup("<b>"), "id": uuid.UUID(int=7), "like a tag": {" t": [1]},
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC), "nested": {"deep": [(1,)]},
    }  # fmt: skip
    key = secrets.token_urlsafe(32)
    client.set(prefix + key, pickle.dumps(values), ex=HOUR)
    status, said = move("flask-session", "--unpickle")
    assert status == 0, said
    with flask_after(dsn, config.schema_name) as app, app.test_client() as browser:
        browser.set_cookie("session", key)
        answer = browser.post("/do", json=[["user"]])
        assert answer.headers["Set-Cookie"].startswith("__Host-id=")
        held = dict(flask.session)
    assert held == values and [type(held[key]) for key in values] == [
        type(value) for value in values.values()
    ]


def test_a_permanent_session_stays_permanent(
    move: Move, redis_url: str, prefix: str, dsn: str, config: Config
) -> None:
    browser = flask_before(redis_url, prefix, "msgpack", False).test_client()
    browser.post("/do", json=[["set", "n", 1]])
    assert move("flask-session", "--max-age", str(31 * 24 * HOUR))[0] == 0
    with flask_after(dsn, config.schema_name) as app, app.test_client() as here:
        here.set_cookie("session", browser.get_cookie("session").value)
        answer = here.post("/do", json=[["user"]])
        assert flask.session.permanent and "Max-Age=26" in answer.headers["Set-Cookie"]


class Boom:
    exploded = 0

    def __reduce__(self) -> Any:
        return explode, ()


def explode() -> int:
    Boom.exploded += 1
    return 1


def test_what_is_no_session_stays_behind(move: Move, client: redis.Redis, prefix: str) -> None:
    for raw in (b"\x80", b"\x81\xa1n\x01", b'{"n":1}', b"{broken", b"\xc1", b"[1]", b""):
        client.set(prefix + secrets.token_urlsafe(32), raw, ex=HOUR)
    client.set(prefix + "short", b"{}", ex=HOUR)
    client.rpush(prefix + secrets.token_urlsafe(32), "a list of Redis")
    client.set(prefix + secrets.token_urlsafe(32), pickle.dumps({"v": Decimal(1)}), ex=HOUR)
    status, said = move("flask-session", "--unpickle")
    assert status == 3, said
    for line in (
        "9 live sessions",
        "3  new here",
        "1  left behind: its key is not what a server makes",
        "1  left behind: 'v' would not be what it was: Decimal",
        "1  left behind: it cannot be decoded: JSONDecodeError",
    ):
        assert line in said, said


def test_a_user_is_text_or_a_number(move: Move, client: redis.Redis, prefix: str) -> None:
    keys = {}
    for user in ("alice", 7, True, ["alice"]):
        keys[str(user)] = secrets.token_urlsafe(32)
        client.set(prefix + keys[str(user)], msgspec.msgpack.encode({"who": user}), ex=HOUR)
    status, said = move("flask-session", "--user-key", "who")
    assert status == 3 and "'who' is not the id of a user: list" in said and "bool" in said
    for name, key in list(keys.items())[:2]:
        session = move.found(key)
        assert session is not None and session.user_id == name


def test_starsessions(move: Move, redis_url: str, client: redis.Redis, prefix: str) -> None:
    key, endless = secrets.token_hex(16), secrets.token_hex(16)

    async def write() -> None:
        async with redis.asyncio.Redis.from_url(redis_url) as connection:
            store = StarsessionsStore(connection=connection, prefix=prefix)
            data = JsonSerializer().serialize(VALUES | {"__metadata__": {"created": 1, "lifetime": HOUR}})
            await store.write(key, data, lifetime=HOUR, ttl=HOUR)
            await store.write(endless, data, lifetime=0, ttl=0)
            await connection.persist(prefix + endless)

    asyncio.run(write())
    status, said = move("starsessions", "--user-key", "_user_id")
    assert status == 0 and "2  new here" in said, said
    session = move.found(key)
    assert session is not None and session.user_id == "7"
    assert dict(session) == VALUES | {MAX_AGE: HOUR}
    assert (session.expires_at - session.created_at).total_seconds() == pytest.approx(HOUR, abs=60)
    session = move.found(endless)
    assert session is not None and round((session.expires_at - session.created_at) / DAY) == 30
    assert "2  here already" in move("starsessions", "--user-key", "_user_id")[1]


def test_a_redis_that_cannot_be_reached(move: Move) -> None:
    status, said = move("starsessions", "--redis", "redis://127.0.0.1:1")
    assert status == 1 and "127.0.0.1:1" in said
    status, said = move("starsessions", "--redis", "nonsense")
    assert status == 1 and "--redis" in said


def test_a_database_that_cannot_be_reached_or_has_no_tables(move: Move, dsn: str, schema: str) -> None:
    status, said = move("starsessions", f"{dsn} dbname=nobody")
    assert status == 4 and "nobody" in said
    status, said = move("starsessions", "--schema-name", schema)
    assert status == 1 and "pgsession init" in said
    status, said = move("starsessions", "--schema-name", "")
    assert status == 2 and "--schema-name" in said
