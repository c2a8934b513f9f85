from __future__ import annotations

import base64
import secrets
import string
from uuid import UUID, uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

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


@given(st.uuids(), st.integers(0, 2**63 - 1))
def test_a_session_token_carries_id_and_version(session_id: UUID, version: int) -> None:
    token = signer.sign_session(session_id, version)
    assert len(token) == 76
    assert signer.verify_session(token) == (session_id, version)


@given(st.uuids(), st.data())
def test_no_changed_token_verifies(session_id: UUID, data: st.DataObject) -> None:
    token = signer.sign_session(session_id, 3)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET + "=+/.\n é").filter(lambda c: c != token[position]))
    with pytest.raises(InvalidTokenError):
        signer.verify_session(token[:position] + character + token[position + 1 :])


@given(st.binary(max_size=40), st.data())
def test_no_changed_message_token_verifies(message: bytes, data: st.DataObject) -> None:
    token = signer.sign(message)
    position = data.draw(st.integers(0, len(token) - 1))
    character = data.draw(st.sampled_from(ALPHABET).filter(lambda c: c != token[position]))
    with pytest.raises(InvalidTokenError):
        signer.verify(token[:position] + character + token[position + 1 :])


@given(st.uuids(), st.data())
def test_no_cut_or_lengthened_token_verifies(session_id: UUID, data: st.DataObject) -> None:
    token = signer.sign_session(session_id)
    end = data.draw(st.integers(0, len(token) - 1))
    start = data.draw(st.integers(0, end))
    tail = data.draw(st.text(ALPHABET + "= ", min_size=1, max_size=8))
    for changed in (token[start:end], token[:end], token[end + 1 :], token + tail, tail + token):
        with pytest.raises(InvalidTokenError):
            signer.verify_session(changed)


@given(st.uuids(), st.randoms(use_true_random=False))
def test_no_reordered_token_verifies(session_id: UUID, random: object) -> None:
    token = signer.sign_session(session_id)
    characters = list(token)
    random.shuffle(characters)  # type: ignore[attr-defined]
    changed = "".join(characters)
    if changed != token:
        with pytest.raises(InvalidTokenError):
            signer.verify_session(changed)


@given(st.text())
def test_no_other_text_verifies(text: str) -> None:
    with pytest.raises(InvalidTokenError):
        signer.verify(text)
    with pytest.raises(InvalidTokenError):
        signer.verify_session(text)


@pytest.mark.parametrize("value", [None, 7, b"bytes", uuid4()])
def test_what_is_no_text_is_no_token(value: object) -> None:
    with pytest.raises(InvalidTokenError):
        signer.verify(value)  # type: ignore[arg-type]


def test_a_kind_of_str_is_read_as_the_text_it_is() -> None:
    class Cookie(str):
        __hash__ = None  # type: ignore[assignment]

    session_id = uuid4()
    assert signer.verify_session(Cookie(signer.sign_session(session_id, 7))) == (session_id, 7)
    assert signer.verify(Cookie(signer.sign("text"))) == b"text"


def test_rotation() -> None:
    old, both, new = Signer([KEY]), Signer([OTHER, KEY]), Signer([OTHER])
    token = old.sign_session(uuid4(), 1)
    assert both.verify_session(token) == old.verify_session(token)
    with pytest.raises(InvalidTokenError):
        new.verify_session(token)
    fresh = both.sign_session(uuid4(), 1)
    assert new.verify_session(fresh)
    with pytest.raises(InvalidTokenError):
        old.verify_session(fresh)


def test_a_token_of_one_purpose_never_passes_for_another() -> None:
    session_id = uuid4()
    token = signer.sign_session(session_id, 5)
    body = base64.urlsafe_b64decode(token)[:-32]
    with pytest.raises(InvalidTokenError):
        signer.verify(token)
    with pytest.raises(InvalidTokenError):
        signer.verify_session(signer.sign(body))
    with pytest.raises(InvalidTokenError):
        signer.verify_session(signer.sign(body[1:]))


@pytest.mark.parametrize("keys", [[], [b"short"], [KEY, b"x" * 31], b"x" * 31])
def test_keys_must_be_long_enough(keys: object) -> None:
    with pytest.raises(ConfigError, match=r"^keys: "):
        Signer(keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("keys", ["k" * 32, ["k" * 32], [None]])
def test_keys_must_be_bytes(keys: object) -> None:
    with pytest.raises(TypeError, match=r"^keys: "):
        Signer(keys)  # type: ignore[arg-type]


def test_bad_arguments_of_signing_are_named() -> None:
    with pytest.raises(TypeError, match=r"^version: "):
        signer.sign_session(uuid4(), True)
    with pytest.raises(ValueError, match=r"^version: "):
        signer.sign_session(uuid4(), -1)
    with pytest.raises(ValueError, match=r"^version: "):
        signer.sign_session(uuid4(), 2**63)
    with pytest.raises(ValueError, match="session_id"):
        signer.sign_session("not an id")
    with pytest.raises(TypeError, match=r"^message: "):
        signer.sign(7)  # type: ignore[arg-type]


def test_the_keys_do_not_show() -> None:
    key = secrets.token_bytes(32)
    assert repr(key)[2:-1] not in repr(Signer(key)) and key.hex() not in repr(Signer(key))
