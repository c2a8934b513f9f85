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
ROOT = Path(__file__).parents[2]
DOCUMENTED = "range(9464, 9480)"

APPLICATION = """
import pgsession
from pgsession.telemetry.prometheus import Metrics, serve

metrics = Metrics()
config = pgsession.Config(schema_name={schema!r}, create_schema_if_missing=True, instrument=metrics)
sessions = pgsession.SessionManager({dsn!r}, config)
metrics.watch(sessions)


def begin():
    sessions.open()
    sessions.create_session("of a worker")


def application(environ, start_response):
    start_response("204 No Content", [])
    return []
"""
AT_IMPORT = """
begin()
serve({ports!r})
"""
POST_WORKER_INIT = """
def post_worker_init(worker):
    import service

    service.begin()
"""


@pytest.mark.skipif(sys.platform == "win32", reason="gunicorn needs fork")
@pytest.mark.parametrize("option", ["", "--preload"])
def test_two_workers_are_two_nodes(dsn: str, schema: str, tmp_path: Path, option: str) -> None:
    port, *ports = free_ports(4)
    begins = "" if option else AT_IMPORT
    (tmp_path / "service.py").write_text((APPLICATION + begins).format(schema=schema, dsn=dsn, ports=ports))
    if option:
        page = (ROOT / "docs" / "monitoring.md").read_text(encoding="utf-8")
        [serving] = re.findall(r"^```python\n([^`]*def post_fork[^`]*)^```$", page, re.MULTILINE)
        assert serving.count(DOCUMENTED) == 1
        hooks = serving.replace(DOCUMENTED, str(ports)) + POST_WORKER_INIT
        (tmp_path / "gunicorn.conf.py").write_text(hooks)
    arguments = f"-m gunicorn {option} -w 2 -b 127.0.0.1:{port} service:application"
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
