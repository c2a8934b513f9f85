"""A framework has a secret already: the key that signs tokens is derived from it."""

from __future__ import annotations

from hmac import digest

from pgsession import ConfigError

__all__ = ["derive_key"]

_LABEL = b"pgsession: key of a web application"


def derive_key(secret: str | bytes) -> bytes:
    """Return a signing key for `Signer` that is derived from a framework's secret, which may be of any length.

    Who learns the key does not learn the secret, and nothing that the framework signs with its secret passes for a
    token, nor the other way round. The key is as hard to guess as the secret is, no harder.

    Args:
        secret: The framework's secret; a str stands for its UTF-8.

    Raises:
        TypeError: The secret is neither a str nor bytes.
        ConfigError: The secret is empty.
    """
    if not isinstance(secret, str | bytes | bytearray):
        raise TypeError(f"secret: a str or bytes are needed, not {type(secret).__name__}")
    if not secret:
        raise ConfigError("secret: must not be empty")
    return digest(secret.encode() if isinstance(secret, str) else secret, _LABEL, "sha256")
