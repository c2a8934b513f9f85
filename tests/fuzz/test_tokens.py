"""Tokens: only what the signer has made opens, and the compiled opening agrees with the one in Python."""

from __future__ import annotations

from base64 import urlsafe_b64encode
from hmac import compare_digest, digest
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.reader import AsyncReader, Reader
from pgsession._core.token import open_session_token
from pgsession.errors import InvalidTokenError
from pgsession.opened import Opened
from pgsession.tokens import Signer, _decode

from . import fuzz, mutated

KEYS = (b"n" * 32, b"o" * 33)
NEW, OLD, ALIEN = Signer(KEYS), Signer(KEYS[1]), Signer(b"a" * 32)
SESSION_KEYS = NEW._session_keys
ALPHABET = "ABCxyz019-_+/=. "
VALID = OLD._session_token(bytes(15) + b"7", -5, 3)


def sealed(key: bytes, message: bytes) -> str:
    return urlsafe_b64encode(message + digest(key, message, "sha256")).rstrip(b"=").decode()


class Text(str):
    def __hash__(self) -> int:
        return 1

    def __eq__(self, other: object) -> bool:
        return True


versions = st.integers(0, 2**63 - 1)
signed = st.builds(
    lambda signer, key, generation, version: signer._session_token(key, generation, version),
    st.sampled_from([NEW, OLD, ALIEN]),
    st.binary(min_size=16, max_size=16),
    st.integers(-(2**63), 2**63 - 1),
    versions,
)
# Of another kind, or with a version that cannot be: made with the right key all the same.
forged = st.builds(lambda key, body: sealed(key, body), st.sampled_from(SESSION_KEYS), st.binary(max_size=40))
nearly = st.builds(
    lambda kind, body: sealed(SESSION_KEYS[0], kind + body),
    st.sampled_from([b"s\1", b"s\2", b"s\0", b"m\1", b"S\1"]),
    st.binary(min_size=31, max_size=33),
)
tokens = (
    mutated(signed | forged | nearly, ALPHABET)
    | st.text(max_size=90)
    | st.text(ALPHABET, min_size=88, max_size=88)
)
anything = st.one_of(
    signed, tokens, tokens.map(Text), st.none(), st.integers(), st.binary(max_size=80), st.floats()
)


def opened_in_python(token: Any) -> tuple[bytes, int, int] | None:
    """What the rules of a session's token say, step by step."""
    try:
        octets = _decode(str.__str__(token) if isinstance(token, str) else token)
    except InvalidTokenError:
        return None
    message, mac = octets[:-32], octets[-32:]
    if len(message) != 34 or message[:2] != b"s\1":
        return None
    if not any(compare_digest(mac, digest(key, message, "sha256")) for key in SESSION_KEYS):
        return None
    version = int.from_bytes(message[26:], "big")
    generation = int.from_bytes(message[18:26], "big", signed=True)
    return (message[2:18], generation, version) if version < 2**63 else None


@fuzz
@given(anything)
@example(VALID)
@example(Text(VALID))
@example("\ud800" * 88)
def test_both_ways_of_opening_a_token_agree(token: Any) -> None:
    opened = open_session_token(SESSION_KEYS, token)
    assert opened == opened_in_python(token)
    if opened is not None:
        assert str.__str__(token) in (signer._session_token(*opened) for signer in (NEW, OLD))


@fuzz
@given(signed, st.data())
def test_a_changed_token_is_refused(token: str, data: st.DataObject) -> None:
    changed = data.draw(mutated(st.just(token), ALPHABET))
    opened = open_session_token(SESSION_KEYS, changed)
    assert opened is None or changed == token


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

    _opened = Opened

    def _load_session_by_token(
        self, key: bytes, generation: int, touch: bool, refresh: bool, min_version: int
    ) -> tuple[bytes, int, int]:
        return key, generation, min_version

    def _verify_token(self, token: str) -> tuple[bytes, int, int] | None:
        return open_session_token(SESSION_KEYS, token)


class Threads(Verifying, Reader):
    pass


class Loops(Verifying, AsyncReader):
    pass


CACHE = Cache(4, Clock(manual=0), access_interval=0, lifetime=0, max_attribute_length=1)
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
