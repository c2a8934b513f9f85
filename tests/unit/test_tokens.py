from __future__ import annotations

import base64
import secrets
import string
from hmac import digest
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pgsession._core.token import open_session_token
from pgsession.errors import ConfigError, InvalidTokenError
from pgsession.tokens import Signer

KEY, OTHER = b"k" * 32, b"o" * 32
ALPHABET = string.ascii_letters + string.digits + "-_"
signer = Signer(KEY)


@given(st.binary(max_size=200))
def test_a_signed_message_comes_back(message: bytes) -> None:
    token = signer.sign(message)
    assert set(token) <= set(ALPHABET)
    assert signer.verify(token) == message


def test_text_is_signed_as_utf_8() -> None:
    assert signer.verify(signer.sign("é")) == "é".encode()


def opened(token: object, by: Signer = signer) -> tuple[bytes, int, int] | None:
    return open_session_token(by._session_keys, token)


@given(st.uuids(), st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**63 - 1))
def test_a_session_token_carries_id_generation_and_version(
    session_id: UUID, generation: int, version: int
) -> None:
    token = signer._session_token(session_id.bytes, generation, version)
    assert len(token) == 88
    assert opened(token) == (session_id.bytes, generation, version)


def session_token(by: Signer = signer) -> str:
    return by._session_token(UUID(int=2**127 + 5).bytes, 5, 3)


@given(st.data())
def test_no_changed_token_opens(data: st.DataObject) -> None:
    token = session_token()
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET + "=+/.\n é").filter(lambda c: c != token[position]))
    assert opened(token[:position] + character + token[position + 1 :]) is None


@given(st.binary(max_size=40), st.data())
def test_no_changed_message_token_verifies(message: bytes, data: st.DataObject) -> None:
    token = signer.sign(message)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET).filter(lambda c: c != token[position]))
    with pytest.raises(InvalidTokenError):
        signer.verify(token[:position] + character + token[position + 1 :])


@given(st.data())
def test_no_cut_or_lengthened_token_opens(data: st.DataObject) -> None:
    token = session_token()
    end = data.draw(st.integers(0, len(token) - 1))
    start = data.draw(st.integers(0, end))
    tail = data.draw(st.text(ALPHABET + "= ", min_size=1, max_size=8))
    for changed in (token[start:end], token[:end], token[end + 1 :], token + tail, tail + token):
        assert opened(changed) is None


@given(st.randoms(use_true_random=False))
def test_no_reordered_token_opens(random: object) -> None:
    token = session_token()
    characters = list(token)
    random.shuffle(characters)  # type: ignore[attr-defined]
    changed = "".join(characters)
    assert changed == token or opened(changed) is None


@given(st.text())
def test_no_other_text_verifies(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        signer.verify(text)
    assert opened(text) is None


@pytest.mark.parametrize("value", [None, 7, b"bytes", uuid4()])
def test_what_is_no_text_is_no_token(value: object) -> None:
    with pytest.raises(InvalidTokenError):
        signer.verify(value)  # type: ignore[arg-type]
    assert opened(value) is None


def test_a_kind_of_str_is_read_as_the_text_it_is() -> None:
    class Cookie(str):
        __hash__ = None  # type: ignore[assignment]

    token = session_token()
    assert opened(Cookie(token)) == opened(token) is not None
    assert signer.verify(Cookie(signer.sign("text"))) == b"text"


def test_rotation() -> None:
    old, both, new = Signer([KEY]), Signer([OTHER, KEY]), Signer([OTHER])
    token = session_token(old)
    assert opened(token, both) == opened(token, old) is not None
    assert opened(token, new) is None
    fresh = session_token(both)
    assert opened(fresh, new) is not None and opened(fresh, old) is None


def test_a_token_of_one_purpose_never_passes_for_another() -> None:
    token = session_token()
    body = base64.urlsafe_b64decode(token)[:-32]
    with pytest.raises(InvalidTokenError):
        signer.verify(token)
    assert opened(signer.sign(body)) is None
    assert opened(signer.sign(body[1:])) is None


def test_what_signs_is_derived() -> None:
    """A program that signs with the secret itself, or derives other keys, makes no token of ours."""
    message = base64.urlsafe_b64decode(session_token())[:-32]
    for key in (KEY, signer._message_keys[0]):
        forged = base64.urlsafe_b64encode(message + digest(key, message, "sha256")).decode()
        assert opened(forged) is None
    forged = base64.urlsafe_b64encode(message + digest(signer._session_keys[0], message, "sha256")).decode()
    assert opened(forged) is not None


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b"x" * 31], b"x" * 31])
def test_keys_must_be_long_enough(keys: object) -> None:
    with pytest.raises(ConfigError, match=r"^keys: "):
        Signer(keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", ["k" * 32, ["k" * 32], [None]])
def test_keys_must_be_bytes(keys: object) -> None:
    with pytest.raises(TypeError, match=r"^keys: "):
        Signer(keys)  # type: ignore[arg-type]


def test_bad_arguments_of_signing_are_named() -> None:
    with pytest.raises(TypeError, match=r"^message: "):
        signer.sign(7)  # type: ignore[arg-type]


def test_the_keys_do_not_show() -> None:
    key = secrets.token_bytes(32)
    assert repr(key)[2:-1] not in repr(Signer(key)) and key.hex() not in repr(Signer(key))
