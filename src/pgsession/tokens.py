"""A signed token is what a cookie carries, so that a forged session id costs no query.

A token is the URL-safe base64 text (RFC 4648, section 5, without padding) of a message and its HMAC-SHA256
(RFC 2104, FIPS 198-1). One byte in front says what kind of message it is and is signed with it, so that a token
made for one purpose never passes for another.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from hmac import compare_digest, digest
from uuid import UUID

from pgsession._core.token import open_session_token
from pgsession._protocol import rules
from pgsession.errors import ConfigError, InvalidTokenError

__all__ = ["Signer"]

_MAC_BYTES = 32
_LEAST_KEY_BYTES = 32  # the length of the digest: RFC 2104, section 3, discourages shorter keys
_MESSAGE = b"m"
_SESSION = b"s"
# The URL-safe alphabet to the standard one, and what is only in the standard one, or pads, to what is in none.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/***")


class Signer:
    """Signs and verifies tokens with HMAC-SHA256.

    Args:
        keys: One key or several, each of at least 32 random bytes (`secrets.token_bytes(32)`). The first one signs;
            every one verifies. To rotate, add the new key last on every node, then put it first on every node, and drop
            the old one when its tokens have ended: so each node verifies what another signs.

    Raises:
        ConfigError: There is no key, or one is shorter than 32 bytes.
        TypeError: A key is not bytes.
    """

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        several = (keys,) if isinstance(keys, bytes | bytearray) else keys
        if not isinstance(several, Iterable):
            raise TypeError(f"keys: bytes or several of them are needed, not {type(keys).__name__}")
        self._keys = tuple(_checked_key(key) for key in several)
        if not self._keys:
            raise ConfigError("keys: at least one key is needed")

    def __repr__(self) -> str:
        return f"<Signer with {len(self._keys)} keys>"

    def sign(self, message: bytes | str) -> str:
        """Make a token that carries a message readably and proves that this signer made it.

        Args:
            message: The message; a str is carried as its UTF-8.

        Raises:
            TypeError: The message is neither bytes nor a str.
            ValueError: It has a lone surrogate.
        """
        return self._seal(_MESSAGE + rules.octets("message", message))

    def verify(self, token: str) -> bytes:
        """Return the message of a token that one of the keys signed.

        Args:
            token: A token made by `sign`.

        Raises:
            InvalidTokenError: None of the keys signed it (it may be changed or cut), or it was made for another
                purpose.
        """
        return self._unseal(token, _MESSAGE)[1:]

    def sign_session(self, session_id: UUID | str | bytes, version: int = 0) -> str:
        """Make a token of 76 characters for a cookie: the session's id, and the version its reader must at least see.

        Args:
            session_id: The session's id: a UUID, its 36-character str or 16 bytes.
            version: The version; 0: any.

        Raises:
            TypeError: The id or the version is of a wrong type.
            ValueError: The id is malformed, or the version is not from 0 to 2**63 - 1.
        """
        key = rules.session_id("session_id", session_id)
        return self._seal(_SESSION + key + rules.count("version", version, 0).to_bytes(8, "big"))

    def verify_session(self, token: str) -> tuple[UUID, int]:
        """Return the session id and the version of a token made by `sign_session`.

        Args:
            token: The token.

        Raises:
            InvalidTokenError: None of the keys signed it, or it was made for another purpose.
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


def _checked_key(key: object) -> bytes:
    if not isinstance(key, bytes | bytearray):
        raise TypeError(f"keys: bytes are needed, not {type(key).__name__}")
    if len(key) < _LEAST_KEY_BYTES:
        raise ConfigError(f"keys: each must have at least {_LEAST_KEY_BYTES} bytes, not {len(key)}")
    return bytes(key)


def _decode(token: str) -> bytes:
    """Return the bytes of a token, which has exactly one spelling (decoders let some characters and bits pass)."""
    if not isinstance(token, str):
        raise InvalidTokenError(f"a token is a str, not {type(token).__name__}")
    try:
        text = token.encode("ascii").translate(_TO_STANDARD)
        over = len(text) % 4
        if not over:  # then every character is six bits of the bytes: there is no other spelling
            return a2b_base64(text, strict_mode=True)
        sealed = a2b_base64(text + b"=" * (4 - over), strict_mode=True)
    except ValueError:  # binascii.Error, and UnicodeEncodeError, which holds the token
        sealed = None
    if sealed is None:
        raise InvalidTokenError("not a token: it is not URL-safe base64")
    if urlsafe_b64encode(sealed).rstrip(b"=") != token.encode():
        raise InvalidTokenError("not a token: it is not in its one canonical spelling")
    return sealed
