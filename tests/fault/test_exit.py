"""The interpreter exits with managers that nobody has closed: it is told, accesses are written, and nothing hangs."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path
from typing import LiteralString

import pytest

import pgsession
from tests.fault_proxy import FaultProxy
from tests.leftovers import Leftovers
from tests.tables import Tables

ROOT = Path(__file__).resolve().parents[2]
BOUND = 3  # seconds for all managers together
GUARD = 3 * BOUND + 1
NOT_WRITTEN: LiteralString = "SELECT count(*) FROM {sessions} WHERE last_accessed = created_at"

COMMON = """
import asyncio, os, sys, time
import psycopg_pool
import pgsession

dsn, schema = sys.argv[1:]
config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, listener_conninfo=dsn)

def wait():
    print("ready", flush=True)
    sys.stdin.readline()
"""

SYNC = """
sessions = pgsession.SessionManager(dsn, config)
sessions.open()
assert sessions.get_session(sessions.create_session("u").id) is not None
wait()
"""

SYNC_IN_A_FUNCTION = """
def main():
    sessions = pgsession.SessionManager(dsn, config)
    sessions.open()
    assert sessions.get_session(sessions.create_session("u").id) is not None
    wait()
main()
"""

CALLERS_POOL = """
with psycopg_pool.ConnectionPool(dsn, min_size=1, open=True, kwargs={"autocommit": True}) as pool:
    sessions = pgsession.SessionManager(pool, config)
    sessions.open()
    assert sessions.get_session(sessions.create_session("u").id) is not None
    wait()
"""

ASYNC_GLOBAL = """
sessions = pgsession.AsyncSessionManager(dsn, config)
async def main():
    await sessions.open()
    assert await sessions.get_session((await sessions.create_session("u")).id) is not None
    wait()
asyncio.run(main())
"""

ASYNC_IN_MAIN = """
async def main():
    sessions = pgsession.AsyncSessionManager(dsn, config)
    await sessions.open()
    assert await sessions.get_session((await sessions.create_session("u")).id) is not None
    wait()
asyncio.run(main())
"""

ASYNC_DROPPED_WITHOUT_A_LOOP = """
async def main():
    sessions = pgsession.AsyncSessionManager(dsn, config)
    await sessions.open()
    assert await sessions.get_session((await sessions.create_session("u")).id) is not None
    wait()
    return sessions
sessions = asyncio.run(main())
del sessions
"""

SEVERAL = """
managers = []
for _ in range(4):
    sessions = pgsession.SessionManager(dsn, config)
    sessions.open()
    assert sessions.get_session(sessions.create_session("u").id) is not None
    managers.append(sessions)
wait()
"""

GIVEN_BY_A_FUNCTION = """
sessions = pgsession.SessionManager(lambda: dsn, config)
sessions.open()
assert sessions.get_session(sessions.create_session("u").id) is not None
wait()
"""

GIVEN_BY_A_COROUTINE_FUNCTION = """
async def conninfo():
    await asyncio.sleep(0)
    return dsn
async def main():
    sessions = pgsession.AsyncSessionManager(conninfo, config)
    await sessions.open()
    assert await sessions.get_session((await sessions.create_session("u")).id) is not None
    wait()
asyncio.run(main())
"""

SCRIPTS = {
    "sync, by a function": GIVEN_BY_A_FUNCTION,
    "async, by a coroutine function": GIVEN_BY_A_COROUTINE_FUNCTION,
    "sync, several": SEVERAL,
    "sync": SYNC,
    "sync, in a function": SYNC_IN_A_FUNCTION,
    "sync, the caller's pool": CALLERS_POOL,
    "async, global": ASYNC_GLOBAL,
    "async, in main": ASYNC_IN_MAIN,
    "async, without a loop": ASYNC_DROPPED_WITHOUT_A_LOOP,
}


def start(script: str, dsn: str, schema: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-W", "always::ResourceWarning", "-c", COMMON + script, dsn, schema],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT,
    )  # fmt: skip
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n", process.communicate()
    return process


@pytest.mark.parametrize(
    ("script", "frozen"),
    [*((script, False) for script in SCRIPTS), ("sync, several", True), ("async, in main", True)],
)
def test_a_script_that_forgot_to_close(
    script: str, frozen: bool, dsn: str, schema: str, tables: Tables
) -> None:
    with Leftovers(dsn) as left, FaultProxy(left.conninfo) as proxy:
        process = start(SCRIPTS[script], proxy.conninfo, schema)
        assert tables.one(NOT_WRITTEN) > 0
        if frozen:
            proxy.freeze()
        began = time.monotonic()
        _, errors = process.communicate("\n", timeout=60)
        assert time.monotonic() - began < GUARD
        assert process.returncode == 0, errors
        managers = 4 if "several" in script else 1
        assert errors.count("SessionManager was not closed: call close") == managers, errors
        assert "Traceback" not in errors and "never" not in errors and "pending" not in errors, errors
        if not frozen:
            assert tables.one(NOT_WRITTEN) == 0
        proxy.forward()


FORKED = """
with pgsession.SessionManager(dsn, config) as sessions, pgsession.Listener(dsn) as listener:
    session = sessions.create_session("u")
    assert sessions.get_session(session.id) is not None
    child = os.fork()
    if child == 0:
        sys.exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    session["n"] = 1
    sessions.update_session(session)
    assert sessions.get_session(session.id).from_cache
    listener.notify("news")
    assert sessions.stats().listener_losses == 0 and sessions.stats().pending_accesses == 1
    wait()
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_a_child_of_a_fork_exits_and_touches_nothing_of_its_parents(dsn: str, schema: str) -> None:
    with Leftovers(dsn) as left:
        process = start(FORKED, left.conninfo, schema)
        _, errors = process.communicate("\n", timeout=60)
        assert process.returncode == 0 and not errors, errors


def test_an_exit_without_accesses_asks_no_server(dsn: str, schema: str) -> None:
    script = "sessions = pgsession.SessionManager(dsn, config)\nsessions.open()\nwait()\n"
    with pgsession.SessionManager(dsn, pgsession.Config(schema_name=schema, create_schema_if_missing=True)):
        pass
    with Leftovers(dsn) as left, FaultProxy(left.conninfo) as proxy:
        process = start(script, proxy.conninfo, schema)
        proxy.freeze()
        began = time.monotonic()
        _, errors = process.communicate("\n", timeout=60)
        assert time.monotonic() - began < GUARD
        assert "lost" not in errors and process.returncode == 0, errors
        proxy.forward()
