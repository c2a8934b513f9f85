"""A warm file is whole or is not used, and belongs to its user alone."""

from __future__ import annotations

import os
import resource
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pgsession._warm_file import read_ids, write_ids

US, THEM = b"u" * 32, b"t" * 32
IDS = b"".join(n.to_bytes(16, "big") for n in range(1, 301))
MANY = 10**6


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "ids")


def alone(path: str) -> bool:
    return os.listdir(os.path.dirname(path)) == ["ids"]


def test_what_was_written_is_read_by_nobody_else(path: str) -> None:
    assert read_ids(path, US, MANY) == b"", "there is none yet"
    before = os.umask(0)
    try:
        write_ids(path, US, IDS)
    finally:
        os.umask(before)
    assert stat.S_IMODE(os.stat(path).st_mode) == 0o600 and alone(path)
    assert read_ids(path, US, MANY) == IDS
    assert read_ids(path, US, 7) == IDS[: 7 * 16]
    write_ids(path, US, IDS[:16])
    assert read_ids(path, US, MANY) == IDS[:16] and alone(path)


def test_a_path_may_be_relative(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(os.path.dirname(path))
    assert read_ids("ids", US, MANY) == b""
    write_ids("ids", US, IDS)
    assert read_ids("ids", US, MANY) == IDS


@pytest.mark.parametrize("at", [0, 8, 40, 47, 48, 52, -1])
def test_a_bit_that_has_changed_is_found(path: str, at: int) -> None:
    write_ids(path, US, IDS)
    content = bytearray(Path(path).read_bytes())
    content[at] ^= 1
    Path(path).write_bytes(content)
    with pytest.raises(ValueError, match=r"^it(s| is) "):
        read_ids(path, US, 1)


@pytest.mark.parametrize("length", [0, 1, 51, 52, 60, 52 + 300 * 16 - 1, 52 + 300 * 16 + 1, 52 + 301 * 16])
def test_one_of_another_length_is_not_used(path: str, length: int) -> None:
    write_ids(path, US, IDS)
    os.truncate(path, length)
    with pytest.raises(ValueError, match=r"not a file of ids|length is not"):
        read_ids(path, US, MANY)


def test_one_that_is_huge_is_not_read(path: str) -> None:
    write_ids(path, US, IDS)
    os.truncate(path, 1 << 42)
    with pytest.raises(ValueError, match="length is not what it says"):
        read_ids(path, US, MANY)


def test_one_of_another_database_or_kind_is_not_used(path: str) -> None:
    write_ids(path, THEM, IDS)
    with pytest.raises(ValueError, match="another database"):
        read_ids(path, US, MANY)
    Path(path).write_bytes(os.urandom(1000))
    with pytest.raises(ValueError, match="not a file of ids"):
        read_ids(path, US, MANY)


def test_nothing_but_a_file_is_read_and_nothing_is_waited_for(path: str) -> None:
    other = path + ".other"
    write_ids(other, US, IDS)
    os.symlink(other, path)
    with pytest.raises(OSError, match="symbolic link"):
        read_ids(path, US, MANY)
    os.unlink(path)
    os.mkfifo(path)
    with pytest.raises(ValueError, match="it is not a file"):
        read_ids(path, US, MANY)
    os.unlink(path)
    os.mkdir(path)
    with pytest.raises((OSError, ValueError)):
        read_ids(path, US, MANY)
    with pytest.raises(IsADirectoryError):
        write_ids(path, US, IDS)
    assert sorted(os.listdir(os.path.dirname(path))) == ["ids", "ids.other"]


def test_the_target_of_a_link_stays_as_it_is(path: str) -> None:
    other = path + ".other"
    Path(other).write_text("theirs")
    os.symlink(other, path)
    write_ids(path, US, IDS)
    assert Path(other).read_text() == "theirs" and read_ids(path, US, MANY) == IDS


def test_one_of_another_user_is_not_used(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    write_ids(path, US, IDS)
    monkeypatch.setattr(os, "geteuid", lambda: os.stat(path).st_uid + 1)
    with pytest.raises(ValueError, match="belongs to another user"):
        read_ids(path, US, MANY)


def test_a_folder_that_is_not_there_is_told_already_when_it_is_read(path: str) -> None:
    with pytest.raises(FileNotFoundError):
        read_ids(os.path.join(path, "ids"), US, MANY)
    with pytest.raises(FileNotFoundError):
        write_ids(os.path.join(path, "ids"), US, IDS)


@contextmanager
def full_disk() -> Iterator[None]:
    """No file can become larger than the header: what a full disk is to who writes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_leaves_the_former_one(path: str) -> None:
    write_ids(path, US, IDS[:160])
    with full_disk(), pytest.raises(OSError, match="too large"):
        write_ids(path, US, IDS)
    assert read_ids(path, US, MANY) == IDS[:160] and alone(path)


KILLED = """
import os, signal, sys
from pgsession import _warm_file
os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
_warm_file.write_ids(sys.argv[1], b"u" * 32, bytes(1600))
"""


def test_a_process_that_is_killed_leaves_the_former_one(path: str) -> None:
    write_ids(path, US, IDS)
    assert subprocess.run([sys.executable, "-c", KILLED, path], timeout=60).returncode == -signal.SIGKILL
    assert read_ids(path, US, MANY) == IDS


def test_of_many_who_write_and_read_nobody_meets_a_half_one(path: str) -> None:
    writers, rounds = 4, 40
    texts = {n: n.to_bytes(16, "big") * (n * 400) for n in range(1, writers + 1)}
    write_ids(path, US, texts[1])
    start, errors = threading.Barrier(2 * writers), []

    def write(n: int) -> None:
        start.wait()
        for _ in range(rounds):
            write_ids(path, US, texts[n])

    def read() -> None:
        start.wait()
        for _ in range(rounds):
            try:
                assert read_ids(path, US, MANY) in texts.values()
            except BaseException as error:
                errors.append(error)

    threads = [threading.Thread(target=write, args=(n,)) for n in texts]
    threads += [threading.Thread(target=read) for _ in texts]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert not errors and alone(path)
