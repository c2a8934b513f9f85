"""Metrics and spans, for Prometheus and OpenTelemetry: see the modules `prometheus` and `opentelemetry`."""
