"""Each example runs, and does what it says."""

from __future__ import annotations

import runpy
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from types import ModuleType

import msgspec
import pytest

import pgsession
from tests.tables import Tables
from tests.versions import changes

from .conftest import EXAMPLES

Example = Callable[[str], ModuleType]
SCRIPTS = sorted(
    path.stem
    for path in EXAMPLES.glob("*.py")
    if path.stem not in ("demo", "relay", "common", "asgi_app", "wsgi_app")
)


@pytest.mark.parametrize("name", SCRIPTS)
def test_the_script_runs(
    name: str,
    example: Example,
    dsn: str,
    schema: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("DATABASE_URL", dsn)
    monkeypatch.setenv("PGSESSION_SCHEMA_NAME", schema)
    monkeypatch.setattr(sys, "argv", [name])
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert capsys.readouterr().out


def test_create_get_update_delete(example: Example, sessions: pgsession.SessionManager) -> None:
    first_steps = example("first_steps")
    session = first_steps.log_in(sessions, 7)
    assert session.user_id == "7" and not session.include_inactivity
    assert timedelta(hours=47) < session.expires_at - datetime.now(UTC) <= timedelta(hours=48)
    assert first_steps.switch_theme(sessions, session).theme == "light"
    read = sessions.get_session(session.id, refresh=True)
    assert read is not None and read["preferences"] == {"theme": "light", "language": "en"}


@pytest.mark.parametrize(
    ("key", "minutes"),
    [("elevated_access", 15), ("promo_code", 60), ("form", 30), ("external_api_token", 5)],
)
def test_attributes_that_end(
    example: Example, sessions: pgsession.SessionManager, tables: Tables, key: str, minutes: int
) -> None:
    """Step-up authentication, a limited-time offer, an abandoned form, a short-lived token."""
    attributes = example("expiring_attributes")
    session = sessions.create_session("alice", {"stays": 1})
    assert not attributes.may_do_dangerous_things(session)
    attributes.grant_elevated_access(sessions, session)
    attributes.offer(sessions, session, "FLASH_SALE_20", timedelta(hours=1))
    attributes.save_form(sessions, session, {"name": "Alice"})
    attributes.save_form(sessions, session, {"city": "Paris"})
    attributes.keep_api_token(sessions, session, "token123", timedelta(minutes=5))
    assert attributes.may_do_dangerous_things(session)
    assert session["form"] == {"name": "Alice", "city": "Paris"}
    ends = session.attribute(key).expires_at
    assert ends is not None
    assert timedelta(minutes=minutes - 1) < ends - datetime.now(UTC) <= timedelta(minutes=minutes)
    tables.run(
        "UPDATE {session_attributes} SET expires_at = now() WHERE key = %s", key
    )  # as if that time had passed
    read = sessions.get_session(session.id, refresh=True)
    assert read is not None and key not in read and read["stays"] == 1 and len(read) == 4
    assert attributes.may_do_dangerous_things(read) == (key != "elevated_access")


def test_expirations_change(example: Example, sessions: pgsession.SessionManager) -> None:
    expirations = example("expirations")
    session = sessions.create_session("alice")
    expirations.keep_me_logged_in(sessions, session)
    assert session.expires_at - datetime.now(UTC) > timedelta(days=364) and not session.include_inactivity
    expirations.until_midnight(sessions, session)
    assert session.expires_at.time() == datetime.min.time()
    expirations.on_a_shared_computer(sessions, session)
    read = sessions.get_session(session.id, refresh=True)
    assert (
        read is not None
        and read.inactivity == timedelta(minutes=15)
        and read.expires_at == session.expires_at
    )


def test_optimistic_locking_of_a_session(example: Example, sessions: pgsession.SessionManager) -> None:
    locking = example("optimistic_locking")
    session = sessions.create_session("alice", {"balance": 0})
    assert locking.close_account(sessions, session.id)
    update = sessions.update_session

    def overtaken(session: pgsession.Session, **options: object) -> pgsession.Session:
        other = sessions.get_session(session.id)
        assert other is not None
        other["balance"] = 5
        update(other)
        return update(session, **options)  # type: ignore[arg-type]

    sessions.update_session = overtaken  # type: ignore[method-assign]
    assert not locking.close_account(sessions, session.id)


def test_optimistic_locking_of_attributes(example: Example, sessions: pgsession.SessionManager) -> None:
    locking = example("optimistic_locking")
    session = sessions.create_session("alice", {"preferences": {"theme": "dark"}, "other": 1})
    update = sessions.update_session
    change = {"other": 2}

    def overtaken(session: pgsession.Session, **options: object) -> pgsession.Session:
        other = sessions.get_session(session.id)
        assert other is not None
        other.update(change)
        update(other)
        return update(session, **options)  # type: ignore[arg-type]

    sessions.update_session = overtaken  # type: ignore[method-assign]
    assert locking.switch_theme(sessions, session.id, "light") == ()
    change = {"preferences": {"theme": "blue"}}  # type: ignore[dict-item]
    assert locking.switch_theme(sessions, session.id, "green") == ("preferences",)
    read = sessions.get_session(session.id, refresh=True)
    assert read is not None and dict(read) == {"preferences": {"theme": "blue"}, "other": 2}


def test_a_hundred_additions_by_twenty_clients_on_two_nodes(
    example: Example, sessions: pgsession.SessionManager, dsn: str, config: pgsession.Config
) -> None:
    cart = example("shopping_cart")
    session = sessions.create_session("alice", {"cart": []})
    items = [f"item {number}" for number in range(100)]
    with pgsession.SessionManager(dsn, config) as other:
        cart.fill([sessions, other], session.id, items, clients=20)
        for node in (sessions, other):
            read = node.get_session(session.id, refresh=True)
            assert read is not None and sorted(read["cart"]) == sorted(items) and changes(read) == 100


def test_roles_are_cleared_everywhere_and_computed_on_next_use(
    example: Example, sessions: pgsession.SessionManager
) -> None:
    roles = example("roles")
    users = roles.Users()
    users.set_roles("alice", ["reader"])
    mine = [sessions.create_session("alice") for _ in range(3)]
    for session in mine * 2:
        assert roles.get_session_with_roles(sessions, users, session.id)["roles"] == ["reader"]
    assert users.lookups == 3
    assert roles.change_roles(sessions, users, "alice", ["admin"]) == 3
    for session in mine[:2] * 2:
        assert roles.get_session_with_roles(sessions, users, session.id)["roles"] == ["admin"]
    assert users.lookups == 5, "not for the session that nobody uses"


def test_the_cookie_is_signed(example: Example, dsn: str, config: pgsession.Config) -> None:
    cookies = example("signed_cookie")
    signer = pgsession.Signer(b"k" * 32)
    with pgsession.SessionManager(dsn, config, signer=signer) as sessions:
        session = sessions.create_session("alice")
        header = cookies.set_cookie(sessions, session)
        name_and_value, *flags = header.split("; ")
        assert sorted(flags) == ["HttpOnly", "Path=/", "SameSite=Strict", "Secure"]
        found = cookies.get_session(sessions, name_and_value)
        assert found is not None and found.id == session.id
        before = sessions.stats()
        forged = name_and_value[:-2] + ("AA" if name_and_value[-2:] != "AA" else "BB")
        assert cookies.get_session(sessions, forged) is None
        assert sessions.stats().fills == before.fills


def test_attributes_are_encrypted_and_keys_are_rotated(
    example: Example, dsn: str, config: pgsession.Config, tables: Tables
) -> None:
    encrypted = example("encrypted_attributes")
    old, new = bytes(32), bytes([1]) * 32

    def with_keys(*keys: bytes) -> pgsession.SessionManager:
        codec = encrypted.Encrypting(keys)
        return pgsession.SessionManager(dsn, msgspec.structs.replace(config, codec=codec))

    with with_keys(old) as sessions:
        session = sessions.create_session("alice", {"card": "4111", "code": pgsession.Attribute(5)})
        session.set("soon", "over", expires_in=3600)
        ends = sessions.update_session(session).attribute("soon").expires_at
        other = sessions.create_session("bob", {"card": "4222"})
    texts = [value for (value,) in tables.run("SELECT value::text FROM {session_attributes}")]
    assert len(texts) == 4 and not any("4111" in text or "over" in text for text in texts)

    with with_keys(new, old) as sessions:
        for made in (session, other):
            read = sessions.get_session(made.id)
            assert read is not None and read["card"] == ("4111" if made is session else "4222")
        changed = sessions.modify_session(session.id, encrypted.seal_anew)
        assert dict(changed) == {"card": "4111", "code": 5, "soon": "over"}
        assert changed.attribute("soon").expires_at == ends
    tables.run(
        "UPDATE {session_attributes} SET value = (SELECT value FROM {session_attributes}"
        " WHERE session_id = %s AND key = 'card') WHERE session_id = %s AND key = 'code'",
        session.id,
        session.id,
    )
    with with_keys(new) as sessions:
        read = sessions.get_session(session.id)
        assert read is not None and (read["card"], read["soon"]) == ("4111", "over")
        with pytest.raises(pgsession.AttributeCodecError, match=r"'code'.* InvalidTag"):
            read["code"]
        read = sessions.get_session(other.id)
        assert read is not None
        with pytest.raises(pgsession.AttributeCodecError, match=r"'card'.* InvalidTag"):
            read["card"]


def test_locks_in_all_forms(example: Example, sessions: pgsession.SessionManager) -> None:
    locks = example("locks")
    assert locks.nightly_job(sessions, lambda: None)
    with sessions.lock("nightly-job"):
        assert not locks.nightly_job(sessions, lambda: pytest.fail("somebody else is at it"))

    session = sessions.create_session("alice")
    assert locks.checkout(sessions, session, lambda: None)
    with sessions.lock(f"checkout {session.id}"):
        assert not locks.checkout(sessions, session, lambda: pytest.fail("somebody else is at it"))

    built: list[tuple[str, int]] = []
    locks.rebuild_index(sessions, ["a", "b"], lambda part, token: built.append((part, token)))
    locks.rebuild_index(sessions, ["c"], lambda part, token: built.append((part, token)))
    assert [part for part, _ in built] == ["a", "b", "c"]
    assert built[0][1] == built[1][1] < built[2][1]

    slow = []
    locks.slow_step(sessions, lambda: slow.append(1))
    assert slow == [1] and sessions.stats().held_locks == 0
