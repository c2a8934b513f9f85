"""Metrics and spans for OpenTelemetry."""

from __future__ import annotations

from typing import Any

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

import pgsession
from pgsession.telemetry.opentelemetry import SCHEMA_URL, Metrics
from tests.sharded import Shards


class Sdk:
    def __init__(self) -> None:
        self.reader, self.exporter = InMemoryMetricReader(), InMemorySpanExporter()
        self.meters, self.tracers = MeterProvider([self.reader]), TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.metrics = Metrics(self.meters, self.tracers)

    def told(self) -> dict[str, list[Any]]:
        """The data points by the names of the metrics."""
        data = self.reader.get_metrics_data()
        assert data is not None
        ((scope,),) = [resource.scope_metrics for resource in data.resource_metrics]
        assert scope.schema_url == scope.scope.schema_url == SCHEMA_URL and scope.scope.name == "pgsession"
        self.units = {metric.name: metric.unit for metric in scope.metrics}
        return {metric.name: list(metric.data.data_points) for metric in scope.metrics}


def test_shards_are_told_as_one(empty_shards: Shards) -> None:
    sdk = Sdk()
    with pgsession.ShardedSessionManager(empty_shards, pgsession.Config(instrument=sdk.metrics)) as manager:
        sdk.metrics.watch(manager, "web")
        for number in range(8):
            manager.create_session(f"u{number}")
        assert sum(point.value for point in sdk.told()["pgsession.writes"]) == 8
        names = [span.name for span in sdk.exporter.get_finished_spans()]
    assert names.count("create_session sessions") == 8


def test_metrics_and_spans(dsn: str, schema: str) -> None:
    sdk = Sdk()
    config = pgsession.Config(schema_name=schema, create_schema_if_missing=True, instrument=sdk.metrics)
    with pgsession.SessionManager(dsn, config) as manager:
        sdk.metrics.watch(manager, "web")
        with sdk.tracers.get_tracer("test").start_as_current_span("request") as parent:
            session = manager.create_session("ann", {"n": 1})
            before = len(sdk.exporter.get_finished_spans())
            for _ in range(5):
                manager.get_session(session.id)
            assert len(sdk.exporter.get_finished_spans()) == before, "no span for what memory answers"
            manager.get_session(session.id, refresh=True)
            other = manager.get_session(session.id)
            assert other is not None
            session["n"], other["n"] = 2, 3
            manager.update_session(session)
            with pytest.raises(pgsession.SessionVersionConflict):
                manager.update_session(other, check="session")
            with manager.lock("r"):
                pass
        told = sdk.told()
        spans = sdk.exporter.get_finished_spans()
    names = [span.name for span in spans]
    assert names == [
        "create_session sessions", "get_session sessions", "update_session sessions", "update_session sessions",
        "acquire_lock session_locks", "request",
    ]  # fmt: skip
    for span in spans[:-1]:
        assert span.kind is SpanKind.CLIENT and span.parent is not None
        assert span.parent.span_id == parent.get_span_context().span_id
        assert span.attributes is not None and span.attributes["db.system.name"] == "postgresql"
        assert span.start_time is not None and span.end_time is not None and span.start_time <= span.end_time
    failed = spans[3]
    assert failed.status.status_code is StatusCode.ERROR and failed.attributes is not None
    assert failed.attributes["error.type"] == "pgsession.errors.SessionVersionConflict"
    (hits,) = told["pgsession.hits"]
    assert hits.value == 6 and hits.attributes == {"db.client.connection.pool.name": "web"}
    assert {point.attributes["reason"] for point in told["pgsession.misses"]} >= {"out_of_sync", "not_cached"}
    statements = {
        point.attributes["db.operation.name"]: point for point in told["db.client.operation.duration"]
    }
    assert statements["write"].count == 3 and statements["read"].count == 1
    assert told["db.client.connection.pending_requests"][0].value == 0
    assert sdk.units["db.client.operation.duration"] == sdk.units["pgsession.proof_age"] == "s"
    assert (
        sdk.units["pgsession.hits"] == "{read}"
        and sdk.units["db.client.connection.pending_requests"] == "{request}"
    )
    assert told["pgsession.batch.size"] and told["pgsession.call.duration"]


def test_the_lag_of_events_is_a_metric_of_its_own() -> None:
    sdk = Sdk()
    sdk.metrics.measured("event", 0.25, 1, None)
    (point,) = sdk.told()["pgsession.invalidation.lag"]
    assert point.sum == 0.25 and not sdk.exporter.get_finished_spans()
