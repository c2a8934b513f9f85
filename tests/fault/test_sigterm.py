"""A service is told to end by SIGTERM, as in a deploy: what it has accepted is written, within a bound."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from http.client import HTTPConnection
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from tests.fault_proxy import FaultProxy
from tests.leftovers import Leftovers
from tests.tables import Tables

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")

ROOT = Path(__file__).resolve().parents[2]
CLOSING = 2  # seconds that the services below give `close`
GUARD = 3 * (CLOSING + 2)
NOT_WRITTEN = "SELECT count(*) FROM {sessions} WHERE last_accessed = created_at"

COMMON = """
import asyncio, json, signal, sys, threading
import pgsession

dsn, schema = sys.argv[1:]
config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, operation_timeout=2)
written, errors = {}, []

def report():
    print(json.dumps([written, errors]), flush=True)
"""

ASYNCIO = """
async def write(manager, session, begun):
    try:
        while True:
            session["n"] = session.get("n", 0) + 1
            begun.set()
            await manager.update_session(session)
            written[str(session.id)] = session["n"]
    except Exception as error:
        errors.append(type(error).__name__)

async def main():
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    manager = pgsession.AsyncSessionManager(dsn, config)
    await manager.open()
    sessions = [await manager.create_session(f"u{number}") for number in range(20)]
    for session in sessions:
        assert await manager.get_session(session.id) is not None
    begun = asyncio.Event()
    writers = [asyncio.create_task(write(manager, session, begun)) for session in sessions]
    await begun.wait()
    print("ready", flush=True)
    await ended.wait()
    await manager.close(timeout=2)
    await asyncio.gather(*writers)
    report()

asyncio.run(main())
"""

THREADS = """
def write(manager, session, begun):
    try:
        while True:
            session["n"] = session.get("n", 0) + 1
            begun.set()
            manager.update_session(session)
            written[str(session.id)] = session["n"]
    except Exception as error:
        errors.append(type(error).__name__)

signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
manager = pgsession.SessionManager(dsn, config)
manager.open()
sessions = [manager.create_session(f"u{number}") for number in range(20)]
for session in sessions:
    assert manager.get_session(session.id) is not None
begun = threading.Event()
writers = [threading.Thread(target=write, args=(manager, session, begun)) for session in sessions]
try:
    for writer in writers:
        writer.start()
    begun.wait()
    print("ready", flush=True)
    while True:
        signal.pause()
finally:
    manager.close(timeout=2)
    for writer in writers:
        writer.join()
    report()
"""

SERVICES = {"asyncio": ASYNCIO, "threads": THREADS}


def stored(dsn: str, schema: str) -> dict[str, int]:
    query = sql.SQL("SELECT session_id::text, value::text::integer FROM {}.session_attributes")
    with psycopg.connect(dsn) as connection:
        return dict(connection.execute(query.format(sql.Identifier(schema))).fetchall())


@pytest.mark.parametrize("frozen", [False, True])
@pytest.mark.parametrize("service", SERVICES)
def test_what_was_accepted_is_written(
    service: str, frozen: bool, dsn: str, schema: str, tables: Tables
) -> None:
    with Leftovers(dsn) as left, FaultProxy(left.conninfo) as proxy:
        process = subprocess.Popen(
            [sys.executable, "-c", COMMON + SERVICES[service], proxy.conninfo, schema],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        assert process.stdout is not None and process.stdout.readline() == "ready\n", process.communicate()
        if frozen:
            proxy.freeze()
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        output, errors = process.communicate(timeout=60)
        assert time.monotonic() - began < GUARD
        assert process.returncode == 0, errors
        written, ends = json.loads(output)
        proxy.forward()
    if not frozen:
        assert set(ends) == {"ManagerClosedError"}, ends
        assert stored(dsn, schema) == written, "all that was sent was answered, and nothing else is there"
        assert tables.one(NOT_WRITTEN) == 0, "the accesses"


def test_a_web_service_under_uvicorn(dsn: str, schema: str, tables: Tables) -> None:
    pytest.importorskip("uvicorn")
    pytest.importorskip("starlette")
    with Leftovers(dsn) as left, socket.create_server(("127.0.0.1", 0)) as listening:
        process = subprocess.Popen(
            [sys.executable, "-m", "uvicorn", "--factory", "asgi_app:app", "--fd", str(listening.fileno()),
             "--app-dir", str(ROOT / "examples"), "--log-level", "warning"],
            env={**os.environ, "DATABASE_URL": left.conninfo, "PGSESSION_SCHEMA_NAME": schema, "SESSION_KEY": "k" * 32},
            pass_fds=[listening.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
        )  # fmt: skip
        try:
            connection = HTTPConnection(*listening.getsockname(), timeout=60)
            connection.request("POST", "/login", json.dumps({"username": "alice", "password": "wonderland"}))
            response = connection.getresponse()
            assert response.status == 200
            response.read()
            cookie = response.headers["Set-Cookie"].partition(";")[0]
            connection.request("GET", "/cart", headers={"Cookie": cookie})
            assert connection.getresponse().read() == b"[]"
            connection.close()
            assert tables.one(NOT_WRITTEN) == 1
            began = time.monotonic()
            process.send_signal(signal.SIGTERM)
            output, _ = process.communicate(timeout=60)
            assert time.monotonic() - began < GUARD
        finally:
            process.kill()
            process.communicate()
        assert process.returncode in (0, -signal.SIGTERM), output
        assert "Traceback" not in output and "not closed" not in output, output
    assert tables.one(NOT_WRITTEN) == 0
