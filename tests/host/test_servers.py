"""Real servers whose workers share a cache: they come and go, and no answer fails or goes back."""

from __future__ import annotations

import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

import pgsession
from tests.fault_proxy import FaultProxy
from tests.telemetry.monitored import free_ports

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="arenas are for Linux")

PATIENCE = 30.0
NOBODY = 65534
as_root = pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() != 0, reason="needs root")
MATRIX = os.environ.get("PGSESSION_WEB_MATRIX") == "1"

SERVICE = """
import os

import pgsession

config = pgsession.Config(schema_name={schema!r}, shared_cache={folder!r}, shared_cache_size=2**24)
ID = {id!r}


def told(session, stats):
    return {{
        "pid": os.getpid(), "n": session["n"], "leader": stats.leader, "from_cache": session.from_cache,
        "alone": stats.shared_fallback_reason, "failovers": stats.failovers,
        "master": os.getppid(), "user": os.geteuid(),
    }}
"""
WSGI = (
    SERVICE
    + """
import json

sessions = pgsession.SessionManager({dsn!r}, config)
sessions.open()


def application(environ, start_response):
    session = sessions.get_session(ID)
    if environ["REQUEST_METHOD"] == "POST":
        session["n"] = int(environ["PATH_INFO"][1:])
        sessions.update_session(session)
    start_response("200 OK", [("Content-Type", "application/json")])
    return [json.dumps(told(session, sessions.stats())).encode()]
"""
)
ASGI = (
    SERVICE
    + """
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.responses import JSONResponse
from starlette.routing import Route

sessions = pgsession.AsyncSessionManager({dsn!r}, config)


@asynccontextmanager
async def lifespan(app):
    async with sessions:
        yield


async def endpoint(request):
    session = await sessions.get_session(ID)
    if request.method == "POST":
        session["n"] = int(request.url.path[1:])
        await sessions.update_session(session)
    return JSONResponse(told(session, sessions.stats()))


application = Starlette(routes=[Route("/{{n}}", endpoint, methods=["GET", "POST"])], lifespan=lifespan)
"""
)


# A worker that ends says so, and the manager waits for another to lead before it goes.
CLOSES = """
def worker_exit(server, worker):
    import service

    service.sessions.close()
"""


class Service:
    """A server that runs; each request has a connection of its own, so that any worker may answer it."""

    def __init__(self, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.masters = {process.pid}
        self._url = f"http://127.0.0.1:{port}"
        self._log = log
        self.told: dict[int, dict[str, Any]] = {}
        self.n = 0

    def ask(self, method: str = "GET") -> dict[str, Any]:
        request = urllib.request.Request(f"{self._url}/{self.n}", method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            told: dict[str, Any] = json.load(answer)
        self.told[told["pid"]] = told
        self.masters.add(told["master"])
        return told

    def write(self) -> None:
        self.n += 1
        assert self.ask("POST")["n"] == self.n, self.log

    def read(self) -> dict[str, Any]:
        told = self.ask()
        assert told["n"] == self.n, (told, self.n, self.log)
        return told

    def until(self, wanted: Callable[[], bool]) -> None:
        deadline = time.monotonic() + PATIENCE
        while not wanted():
            assert time.monotonic() < deadline, self.log

    @property
    def reasons(self) -> set[str | None]:
        """Why workers have a cache of their own."""
        return {told["alone"] for told in self.told.values()}

    @property
    def warnings(self) -> int:
        """How often it was warned of that."""
        return self._log.read_text().count("the cache is not shared")

    @property
    def log(self) -> str:
        return self._log.read_text()[-4000:]


@pytest.fixture
def start(dsn: str, host_schema: str, folder: Path, tmp_path: Path) -> Any:
    with pgsession.SessionManager(dsn, pgsession.Config(schema_name=host_schema)) as sessions:
        session_id = str(sessions.create_session(attributes={"n": 0}).id)

    @contextmanager
    def run(source: str, *arguments: str, first: str = "", **fields: str) -> Iterator[Service]:
        """Run a server; `first` begins gunicorn's configuration, and fields replace those of the service."""
        known = {"schema": host_schema, "folder": str(folder), "id": session_id, "dsn": dsn}
        (port,) = free_ports(1)
        home = tmp_path / f"service-{port}"
        home.mkdir()
        (home / "service.py").write_text(source.format(**known | fields))
        (home / "gunicorn.conf.py").write_text(first + CLOSES)
        command = [part.replace("PORT", str(port)) for part in arguments]
        log = home / "log"
        with log.open("wb") as output:
            process = subprocess.Popen([sys.executable, *command], cwd=home, stdout=output, stderr=output)
        service = Service(port, process, log)

        def answers() -> bool:
            try:
                service.ask()
            except OSError:
                assert process.poll() is None, service.log
                time.sleep(0.05)
                return False
            return True

        try:
            service.until(answers)
            yield service
            process.terminate()
            process.wait(PATIENCE)
        finally:
            process.kill()
            process.wait(PATIENCE)
            for master in service.masters - {process.pid, os.getpid()}:  # workers go with theirs
                with suppress(ProcessLookupError):
                    os.kill(master, signal.SIGKILL)

    return run


def nodes(dsn: str, schema: str) -> int:
    with psycopg.connect(dsn, autocommit=True) as connection:
        query = sql.SQL("SELECT count(*) FROM {}").format(sql.Identifier(schema, "session_nodes"))
        row = connection.execute(query).fetchone()
    assert row is not None
    return int(row[0])


def live_through(service: Service, requests: int) -> int:
    """Write and read in turn; return how many of the reads were answered from memory."""
    hits = 0
    for number in range(requests):
        if number % 5 == 0:
            service.write()
        hits += bool(service.read()["from_cache"])
    return hits


def live_apart(service: Service) -> None:
    """Write and read where each has a cache of its own: what one writes the others have a moment later."""
    for _ in range(10):
        service.write()
        service.until(lambda: bool(service.ask()["n"] == service.n))


# By its file: a master that is to exec itself again knows no -m.
GUNICORN = (
    str(Path(sys.executable).with_name("gunicorn")),
    "-b",
    "127.0.0.1:PORT",
    "-w",
    "3",
    "service:application",
)
WAYS = {
    "gthread": (WSGI, *GUNICORN, "-k", "gthread", "--threads", "2"),
    "preloaded": (WSGI, *GUNICORN, "-k", "sync", "--preload"),
    "sync": (WSGI, *GUNICORN, "-k", "sync"),
    "gthread, preloaded": (WSGI, *GUNICORN, "-k", "gthread", "--threads", "2", "--preload"),
    "uvicorn": (
        ASGI,
        "-m",
        "uvicorn",
        "--port",
        "PORT",
        "--workers",
        "3",
        "--log-level",
        "warning",
        "service:application",
    ),
}
SHORT = ("gthread", "preloaded")


@pytest.mark.parametrize("way", [way for way in WAYS if MATRIX or way in SHORT])
def test_workers_share_and_the_leader_may_be_killed(start: Any, dsn: str, host_schema: str, way: str) -> None:
    with start(*WAYS[way]) as service:
        service.until(lambda: service.read() is not None and len(service.told) >= 3)
        assert {told["alone"] for told in service.told.values()} == {None}, service.log
        assert nodes(dsn, host_schema) == 1, "one process listens for all"
        assert live_through(service, 60) >= 45
        leaders = [pid for pid, told in service.told.items() if told["leader"]]
        assert len(leaders) == (0 if "preloaded" in way else 1), service.told
        victim = leaders[0] if leaders else next(iter(service.told))
        os.kill(victim, signal.SIGKILL)
        del service.told[victim]
        seen = set(service.told)
        service.until(lambda: _answered(service) and bool(set(service.told) - seen))
        live_through(service, 60)
        assert {told["alone"] for told in service.told.values()} == {None}, service.log


def _answered(service: Service) -> bool:
    """A request that the killed worker had taken ends with an error, as ever; no other may."""
    try:
        service.read()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("worker", ["gthread", *(["sync"] if MATRIX else [])])
def test_workers_are_recycled_without_a_gap(start: Any, dsn: str, host_schema: str, worker: str) -> None:
    """The leader goes again and again, and another is ready before."""
    with start(WSGI, *GUNICORN, "-k", worker, "--max-requests", "25") as service:
        hits = live_through(service, 150)
        assert len(service.told) >= 5, "workers were recycled"
        assert max(told["failovers"] for told in service.told.values()) == 0, "no leader was missed"
        assert hits >= 100, service.log
        assert nodes(dsn, host_schema) == 1


def test_workers_are_replaced_by_hup(start: Any, dsn: str, host_schema: str) -> None:
    with start(*WAYS["gthread"]) as service:
        service.until(lambda: service.read() is not None and len(service.told) >= 3)
        before = set(service.told)
        service.process.send_signal(signal.SIGHUP)
        service.until(lambda: _answered(service) and len(set(service.told) - before) >= 2)
        live_through(service, 30)
        assert nodes(dsn, host_schema) == 1


def test_all_are_killed_and_the_service_starts_again(start: Any, folder: Path) -> None:
    with start(*WAYS["gthread"]) as service:
        service.until(lambda: service.read() is not None and len(service.told) >= 3)
        live_through(service, 10)
        for pid in [service.process.pid, *service.told]:
            os.kill(pid, signal.SIGKILL)
        service.process.wait(PATIENCE)
    assert [path.suffix for path in folder.iterdir()].count(".arena") == 1, "nobody was left to take it away"
    with start(*WAYS["gthread"]) as again:
        again.n = service.n
        live_through(again, 20)


@pytest.mark.parametrize("worker", ["sync", *(["gthread"] if MATRIX else [])])
def test_a_new_master_beside_the_old_one(
    start: Any, dsn: str, host_schema: str, folder: Path, worker: str
) -> None:
    """SIGUSR2: an upgrade without a stop. Both generations share, and then the old one goes, its leader too."""
    ask = (
        live_through if worker == "sync" else _live_through_all
    )  # gthread drops what it had not begun to read
    with start(WSGI, *GUNICORN, "-k", worker) as service:
        service.until(lambda: service.read() is not None and len(service.told) >= 3)
        old = set(service.told)
        service.process.send_signal(signal.SIGUSR2)
        service.until(lambda: bool(ask(service, 5)) and len(set(service.told) - old) >= 3)
        assert len(service.masters) == 2 and service.reasons == {None}, service.log
        assert nodes(dsn, host_schema) == 1, "one process listens for both generations"
        assert [path.suffix for path in folder.iterdir()].count(".arena") == 1
        service.process.terminate()
        while service.process.poll() is None:
            ask(service, 1)
        for pid in old:
            del service.told[pid]
        assert ask(service, 60) >= 45, "the arena outlives those who made it"
        assert old.isdisjoint(service.told) and service.reasons == {None}, service.told
        assert sum(told["failovers"] for told in service.told.values()) == 0, (
            "the old leader waited for another"
        )
        assert sum(told["leader"] for told in service.told.values()) == 1, service.told
        assert nodes(dsn, host_schema) == 1


def _live_through_all(service: Service, requests: int) -> int:
    hits = 0
    for _ in range(requests):
        with suppress(OSError):
            hits += live_through(service, 1)
    return hits


@pytest.mark.parametrize("preloaded", [False, *([True] if MATRIX else [])])
def test_gevent_shares_nothing_and_says_so(start: Any, folder: Path, preloaded: bool) -> None:
    """A leader needs a thread that goes on while another one waits for the kernel."""
    first = "from gevent import monkey\n\nmonkey.patch_all()\n" if preloaded else ""
    more = ("--preload",) if preloaded else ()
    with start(WSGI, *GUNICORN, "-k", "gevent", *more, first=first) as service:
        service.until(lambda: service.read() is not None and len(service.told) >= 3)
        live_apart(service)
        assert all("greenlets" in reason for reason in service.reasons), service.told
        assert service.warnings == 3 + preloaded, service.log
        assert not any(told["leader"] for told in service.told.values())
        assert list(folder.iterdir()) == []


def test_two_services_share_nothing_with_each_other(
    start: Any, dsn: str, host_schema: str, schema: str, folder: Path
) -> None:
    """One folder, one database, the same session id, two schemas: two arenas, and neither sees what the other has."""
    with pgsession.SessionManager(dsn, pgsession.Config(schema_name=schema, create_schema_if_missing=True)):
        pass
    with start(*WAYS["gthread"]) as one:
        assert one.read()["n"] == 0
        with psycopg.connect(dsn, autocommit=True) as connection:
            for table in ("sessions", "session_attributes"):
                connection.execute(
                    sql.SQL("INSERT INTO {} SELECT * FROM {}").format(
                        sql.Identifier(schema, table), sql.Identifier(host_schema, table)
                    )
                )
        with start(*WAYS["gthread"], schema=schema) as two:
            two.n = 1000
            two.write()
            assert one.read()["n"] == 0
            for _ in range(20):
                one.write()
                two.write()
                for service in (one, two, one, two):
                    service.read()
            hits = [live_through(service, 40) for service in (one, two)]
            assert min(hits) >= 30 and one.reasons | two.reasons == {None}, one.log + two.log
            assert [path.suffix for path in folder.iterdir()].count(".arena") == 2
            assert nodes(dsn, host_schema) == nodes(dsn, schema) == 1


@as_root
@pytest.mark.parametrize("whose", ["a name", *(["the workers' folder", "root's folder"] if MATRIX else [])])
def test_workers_of_another_user_than_the_master(
    start: Any, dsn: str, monkeypatch: pytest.MonkeyPatch, whose: str
) -> None:
    """gunicorn as root, with --preload and user=: the application is imported, and opened, before the user changes."""
    monkeypatch.delenv("XDG_RUNTIME_DIR", raising=False)
    options = (*WAYS["gthread, preloaded"], "--user", str(NOBODY), "--group", str(NOBODY))
    # Neither pytest's folders nor the server's socket are open to others.
    with tempfile.TemporaryDirectory(prefix="pgsession-") as folder, FaultProxy(dsn) as proxy:
        if whose == "the workers' folder":
            os.chown(folder, NOBODY, NOBODY)
        shared = f"test-{secrets.token_hex(6)}" if whose == "a name" else folder
        with start(*options, folder=shared, dsn=proxy.conninfo) as service:
            service.until(lambda: service.read() is not None and len(service.told) >= 3)
            if whose == "root's folder":
                live_apart(service)
            else:
                live_through(service, 40)
            assert {told["user"] for told in service.told.values()} == {NOBODY}
            leaders = sum(told["leader"] for told in service.told.values())
            if whose == "root's folder":
                assert all("must belong to this user" in str(reason) for reason in service.reasons), (
                    service.told
                )
                assert service.warnings == 3 and not leaders, service.log
            else:
                assert service.reasons == {None} and leaders == 1, (service.told, service.log)
                assert service.warnings == (whose != "a name"), "that of the master, which is root"
