"""Whatever stands in a folder ends, stopped processes too, and nothing else; without a cluster."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from tests.ha import processes

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="stops processes")

SLEEP = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def started(tmp_path: Path) -> object:
    """Processes in inner/, inner/data and outer/."""
    found = []
    for name in ("inner", "inner/data", "outer"):
        (tmp_path / name).mkdir()
        found.append(subprocess.Popen(SLEEP, cwd=tmp_path / name, stdin=subprocess.PIPE))
    yield found
    for process in found:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def test_those_of_a_folder(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    inner, data, outer = (process.pid for process in started)
    assert [process.pid for process in processes.below(tmp_path)] == [inner, data, outer]
    assert [process.pid for process in processes.below(tmp_path / "inner")] == [inner, data]
    found = processes.below(tmp_path / "inner", besides=tmp_path / "inner/data")
    assert [process.pid for process in found] == [inner]


def test_they_end_though_they_are_stopped(tmp_path: Path, started: list[subprocess.Popen[bytes]]) -> None:
    assert processes.send(signal.SIGSTOP, tmp_path / "inner") == 2
    processes.end(tmp_path / "inner")
    assert [process.wait(10) for process in started[:2]] == [-signal.SIGKILL] * 2
    assert started[2].poll() is None


def test_the_guard_ends_them_when_its_input_ends(
    tmp_path: Path, started: list[subprocess.Popen[bytes]]
) -> None:
    command = [sys.executable, "-m", "tests.ha.processes", str(tmp_path / "inner")]
    root = Path(__file__).resolve().parents[2]
    with subprocess.Popen(command, stdin=subprocess.PIPE, cwd=root) as guard:
        guard.communicate(timeout=30)
    assert guard.returncode == 0
    assert not (tmp_path / "inner").exists()
    assert started[0].wait(10) == -signal.SIGKILL and psutil.pid_exists(started[2].pid)
