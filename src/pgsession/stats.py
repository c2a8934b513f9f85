"""Statistics and health are what a manager tells about itself."""

from __future__ import annotations

import msgspec

__all__ = ["Health", "Stats"]


class Stats(msgspec.Struct, frozen=True, kw_only=True):
    """Tells what a manager has counted since it was made, and its gauges of this moment.

    Attributes:
        cached_sessions (gauge): Sessions in memory.
        cache_capacity (gauge): The most that fit (`Config.cache_size`).
        hits (counter): Reads answered from memory: calls of `get_session`, `get_session_by_token` and
            `get_cached_session`, and one for each try of `modify_session`.
        misses (counter): All other such reads: the session is not in memory, may be over or is older than asked for,
            the node is not in sync, the token is bad, `refresh=True`; whatever came of it, an error too. So hits and
            misses are all reads, but for calls that are refused for their arguments.
        misses_out_of_sync (counter): Misses for which the node could not prove to be in sync.
        misses_not_cached (counter): Misses whose session was not in memory.
        misses_over (counter): Misses whose session may have expired, may be inactive, or was there for too long.
        misses_outdated (counter): Misses whose session was older than `min_version`, or the token, asks for.
        misses_refreshed (counter): Misses that `refresh=True` asked for.
        misses_refused (counter): Misses whose token was bad, as far as memory could tell. These six are all misses.
        negative_hits (counter): Misses that were no query: memory knew that no session of this id is there.
        evictions (counter): Sessions that left memory because the cache was full.
        expirations (counter): Sessions that left memory because they had expired or were there for too long.
        fills (counter): Reads of one session from the database.
        joined_fills (counter): Reads that shared another caller's fill instead of making their own query (C10).
        discarded_fills (counter): Fills whose record was not kept, since something changed while it was on its way
            (C1).
        stale_served (counter): Misses answered from memory all the same because the database failed
            (`stale_if_error`).
        writes (counter): Creates, updates and deletes of single sessions that succeeded.
        batches (counter): Transactions that carried those writes.
        conflicts (counter): Updates refused because somebody else had changed what they were based on.
        failed_writes (counter): Writes that ended in an error of the database, an unknown outcome among them.
        events (counter): Notifications received from the database, this node's own included, but for beacons.
        malformed_events (counter): Notifications that could not be read; each empties the cache, to be safe, unless it
            is about locks.
        invalidations (counter): Cached sessions dropped because of a notification.
        proofs (counter): Proofs of sync: events, and beacons, that arrived and proved a read.
        listener_losses (counter): Times the listener lost its connection or was declared dead.
        resyncs (counter): Times the cache was compared with the database after the listener was back.
        refused_tokens (counter): Tokens that opened nothing: forged, superseded by a rotation, or of a session that has
            ended.
        forged_tokens (counter): Of these, what no key of the signer has signed.
        superseded_tokens (counter): Of these, those of before a rotation a moment ago.
        ended_tokens (counter): Of these, those of a session that has ended, or whose token has long been another.
        warmed_sessions (counter): Sessions that were read into memory because a former process had them there
            (`Config.warm`), before anybody asked for them.
        pending_accesses (gauge): Noted accesses not yet written.
        written_accesses (counter): Noted accesses that were written.
        lost_accesses (counter): Noted accesses given up, since too many of sessions that had left memory waited to
            be written.
        failed_access_batches (counter): Batches of noted accesses that failed; they are kept and tried again.
        cleanups (counter): Cleanups that this node ran.
        deleted_sessions (counter): Sessions deleted by this node's cleanups.
        held_locks (gauge): Distributed locks held through this manager.
        audit_events (counter): Events that `Config.on_audit_event` was called with.
        lost_audit_events (counter): Events that it was not called with, since too many waited, or the manager was
            closed before it had heard of all.
        notification_queue_usage (gauge): How full PostgreSQL's notification queue was when it was last looked at,
            from 0 to 1.
        nodes (gauge): Nodes that are registered with the database, this one included; counted once a minute.
        oldest_write (gauge): Seconds that the oldest of the writes whose callers wait has taken so far, 0 where none
            waits.
        audited_sessions (counter): Cached sessions that were compared with the database (`Config.audit_sample`).
        failed_audits (counter): Of these, those that differed; and the times that tables, triggers or rights were found
            to be not as they must be.
        in_sync (gauge): True while reads are answered from memory.
        proof_age (gauge): Seconds since the newest read that is proved was sent, None before the first.
        clock_error (gauge): Seconds by which what is believed of the database's clock may be wrong at the most, None
            where nothing is known.
        queued_writes (gauge): Writes waiting for their batch.
        pool_size (gauge): Connections in the pool.
        pool_waiting (gauge): Callers waiting for a connection.
        shared_hits (counter): Of the hits, those whose session came from the cache that the processes of this host
            share (`Config.shared_cache`).
        shared_sessions (gauge): Sessions in that cache; 0 where none is shared.
        leader (gauge): True where this process listens for all that share that cache; of several shards, each of which
            has a leader of its own, where it does so for any.
        failovers (counter): Times this process has begun to do so because the one before it had died, or was stopped.
        arena_resets (counter): Times the shared cache was given up, and another one made, because a process was
            stopped while it changed it.
        ring_overruns (counter): Times this process was so slow to hear what the others told that it emptied its own
            part of the cache.
        shared_fallback_reason (gauge): Why this process has a cache of its own although one was to be shared, None
            where that is not so.
    """

    cached_sessions: int
    cache_capacity: int
    hits: int
    misses: int
    misses_out_of_sync: int
    misses_not_cached: int
    misses_over: int
    misses_outdated: int
    misses_refreshed: int
    misses_refused: int
    negative_hits: int
    evictions: int
    expirations: int
    fills: int
    joined_fills: int
    discarded_fills: int
    stale_served: int
    writes: int
    batches: int
    conflicts: int
    failed_writes: int
    events: int
    malformed_events: int
    invalidations: int
    proofs: int
    listener_losses: int
    resyncs: int
    refused_tokens: int
    forged_tokens: int
    superseded_tokens: int
    ended_tokens: int
    warmed_sessions: int
    pending_accesses: int
    written_accesses: int
    lost_accesses: int
    failed_access_batches: int
    cleanups: int
    deleted_sessions: int
    held_locks: int
    audit_events: int
    lost_audit_events: int
    notification_queue_usage: float
    nodes: int
    oldest_write: float
    audited_sessions: int
    failed_audits: int
    in_sync: bool
    proof_age: float | None
    clock_error: float | None
    queued_writes: int
    pool_size: int
    pool_waiting: int
    shared_hits: int
    shared_sessions: int
    leader: bool
    failovers: int
    arena_resets: int
    ring_overruns: int
    shared_fallback_reason: str | None


class Health(msgspec.Struct, frozen=True, kw_only=True):
    """Tells whether a node can serve at this moment; made by asking the database.

    Attributes:
        ready (bool): True while the node can answer, be it from the database: that answers, or it fails and
            `stale_if_error` lets memory answer for it. This is for readiness probes.
        healthy (bool): True while the node is ready and also answers from memory: the database answers, the listener
            listens and reads are in sync. This is for alarms: a node that is not healthy does all its work, and more
            slowly.
        reason (str | None): A sentence that says why the node is not healthy, None where it is.
        in_sync (bool): True while reads are answered from memory: the proof of sync is fresh enough.
        proof_age (float | None): Seconds since the newest read that is proved was sent, None before the first.
        listening (bool): True while the listener has a working connection.
        database (str | None): None where the database answered a query, else the text of the error.
        round_trip (float | None): Seconds which that query took, None where it failed.
        pool_size (int): Connections in the pool.
        pool_waiting (int): Callers waiting for a connection.
        queued_writes (int): Writes waiting for their batch.
        oldest_write (float | None): Seconds that the oldest of the writes whose callers wait has taken so far, also
            where it waits for what somebody has locked; None where none waits.
    """

    ready: bool
    healthy: bool
    reason: str | None
    in_sync: bool
    proof_age: float | None
    listening: bool
    database: str | None
    round_trip: float | None
    pool_size: int
    pool_waiting: int
    queued_writes: int
    oldest_write: float | None
