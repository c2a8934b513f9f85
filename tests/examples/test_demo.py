"""`make demo` does its job, and leaves nothing behind however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

ROOT = Path(__file__).resolve().parents[2]
DEMO = [sys.executable, str(ROOT / "examples" / "demo.py")]
MARK = "PGSESSION_DEMO_TEST"
HOST = ("one host", "one listener") if sys.platform == "linux" else ()


def start(mark: str) -> subprocess.Popen[str]:
    """In a process group of its own, recognizable by a mark that everything it starts inherits."""
    return subprocess.Popen(
        DEMO,
        env={**os.environ, MARK: mark, "COLUMNS": "150"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def left_behind(mark: str) -> list[str]:
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get(MARK) == mark and process.pid != os.getpid():
                found.append(" ".join(process.cmdline()))
        except psutil.Error:
            pass
    return found


def assert_nothing_left(mark: str) -> None:
    deadline = time.monotonic() + 20
    while left := left_behind(mark):
        assert time.monotonic() < deadline, left
        time.sleep(0.1)


@pytest.mark.slow
def test_every_step_is_right() -> None:
    demo = start("whole")
    output, _ = demo.communicate(timeout=120)
    assert demo.returncode == 0, output
    assert "all steps right" in output
    steps = ("log in", "from the database", "from memory", "p99", "million/s", "log out everywhere")
    for step in (
        *steps,
        "visitor's cart",
        "new token",
        "all nodes have confirmed",
        "listener is frozen",
        *HOST,
    ):
        assert step in output
    assert_nothing_left("whole")


@pytest.mark.skipif(sys.platform == "win32", reason="has other signals")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_it_leaves_nothing_behind_when_interrupted(number: signal.Signals) -> None:
    demo = start(number.name)
    deadline = time.monotonic() + 60
    while len([line for line in left_behind(number.name) if "spawn_main" in line]) < 2:
        assert time.monotonic() < deadline and demo.poll() is None, "both nodes must start"
        time.sleep(0.05)
    demo.send_signal(number)
    demo.communicate(timeout=60)
    assert demo.returncode != 0
    assert_nothing_left(number.name)
