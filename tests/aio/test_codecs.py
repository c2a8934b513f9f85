"""Managers with a codec: what the tables hold is sealed, every node with the codec reads it, and nobody else does."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from hashlib import sha256
from hmac import compare_digest, digest
from uuid import UUID

import pytest

import pgsession
from tests.tables import Tables

from .conftest import OpenAsyncManager

WHEN = datetime(2030, 1, 1, tzinfo=UTC)


class Bound(pgsession.Codec):
    """No cipher: it scrambles, signs, and is different each time. Times are read as times."""

    def __init__(self, secret: bytes = b"secret") -> None:
        self.secret = secret

    def to_plain(self, value: object) -> object:
        return {"$time": value.isoformat()} if isinstance(value, datetime) else value

    def from_plain(self, value: object) -> object:
        if isinstance(value, dict) and "$time" in value:
            return datetime.fromisoformat(value["$time"])
        return value

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        text = os.urandom(8) + bytes(byte ^ 0x55 for byte in data)
        return digest(self.secret, session_id.bytes + key.encode() + text, sha256) + text

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        mark, text = data[:32], data[32:]
        if not compare_digest(mark, digest(self.secret, session_id.bytes + key.encode() + text, sha256)):
            raise ValueError("forged")
        return bytes(byte ^ 0x55 for byte in text[8:])


async def test_what_is_sealed_is_read_on_every_node(open_manager: OpenAsyncManager, tables: Tables) -> None:
    one, two = await open_manager(codec=Bound()), await open_manager(codec=Bound())
    session = await one.create_session("ann", {"card": "4111", "since": WHEN, "cart": ["book"]})
    assert dict(session) == {"card": "4111", "since": WHEN, "cart": ["book"]} and not session.is_modified
    other = await two.get_session(session.id)
    assert other is not None and dict(other) == dict(session)
    other["cart"].append("pen")
    other["card"] = "4222"
    await two.update_session(other, check="attributes")
    assert dict(other) == {"card": "4222", "since": WHEN, "cart": ["book", "pen"]} and not other.is_modified
    read = await one.get_session(session.id, refresh=True)
    assert read is not None and dict(read) == dict(other)

    def add(session: pgsession.Session) -> None:
        session["cart"].append("ink")

    changed = await one.modify_session(session.id, add)
    assert changed["cart"] == ["book", "pen", "ink"]
    for (value,) in tables.run("SELECT value::text FROM {session_attributes}"):
        assert isinstance(value, str) and value[0] == value[-1] == '"'
        assert not any(word in value for word in ("4222", "book", "2030"))


async def test_what_is_put_in_by_sql_or_of_another_place_is_refused_and_left(
    open_manager: OpenAsyncManager, tables: Tables
) -> None:
    manager = await open_manager(codec=Bound())
    admin = await manager.create_session("root", {"role": "admin"})
    session = await manager.create_session("eve", {"role": "none", "name": "eve", "plain": 1})
    tables.run(
        "UPDATE {session_attributes} SET value = (SELECT value FROM {session_attributes} WHERE session_id = %s)"
        " WHERE session_id = %s AND key = 'role'",
        admin.id,
        session.id,
    )
    tables.run("UPDATE {session_attributes} SET value = '5' WHERE key = 'plain'")
    read = await manager.get_session(session.id, refresh=True)
    assert read is not None and read["name"] == "eve"
    for key in ("role", "plain"):
        with pytest.raises(pgsession.AttributeCodecError, match=f"'{key}'"):
            read[key]
    read["name"] = "Eve"
    await manager.update_session(read)
    for key in ("role", "plain"):
        with pytest.raises(pgsession.AttributeCodecError, match=f"'{key}'"):
            read[key]
    read["plain"] = 2
    await manager.update_session(read)
    again = await manager.get_session(session.id, refresh=True)
    assert again is not None and again["plain"] == 2 and again["name"] == "Eve"


async def test_limits_and_failures_are_told_before_anything_is_sent(open_manager: OpenAsyncManager) -> None:
    manager = await open_manager(codec=Bound(), max_attribute_length=100, max_session_size=150)
    with pytest.raises(pgsession.AttributeTooLargeError):
        await manager.create_session("ann", {"a": "x" * 50})
    with pytest.raises(pgsession.SessionTooLargeError):
        await manager.create_session("ann", {"a": "x" * 20, "b": "x" * 20})
    assert await manager.list_user_sessions("ann") == []
    session = await manager.create_session("ann", {"a": ["x"]})
    version = session.version
    session["a"].append("y" * 50)
    with pytest.raises(pgsession.AttributeTooLargeError):
        await manager.update_session(session)
    assert session.is_modified and session.version == version
    session["a"].pop()
    await manager.update_session(session)


async def test_a_node_without_the_codec_reads_no_secret(open_manager: OpenAsyncManager) -> None:
    with_codec, other_key = await open_manager(codec=Bound()), await open_manager(codec=Bound(b"another"))
    without = await open_manager()
    session = await with_codec.create_session("ann", {"card": "4111"})
    read = await without.get_session(session.id)
    assert read is not None and isinstance(read["card"], str) and "4111" not in read["card"]
    read = await other_key.get_session(session.id)
    assert read is not None
    with pytest.raises(pgsession.AttributeCodecError):
        read["card"]


def test_seal_and_open_belong_together() -> None:
    class Half(pgsession.Codec):
        def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
            return data

    with pytest.raises(pgsession.ConfigError, match="codec: must have both of seal and open"):
        pgsession.Config(codec=Half())
