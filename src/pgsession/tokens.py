"""A signed token is what a cookie carries, so that neither a forged one nor a session's id lets anybody in.

A token is the URL-safe base64 text (RFC 4648, section 5, without padding) of a message and its HMAC-SHA256
(RFC 2104, FIPS 198-1). One byte in front says what kind of message it is and is signed with it, and each kind has keys
of its own, derived from those that were given: a token made for one purpose never passes for another, be it made by
another program from the same secret.
"""

from __future__ import annotations

from base64 import urlsafe_b64encode
from binascii import a2b_base64
from collections.abc import Iterable, Sequence
from hmac import compare_digest, digest

from pgsession._protocol import rules
from pgsession.errors import ConfigError, InvalidTokenError

from ._counted import counted

__all__ = ["Signer"]

_MAC_BYTES = 32
_LEAST_KEY_BYTES = 32  # the length of the digest: RFC 2104, section 3, discourages shorter keys
_MESSAGE = b"m"
_SESSION = b"s\x01"  # the kind, and the format
_MESSAGE_LABEL = b"pgsession: messages"
_SESSION_LABEL = b"pgsession: sessions"
# The URL-safe alphabet to the standard one, and what is only in the standard one, or pads, to what is in none.
_TO_STANDARD = bytes.maketrans(b"-_+/=", b"+/***")


class Signer:
    """Signs and verifies tokens with HMAC-SHA256: those of sessions for a manager, and other messages for anybody.

    Args:
        keys: One key or several, each of at least 32 random bytes (`secrets.token_bytes(32)`). The first one signs;
            every one verifies. To rotate, add the new key last on every node, then put it first on every node, and drop
            the old one when its tokens have ended: so each node verifies what another signs. What signs is derived from
            them: a framework's secret may be given, too.

    Raises:
        ConfigError: There is no key, or one is shorter than 32 bytes.
        TypeError: A key is not bytes.
    """

    def __init__(self, keys: bytes | Sequence[bytes]) -> None:
        several = (keys,) if isinstance(keys, bytes | bytearray) else keys
        if not isinstance(several, Iterable):
            raise TypeError(f"keys: bytes or several of them are needed, not {type(keys).__name__}")
        checked = tuple(_checked_key(key) for key in several)
        if not checked:
            raise ConfigError("keys: at least one key is needed")
        self._message_keys = tuple(digest(key, _MESSAGE_LABEL, "sha256") for key in checked)
        self._session_keys = tuple(digest(key, _SESSION_LABEL, "sha256") for key in checked)

    def __repr__(self) -> str:
        return f"<Signer with {counted(len(self._session_keys), 'key')}>"

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

    def _session_token(self, key: bytes, generation: int, version: int) -> str:
        """Return the token of a session, 88 characters; `open_session_token` reads it."""
        message = _SESSION + key + generation.to_bytes(8, "big", signed=True) + version.to_bytes(8, "big")
        return urlsafe_b64encode(message + digest(self._session_keys[0], message, "sha256")).decode()

    def _seal(self, message: bytes) -> str:
        sealed = message + digest(self._message_keys[0], message, "sha256")
        return urlsafe_b64encode(sealed).rstrip(b"=").decode()

    def _unseal(self, token: str, purpose: bytes) -> bytes:
        sealed = _decode(token)
        if not sealed.startswith(purpose):
            raise InvalidTokenError("not a token of this kind")
        message, mac = sealed[:-_MAC_BYTES], sealed[-_MAC_BYTES:]
        for key in self._message_keys:
            if compare_digest(mac, digest(key, message, "sha256")):
                return message
        raise InvalidTokenError("none of the keys signed this token")


def _checked_key(key: object) -> bytes:
    if not isinstance(key, bytes | bytearray):
        raise TypeError(f"keys: bytes are needed, not {type(key).__name__}")
    plain = rules.octets("keys", key)
    if len(plain) < _LEAST_KEY_BYTES:
        raise ConfigError(f"keys: each must have at least {_LEAST_KEY_BYTES} bytes, not {len(plain)}")
    return plain


def _decode(token: str) -> bytes:
    """Return the bytes of a token, which has exactly one spelling (decoders let some characters and bits pass)."""
    if not isinstance(token, str):
        raise InvalidTokenError(f"a token is a str, not {type(token).__name__}")
    token = str.__str__(token)  # whatever a subclass does otherwise
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
