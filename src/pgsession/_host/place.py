"""A place is where the arena of a host lies; it says who may have a part in that. Who may not has a cache of his own.

An arena is a file in memory, in a folder that nobody else can look into, beside a file of locks (`offices`). Whoever
opens it first makes it anew, and the last one out removes it. Nothing of this touches the database.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

from pgsession._core.arena import Arena, ArenaError
from pgsession._host.offices import HOLDERS, MAKING, SUPPORTED, Offices

__all__ = ["Opened", "Place", "Refused", "attached", "locks_of", "own_folder", "trusted"]

PATIENCE: Final = 5.0  # seconds for another process to make the arena
_PAUSE: Final = 0.01
_STEM: Final = re.compile(r"(.+-)?[0-9a-f]{24}")  # of the files that are made here
_FLAGS: Final = (os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY) if sys.platform != "win32" else 0


class Refused(Exception):
    """Raised where this process gets no part in an arena; `reason` says why, in one line."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Opened(NamedTuple):
    """Holds what a process has that shares an arena.

    Attributes:
        arena: The arena, mapped.
        offices: Where leaders are known by.
        path: The file of the arena.
    """

    arena: Arena
    offices: Offices
    path: Path


class Place:
    """Finds the arena of those who share one.

    Args:
        name: A name, of what lies in the user's own folder for such files; or the absolute path of a folder.
        size: The bytes of an arena that is made anew.
        of: What all who share it have in common: the tables, the database.
        shard: The number of the shard that it is of, which is in the file's name for who looks at it; None: of none.
    """

    def __init__(self, name: str, size: int, of: tuple[str, ...], shard: int | None = None) -> None:
        self._name = name
        self._size = size
        self._of = of
        self._label = "" if shard is None else f"shard{shard}-"

    def open(self) -> Opened:
        """Take part in the arena, which is made if there is none.

        Raises:
            Refused: That cannot be.
        """
        if not SUPPORTED:
            raise Refused(f"this system ({sys.platform}) is not supported; Linux is")
        if not Arena.self_test():
            raise Refused("this system's C library has no robust mutexes that work")
        if self._size < Arena.smallest():
            raise Refused(f"{self._size} bytes are too few: {Arena.smallest()} are the least")
        try:
            folder, stem = self._folder()
            _remove_left(folder, stem)
            return self._open(folder, stem)
        except ArenaError as error:
            raise Refused(error.reason) from error
        except OSError as error:
            where = f": {error.filename}" if error.filename else ""
            raise Refused(f"{error.strerror or error}{where}") from error

    def renew(self, opened: Opened) -> Opened:
        """Take part in the arena that follows one which was given up; the offices stay.

        Raises:
            Refused: That cannot be.
        """
        arena, offices, path = opened
        given_up = arena.id
        try:
            self._make_alone(offices)
            try:
                with suppress(FileNotFoundError, ArenaError):
                    found = attached(path)
                    if found.id != given_up and not found.poisoned:
                        return Opened(found, offices, path)
                return Opened(self._made(path), offices, path)
            finally:
                offices.give_up(MAKING)
        except ArenaError as error:
            raise Refused(error.reason) from error
        except OSError as error:
            raise Refused(str(error.strerror or error)) from error

    def leave(self, opened: Opened) -> bool:
        """Have no part any more; the last one takes the files away. Return True where this is the last one."""
        last = self.remove_if_alone(opened)
        opened.offices.close()
        return last

    def remove_if_alone(self, opened: Opened) -> bool:
        """Take the files away where nobody else has a part, and return True: who comes now makes another arena."""
        offices, path = opened.offices, opened.path
        alone = False
        with suppress(OSError, Refused):
            self._make_alone(offices)
            alone = offices.take(HOLDERS)
            if alone and _is_at(offices, locks_of(path)):
                _remove(path)
        offices.give_up(MAKING)
        return alone

    # Below, errors are OSError and ArenaError.

    def _folder(self) -> tuple[Path, str]:
        common = json.dumps([Arena.layout(), *self._of, _namespaces()])
        digest = hashlib.sha256(common.encode()).hexdigest()[:24]
        if self._name.startswith("/"):
            folder, stem = Path(self._name), f"{self._label}{digest}"
        else:
            folder, stem = own_folder(), f"{self._name}-{self._label}{digest}"
        found = folder.lstat()
        if not stat.S_ISDIR(found.st_mode):
            raise Refused(f"{folder} is no folder")
        if found.st_uid != os.geteuid() or found.st_mode & 0o077:
            whose = f"uid {found.st_uid}, mode {stat.S_IMODE(found.st_mode):04o}"
            raise Refused(
                f"{folder} must belong to this user and be closed to all others (mode 0700), and is of {whose}"
            )
        return folder, stem

    def _open(self, folder: Path, stem: str) -> Opened:
        path = folder / f"{stem}.arena"
        end = time.monotonic() + PATIENCE
        while True:
            offices = Offices(trusted(locks_of(path), os.O_RDWR | os.O_CREAT))
            try:
                self._make_alone(offices)
                if not _is_at(offices, locks_of(path)):  # the last one out took it away meanwhile
                    if time.monotonic() > end:
                        raise Refused("other processes take the arena away again and again")
                    offices.close()
                    continue
                alone = offices.take(HOLDERS)
                if not offices.share(HOLDERS):
                    raise Refused("another process has the arena for itself")
                arena = None
                if not alone:
                    with suppress(FileNotFoundError):
                        arena = attached(path)
                if arena is None or arena.poisoned:
                    arena = self._made(path)
                offices.give_up(MAKING)
                return Opened(arena, offices, path)
            except BaseException:
                offices.close()
                raise

    def _make_alone(self, offices: Offices) -> None:
        end = time.monotonic() + PATIENCE
        while not offices.take(MAKING):
            if time.monotonic() > end:
                raise Refused("another process has been making the arena for too long")
            time.sleep(_PAUSE)

    def _made(self, path: Path) -> Arena:
        """Make an arena; nobody sees it before it is whole."""
        temporary = path.with_suffix(".new")  # one name: the next maker removes what a killed one left
        with suppress(FileNotFoundError):
            temporary.unlink()
        file = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | _FLAGS, 0o600)
        try:
            # Where there is no room that has to be an error here: a file that is only long would end the process later.
            os.posix_fallocate(file, 0, self._size)
            arena = Arena.create(file, self._size)
            temporary.rename(path)
            return arena
        except BaseException:
            temporary.unlink()
            raise
        finally:
            os.close(file)


def attached(path: Path) -> Arena:
    """Return the arena of a file.

    Raises:
        ArenaError: It is none, or not for this library.
        Refused: Somebody else could have put it there.
        OSError: There is none.
    """
    file = trusted(path)
    try:
        return Arena.attach(file)
    finally:
        os.close(file)


def trusted(path: Path, flags: int = os.O_RDWR) -> int:
    """Return a descriptor of a file that nobody else can have put there, or change.

    Raises:
        Refused: Somebody else can.
        OSError: It cannot be opened.
    """
    file = os.open(path, flags | _FLAGS, 0o600)
    found = os.fstat(file)
    reason = _distrust(found)
    if reason is not None:
        os.close(file)
        raise Refused(f"{path} {reason}")
    return file


def _distrust(found: os.stat_result) -> str | None:
    if not stat.S_ISREG(found.st_mode):
        return "is no file"
    if found.st_uid != os.geteuid():
        return f"is another user's (uid {found.st_uid})"
    if found.st_mode & 0o077:
        return "is open to others (its mode must be 0600)"
    if found.st_nlink > 1:  # 0: the last one out has just taken it away, which `_is_at` sees
        return "is linked elsewhere"
    return None


def _remove(path: Path) -> None:
    """Remove an arena; the caller has the offices of its making and of its holders for himself."""
    for file in (path, path.with_suffix(".new"), locks_of(path)):
        with suppress(FileNotFoundError):
            file.unlink()


def _remove_left(folder: Path, stem: str) -> None:
    """Remove what nobody has a part in: all who had were killed, and whoever comes now looks for another name.

    So it is after an upgrade, or where a container that was started again finds the folder of the one before.
    """
    for locks in folder.glob("*.locks"):
        if locks.stem == stem or not _STEM.fullmatch(locks.stem):
            continue
        with suppress(OSError, Refused):
            offices = Offices(trusted(locks))
            try:
                if offices.take(MAKING) and offices.take(HOLDERS) and _is_at(offices, locks):
                    _remove(locks.with_suffix(".arena"))
            finally:
                offices.close()


def _is_at(offices: Offices, path: Path) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(offices.file), path.lstat())
    return False


def locks_of(path: Path) -> Path:
    """Return where the locks of an arena are."""
    return path.with_suffix(".locks")


def own_folder(*, make: bool = True) -> Path:
    """Return where arenas lie that have a name; it is made where there is none."""
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    # Under sudo it may be another user's, who could exchange the folder in it.
    if runtime and os.path.isabs(runtime) and os.stat(runtime).st_uid == os.geteuid():
        folder = Path(runtime) / "pgsession"
    else:
        folder = Path(f"/dev/shm/pgsession-{os.geteuid()}")
    if make:
        with suppress(FileExistsError):
            folder.mkdir(mode=0o700)
    return folder


def _namespaces() -> list[str]:
    """Return what tells who can see each other's process ids, and has the same clock."""
    names = [os.readlink("/proc/self/ns/pid")]  # an error without /proc: who cannot tell shares with nobody
    with suppress(FileNotFoundError):  # Linux before 5.6 has one time for all
        names.append(os.readlink("/proc/self/ns/time"))
    return names
