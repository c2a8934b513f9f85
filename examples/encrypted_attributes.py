"""Encrypt what the database holds with AES-GCM, and change the key while sessions live. Needs `cryptography`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from uuid import UUID

from common import config, database
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from msgspec.structs import replace

from pgsession import AttributeCodecError, Codec, Session, SessionManager

ID, NONCE = 4, 12  # bytes


class Encrypting(Codec):
    """The first key encrypts, every key decrypts. What is stored names its key, by the beginning of the key's hash.

    AES-GCM with random nonces is good for four billion values a key; change it long before.
    """

    def __init__(self, keys: Sequence[bytes]) -> None:
        self._ciphers = {sha256(key).digest()[:ID]: AESGCM(key) for key in keys}
        self._current = next(iter(self._ciphers))

    def seal(self, session_id: UUID, key: str, data: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        sealed = self._ciphers[self._current].encrypt(nonce, data, session_id.bytes + key.encode())
        return self._current + nonce + sealed

    def open(self, session_id: UUID, key: str, data: bytes) -> bytes:
        cipher = self._ciphers.get(data[:ID])
        if cipher is None:
            raise InvalidTag("a key that is not known")
        nonce, sealed = data[ID : ID + NONCE], data[ID + NONCE :]
        return cipher.decrypt(nonce, sealed, session_id.bytes + key.encode())


def seal_anew(session: Session) -> None:
    """Sets every attribute to what it is, until when it is: the save seals it with the current key."""
    for key in list(session):
        session[key] = session.attribute(key)


def manager(conninfo: str, *keys: bytes) -> SessionManager:
    return SessionManager(conninfo, replace(config(), codec=Encrypting(keys)))


def main() -> None:
    # In earnest: from your secrets, the same for all nodes.
    old, new = AESGCM.generate_key(256), AESGCM.generate_key(256)
    with database() as conninfo:
        with manager(conninfo, old) as sessions, SessionManager(conninfo, config()) as curious:
            session = sessions.create_session("alice", {"card": "4111 1111 1111 1111"})
            stored = curious.get_session(session.id)
            assert stored is not None
            print("what the database has:", stored["card"])

        # Rotation, deploy by deploy. 1: every node can open what the new key has sealed.
        with manager(conninfo, old, new) as sessions:
            found = sessions.get_session(session.id)
            assert found is not None and found["card"] == "4111 1111 1111 1111"

        # 2: the new key seals. What is not changed stays sealed with the old one: keep that until those sessions have
        # ended, or seal them anew.
        with manager(conninfo, new, old) as sessions:
            sessions.modify_session(session.id, seal_anew)

        # 3: the old key is gone.
        with manager(conninfo, new) as sessions:
            found = sessions.get_session(session.id)
            assert found is not None
            print("after the rotation:", found["card"])

        with manager(conninfo, old) as sessions:
            found = sessions.get_session(session.id)
            assert found is not None
            try:
                found["card"]
            except AttributeCodecError as error:
                print("with the old key:", error)


if __name__ == "__main__":
    main()
