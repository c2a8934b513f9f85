"""Programs that pip does not bring: a server of one's own, and what happens where there is none."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path
from urllib.parse import urlsplit

ROOT = Path(__file__).resolve().parents[2]


def test_a_redis_of_the_tests_answers(redis_url: str) -> None:
    url = urlsplit(redis_url)
    with socket.create_connection((url.hostname, url.port)) as connection:
        connection.sendall(b"PING\r\n")
        assert connection.recv(100) == b"+PONG\r\n"


def test_the_summary_names_the_tests_that_a_missing_program_skips(tmp_path: Path) -> None:
    name = "tests/unit/test_programs.py::test_a_redis_of_the_tests_answers"
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-o", f"cache_dir={tmp_path}", name],
        cwd=ROOT,
        env=os.environ | {"PATH": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert run.returncode == 0, run.stdout
    _, found, summary = run.stdout.partition("skipped for want of a program")
    assert found and f"redis-server: {name}" in summary
