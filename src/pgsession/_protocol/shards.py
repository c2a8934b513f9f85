"""Says which shard what belongs to: ids say it themselves, users and resources by a hash that never changes."""

from __future__ import annotations

import os
import secrets
from hashlib import sha256
from uuid import UUID

__all__ = ["MOST", "home_of", "home_of_resource", "id_in", "key_in", "number_in"]

MOST = 4096  # shards: 12 bits
_TURN = "pgsession.web:"  # what the name of a request's turn begins with: see `pgsession.web.SessionRules`


def home_of(name: str | None, count: int) -> int:
    """Return the shard of a user or a resource among so many; of nobody, any."""
    if name is None:
        return secrets.randbelow(count)
    return int.from_bytes(sha256(name.encode()).digest(), "big") % count


def number_in(key: bytes, count: int, legacy: int | None) -> int | None:
    """Return the shard of a session, None where there is none: what the compiled reader does, for who has none."""
    if not _names_shard(key):
        return legacy
    number = (key[6] & 0xF) << 8 | key[7]
    return number if number < count else None


def home_of_resource(name: str, count: int, legacy: int | None) -> int:
    """Return the shard of a lock, by nothing but its name: one that ends with a session's id is where that is.

    An id of before there were shards counts in the name of a request's turn only: a session that is gone with `legacy`
    has no turns, but any other lock would be in two shards while nodes are told that there is none.
    """
    try:
        key = UUID(name[-36:]).bytes
    except ValueError:
        return home_of(name, count)
    number = number_in(key, count, legacy if name[:-36] == _TURN else None)
    return home_of(name, count) if number is None else number


def _names_shard(key: bytes) -> bool:
    return key[6] >> 4 == 8 and key[8] >> 6 == 2


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
