"""Signed tokens: what a cookie carries, so that a forged session id costs no query.

A token is the URL-safe base64 text (RFC 4648, section 5, without padding) of a message and its HMAC-SHA256
(RFC 2104, FIPS 198-1). One byte in front says what kind of message it is and is signed with it, so that a token
made for one purpose never passes for another.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Sequence
from hmac import compare_digest, digest
from uuid import UUID

from pgsession._core.key import to_bytes
from pgsession._core.token import open_session_token
from pgsession.errors import ConfigError, InvalidTokenError

__all__ = ["Signer"]

_MAC_BYTES = 32
_LEAST_KEY_BYTES = 32  # the length of the digest: RFC 2104, section 3, discourages shorter keys
_MESSAGE = b"m"
_SESSION = b"s"
_MAX_VERSION = 2**63 - 1
# The URL-safe alphabet to the standard one, and what is only in the standard one, or pads, to what is in none.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/***")


class Signer:
    """Signs and verifies tokens with HMAC-SHA256.

    Args:
        keys: one key or several, each of at least 32 random bytes (`secrets.token_bytes(32)`). The first one signs;
            every one verifies. To rotate, put the new key in front and drop the old one when its tokens have ended.

    Raises:
        ConfigError: there is no key, or one is shorter than 32 bytes.
        TypeError: a key is not bytes.
    """

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        keys = (keys,) if isinstance(keys, bytes | bytearray) else tuple(keys)
        if not keys:
            raise ConfigError("keys: at least one key is needed")
        for key in keys:
            if not isinstance(key, bytes | bytearray):
                raise TypeError(f"keys: bytes are needed, not {type(key).__name__}")
            if len(key) < _LEAST_KEY_BYTES:
                raise ConfigError(f"keys: each must have at least {_LEAST_KEY_BYTES} bytes, not {len(key)}")
        self._keys = tuple(bytes(key) for key in keys)

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keys)} keys>"

    def sign(self, message: bytes | str) -> str:
        """A token that carries `message` (a str as its UTF-8) readably and proves that this signer made it."""
        if isinstance(message, str):
            message = message.encode()
        elif not isinstance(message, bytes | bytearray | memoryview):
            raise TypeError(f"message: bytes or str is needed, not {type(message).__name__}")
        return self._seal(_MESSAGE + bytes(message))

    def verify(self, token: str) -> bytes:
        """The message of a token that one of the keys signed.

        Raises:
            InvalidTokenError: it was not, or was changed, cut, or made for another purpose.
        """
        return self._unseal(token, _MESSAGE)[1:]

    def sign_session(self, session_id: UUID | str | bytes, version: int = 0) -> str:
        """A token of 76 characters for a cookie: the session's id and the version that its reader must at least see."""
        if not isinstance(version, int) or isinstance(version, bool):
            raise TypeError(f"version: an int is needed, not {type(version).__name__}")
        if not 0 <= version <= _MAX_VERSION:
            raise ValueError(f"version: must be from 0 to 2**63 - 1, not {version}")
        return self._seal(_SESSION + to_bytes(session_id) + version.to_bytes(8, "big"))

    def verify_session(self, token: str) -> tuple[UUID, int]:
        """The session id and the version of a token made by `sign_session`.

        Raises:
            InvalidTokenError: none of the keys signed it, or it was made for another purpose.
        """
        opened = open_session_token(self._keys, token)
        if opened is None:
            raise InvalidTokenError("not a session token that one of the keys signed")
        session_id, version = opened
        return UUID(bytes=session_id), version

    def _seal(self, message: bytes) -> str:
        sealed = message + digest(self._keys[0], message, "sha256")
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def _unseal(self, token: str, purpose: bytes) -> bytes:
        sealed = _decode(token)
        if not sealed.startswith(purpose):
            raise InvalidTokenError("not a token of this kind")
        message, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        for key in self._keys:
            if compare_digest(mac, digest(key, message, "sha256")):
                return message
        raise InvalidTokenError("none of the keys signed this token")


def _decode(token: str) -> bytes:
    """Bytes of a token, which has exactly one spelling (base64 decoders let some characters and bits pass)."""
    if not isinstance(token, str):
        raise InvalidTokenError(f"a token is a str, not {type(token).__name__}")
    try:
        text = token.encode("ascii").translate(_TO_STANDARD)
        over = len(text) % 4
        if not over:  # then every character is six bits of the bytes: there is no other spelling
            return a2b_base64(text, strict_mode=True)
        sealed = a2b_base64(text + b"=" * (4 - over), strict_mode=True)
    except ValueError:  # UnicodeEncodeError and binascii.Error
        raise InvalidTokenError("not a token: it is not URL-safe base64") from None
    if urlsafe_b64encode(sealed).rstrip(b"=") != token.encode():
        raise InvalidTokenError("not a token: it is not in its one canonical spelling")
    return sealed
