"""A warm file has the ids of the sessions that a process had in memory, in order of use, for who is started next.

It is a header and 16 bytes for each id, the last used first. The header says which database they are of, how many there
are, and a checksum of all of it: what was cut short, changed, or is of another database is not used.
"""

from __future__ import annotations

import os
import stat
import struct
import tempfile
import zlib
from contextlib import suppress
from typing import Final

ID_BYTES: Final = 16
IDENTITY_BYTES: Final = 32

_MAGIC: Final = b"pgswarm1"
_HEADER: Final = struct.Struct(f">8s{IDENTITY_BYTES}sQ")
_CHECKSUM: Final = struct.Struct(">I")
_CHUNK: Final = 1 << 20  # bytes
# Of Windows, and of the others: a pipe does not wait for somebody to write, and the target of a link is not read.
_FLAGS: Final = sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))


def read_ids(path: str, identity: bytes, most: int) -> bytes:
    """Return the first ids of a warm file, `most` of them; none where there is no such file in its folder.

    Raises:
        ValueError: It is no warm file, or none of this user and this database; the message says which.
        OSError: It cannot be read.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | _FLAGS)
    except FileNotFoundError:
        os.stat(os.path.dirname(path) or os.curdir)
        return b""
    with open(descriptor, "rb", buffering=0) as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("it is not a file")
        if status.st_uid != getattr(os, "geteuid", lambda: status.st_uid)():
            raise ValueError("it belongs to another user")
        head = file.read(_HEADER.size + _CHECKSUM.size)
        if len(head) < _HEADER.size + _CHECKSUM.size or not head.startswith(_MAGIC):
            raise ValueError("it is not a file of ids")
        _, origin, count = _HEADER.unpack_from(head)
        if status.st_size != len(head) + ID_BYTES * count:
            raise ValueError("its length is not what it says")
        if origin != identity:
            raise ValueError("it is of another database")
        ids = bytearray()
        checksum = zlib.crc32(head[: _HEADER.size])
        while chunk := file.read(_CHUNK):
            checksum = zlib.crc32(chunk, checksum)
            ids += chunk[: ID_BYTES * most - len(ids)]
    if checksum != _CHECKSUM.unpack_from(head, _HEADER.size)[0]:
        raise ValueError("its checksum is wrong")
    return bytes(ids)


def write_ids(path: str, identity: bytes, ids: bytes) -> None:
    """Put a warm file in the place of the former one, whole or not at all; nobody else may read it.

    Of those who do so at the same time the last one wins.

    Raises:
        OSError: It cannot be written; the former one is there still.
    """
    header = _HEADER.pack(_MAGIC, identity, len(ids) // ID_BYTES)
    checksum = zlib.crc32(ids, zlib.crc32(header))
    folder, name = os.path.split(path)
    descriptor, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=folder or os.curdir)
    try:
        with open(descriptor, "wb") as file:
            file.write(header + _CHECKSUM.pack(checksum))
            file.write(ids)
        os.replace(temporary, path)
    except BaseException:
        with suppress(OSError):
            os.unlink(temporary)
        raise
