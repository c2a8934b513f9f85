"""Metrics for Prometheus, by prometheus-client (the extra `prometheus`)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import REGISTRY, CollectorRegistry, Counter, Histogram, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from ._metrics import CALLS, METRICS, SECONDS, SIZES, STATEMENTS, Manager, Watched

__all__ = ["Metrics", "serve"]

_COUNTED: Final = (*CALLS, *STATEMENTS, "cleanup")


class Metrics(Collector):
    """Collects the statistics of managers when it is asked, and is the instrument that measures their durations.

    A read that memory answers costs nothing: what it counts it counts anyway. All names begin with `pgsession_`; what
    comes from statistics has the label `manager`.

        metrics = Metrics()
        sessions = SessionManager(database, Config(instrument=metrics))
        metrics.watch(sessions)

    Args:
        registry: Where it registers itself.
    """

    def __init__(self, registry: CollectorRegistry = REGISTRY) -> None:
        self._watched = Watched()
        self._durations = Histogram(
            "pgsession_operation_duration_seconds",
            "Seconds that callers waited (but for reads answered from memory), statements and cleanups took.",
            ["operation"],
            buckets=SECONDS,
            registry=registry,
        )
        self._errors = Counter(
            "pgsession_operation_errors",
            "Operations that ended with an error, by its type.",
            ["operation", "error"],
            registry=registry,
        )
        self._sizes = Histogram(
            "pgsession_batch_size",
            "Sessions in one statement.",
            ["operation"],
            buckets=SIZES,
            registry=registry,
        )
        self._lag = Histogram(
            "pgsession_invalidation_lag_seconds",
            "Seconds from the statement that changed something until this node had heard of it.",
            buckets=SECONDS,
            registry=registry,
        )
        for operation in _COUNTED:
            self._durations.labels(operation)
        for operation in STATEMENTS:
            self._sizes.labels(operation)
        registry.register(self)

    def watch(self, manager: Manager, name: str = "sessions") -> None:
        """Collect a manager's statistics from now on, while it is open.

        Args:
            manager: The manager.
            name: The value of the label `manager`; of two managers with one name the later one counts.
        """
        self._watched.add(manager, name)

    def measured(self, operation: str, seconds: float, count: int, error: str | None) -> None:
        """Take one measurement: see `pgsession.Instrument`."""
        if operation == "event":
            self._lag.observe(seconds)
            return
        self._durations.labels(operation).observe(seconds)
        if operation in STATEMENTS:
            self._sizes.labels(operation).observe(count)
        if error is not None:
            self._errors.labels(operation, error).inc()

    def describe(self) -> Iterable[Metric]:
        """Return nothing: what there is is known once there is a manager."""
        return ()

    def collect(self) -> Iterator[Metric]:
        """Yield what the managers tell of themselves at this moment."""
        stats = list(self._watched.stats())
        for metric in METRICS:
            labels = ["manager", metric.label] if metric.label else ["manager"]
            name = f"pgsession_{metric.name}" + ("_seconds" if metric.unit == "seconds" else "")
            kind = CounterMetricFamily if metric.kind == "counter" else GaugeMetricFamily
            family = kind(name, metric.text, labels=labels)
            for manager, told in stats:
                for value, field in metric.fields.items():
                    number = getattr(told, field)
                    if number is not None:
                        family.add_metric([manager, value] if metric.label else [manager], float(number))
            yield family


def serve(ports: Iterable[int], *, address: str = "127.0.0.1", registry: CollectorRegistry = REGISTRY) -> int:
    """Serve this process's metrics by HTTP on the first of these ports that is free; return it.

    That is for processes that share a program, as the workers of gunicorn do: each has a port of its own, and
    Prometheus asks all of them. A worker that takes another's place takes its port. It answers in the process that
    calls it, not in those that fork from it. (The multiprocess mode of prometheus-client has no collectors, and so
    nothing that is asked for.)

    Args:
        ports: The ports, in the order in which they are tried.
        address: The address of this machine that is listened on.
        registry: What is served.

    Raises:
        OSError: None of the ports is free.
        ValueError: There are no ports.
    """
    failure: Exception = ValueError("ports: must not be empty")
    for port in ports:
        try:
            start_http_server(port, addr=address, registry=registry)
        except OSError as error:
            failure = error
        else:
            return port
    raise failure
