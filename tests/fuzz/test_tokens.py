"""Tokens: only what the signer has made opens, and the compiled opening agrees with the one in Python."""

from __future__ import annotations

from typing import Any
from uuid import UUID

from hypothesis import example, given
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.token import open_session_token
from pgsession.errors import InvalidTokenError
from pgsession.tokens import Signer

from . import fuzz, mutated

KEYS = (b"n" * 32, b"o" * 33)
NEW, OLD, ALIEN = Signer(KEYS), Signer(KEYS[1]), Signer(b"a" * 32)
ALPHABET = "ABCxyz019-_+/=. "
VALID = OLD.sign_session(UUID(int=7), 3)


class Text(str):
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True


versions = st.integers(0, 2**63 - 1)
signed = st.builds(
    lambda signer, session_id, version: signer.sign_session(session_id, version),
    st.sampled_from([NEW, OLD, ALIEN]),
    st.uuids(),
    versions,
)
# Of another kind, or with a version that cannot be: made with the right key all the same.
forged = st.builds(
    lambda signer, body: signer._seal(body), st.sampled_from([NEW, OLD]), st.binary(max_size=40)
)
nearly = st.builds(
    lambda kind, body: NEW._seal(kind + body),
    st.sampled_from([b"s", b"m", b"S"]),
    st.binary(min_size=23, max_size=25),
)
tokens = (
    mutated(signed | forged | nearly, ALPHABET)
    | st.text(max_size=90)
    | st.text(ALPHABET, min_size=76, max_size=76)
)
anything = st.one_of(
    signed, tokens, tokens.map(Text), st.none(), st.integers(), st.binary(max_size=80), st.floats()
)


def opened_in_python(token: Any) -> tuple[bytes, int] | None:
    """What the rules of `tokens.py` say, step by step."""
    try:
        sealed = NEW._unseal(str.__str__(token) if isinstance(token, str) else token, b"s")
    except InvalidTokenError:
        return None
    version = int.from_bytes(sealed[17:], "big")
    return (sealed[1:17], version) if len(sealed) == 25 and version < 2**63 else None


@fuzz
@given(anything)
@example(VALID)
@example(Text(VALID))
@example("\ud800" * 76)
def test_both_ways_of_opening_a_token_agree(token: Any) -> None:
    opened = open_session_token(KEYS, token)
    assert opened == opened_in_python(token)
    if opened is not None:
        assert str.__str__(token) in (signer.sign_session(*opened) for signer in (NEW, OLD))


@fuzz
@given(signed, st.data())
def test_a_changed_token_is_refused(token: str, data: st.DataObject) -> None:
    changed = data.draw(mutated(st.just(token), ALPHABET))
    try:
        opened = NEW.verify_session(changed)
    except InvalidTokenError:
        return
    assert changed == token
    assert OLD.sign_session(*opened) == token or NEW.sign_session(*opened) == token


@fuzz
@given(st.binary(max_size=60), st.data())
def test_a_changed_message_is_refused(message: bytes, data: st.DataObject) -> None:
    token = NEW.sign(message)
    changed = data.draw(mutated(st.just(token), ALPHABET))
    try:
        assert NEW.verify(changed) == message and changed == token
    except InvalidTokenError:
        assert changed != token


class Verifying:
    """A manager that asks the database for what it does not find in memory."""

    def _load(self, key: bytes, touch: bool, refresh: bool, min_version: int) -> tuple[bytes, int]:
        return key, min_version

    def _verify_token(self, token: str) -> tuple[bytes, int] | None:
        return open_session_token(KEYS, token)


class Threads(Verifying, Reader):
    pass


class Loops(Verifying, AsyncReader):
    pass


CACHE = Cache(4, Clock(manual=0), inactivity=0, access_interval=0, lifetime=0, max_attribute_length=1)
READERS = (Threads(CACHE), Loops(CACHE))


def answer(reader: Any, token: Any) -> Any:
    found = reader.get_session_by_token(token)
    if found is None or isinstance(found, tuple):
        return found
    try:
        return found.send(None)  # an awaitable of None
    except StopIteration as stop:
        return stop.value


@fuzz
@given(anything)
@example(Text(VALID))
def test_a_reader_takes_what_opens_and_nothing_else(token: Any) -> None:
    """Twice: what was verified before is remembered."""
    expected = opened_in_python(token)
    for reader in READERS:
        assert answer(reader, token) == expected
        assert answer(reader, token) == expected
