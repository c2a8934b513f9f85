"""The page about Kubernetes: its files against Kubernetes' schemas, its service under what its tables say."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2 as httpx
import psycopg
import pytest
import yaml
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

import pgsession
from tests.chaos.cluster import Cluster
from tests.fault.conftest import cluster
from tests.fault.nodes import until

__all__ = ["cluster"]

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals")

OPERATE = Path(__file__).resolve().parents[2] / "examples" / "operate"
JOB, DEPLOYMENT = (
    yaml.safe_load((OPERATE / name).read_text(encoding="utf-8"))
    for name in ("kubernetes-init.yml", "kubernetes.yml")
)
POD = DEPLOYMENT["spec"]["template"]["spec"]
(CONTAINER,) = POD["containers"]


class Service:
    """The service in a process of its own, by the Deployment's command, but for the address."""

    def __init__(self, process: subprocess.Popen[bytes], client: httpx.Client) -> None:
        self.process, self.client = process, client

    def probe(self) -> tuple[int, int, dict[str, Any]]:
        """What liveness and readiness are answered, and what readiness says."""
        ready = self.client.get(path_of("readinessProbe"))
        return self.client.get(path_of("livenessProbe")).status_code, ready.status_code, ready.json()


def path_of(probe: str) -> str:
    return str(CONTAINER[probe]["httpGet"]["path"])


@contextmanager
def service(conninfo: str, schema: str, **fields: str) -> Iterator[Service]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    command = list(CONTAINER["command"])
    command[command.index("--host") + 1], command[command.index("--port") + 1] = "127.0.0.1", port
    given = {"PGSESSION_DATABASE": conninfo, "PGSESSION_SCHEMA_NAME": schema, "SESSION_KEYS": "01" * 32}
    assert {variable["name"] for variable in CONTAINER["env"]} == set(given)
    more = {f"PGSESSION_{name.upper()}": value for name, value in fields.items()}
    with tempfile.TemporaryFile("w+") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", *command],
            cwd=OPERATE,
            env=os.environ | given | more,
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=said,
        )
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
                until(lambda: process.poll() is not None or answers(client), "the service to start")
                if process.poll() is not None:
                    said.seek(0)
                    raise RuntimeError(said.read())
                yield Service(process, client)
        finally:
            process.kill()
            process.wait()


def answers(client: httpx.Client) -> bool:
    try:
        return bool(client.get(path_of("startupProbe")).status_code == 200)
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("resource", [JOB, DEPLOYMENT], ids=["job", "deployment"])
def test_the_file_is_what_kubernetes_takes(resource: dict[str, Any]) -> None:
    kubernetes_validate = pytest.importorskip("kubernetes_validate", reason="needs kubernetes-validate")
    kubernetes_validate.validate(resource, kubernetes_validate.latest_version(), strict=True)
    wrong = yaml.safe_load(yaml.safe_dump(resource))
    wrong["spec"]["template"]["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, kubernetes_validate.latest_version(), strict=True)


def test_the_times_of_the_file_fit_those_of_the_service(monkeypatch: pytest.MonkeyPatch) -> None:
    source: dict[str, Any] = {}
    exec((OPERATE / "service.py").read_text(encoding="utf-8"), source)
    command = CONTAINER["command"]
    draining = int(command[command.index("--timeout-graceful-shutdown") + 1])
    waiting = CONTAINER["lifecycle"]["preStop"]["sleep"]["seconds"]
    assert waiting + draining + source["CLOSE_SECONDS"] < POD["terminationGracePeriodSeconds"]
    assert source["PROBE_SECONDS"] < CONTAINER["readinessProbe"]["timeoutSeconds"]


def test_the_probes_while_things_fail(cluster: Cluster) -> None:
    hosts = ",".join(str(conninfo_to_dict(server.conninfo)["host"]) for server in cluster.servers)
    with pgsession.SessionManager(cluster.primary.conninfo, pgsession.Config(create_schema_if_missing=True)):
        pass
    with service(make_conninfo(cluster.primary.conninfo, host=hosts), "public", max_staleness="1") as shop:

        def until_probed(live: int, ready: int, healthy: bool) -> str | None:
            last: list[tuple[int, int, dict[str, Any]]] = []

            def so() -> bool:
                last[:] = [shop.probe()]
                assert last[0][0] == 200, "a restart would mend nothing"
                return last[0][:2] == (live, ready) and last[0][2]["healthy"] == healthy

            until(so, f"{live}, {ready}, healthy: {healthy}")
            reason: str | None = last[0][2]["reason"]
            return reason

        assert until_probed(200, 200, True) is None
        (listener,) = cluster.backends("pgsession listener%")
        os.kill(listener, signal.SIGSTOP)
        try:
            assert until_probed(200, 200, False)
            assert shop.client.get("/").json() == 1
        finally:
            os.kill(listener, signal.SIGCONT)
        until_probed(200, 200, True)
        with cluster.silent(cluster.primary):
            until_probed(200, 503, False)
        until_probed(200, 200, True)
        old = cluster.primary
        old.run("pg_ctl", "-D", old.folder, "-m", "fast", "-w", "stop")
        reason = until_probed(200, 503, False)
        assert reason is not None and reason.startswith("The database does not answer")
        assert shop.process.poll() is None
        cluster.promote(cluster.standby)
        until_probed(200, 200, True)
        assert shop.client.get("/").status_code == 200


def test_a_request_under_way_is_answered_after_sigterm(dsn: str, schema: str) -> None:
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True)
    with pgsession.SessionManager(dsn, config) as node, service(dsn, schema, operation_timeout="15") as shop:
        answer = shop.client.get("/")
        cookie = answer.headers["set-cookie"].split(";")[0]
        table = sql.Identifier(schema, "sessions")
        answered: list[Any] = []

        def visit() -> None:
            answered.append(shop.client.get("/", headers={"cookie": cookie}))

        with psycopg.connect(dsn) as holder:
            holder.execute(sql.SQL("SELECT FROM {} FOR UPDATE").format(table))
            visitor = threading.Thread(target=visit)
            visitor.start()
            until(lambda: waits(dsn, schema), "the request to wait for the row")
            shop.process.send_signal(signal.SIGTERM)
            until(lambda: refused(shop), "new connections to be refused")
        visitor.join(30)
        assert answered[0].json() == 2
        assert shop.process.wait(30) in (0, -signal.SIGTERM)
        with psycopg.connect(dsn) as connection:
            row = connection.execute(sql.SQL("SELECT id FROM {}").format(table)).fetchone()
        assert row is not None
        session = node.get_session(row[0], refresh=True)
        assert session is not None and session["visits"] == 2
        until(lambda: len(pgsession.Admin(dsn, config).nodes()) == 1, "only this node to be registered")


def test_a_pod_that_starts_while_the_database_is_down_ends(tmp_path: Path) -> None:
    nowhere = make_conninfo("", host=str(tmp_path), dbname="app")
    with pytest.raises(RuntimeError, match="No such file"), service(nowhere, "public"):
        pass


def waits(dsn: str, schema: str) -> bool:
    query = "SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE %s"
    with psycopg.connect(dsn) as connection:
        return bool(connection.execute(query, (f"%{schema}%",)).fetchall())


def refused(shop: Service) -> bool:
    """Ask over a connection of its own."""
    try:
        httpx.get(shop.client.base_url.join(path_of("livenessProbe")), timeout=5)
    except httpx.ConnectError:
        return True
    return False
