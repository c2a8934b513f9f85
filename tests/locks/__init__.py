"""Processes that fight for one lock."""

LEASE = 1.0  # seconds
RESOURCE = "the only one"
