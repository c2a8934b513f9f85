"""Passwords are kept as salted hashes by scrypt, which takes its time, so that whoever steals them cannot try many."""

from __future__ import annotations

import hashlib
import hmac
import secrets
from base64 import b64decode, b64encode


def hashed(password: str, salt: bytes | None = None) -> str:
    """Return what is kept of a password: a salt of 16 bytes, and the hash."""
    salt = secrets.token_bytes(16) if salt is None else salt
    digest = hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=5, dklen=32)
    return b64encode(salt + digest).decode()


# What `hashed` gave for "wonderland" and "builder". Yours are in a database.
USERS = {
    "alice": "aMAPXle6LH5Jbtdo9eOVEpIDHw2LwmKuGye1EZTX6FJAchH5P5ISZlfvuksjMtPR",
    "bob": "15epo2p3dWlNjXS2ebyCJzNb7KyoKF2vZp1yPpJPrzwd9+TdBfYmHAMVp+3HJiUW",
}
_NOBODY = "A" * 64


def is_right(name: str, password: str) -> bool:
    """Return True where that is the user's password. It takes as long for names that do not exist."""
    kept = USERS.get(name, _NOBODY)
    return hmac.compare_digest(hashed(password, b64decode(kept)[:16]), kept)
