"""The public surface as mypy and pyright see it; never run. `make check` fails where a type is not what is said here.

The lines marked `type: ignore` are mistakes that have to be found: mypy reports an `ignore` that nothing needed.
"""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import datetime, timedelta
from typing import Any, Literal, NotRequired, Required, TypedDict, assert_type
from uuid import UUID

import msgspec

import pgsession


class Preferences(msgspec.Struct, frozen=True):
    theme: str = "light"


class Cart(TypedDict):
    items: list[str]


class Account(TypedDict, total=False):
    role: Literal["admin", "reader"]
    preferences: Required[Preferences]
    cart: NotRequired[list[str]]


def managers(session_id: UUID, token: str) -> None:
    config = pgsession.Config(max_sessions=10, session_expiration=timedelta(days=1), inactivity_duration=3600)
    signer = pgsession.Signer([b"k" * 32])
    with pgsession.SessionManager("postgresql:///app", config, signer=signer) as sessions:
        assert_type(sessions, pgsession.SessionManager)
        created = sessions.create_session(
            7, {"role": "admin"}, group_id=session_id, expires_in=timedelta(hours=1)
        )
        assert_type(created, pgsession.Session)
        assert_type(sessions.create_session(), pgsession.Session)
        assert_type(sessions.get_session(session_id), pgsession.Session | None)
        assert_type(
            sessions.get_session(str(session_id), touch=False, refresh=True, min_version=3),
            pgsession.Session | None,
        )
        assert_type(sessions.get_cached_session(session_id.bytes), pgsession.Session | None)
        assert_type(sessions.get_session_by_token(token), pgsession.Session | None)
        assert_type(sessions.get_cached_session_by_token(token), pgsession.Session | None)
        assert_type(sessions.open_token(token), pgsession.Opened)
        assert_type(sessions.token(created), str | None)
        assert_type(sessions.update_session(created, check="attributes"), pgsession.Session)
        assert_type(sessions.rotate_session(created, user_id=7, expires_in=60), pgsession.Session)
        assert_type(sessions.rotate_session(created, grace=timedelta(0)), pgsession.Session)
        assert_type(sessions.list_user_sessions("7"), list[pgsession.Session])
        assert_type(sessions.list_group_sessions("7", limit=5, after=created), list[pgsession.Session])
        assert_type(sessions.load_sessions([session_id]), dict[UUID, pgsession.Session])
        assert_type(sessions.load_sessions({str(session_id)}, touch=False), dict[str, pgsession.Session])
        assert_type(sessions.count_sessions(user_id="7"), int)
        assert_type(sessions.delete_expired_sessions(), int)
        assert_type(sessions.delete_session(session_id), bool)
        assert_type(sessions.delete_user_sessions(7, keep=session_id), int)
        assert_type(sessions.delete_attribute_from_user_sessions(7, "role"), int)
        assert_type(sessions.stats(), pgsession.Stats)
        assert_type(sessions.check_health(), pgsession.Health)
        with sessions.lock("rebuild") as lock:
            assert_type(lock, pgsession.Lock)
            assert_type(lock.token, int | None)
            assert_type(lock.acquire(timeout=1), bool)
        sessions.get_session(7)  # type: ignore[arg-type]
        sessions.update_session(created, check="everything")  # type: ignore[arg-type]
        pgsession.Config(max_session=1)  # type: ignore[call-arg]


async def async_managers(session_id: UUID, token: str) -> None:
    async with pgsession.AsyncSessionManager("postgresql:///app") as sessions:
        assert_type(sessions, pgsession.AsyncSessionManager)
        created = await sessions.create_session("u", {})
        assert_type(created, pgsession.Session)
        assert_type(await sessions.get_session(session_id), pgsession.Session | None)
        assert_type(sessions.get_cached_session(session_id), pgsession.Session | None)
        assert_type(await sessions.get_session_by_token(token), pgsession.Session | None)
        assert_type(sessions.get_cached_session_by_token(token), pgsession.Session | None)
        opened, state = await sessions.open_token(token)
        assert_type(opened, pgsession.Session | None)
        assert_type(sessions.token(created), str | None)
        assert_type(state, Literal["current", "previous", "superseded", "ended", "forged"])
        assert_type(await sessions.update_session(created), pgsession.Session)
        assert_type(await sessions.delete_group_sessions("g"), int)
        async with sessions.lock("rebuild") as lock:
            assert_type(lock, pgsession.AsyncLock)
        found = sessions.get_cached_session(session_id) or await sessions.get_session(session_id)
        assert_type(found, pgsession.Session | None)


def admins(session_id: UUID) -> None:
    admin = pgsession.Admin("postgresql:///app", pgsession.Config(schema_name="web"))
    assert_type(
        admin.list_sessions(user_id=7, after=session_id, with_values=True), list[pgsession.SessionInfo]
    )
    assert_type(admin.list_sessions()[0].attributes, dict[str, Any] | None)
    assert_type(admin.count(active_within=timedelta(hours=1)), int)
    assert_type(admin.revoke(older_than=0), int)
    assert_type(admin.list_locks(limit=5), list[pgsession.LockInfo])
    assert_type(admin.break_lock("rebuild"), bool)
    assert_type(admin.nodes(), list[pgsession.NodeInfo])
    admin.list_sessions(7)  # type: ignore[call-arg]


async def async_admins() -> None:
    admin = pgsession.AsyncAdmin("postgresql:///app")
    assert_type(await admin.list_sessions(group_id="g"), list[pgsession.SessionInfo])
    assert_type(await admin.revoke(user_id="u"), int)
    await admin.rotate_secret()


def session(session: pgsession.Session) -> None:
    mapping: MutableMapping[str, Any] = session
    assert_type(session.id, UUID)
    assert_type(session.user_id, str | None)
    assert_type(session.group_id, str | None)
    assert_type(session.expires_at, datetime)
    assert_type(session.version, int)
    assert_type(session.get("preferences", type=Preferences), Preferences | None)
    assert_type(session.get("preferences", Preferences(), type=Preferences), Preferences)
    assert_type(session.get("cart", type=Cart), Cart | None)
    assert_type(session.get("roles", type=list[str]), list[str] | None)
    assert_type(session.attribute("role"), pgsession.Attribute)
    assert_type(session.attribute("role").expires_at, datetime | None)
    session.set("code", 1, expires_in=timedelta(minutes=5))
    session["role"] = mapping["role"]
    session.id = UUID(int=0)  # type: ignore[misc]
    session[1] = "a key is text"  # type: ignore[index]


def typed_sessions(session: pgsession.Session) -> None:
    account = session.as_type(Account)
    assert_type(account, Account)
    assert_type(account["preferences"], Preferences)
    assert_type(account.get("cart"), list[str] | None)
    account["role"] = "admin"
    account.setdefault("cart", []).append("book")
    account["role"] = "nobody"  # type: ignore[typeddict-item]
    account["rule"] = "admin"  # type: ignore[typeddict-unknown-key]
    assert_type(session.as_type(Preferences), Preferences)
    session.as_type(Preferences).theme = "dark"  # type: ignore[misc]


class Upper(pgsession.Codec):
    def to_plain(self, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    def from_plain(self, value: Any) -> Any:
        return value.upper() if isinstance(value, str) else value

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        return session_id.bytes + key.encode() + data

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        return data[16 + len(key.encode()) :]


def codecs() -> None:
    config: pgsession.Config = pgsession.Config(codec=Upper())
    assert_type(config.codec, pgsession.Codec | None)
    pgsession.Config(codec=object())  # type: ignore[arg-type]


def tokens(signer: pgsession.Signer) -> None:
    assert_type(signer.sign(b"message"), str)
    assert_type(signer.verify("token"), bytes)


def errors(error: pgsession.PgSessionError) -> None:
    if isinstance(error, pgsession.AttributeVersionConflict):
        assert_type(error.keys, tuple[str, ...])
        assert_type(error.session_id, UUID)
