"""A child of a fork is another node, and the parent does not notice it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]

COMMON = """
import asyncio, os, signal, sys
import psycopg, psycopg_pool
import pgsession

os.register_at_fork(after_in_child=lambda: signal.alarm(60))  # what goes wrong in a child ends with it

dsn, schema = sys.argv[1:]
config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, max_staleness=2)

def wait(child):
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0, "the child failed"
"""

SYNC = """
def first_call(sessions, call):
    child = os.fork()
    if child == 0:
        call()
        assert sessions.stats().fills == 0 and sessions.check_health().healthy
        sessions.close()
        sys.exit(0)
    wait(child)

def hold():
    with sessions.lock("r") as lock:
        assert lock.locked

def in_child(sessions, session, parent_node):
    assert sessions._node != parent_node and len(sessions._cache) == 0
    read = sessions.get_session(session.id)
    assert read["n"] == 0 and not read.from_cache
    read["n"] = 1
    sessions.update_session(read)
    while not sessions.get_session(session.id).from_cache:
        pass
    sessions.close()

with pgsession.SessionManager(dsn, config) as sessions:
    session = sessions.create_session("u", {"n": 0})
    assert sessions.get_session(session.id).from_cache
    node, listener = sessions._node, sessions._runtime.listener.pid
    first_call(sessions, sessions.stats)
    first_call(sessions, hold)
    for _ in range(2):
        child = os.fork()
        if child == 0:
            in_child(sessions, session, node)
            sys.exit(0)  # not os._exit: whatever the interpreter destroys at its end must not reach the parent
        wait(child)
        while sessions.get_session(session.id)["n"] != 1:
            pass  # what the child wrote arrives here as from any node
        session = sessions.get_session(session.id, refresh=True)
        session["n"] = 0
        sessions.update_session(session)
    assert sessions._node == node and sessions._runtime.listener.pid == listener
    assert sessions.stats().listener_losses == 0
"""

ASYNC = """
async def in_child(sessions, session, parent_node):
    assert sessions._node != parent_node and len(sessions._cache) == 0
    async with pgsession.AsyncSessionManager(dsn, config) as mine:
        read = await mine.get_session(session.id)
        read["n"] = 1
        await mine.update_session(read)

async def main():
    async with pgsession.AsyncSessionManager(dsn, config) as sessions:
        session = await sessions.create_session("u", {"n": 0})
        assert (await sessions.get_session(session.id)).from_cache
        node, listener = sessions._node, sessions._runtime.listener.pid
        child = os.fork()
        if child == 0:
            asyncio.events._set_running_loop(None)  # the parent's
            asyncio.set_event_loop(asyncio.new_event_loop())
            asyncio.get_event_loop_policy().get_event_loop().run_until_complete(in_child(sessions, session, node))
            os._exit(0)
        wait(child)
        while (await sessions.get_session(session.id))["n"] != 1:
            await asyncio.sleep(0.01)
        assert sessions._node == node and sessions._runtime.listener.pid == listener
        assert sessions.stats().listener_losses == 0

asyncio.run(main())
"""

CALLERS_POOL = """
with psycopg_pool.ConnectionPool(dsn, min_size=1, open=True) as pool:
    with pgsession.SessionManager(pool, config) as sessions:
        session = sessions.create_session("u", {"n": 0})
        child = os.fork()
        if child == 0:
            for call in (
                lambda: sessions.get_session(session.id),
                lambda: sessions.create_session("u"),
                lambda: sessions.update_session(session),
                lambda: sessions.lock("resource"),
                sessions.open,
            ):
                try:
                    call()
                except pgsession.ManagerClosedError as error:
                    assert "fork" in str(error), error
                else:
                    os._exit(1)
            assert sessions.get_cached_session(session.id) is None
            sessions.close()
            os._exit(0)  # the pool is not ours to close
        wait(child)
        session["n"] = 1
        sessions.update_session(session)
        assert sessions.get_session(session.id)["n"] == 1
        assert sessions.stats().listener_losses == 0
"""

AUDIT = """
heard = []
config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, on_audit_event=heard.append)

with pgsession.SessionManager(dsn, config) as sessions:
    first = sessions.create_session("u")
    while not heard:
        pass
    child = os.fork()
    if child == 0:
        assert sessions.delete_session(first.id)
        sessions.close()
        assert [event.kind for event in heard] == ["session_created", "session_expired"], heard
        assert heard[0].node != heard[1].node == sessions._node
        sys.exit(0)
    wait(child)
    sessions.create_session("v")
assert [event.user_id for event in heard] == ["u", "v"], heard
assert heard[0].node == heard[1].node
"""

SCRIPTS = {"sync": SYNC, "async": ASYNC, "the caller's pool": CALLERS_POOL, "audit events": AUDIT}


WARM = """
import threading
from pgsession._sync.reads import Reads

config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, warm=f"{os.environ['TMP_PATH']}/ids")
with pgsession.SessionManager(dsn, config) as sessions:
    ids = [sessions.create_session(f"u{n}").id for n in range(10)]
with pgsession.SessionManager(dsn, config) as sessions:
    assert sessions.stats().warmed_sessions == 10
    child = os.fork()
    if child == 0:
        answered, read_early = threading.Event(), Reads.read_early
        def read_on(reads, keys):
            assert answered.wait(20), "the first call of this process waits for the warm start"
            return read_early(reads, keys)
        Reads.read_early = read_on
        assert not sessions.get_session(ids[0]).from_cache
        answered.set()
        while sessions.stats().cached_sessions < 10:
            pass
        assert sessions.stats().warmed_sessions == 9
        sessions.close()
        sys.exit(0)
    wait(child)
"""


def run(script: str, dsn: str, schema: str, folder: Path = ROOT) -> None:
    done = subprocess.run(
        [sys.executable, "-c", COMMON + script, dsn, schema], env={**os.environ, "TMP_PATH": str(folder)},
        capture_output=True, text=True, timeout=120, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("script", SCRIPTS.values(), ids=SCRIPTS.keys())
def test_a_child_is_another_node(script: str, dsn: str, schema: str) -> None:
    run(script, dsn, schema)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
def test_the_child_of_a_fork_is_warmed_while_it_serves(dsn: str, schema: str, tmp_path: Path) -> None:
    run(WARM, dsn, schema, tmp_path)
