"""Offices are locks on single bytes of a file: the kernel gives one up when its holder's process ends, however it does.

They are locks of an open file description (Linux's F_OFD_SETLK), not of a process as POSIX's are, which any close of
the same file in the process would end. A fork inherits the description, and with it the offices: a child closes its
descriptor and never unlocks anything, for that would end its parent's. Until then it keeps them alive, so who gives
them up says so before it closes.
"""

from __future__ import annotations

import os
import struct
import sys
import weakref
from typing import Final

if sys.platform == "linux":
    import fcntl

__all__ = ["HOLDERS", "MAKING", "SUPPORTED", "Offices"]

SUPPORTED: Final = sys.platform == "linux"

MAKING: Final = 0
"""The office of whoever makes an arena, or takes it away."""
HOLDERS: Final = 1
"""The office that all who use the arena share."""
_LEADERS: Final = 1 << 32  # and beyond: one for each number

_FLOCK: Final = "hhqqi"
_UNLOCKED, _READ, _WRITE = 2, 0, 1  # F_UNLCK, F_RDLCK, F_WRLCK


class Offices:
    """Holds the offices that this process has in a file.

    Args:
        file: The descriptor of the file, open for reading and writing, which is closed with this.
    """

    def __init__(self, file: int) -> None:
        self._file = file
        _all.add(self)

    @property
    def file(self) -> int:
        """Return the descriptor."""
        return self._file

    @property
    def closed(self) -> bool:
        """Return True once it is closed."""
        return self._file < 0

    def close(self) -> None:
        """Give up every office, also where a process that is just being forked has the file open too."""
        self._set(_UNLOCKED, 0, length=0)  # 0: to the end
        self._close()

    def _close(self) -> None:
        file, self._file = self._file, -1
        if file >= 0:
            os.close(file)

    def take(self, office: int) -> bool:
        """Take an office that nobody else may have; return False where somebody has it."""
        return self._set(_WRITE, office)

    def share(self, office: int) -> bool:
        """Take an office that others may have as well; return False where somebody has it alone."""
        return self._set(_READ, office)

    def give_up(self, office: int) -> None:
        """Give an office up."""
        self._set(_UNLOCKED, office)

    def take_lead(self, number: int) -> bool:
        """Take the office of the leader of this number; return False where somebody has it."""
        return self.take(_LEADERS + number)

    def give_up_lead(self, number: int) -> None:
        """Give up the office of the leader of this number."""
        self.give_up(_LEADERS + number)

    def has_leader(self, number: int) -> bool:
        """Return True where the process that took the office of this number still lives, and has not given it up."""
        return self._holder(_LEADERS + number) != _UNLOCKED

    def has_others(self, office: int) -> bool:
        """Return True where another process has a part in an office too."""
        return self._holder(office) != _UNLOCKED

    def _holder(self, office: int) -> int:
        asked = struct.pack(_FLOCK, _WRITE, os.SEEK_SET, office, 1, 0)
        answer = fcntl.fcntl(self._file, fcntl.F_OFD_GETLK, asked)
        return int(struct.unpack_from(_FLOCK, answer)[0])

    def _set(self, kind: int, office: int, length: int = 1) -> bool:
        if self._file < 0:
            return False
        try:
            wanted = struct.pack(_FLOCK, kind, os.SEEK_SET, office, length, 0)
            fcntl.fcntl(self._file, fcntl.F_OFD_SETLK, wanted)
        except (BlockingIOError, PermissionError):
            return False
        return True


_all: weakref.WeakSet[Offices] = weakref.WeakSet()


def _after_fork_in_child() -> None:
    for offices in list(_all):
        offices._close()


if SUPPORTED:
    os.register_at_fork(after_in_child=_after_fork_in_child)
