"""Deleting 100,000 sessions of one user, and what other writers notice of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter

import psycopg

from pgsession import SessionManager

from . import load, ours
from .race import Race, Round, Sample
from .service import Service
from .stage import Stage

COUNT = 100_000
WRITERS = 4

race = Race("delete", "Delete 100,000 sessions of one user", baseline="pgsession", rounds=1, warm_up=False)
others = Race(
    "delete-others", f"Change a session, {WRITERS} callers at once", baseline="undisturbed", rounds=1
)

# The setting keeps the triggers quiet that announce plain SQL.
_INSERT = """
WITH quiet AS MATERIALIZED (SELECT set_config('pgsession.own', 'on', true)), made AS (
    INSERT INTO sessions (id, version, owner_since, user_id, expires_at)
    SELECT gen_random_uuid(), 1, 1, 'hoarder', now() + interval '1 day' FROM quiet, generate_series(1, %s) RETURNING id
)
INSERT INTO session_attributes (session_id, key, value)
SELECT id, k, '"value"' FROM made, unnest(ARRAY['a', 'b', 'c']) k
"""


class _Hoard:
    """A database where one user has 100,000 sessions, a manager to delete them, and another one to write beside it."""

    def __init__(self, database: str, manager: SessionManager, writers: Service) -> None:
        self._database = database
        self._manager = manager
        self.writers = writers

    def fill(self) -> None:
        with psycopg.connect(self._database) as connection:
            connection.execute(_INSERT, (COUNT,))
        with psycopg.connect(self._database, autocommit=True) as connection:
            connection.execute("VACUUM ANALYZE")

    def delete(self) -> float:
        started = perf_counter()
        deleted = self._manager.delete_user_sessions("hoarder")
        assert deleted == COUNT
        return perf_counter() - started


@contextmanager
def hoard(stage: Stage) -> Iterator[_Hoard]:
    """One for all contenders here."""
    database = stage.new_database()
    with ours.manager(stage, database=database) as manager, ours.tasks(stage, database=database) as writers:
        yield _Hoard(database, manager, writers)


def _writing(stage: Stage, seconds: float) -> Round:
    service = stage.once(hoard).writers
    return load.tasks(stage.loop, WRITERS, lambda caller: service.change(service.ids[caller]), seconds)


@race.contender("pgsession")
def _ours(stage: Stage) -> Iterator[Round]:
    full = stage.once(hoard)

    def take_turn() -> Sample:
        full.fill()
        return Sample(full.delete())

    yield take_turn


@others.contender("undisturbed")
def _undisturbed(stage: Stage) -> Iterator[Round]:
    yield _writing(stage, 1.5)


@others.contender("while the 100,000 are deleted")
def _disturbed(stage: Stage) -> Iterator[Round]:
    full = stage.once(hoard)
    write = _writing(stage, 0.25)

    def take_turn() -> Sample:
        full.fill()
        deletion = threading.Thread(target=full.delete)
        deletion.start()
        samples = []
        while deletion.is_alive():
            samples.append(write())
        seconds = sum(sample.seconds for sample in samples) / len(samples)
        return Sample(seconds, [wait for sample in samples for wait in sample.latencies])

    yield take_turn


test_delete = race.test()
test_delete_others = others.test()
