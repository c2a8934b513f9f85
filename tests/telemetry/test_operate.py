"""The shipped dashboard, alerts and configuration, on a real Prometheus that asks two real nodes."""

from __future__ import annotations

import math
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.programs import needs_program
from tests.telemetry.monitored import OPERATE, monitored, queries


def test_every_query_of_the_dashboard_has_an_answer(dsn: str, schema: str, tmp_path: Path) -> None:
    with monitored(needs_program("prometheus"), dsn, schema, tmp_path) as prometheus:
        assert len(queries()) > 30
        for title, legend, query in queries():
            found = prometheus.query(query)
            assert found, f"{title}, {legend}: nothing for {query}"
            numbers = [float(series["value"][1]) for series in found]
            assert all(number >= 0 for number in numbers if not math.isnan(number)), (title, found)
            assert not all(math.isnan(number) for number in numbers), (title, found)
        hit = prometheus.query("sum by (instance) (rate(pgsession_hits_total[5s]))")
        assert len(hit) == 2 and all(float(series["value"][1]) > 0 for series in hit)
        for query in (
            'pgsession_misses_total{reason="refreshed"}',
            'pgsession_refused_tokens_total{state="forged"}',
            'pgsession_operation_errors_total{error="pgsession.errors.SessionVersionConflict"}',
            "pgsession_invalidation_lag_seconds_count",
            "pgsession_batch_size_count",
        ):
            found = prometheus.query(query)
            assert found and max(float(series["value"][1]) for series in found) > 0, query
        rules = prometheus.ask("rules")["groups"][0]["rules"]
        assert len(rules) == 11 and all(rule["health"] == "ok" for rule in rules), rules
        pages = [
            rule["name"]
            for rule in rules
            if rule["labels"]["severity"] == "page" and rule["state"] == "firing"
        ]
        assert pages == []


@pytest.mark.parametrize(
    "command", ["check rules alerts.yml", "check config prometheus.yml", "test rules alerts_test.yml"]
)
def test_promtool_finds_nothing_wrong(command: str, tmp_path: Path) -> None:
    promtool = needs_program("promtool")
    folder = shutil.copytree(OPERATE, tmp_path / "operate")
    done = subprocess.run(
        [promtool, *command.split()], cwd=folder, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stdout + done.stderr
