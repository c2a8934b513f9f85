"""What a manager tells about itself."""

from __future__ import annotations

import msgspec

__all__ = ["Health", "Stats"]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Counters since the manager was opened, and gauges (marked so) of this moment."""

    cached_sessions: int
    """Gauge: sessions in memory."""
    cache_capacity: int
    """Gauge: the most that fit (`Config.cache_size`)."""
    hits: int
    """Reads answered from memory."""
    misses: int
    """Reads for which memory had no usable answer."""
    evictions: int
    """Sessions that left memory because the cache was full."""
    expirations: int
    """Sessions that left memory because they had expired or were there for too long."""
    fills: int
    """Reads of one session from the database."""
    joined_fills: int
    """Reads that shared another caller's fill instead of making their own query (C10)."""
    discarded_fills: int
    """Fills whose record was not kept, since something changed while it was on its way (C1)."""
    stale_served: int
    """Reads answered from memory past `max_staleness` because the database failed (`stale_if_error`)."""
    writes: int
    """Creates, updates and deletes of single sessions that succeeded."""
    batches: int
    """Transactions that carried them."""
    conflicts: int
    """Updates refused because somebody else had changed what they were based on."""
    failed_writes: int
    """Writes that ended in an error of the database, an unknown outcome among them."""
    events: int
    """Notifications received from the database, this node's own included."""
    malformed_events: int
    """Notifications that could not be read; each empties the cache, to be safe."""
    invalidations: int
    """Cached sessions dropped because of a notification."""
    proofs: int
    """Proofs of sync that came back."""
    listener_losses: int
    """Times the listener lost its connection or was declared dead."""
    resyncs: int
    """Times the cache was compared with the database after the listener was back."""
    pending_accesses: int
    """Gauge: noted accesses not yet written."""
    written_accesses: int
    """Noted accesses written."""
    lost_accesses: int
    """Noted accesses given up, since too many of sessions that had left memory waited to be written."""
    failed_access_batches: int
    """Batches of noted accesses that failed; they are kept and tried again."""
    cleanups: int
    """Cleanups that this node ran."""
    deleted_sessions: int
    """Sessions deleted by this node's cleanups."""
    held_locks: int
    """Gauge: distributed locks held through this manager."""
    notification_queue_usage: float
    """Gauge: how full PostgreSQL's notification queue was at the last proof, from 0 to 1."""
    nodes: int
    """Gauge: nodes heard of in the last ten minutes, this one included."""


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Tells whether a node can serve at this moment; made by asking the database."""

    healthy: bool
    """All of the below is well."""
    in_sync: bool
    """Reads are answered from memory: the proof of sync is fresh enough."""
    proof_age: float | None
    """Seconds since the newest proof of sync was sent, None before the first."""
    listening: bool
    """The listener has a working connection."""
    database: str | None
    """What the database answered to a query: None where it answered, else the error's text."""
    round_trip: float | None
    """Seconds that query took."""
    pool_size: int
    """Connections in the pool."""
    pool_waiting: int
    """Callers waiting for a connection."""
    queued_writes: int
    """Writes waiting for their batch."""
