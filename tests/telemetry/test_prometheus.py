"""The collector for prometheus-client."""

from __future__ import annotations

import gc
import socket
import urllib.request

import pytest
from prometheus_client import CollectorRegistry, generate_latest

import pgsession
from pgsession.telemetry._metrics import METRICS
from pgsession.telemetry.prometheus import Metrics, serve
from tests.sharded import Shards

NO_METRICS = {"misses", "refused_tokens", "shared_fallback_reason"}  # sums, and a text


def test_every_field_of_the_statistics_is_told_once() -> None:
    fields = [field for metric in METRICS for field in metric.fields.values()]
    assert sorted(fields) == sorted(set(pgsession.Stats.__struct_fields__) - NO_METRICS)
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_the_kinds_are_those_of_the_statistics() -> None:
    import re

    documented = dict(
        re.findall(r"^        (\w+) \((counter|gauge)\):", pgsession.Stats.__doc__ or "", re.MULTILINE)
    )
    for metric in METRICS:
        assert {documented[field] for field in metric.fields.values()} == {metric.kind}, metric.name


def test_what_is_told(dsn: str, schema: str) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, instrument=metrics)
    with pgsession.SessionManager(dsn, config) as manager:
        metrics.watch(manager)
        session = manager.create_session("ann")
        for _ in range(3):
            manager.get_session(session.id)
        told = {"manager": "sessions"}
        assert registry.get_sample_value("pgsession_hits_total", told) == 3
        assert registry.get_sample_value("pgsession_misses_total", told | {"reason": "not_cached"}) == 0
        assert registry.get_sample_value("pgsession_in_sync", told) == 1
        assert registry.get_sample_value("pgsession_proof_age_seconds", told) is not None
        made = {"operation": "create_session"}
        assert registry.get_sample_value("pgsession_operation_duration_seconds_count", made) == 1
        manager._coherence.on_lost()
        assert registry.get_sample_value("pgsession_proof_age_seconds", told) is None
    assert registry.get_sample_value("pgsession_hits_total", told) is None, "it is closed"
    del manager, session
    gc.collect()
    assert b"# TYPE pgsession_hits_total counter" in generate_latest(registry)


def test_shards_are_told_as_one(empty_shards: Shards) -> None:
    registry = CollectorRegistry()
    metrics = Metrics(registry)
    with pgsession.ShardedSessionManager(empty_shards, pgsession.Config(instrument=metrics)) as manager:
        metrics.watch(manager)
        sessions = [manager.create_session(f"u{number}") for number in range(8)]
        for session in sessions:
            manager.get_session(session.id)
        told = {"manager": "sessions"}
        assert len({manager.shard_of_session(session.id) for session in sessions}) > 1
        assert registry.get_sample_value("pgsession_hits_total", told) == 8
        assert registry.get_sample_value("pgsession_in_sync", told) == 1
        made = {"operation": "create_session"}
        assert registry.get_sample_value("pgsession_operation_duration_seconds_count", made) == 8
    assert registry.get_sample_value("pgsession_hits_total", told) is None, "it is closed"


def test_what_is_no_manager_is_refused() -> None:
    with pytest.raises(
        TypeError, match="manager: a SessionManager or an AsyncSessionManager is needed, not str"
    ):
        Metrics(CollectorRegistry()).watch("manager")  # type: ignore[arg-type]


def test_each_process_takes_the_first_port_that_is_free() -> None:
    registry = CollectorRegistry()
    Metrics(registry)
    with socket.create_server(("127.0.0.1", 0)) as taken, socket.create_server(("127.0.0.1", 0)) as other:
        ports = [taken.getsockname()[1], other.getsockname()[1]]
        with pytest.raises(OSError, match="in use"):
            serve(ports, registry=registry)
        other.close()
        assert serve(ports, registry=registry) == ports[1]
        with urllib.request.urlopen(f"http://127.0.0.1:{ports[1]}/metrics", timeout=10) as answer:
            assert b"pgsession_hits_total" in answer.read()
    with pytest.raises(ValueError, match="ports: must not be empty"):
        serve([])
