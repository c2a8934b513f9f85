"""Another store that answers with errors, or holds what no service has put there: nobody is logged out by it."""

from __future__ import annotations

import json
import secrets

import pytest

pytest.importorskip("redis")

import redis

from pgsession import Config, SessionManager
from tests.tables import Tables
from tests.web.moving.test_redis_store import HOUR, Move, client, prefix

__all__ = ["client", "prefix"]


@pytest.fixture
def move(
    dsn: str, config: Config, manager: SessionManager, tables: Tables, redis_url: str, prefix: str
) -> Move:
    return Move(dsn, config, manager, redis_url, prefix)


@pytest.mark.parametrize("refused", ["-get", "-pttl", "one"])
def test_a_redis_that_refuses_to_read_ends_nothing(
    move: Move, client: redis.Redis, prefix: str, redis_url: str, refused: str
) -> None:
    """As one that loads its data, or runs a script, does."""
    keys = [secrets.token_hex(16) for _ in range(2)]
    for key in keys:
        client.set(prefix + key, b'{"n":1}', ex=HOUR)
    assert move("starsessions")[0] == 0
    user, password = f"u{secrets.token_hex(4)}", secrets.token_hex(8)
    may = [f"~*{keys[0]}", "+@all"] if refused == "one" else ["~*", "+@all", refused]
    client.execute_command("ACL", "SETUSER", user, "on", f">{password}", *may)
    try:
        url = redis_url.replace("redis://", f"redis://{user}:{password}@")
        status, said = move("starsessions", REDIS_URL=url)
    finally:
        client.execute_command("ACL", "DELUSER", user)
    assert status == 1 and "pgsession: " in said and password not in said, said
    assert all(move.found(key) for key in keys)


HOSTILE = [
    b'{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    b'{"a\\u0000":1}', b'{"a":"\\u0000"}', b'{"\\ud800":1}', b'{"a":"\\ud800"}', b'{"":1}',
    b'{"a":NaN}', b'{"a":1e999}', b'{"a":' + b"9" * 5000 + b"}",
    json.dumps({f"k{n}": n for n in range(10_000)}).encode(), b'{"pgsession:max_age":5}',
    b'{"who":""}', b'{"who":"\\u0000"}', b'{"who":"\\ud800"}', b'{"who":' + b"9" * 3000 + b"}",
    json.dumps({"who": "x" * 10_000}).encode(), b'{"who":1.5}', b'{"who":{"a":1}}',
    b"\x81\x01\x02", b"\x81\xc4\x01a\x02", b"\x81\xa1\xff\x01", b"\xff", b"\xde\xff\xff",
    b"\x81\xa1a\xc7\x0c\x05" + b"x" * 12, b"\x81\xa1a" + b"\x91" * 5000 + b"\x01",
]  # fmt: skip
NO_KEYS = [b"\xff\x00" * 20, b"a\0" * 20, b"", b"a" * 32 + b".signature", b"u1:" + b"a" * 32, b"a" * 600]


@pytest.mark.parametrize("kind", ["flask-session", "starsessions"])
def test_a_session_that_nobody_can_bring_keeps_no_other_from_coming(
    move: Move, client: redis.Redis, prefix: str, kind: str
) -> None:
    nested = b'{"a":' + b"[" * 400 + b"]" * 400 + b"}"  # not too deep for JSON, but for what Flask does to it
    for raw in [*HOSTILE, *([nested] if kind == "flask-session" else [])]:
        client.set(prefix + secrets.token_hex(16), raw, ex=HOUR)
    for key in NO_KEYS:
        client.set(prefix.encode() + key, b"{}", ex=HOUR)
    good, endless = secrets.token_hex(16), secrets.token_hex(16)
    client.set(prefix + good, b'{"n":1}', ex=HOUR)
    client.set(prefix + endless, b"{}", px=200_000_000 * 365 * 86_400_000)
    for line in ("2  new here", "2  here already"):
        status, said = move(kind, "--user-key", "who")
        assert status == 3 and line in said, said
        assert f"{len(NO_KEYS)}  left behind: its key is not what a server makes" in said, said
    session = move.found(good)
    assert session is not None and session["n"] == 1 and move.found(endless) is not None
