"""Two nodes under a little load, each with its metrics on a port of its own, and a Prometheus that asks them."""

from __future__ import annotations

import json
import socket
import subprocess
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry

import pgsession
from pgsession.telemetry.prometheus import Metrics, serve

OPERATE = Path(__file__).resolve().parents[2] / "examples" / "operate"
DASHBOARD = json.loads((OPERATE / "dashboard.json").read_text(encoding="utf-8"))
PATIENCE = 60.0


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in sockets]


def queries() -> list[tuple[str, str, str]]:
    """The title, the legend and the query of everything that the dashboard shows."""
    return [
        (panel["title"], target["legendFormat"], concrete(target["expr"]))
        for panel in DASHBOARD["panels"]
        for target in panel["targets"]
    ]


def concrete(query: str) -> str:
    """A query with what Grafana puts in."""
    return query.replace("$__rate_interval", "5s").replace("$manager", ".*")


class Prometheus:
    def __init__(self, port: int) -> None:
        self._url = f"http://127.0.0.1:{port}/api/v1/"

    def ask(self, what: str, **parameters: Any) -> Any:
        with urllib.request.urlopen(
            f"{self._url}{what}?{urllib.parse.urlencode(parameters)}", timeout=10
        ) as answer:
            return json.load(answer)["data"]

    def query(self, query: str) -> list[Any]:
        return list(self.ask("query", query=query)["result"])


@contextmanager
def prometheus(program: str, folder: Path, targets: list[int]) -> Iterator[Prometheus]:
    """A Prometheus with the shipped rules that asks these ports each second."""
    (port,) = free_ports(1)
    addresses = ", ".join(f'"127.0.0.1:{target}"' for target in targets)
    config = folder / "prometheus.yml"
    config.write_text(
        f"global: {{scrape_interval: 1s, evaluation_interval: 1s}}\nrule_files: [{OPERATE / 'alerts.yml'}]\n"
        f"scrape_configs: [{{job_name: pgsession, static_configs: [{{targets: [{addresses}]}}]}}]\n"
    )
    options = {
        "config.file": config,
        "storage.tsdb.path": folder / "data",
        "web.listen-address": f"127.0.0.1:{port}",
    }
    command = [program, *(f"--{name}={value}" for name, value in options.items())]
    with (folder / "prometheus.log").open("wb") as log:
        running = subprocess.Popen(command, stdout=log, stderr=log)
        try:
            yield Prometheus(port)
        finally:
            running.terminate()
            running.wait(PATIENCE)


class Load:
    """Does a little of everything on two nodes, until it is ended."""

    def __init__(self, nodes: list[pgsession.SessionManager]) -> None:
        self._nodes = nodes
        self._ended = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=[number]) for number in range(2)]

    def __enter__(self) -> None:
        for thread in self._threads:
            thread.start()

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _run(self, number: int) -> None:
        here, other = self._nodes[number], self._nodes[1 - number]
        round_ = 0
        while not self._ended.wait(0.02):
            round_ += 1
            session = here.create_session(f"u{number}{round_ % 7}", {"n": 1})
            token = here.token(session)
            for _ in range(20):
                here.get_session(session.id)
            read = other.get_session(session.id)
            assert read is not None
            read["n"] = 2
            other.update_session(read)
            session["n"] = 3
            try:
                here.update_session(session, check="session")
            except pgsession.SessionVersionConflict:
                pass
            with here.lock(f"r{number}"):
                here.rotate_session(here.get_session(session.id, refresh=True), grace=0)  # type: ignore[arg-type]
            here.get_cached_session_by_token(token)  # type: ignore[arg-type]
            here.get_cached_session_by_token("forged")
            if round_ % 5 == 0:
                here.delete_session(session.id)


@contextmanager
def monitored(program: str, dsn: str, schema: str, folder: Path) -> Iterator[Prometheus]:
    """The two nodes under load, once Prometheus has asked each of them several times."""
    ports = free_ports(2)
    with ExitStack() as stack:
        nodes = []
        for port in ports:
            registry = CollectorRegistry()
            metrics = Metrics(registry)
            config = pgsession.Config(
                schema_name=schema, create_schema_if_missing=True, max_staleness=2, cache_size=50, max_sessions=20,
                instrument=metrics, audit_sample=10,
            )  # fmt: skip
            manager = stack.enter_context(
                pgsession.SessionManager(dsn, config, signer=pgsession.Signer(b"k" * 32))
            )
            metrics.watch(manager)
            serve([port], registry=registry)
            nodes.append(manager)
        asked = stack.enter_context(prometheus(program, folder, ports))
        stack.enter_context(Load(nodes))
        deadline = time.monotonic() + PATIENCE
        while not has_come(asked, 5):
            assert time.monotonic() < deadline, (folder / "prometheus.log").read_text()
            time.sleep(0.2)
        yield asked


def has_come(asked: Prometheus, samples: int) -> bool:
    """True once both nodes were asked so often."""
    try:
        found = asked.query("count_over_time(pgsession_hits_total[10m])")
    except OSError:
        return False
    return len(found) == 2 and all(int(series["value"][1]) >= samples for series in found)
