# Generated from src/pgsession/_async/auditor.py by tools/async_to_sync.py: never edit.

"""The auditor looks once a minute whether memory and the tables still are as they must be; it is off by default."""

from __future__ import annotations

import logging
import random
from typing import Final
from uuid import UUID

import msgspec
import psycopg

from pgsession._concurrency import BackgroundLoop, Event, Thunk, left_until
from pgsession._core.cache import Cache
from pgsession._core.record import Record
from pgsession._counted import counted
from pgsession._protocol import events
from pgsession._protocol.audit_log import AuditLog
from pgsession._protocol.auditing import Difference, Suspicion, compare
from pgsession._protocol.coherence import Coherence
from pgsession._short_names import short_name
from pgsession.errors import PgSessionError, SchemaError

from .reads import TOGETHER
from .store import Store

EVERY: Final = 60.0  # seconds from one audit to the next, before the jitter
_NAMED: Final = 10  # sessions in one line of the log


class Auditor:
    """Compares cached sessions with the database, and the tables with what `open()` has found, in a background loop.

    A difference is logged, counted and told to `Config.on_audit_event`, and the session leaves memory. Which of them
    are true `pgsession._protocol.auditing` says. Hits know nothing of all this: sessions are taken out of the cache.

    Args:
        store: The database.
        coherence: Knows which events have been heard.
        cache: The cache.
        sample: How many sessions are compared at a time; 0: there is no auditor.
        check_schema: Raises SchemaError where tables, functions, triggers or rights are not as they must be.
        audit: Takes what was found.
        logger: Takes what was found.
    """

    def __init__(
        self,
        store: Store,
        coherence: Coherence,
        cache: Cache,
        *,
        sample: int,
        check_schema: Thunk[None],
        audit: AuditLog,
        logger: logging.Logger,
    ) -> None:
        self._store = store
        self._coherence = coherence
        self._cache = cache
        self._sample = sample
        self._check_schema = check_schema
        self._audit = audit
        self._logger = logger
        self._loop = BackgroundLoop(logger)
        self._stopping = Event()
        self._suspicions: list[Suspicion] = []
        self._fault: str | None = None  # of the schema, as it was told
        self.audited_sessions = 0
        self.failed_audits = 0

    def start(self) -> None:
        """Start the loop, if there is anything to do."""
        if self._sample:
            self._loop.start(self._keep_auditing, "pgsession auditor")

    def stop(self, deadline: float) -> None:
        """End the loop by the deadline."""
        self._stopping.set()
        self._loop.stop(left_until(deadline))

    def _keep_auditing(self) -> None:
        # Nodes that started together need not all look at the same moment.
        while not self._stopping.wait(EVERY * random.uniform(0.9, 1.1)):
            try:
                self.audit()
            except (psycopg.Error, PgSessionError, msgspec.DecodeError) as error:
                self._logger.info("the audit could not be done, and is tried again later: %s", error)

    def audit(self) -> None:
        """Look once at the tables and at a sample of what is cached."""
        self._look_again()
        if self._coherence.in_sync:
            records = self._cache.sample(self._sample)
            for start in range(0, len(records), TOGETHER):
                if not self._stopping.is_set():
                    self._compare(records[start : start + TOGETHER])
        self._audit_schema()

    def _compare(self, cached: list[Record]) -> None:
        """Compare records that were in memory before this was called with the database."""
        asked = self._coherence.asked()
        some, incarnation, now, xmax = self._store.read_many(
            [record.key for record in cached], self._store.deadline()
        )
        if self._coherence.answered(asked, incarnation, xmax) is not None:
            return
        unread = set(some.unread)
        found: list[tuple[Record, Difference]] = []
        absent: list[Record] = []
        for number, record in enumerate(cached):
            stored = some.found.get(record.key)
            if (
                number in unread
                or record.incarnation != incarnation
                or (stored is None and record.key in some.found)
            ):
                continue
            self.audited_sessions += 1
            difference, certain = compare(record, stored, now)
            if difference is not None and certain:
                found.append((record, difference))
            elif difference == "ended":
                absent.append(record)
            elif difference is not None:
                self._suspicions.append(Suspicion(record, difference, asked.epoch, xmax))
        self._report(found)
        if absent:
            self._suspect_absent(absent)

    def _suspect_absent(self, absent: list[Record]) -> None:
        """Suspect those of which there is no row: an end by time, of which nobody need be told, leaves it there."""
        asked = self._coherence.asked()
        missing, incarnation, xmax = self._store.missing([record.key for record in absent])
        if self._coherence.answered(asked, incarnation, xmax) is None:
            self._suspicions += [
                Suspicion(record, "ended", asked.epoch, xmax)
                for record in absent
                if record.key in missing and record.incarnation == incarnation
            ]

    def _look_again(self) -> None:
        """Decide about what the last audit has found outdated: whatever was on its way then has come."""
        suspicions, self._suspicions = self._suspicions, []
        found = []
        for suspicion in suspicions:
            verdict = self._coherence.still_serves(suspicion.record, suspicion.epoch, suspicion.xmax)
            if verdict is None:
                self._suspicions.append(suspicion)
            elif verdict:
                found.append((suspicion.record, suspicion.difference))
        self._report(found)

    def _report(self, found: list[tuple[Record, Difference]]) -> None:
        if not found:
            return
        self._coherence.drop(*(events.Deleted(record.key) for record, _ in found))
        self.failed_audits += len(found)
        for record, difference in found:
            self._audit.audit_failed(difference, record)
        self._logger.error(
            "%s in memory %s not what the database has, and left memory: %s",
            counted(len(found), "session"),
            "was" if len(found) == 1 else "were",
            ", ".join(f"{short_name(UUID(bytes=record.key))} ({what})" for record, what in found[:_NAMED]),
            extra={"pgsession_event": "audit_failed"},
        )

    def _audit_schema(self) -> None:
        fault = None
        try:
            self._check_schema()
        except SchemaError as error:
            fault = str(error)
            self.failed_audits += 1
        if fault == self._fault:
            return
        self._fault = fault
        extra = {"pgsession_event": "audit_failed" if fault else "audit_passed"}
        if fault is None:
            self._logger.error("the tables and their rights are again as they must be", extra=extra)
        else:
            self._audit.audit_failed("schema", detail=fault)
            self._logger.error("the tables, or rights on them, have been changed: %s", fault, extra=extra)
