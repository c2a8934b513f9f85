# Generated from tests/aio/test_reads_are_counted.py by tools/async_to_sync.py: never edit.

"""Every read counts once, as a hit or as a miss, whatever comes of it."""

from __future__ import annotations

import random
import secrets
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

import psycopg
import pytest

import pgsession
from tests.crew import Crew
from tests.fault_proxy import FaultProxy

from .conftest import OpenAsyncManager
from .helpers import eventually

KEY = b"k" * 32
STEPS = 150
FAILURES = (psycopg.Error, pgsession.OperationTimeout, pgsession.DatabaseUnavailable)


class Reads:
    """Random reads of one manager, in whatever state it is; `made` is how many there were."""

    def __init__(self, manager: pgsession.SessionManager, choice: random.Random) -> None:
        self.manager = manager
        self.made = 0
        self._choice = choice
        self._tokens: dict[uuid.UUID, str] = {}
        self._ids: list[uuid.UUID] = [uuid.uuid4()]
        self._kinds: tuple[Callable[[uuid.UUID], Awaitable[Any]], ...] = (
            self.by_id, self.by_id, self.refreshed, self.too_new, self.from_memory, self.by_token,
            self.by_bad_token, self.modified, self.together,
        )  # fmt: skip

    def create_some(self) -> None:
        """Sessions of every kind: one ends at once, one has an end."""
        for options in ({}, {"include_inactivity": False}, {"expires_in": 0.02}, {"expires_in": 0.5}):
            session = self.manager.create_session("u", **options)
            self._ids.append(session.id)
            self._tokens[session.id] = self.manager.token(session) or ""

    def some(self, count: int) -> None:
        """Read at random; some of these reads fail."""
        for _ in range(count):
            kind = self._choice.choice(self._kinds)
            try:
                kind(self._choice.choice(self._ids))
            except (*FAILURES, pgsession.SessionNotFoundError):
                pass

    def by_id(self, session_id: uuid.UUID) -> None:
        self.made += 1
        self.manager.get_session(session_id, touch=self._choice.random() < 0.5)

    def refreshed(self, session_id: uuid.UUID) -> None:
        self.made += 1
        self.manager.get_session(session_id, refresh=True)

    def too_new(self, session_id: uuid.UUID) -> None:
        self.made += 1
        self.manager.get_session(session_id, min_version=1000)

    def from_memory(self, session_id: uuid.UUID) -> None:
        self.made += 1
        self.manager.get_cached_session(session_id)

    def by_token(self, session_id: uuid.UUID) -> None:
        self.made += 1
        token = self._tokens.get(session_id, "of nothing")
        self.manager.get_session_by_token(token, refresh=self._choice.random() < 0.2)

    def by_bad_token(self, session_id: uuid.UUID) -> None:
        self.made += 1
        assert self.manager.get_session_by_token("no token") is None

    def modified(self, session_id: uuid.UUID) -> None:
        """One caller, so there is one try."""
        self.made += 1
        self.manager.modify_session(session_id, lambda session: session.__setitem__("n", 1))

    def together(self, session_id: uuid.UUID) -> None:
        """Several at once: some join the fill of others."""
        crew = Crew()
        for _ in range(5):
            self.made += 1
            crew.start(self._caught, session_id)
        crew.join()

    def _caught(self, session_id: uuid.UUID) -> None:
        try:
            self.manager.get_session(session_id)
        except FAILURES:
            pass

    def check(self, when: str) -> None:
        """All of them were counted, once."""
        stats = self.manager.stats()
        assert stats.hits + stats.misses == self.made, f"{when}: {stats}"


@pytest.mark.parametrize("stale_if_error", [0, 3600])
def test_hits_and_misses_are_all_reads(open_manager: OpenAsyncManager, dsn: str, stale_if_error: int) -> None:
    seed = secrets.randbits(32)
    print(f"seed {seed}")
    with FaultProxy(dsn) as listening, FaultProxy(dsn) as reading:
        manager = open_manager(
            reading.conninfo, listener_conninfo=listening.conninfo, signer=pgsession.Signer(KEY), cache_size=3,
            max_sessions=0, max_staleness=1, operation_timeout=1, stale_if_error=stale_if_error,
        )  # fmt: skip
        reads = Reads(manager, random.Random(seed))
        reads.create_some()
        reads.some(STEPS)
        reads.check("in sync")
        before = manager.stats()
        assert before.hits and before.misses

        reading.refuse()
        reading.cut()

        def down() -> bool:
            health = manager.check_health()
            return health.database is not None and not health.in_sync

        eventually(down)
        reads.some(STEPS)
        reads.check("without a database")
        assert manager.stats().hits == before.hits, "nothing comes from memory"
        assert (manager.stats().stale_served > 0) == (stale_if_error > 0)

        reading.forward()
        listening.refuse()
        listening.cut()

        def deaf() -> bool:
            health = manager.check_health()
            return health.database is None and not health.listening

        eventually(deaf)
        reads.some(STEPS)
        reads.check("without a listener")
        assert manager.stats().hits == before.hits, "nothing comes from memory"
        listening.forward()
