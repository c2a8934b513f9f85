"""Lists what of a manager's statistics becomes which metric; both kinds of telemetry go by it."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from typing import Final, Literal, NamedTuple

from pgsession import AsyncSessionManager, ManagerClosedError, SessionManager, Stats

Manager = SessionManager | AsyncSessionManager


class Metric(NamedTuple):
    """Holds one metric.

    Attributes:
        name: Its name, words with underscores, without the unit.
        kind: "counter" or "gauge".
        unit: "seconds", or what is counted, in braces as OpenTelemetry wants it; "1" for a part of a whole.
        text: What it says.
        fields: The fields of `Stats`, by the value of the label; by "" where there is no label.
        label: The label's name.
    """

    name: str
    kind: Literal["counter", "gauge"]
    unit: str
    text: str
    fields: dict[str, str]
    label: str = ""


def _counter(name: str, unit: str, text: str, field: str | None = None) -> Metric:
    return Metric(name, "counter", f"{{{unit}}}", text, {"": field or name})


def _gauge(name: str, unit: str, text: str, field: str | None = None) -> Metric:
    return Metric(name, "gauge", unit, text, {"": field or name})


METRICS: Final = (
    _counter("hits", "read", "Reads answered from memory."),
    Metric("misses", "counter", "{read}", "Reads not answered from memory, by what kept them from it.", {
        reason: f"misses_{reason}"
        for reason in ("out_of_sync", "not_cached", "over", "outdated", "refreshed", "refused")
    }, "reason"),
    _counter("negative_hits", "read", "Misses that were no query: memory knew that there is no such session."),
    _counter("stale_served", "read", "Misses answered from memory because the database failed."),
    _counter("fills", "read", "Reads of one session from the database."),
    _counter("joined_fills", "read", "Reads that shared another caller's fill."),
    _counter("discarded_fills", "read", "Fills whose record was not kept: something changed meanwhile."),
    _counter("evictions", "session", "Sessions that left memory because it was full."),
    _counter("expirations", "session", "Sessions that left memory because they were over."),
    _counter("invalidations", "session", "Sessions dropped from memory because of an event."),
    _gauge("cached_sessions", "{session}", "Sessions in memory."),
    _gauge("cache_capacity", "{session}", "The most that fit into memory."),
    _gauge("in_sync", "1", "1 while reads are answered from memory, else 0."),
    _gauge("proof_age", "seconds", "Seconds since the newest read that is proved was sent."),
    _gauge("clock_error", "seconds", "Seconds by which what is believed of the database's clock may be wrong."),
    _counter("listener_losses", "loss", "Times the listener lost its connection or was declared dead."),
    _counter("resyncs", "resync", "Times memory was compared with the database."),
    _counter("proofs", "proof", "Proofs of sync."),
    _counter("events", "event", "Notifications received, but for beacons."),
    _counter("malformed_events", "event", "Notifications that could not be read."),
    _gauge("notification_queue_usage", "1", "How full PostgreSQL's notification queue is, from 0 to 1."),
    _counter("writes", "write", "Creates, updates and deletes of single sessions that succeeded."),
    _counter("batches", "batch", "Transactions that carried those writes."),
    _counter("conflicts", "write", "Updates refused because of somebody else's."),
    _counter("failed_writes", "write", "Writes that ended in an error of the database."),
    _gauge("queued_writes", "{write}", "Writes waiting for their batch."),
    _gauge("oldest_write", "seconds", "Seconds that the oldest waiting write has taken so far."),
    _gauge("pool_size", "{connection}", "Connections in the pool."),
    _gauge("pool_waiting", "{caller}", "Callers waiting for a connection."),
    _gauge("pending_accesses", "{access}", "Noted accesses not yet written."),
    _counter("written_accesses", "access", "Noted accesses that were written."),
    _counter("lost_accesses", "access", "Noted accesses given up."),
    _counter("failed_access_batches", "batch", "Batches of accesses that failed, and are tried again."),
    _counter("cleanups", "cleanup", "Cleanups of this node."),
    _counter("deleted_sessions", "session", "Sessions deleted by those."),
    _counter("warmed_sessions", "session", "Sessions of a former process that were read into memory."),
    _gauge("held_locks", "{lock}", "Distributed locks held."),
    Metric("refused_tokens", "counter", "{token}", "Tokens that opened nothing, by their state.", {
        state: f"{state}_tokens" for state in ("forged", "superseded", "ended")
    }, "state"),
    _counter("audit_events", "event", "Audit events told."),
    _counter("lost_audit_events", "event", "Audit events lost."),
    _counter("audited_sessions", "session", "Cached sessions compared with the database."),
    _counter("failed_audits", "finding", "What the auditor has found."),
    _gauge("nodes", "{node}", "Nodes that are registered with the database."),
    _counter("shared_hits", "read", "Reads answered from the cache that the processes of the host share."),
    _gauge("shared_sessions", "{session}", "Sessions in that cache."),
    _gauge("leader", "1", "1 while this process listens for all that share it, or a shard of it, else 0."),
    _counter("failovers", "failover", "Times it has begun to because another one had died, or was stopped."),
    _counter("arena_resets", "reset", "Times the shared cache was given up, and another one made."),
    _counter("ring_overruns", "overrun", "Times what the others told came faster than it was heard."),
)  # fmt: skip
"""Every field of `Stats` is in one of them, but for its texts; `misses` and `refused_tokens` are the sums of theirs."""

SECONDS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
SIZES: Final = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CALLS: Final = (
    "get_session",
    "create_session",
    "update_session",
    "rotate_session",
    "delete_session",
    "acquire_lock",
)
STATEMENTS: Final = ("read", "write")


class Watched:
    """Holds the managers whose statistics are told, by a name for each; it keeps none of them alive."""

    def __init__(self) -> None:
        self._managers: dict[str, weakref.ref[Manager]] = {}

    def add(self, manager: Manager, name: str) -> None:
        """Tell the statistics of this one from now on, in place of another of that name."""
        if not isinstance(manager, SessionManager | AsyncSessionManager):
            raise TypeError(
                f"manager: a SessionManager or an AsyncSessionManager is needed, not {type(manager).__name__}"
            )
        self._managers[name] = weakref.ref(manager)

    def stats(self) -> Iterator[tuple[str, Stats]]:
        """Yield the statistics of those that are open."""
        for name, reference in list(self._managers.items()):
            manager = reference()
            if manager is not None:
                try:
                    yield name, manager.stats()
                except ManagerClosedError:
                    pass
