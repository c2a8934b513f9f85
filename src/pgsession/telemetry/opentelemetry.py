"""Metrics and spans for OpenTelemetry, by its API alone (the extra `opentelemetry`).

The names are those of the semantic conventions 1.37.0 for database clients where these have one
(https://github.com/open-telemetry/semantic-conventions/tree/v1.37.0/docs/database); all others begin with `pgsession.`
and follow its rules for names and units.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from opentelemetry.metrics import CallbackOptions, MeterProvider, Observation, get_meter
from opentelemetry.trace import SpanKind, Status, StatusCode, TracerProvider, get_tracer

from pgsession import __version__

from ._metrics import CALLS, METRICS, SECONDS, SIZES, Manager, Metric, Watched

__all__ = ["SCHEMA_URL", "Metrics"]

SCHEMA_URL: Final = "https://opentelemetry.io/schemas/1.37.0"
"""The version of the semantic conventions."""

# The boundaries that the conventions advise.
_ADVISED: Final = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
_CONVENTIONAL: Final = {"pool_waiting": "db.client.connection.pending_requests"}


class Metrics:
    """Tells the statistics of managers when it is asked, and is the instrument that measures them and makes spans.

    A read that memory answers has no span and costs nothing. A call that waits for the database has one, a child of the
    span that is current where it is called: `get_session sessions`, of the kind CLIENT.

        metrics = Metrics()
        sessions = SessionManager(database, Config(instrument=metrics))
        metrics.watch(sessions)

    Args:
        meter_provider: Makes the metrics; None: the global one.
        tracer_provider: Makes the spans; None: the global one.
    """

    def __init__(
        self, meter_provider: MeterProvider | None = None, tracer_provider: TracerProvider | None = None
    ) -> None:
        self._watched = Watched()
        self._tracer = get_tracer("pgsession", __version__, tracer_provider, SCHEMA_URL)
        meter = get_meter("pgsession", __version__, meter_provider, SCHEMA_URL)
        self._statements = meter.create_histogram(
            "db.client.operation.duration",
            unit="s",
            description="Duration of database client operations.",
            explicit_bucket_boundaries_advisory=_ADVISED,
        )
        self._calls = meter.create_histogram(
            "pgsession.call.duration",
            unit="s",
            description="How long callers waited, but for reads answered from memory.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._sizes = meter.create_histogram(
            "pgsession.batch.size",
            unit="{session}",
            description="Sessions in one statement.",
            explicit_bucket_boundaries_advisory=SIZES,
        )
        self._lag = meter.create_histogram(
            "pgsession.invalidation.lag",
            unit="s",
            description="From the statement that changed something until this node had heard of it.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        for metric in METRICS:
            name = _CONVENTIONAL.get(metric.name, f"pgsession.{metric.name}")
            unit = "s" if metric.unit == "seconds" else metric.unit
            observing = [self._observing(metric)]
            if metric.name in _CONVENTIONAL:
                meter.create_observable_up_down_counter(name, observing, "{request}", metric.text)
            elif metric.kind == "counter":
                meter.create_observable_counter(name, observing, unit, metric.text)
            else:
                meter.create_observable_gauge(name, observing, unit, metric.text)

    def watch(self, manager: Manager, name: str = "sessions") -> None:
        """Tell a manager's statistics from now on, while it is open.

        Args:
            manager: The manager.
            name: The value of `db.client.connection.pool.name`; of two managers with one name the later one counts.
        """
        self._watched.add(manager, name)

    def measured(self, operation: str, seconds: float, count: int, error: str | None) -> None:
        """Take one measurement: see `pgsession.Instrument`."""
        if operation == "event":
            self._lag.record(seconds)
            return
        attributes: dict[str, str | int] = {"db.system.name": "postgresql", "db.operation.name": operation}
        attributes["db.collection.name"] = "session_locks" if operation == "acquire_lock" else "sessions"
        if error is not None:
            attributes["error.type"] = error
        if operation in CALLS:
            self._calls.record(seconds, attributes)
            self._span(operation, seconds, attributes, error)
            return
        self._statements.record(seconds, attributes)
        if operation != "cleanup":
            self._sizes.record(count, {"db.operation.name": operation})

    def _span(
        self, operation: str, seconds: float, attributes: dict[str, str | int], error: str | None
    ) -> None:
        ended = time.time_ns()
        span = self._tracer.start_span(
            f"{operation} {attributes['db.collection.name']}",
            kind=SpanKind.CLIENT,
            attributes=attributes,
            start_time=ended - int(seconds * 1e9),
        )
        if error is not None:
            span.set_status(Status(StatusCode.ERROR))
        span.end(ended)

    def _observing(self, metric: Metric) -> Callable[[CallbackOptions], Iterable[Observation]]:
        def observe(options: CallbackOptions) -> Iterator[Observation]:
            for manager, told in self._watched.stats():
                for value, field in metric.fields.items():
                    number = getattr(told, field)
                    if number is not None:
                        labels = {"db.client.connection.pool.name": manager}
                        yield Observation(number, labels | ({metric.label: value} if metric.label else {}))

        return observe
