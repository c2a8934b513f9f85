"""The same look-up among a thousand and a million sessions, in random order: what memory's own slowness adds."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from os import urandom
from uuid import UUID

import msgspec

from pgsession import SessionManager
from pgsession._core.record import Record

from . import ours
from .loops import fresh_bytes, loop, shuffled
from .race import Contender, Race, Round
from .service import THREE
from .stage import Stage

LOOKUPS = 50_000

race = Race(
    "million", "Get one of many sessions from memory, random order", baseline="dict.get(bytes), 1,000,000"
)


@contextmanager
def _filled(stage: Stage, count: int) -> Iterator[tuple[SessionManager, list[bytes]]]:
    """A manager that holds so many sessions; to create a million of them would take minutes."""
    with ours.manager(stage, cache_size=count) as sessions:
        ids = [urandom(16) for _ in range(count)]
        now = sessions._clock.database_now()
        ends = now + 86_400_000_000
        attributes = [(name, 1, None, msgspec.json.encode(value)) for name, value in sorted(THREE.items())]
        for number, key in enumerate(ids):
            sessions._cache.put(
                Record(key, 1, str(number), None, now, now, now, ends, 48 * 3600 * 10**6, attributes)
            )
        yield sessions, ids


_OPENERS = {count: partial(_filled, count=count) for count in (1_000, 1_000_000)}


def _ours(count: int, make_id: Callable[[bytes], object]) -> Contender:
    opener = _OPENERS[count]

    def contender(stage: Stage) -> Iterator[Round]:
        sessions, ids = stage.once(opener)
        yield loop(sessions.get_session, lambda: _lookups(ids, make_id))

    return contender


def _dict(count: int) -> Contender:
    def contender(stage: Stage) -> Iterator[Round]:
        entries = {urandom(16): urandom(100) for _ in range(count)}
        ids = list(entries)
        yield loop(entries.get, lambda: _lookups(ids, fresh_bytes))

    return contender


def _lookups(ids: list[bytes], make: Callable[[bytes], object]) -> list[object]:
    found: list[object] = []
    while len(found) < LOOKUPS:
        found += shuffled(ids, make, LOOKUPS)
    return found


for _count in _OPENERS:
    race.contender(f"pgsession, UUID, {_count:,}")(_ours(_count, lambda key: UUID(bytes=key)))
    race.contender(f"pgsession, 16 bytes, {_count:,}")(_ours(_count, fresh_bytes))
    race.contender(f"dict.get(bytes), {_count:,}")(_dict(_count))

test_million = race.test()
