"""Each worker of a real gunicorn has its metrics on a port of its own."""

from __future__ import annotations

import re
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from tests.telemetry.monitored import free_ports

PATIENCE = 60.0

APPLICATION = """
import pgsession
from pgsession.telemetry.prometheus import Metrics, serve

metrics = Metrics()
config = pgsession.Config(schema_name={schema!r}, create_schema_if_missing=True, instrument=metrics)
sessions = pgsession.SessionManager({dsn!r}, config)
sessions.open()
metrics.watch(sessions)
serve({ports!r})
sessions.create_session("of a worker")


def application(environ, start_response):
    start_response("204 No Content", [])
    return []
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
def test_two_workers_are_two_nodes(dsn: str, schema: str, tmp_path: Path) -> None:
    port, *ports = free_ports(4)
    (tmp_path / "service.py").write_text(APPLICATION.format(schema=schema, dsn=dsn, ports=ports))
    arguments = f"-m gunicorn -w 2 -b 127.0.0.1:{port} service:application"
    command = [sys.executable, *arguments.split()]
    with (tmp_path / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=tmp_path, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + PATIENCE
            while len(found := [told for each in ports if (told := writes(each)) is not None]) < 2:
                assert time.monotonic() < deadline, (tmp_path / "log").read_text()
                time.sleep(0.1)
            assert found == [1.0, 1.0] and sum(told is None for told in map(writes, ports)) == 1
        finally:
            running.terminate()
            running.wait(PATIENCE)


def writes(port: int) -> float | None:
    """How many writes the process on this port tells of; None: there is none, or it has done nothing yet."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
            text = answer.read().decode()
    except OSError:
        return None
    told = re.search(r'^pgsession_writes_total\{manager="sessions"\} (\S+)$', text, re.MULTILINE)
    return float(told[1]) or None if told else None
