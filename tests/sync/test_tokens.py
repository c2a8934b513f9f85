# Generated from tests/aio/test_tokens.py by tools/async_to_sync.py: never edit.

"""Tokens at the manager: what is forged costs no query, what is signed leads to its session."""

from __future__ import annotations

import random
import secrets

import pytest

import pgsession
from pgsession import Signer

from .conftest import OpenAsyncManager

KEY, OLD_KEY = b"k" * 32, b"o" * 32


def signed(signer: Signer, session: pgsession.Session) -> str:
    """A token of a session that this signer has made."""
    record = session._record
    return signer._session_token(record.key, record.generation, record.version)


def test_a_token_leads_to_its_session(open_manager: OpenAsyncManager) -> None:
    signer = Signer(KEY)
    a, b = open_manager(signer=signer), open_manager(signer=signer)
    session = a.create_session("u", {"n": 1})
    token = a.token(session)
    for node in (a, b):
        for _ in range(2):
            read = node.get_session_by_token(token)
            assert read is not None and read.id == session.id and dict(read) == {"n": 1}
    a.delete_session(session.id)
    assert a.get_session_by_token(token) is None


def test_the_version_in_a_token_is_what_its_reader_sees_at_least(
    open_manager: OpenAsyncManager,
) -> None:
    signer = Signer(KEY)
    a, b = open_manager(signer=signer), open_manager(signer=signer)
    session = a.create_session("u", {"n": 1})
    old = a.token(session)
    b.get_session(session.id)
    session["n"] = 2
    a.update_session(session, notify=False)
    new = a.token(session)
    read = b.get_session_by_token(old)
    assert read is not None and read["n"] == 1, "b has not heard of it"
    read = b.get_session_by_token(new)
    assert read is not None and read["n"] == 2
    session["n"] = 3
    a.update_session(session, notify=False)
    read = b.get_session_by_token(new, min_version=session.version)
    assert read is not None and read["n"] == 3


def test_keys_are_rotated(open_manager: OpenAsyncManager) -> None:
    manager = open_manager(signer=Signer([KEY, OLD_KEY]))
    session = manager.create_session("u")
    for key in (KEY, OLD_KEY):
        assert manager.get_session_by_token(signed(Signer(key), session)) is not None
    assert manager.get_session_by_token(signed(Signer(b"z" * 32), session)) is None


def test_a_key_is_rotated_node_by_node(open_manager: OpenAsyncManager) -> None:
    """The new key last everywhere, then first everywhere, then alone: at no moment is a token of a node refused."""
    steps = ([OLD_KEY], [OLD_KEY, KEY], [KEY, OLD_KEY])
    deploys = [(steps[max(step - 1, 0)], steps[step]) for step in range(3)] + [(steps[2], steps[2])]
    for keys in deploys:  # one node is there already, the other not yet
        signers = [Signer(some) for some in keys]
        nodes = [open_manager(signer=signer) for signer in signers]
        session = nodes[0].create_session("u")
        for signer in signers:
            token = signed(signer, session)
            assert [node.get_session_by_token(token) is not None for node in nodes] == [True, True]
    signers = [Signer([KEY]), Signer([KEY, OLD_KEY])]
    last = open_manager(signer=signers[0])
    assert last.get_session_by_token(signed(signers[1], session)) is not None
    assert last.get_session_by_token(signed(Signer(OLD_KEY), session)) is None, "dropped"


def test_a_bad_token_is_none(open_manager: OpenAsyncManager) -> None:
    signer = Signer(KEY)
    manager = open_manager(signer=signer)
    session = manager.create_session("u")
    token = manager.token(session)
    assert token is not None
    changed = ("B" if token[0] != "B" else "C") + token[1:]
    for bad in ("", "x", changed, token[:-1], token + "A", token[::-1], "ü" * 88, "\0", str(session.id)):
        assert manager.get_session_by_token(bad) is None
    assert manager.get_session_by_token(signer.sign(session.id.bytes)) is None, "for another purpose"


def test_without_a_signer_it_says_so(manager: pgsession.SessionManager) -> None:
    with pytest.raises(pgsession.ConfigError, match="signer"):
        manager.get_session_by_token("x" * 88)
    with pytest.raises(pgsession.ConfigError, match="signer"):
        manager.open_token("x" * 88)
    with pytest.raises(pgsession.ConfigError, match="signer"):
        manager.token(manager.create_session())


def test_a_flood_of_forged_tokens_causes_no_query(open_manager: OpenAsyncManager) -> None:
    """100,000 of them; the manager's pool would fail each query, were there one."""
    signer = Signer(KEY)
    manager = open_manager(signer=signer)
    session = manager.create_session("u")
    good = manager.token(session)
    assert good is not None
    manager.get_session_by_token(good)
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    choice = random.Random(seed)
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    manager._open_runtime().pool.close()
    before = manager.stats()
    for number in range(100_000):
        if number % 2:
            forged = "".join(choice.choices(alphabet, k=88))
        else:
            place = choice.randrange(88)
            forged = good[:place] + choice.choice(alphabet.replace(good[place], "")) + good[place + 1 :]
        assert manager.get_session_by_token(forged) is None
    after = manager.stats()
    assert (after.fills, after.misses, after.hits) == (before.fills, before.misses + 100_000, before.hits)
    assert after.pending_accesses == before.pending_accesses
    assert manager.get_session_by_token(good) is not None, "from memory, as before"
