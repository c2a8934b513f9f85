"""A key derived from a framework's secret: one for each secret, long enough to sign, and not the secret."""

from __future__ import annotations

from hmac import digest

import pytest

from pgsession import ConfigError, Signer
from pgsession.web import derive_key


@pytest.mark.parametrize("secret", ["s", "é" * 100, b"\x00", b"k" * 64], ids=ascii)
def test_a_secret_of_any_length_makes_a_key_that_signs(secret: str | bytes) -> None:
    key = derive_key(secret)
    Signer(key)
    assert key == derive_key(secret)
    assert key != secret


def test_text_is_its_utf_8() -> None:
    assert derive_key("é") == derive_key("é".encode())


def test_the_key_stays_what_it_is() -> None:
    """A release that derived another would log everybody out."""
    assert derive_key("secret") == digest(b"secret", b"pgsession: key of a web application", "sha256")


@pytest.mark.parametrize("secret", ["", b""])
def test_an_empty_secret_is_refused(secret: str | bytes) -> None:
    with pytest.raises(ConfigError, match=r"^secret: must not be empty$"):
        derive_key(secret)


def test_a_secret_of_another_type_is_refused() -> None:
    with pytest.raises(TypeError, match=r"^secret: a str or bytes are needed, not int$"):
        derive_key(7)  # type: ignore[arg-type]
