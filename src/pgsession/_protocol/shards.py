"""Says which shard what belongs to: ids say it themselves, users and resources by a hash that never changes."""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from uuid import UUID

__all__ = ["MOST", "VERSION", "home_of", "id_in", "key_in"]

MOST = 4096  # shards: 12 bits
VERSION = 8  # of the UUIDs that have them


def home_of(name: str | None, count: int) -> int:
    """Return the shard of a user or a resource among so many; of nobody, any."""
    if name is None:
        return secrets.randbelow(count)
    return int.from_bytes(sha256(name.encode()).digest(), "big") % count


def key_in(number: int) -> bytes:
    """Return the key of a new session in a shard: a UUID of version 8 with the shard's number and 110 random bits."""
    return _with_number(os.urandom(16), number)


def id_in(number: int, given: UUID) -> UUID:
    """Return an id of a shard that follows from a given one, of which 110 bits stay."""
    return UUID(bytes=_with_number(given.bytes, number))


def _with_number(octets: bytes, number: int) -> bytes:
    key = bytearray(octets)
    key[6] = 0x80 | number >> 8
    key[7] = number & 0xFF
    key[8] = key[8] & 0x3F | 0x80
    return bytes(key)
