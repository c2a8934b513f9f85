"""Where there is no Linux a process has a cache of its own: the platform is taken away, the database is real."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CORE = HERE.parents[1] / "cython" / "pgsession" / "_core"

# What others do otherwise on each system is theirs: they are imported before.
MANAGER = """
import asyncio, ctypes, json, logging, multiprocessing, os, selectors, shutil, signal, subprocess, sys, tempfile
import msgspec, psycopg, psycopg_pool

system, kind, dsn, schema = sys.argv[1:]
sys.platform = system
asyncio.ProactorEventLoop = type("ProactorEventLoop", (), {})  # for which psycopg looks on Windows
import pgsession

warnings = []
handler = logging.Handler(logging.WARNING)
handler.emit = lambda record: warnings.append(record.getMessage())
logger = logging.Logger("elsewhere")
logger.addHandler(handler)
config = pgsession.Config(
    schema_name=schema, create_schema_if_missing=True, shared_cache="shop", cache_size=50, logger=logger
)


async def with_tasks():
    async with pgsession.AsyncSessionManager(dsn, config) as manager:
        session = await manager.create_session("u", attributes={"n": 1})
        found = await manager.get_session(session.id)
        return found.from_cache, manager.stats()


if kind == "tasks":
    from_cache, stats = asyncio.run(with_tasks())
else:
    with pgsession.SessionManager(dsn, config) as manager:
        session = manager.create_session("u", attributes={"n": 1})
        found = manager.get_session(session.id)
        from_cache, stats = found.from_cache, manager.stats()
print(json.dumps([from_cache, stats.in_sync, stats.leader, stats.shared_fallback_reason, warnings]))
"""


@pytest.mark.parametrize("kind", ["threads", "tasks"])
@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_each_process_has_a_cache_of_its_own(dsn: str, schema: str, system: str, kind: str) -> None:
    command = [sys.executable, "-c", MANAGER, system, kind, dsn, schema]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    from_cache, in_sync, leader, reason, warnings = json.loads(done.stdout)
    assert (from_cache, in_sync, leader) == (True, True, False)
    assert reason == f"this system ({system}) is not supported; Linux is"
    assert len(warnings) == 1 and reason in warnings[0]


def test_the_headers_say_that_there_are_none(tmp_path: Path) -> None:
    """What macOS and Windows compile, here with Linux taken away from the compiler."""
    compiler = shutil.which(os.environ.get("CC", "cc"))
    if compiler is None or sys.platform == "win32":
        pytest.skip("no C compiler")
    program = tmp_path / "no_arenas"
    options = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-Wno-unused-function", "-U__linux__", "-I", CORE]
    subprocess.run([compiler, *options, HERE / "no_arenas.c", "-o", program], check=True)
    done = subprocess.run([program], capture_output=True, text=True, timeout=60, check=False)
    assert (done.stdout, done.returncode) == ("done\n", 0)
