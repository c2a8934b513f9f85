"""How long after `update_session` returned here another process still has the old session in its memory."""

from __future__ import annotations

import multiprocessing
import statistics
import time
from collections.abc import Iterator
from multiprocessing.connection import Connection
from uuid import UUID

import pgsession

from . import ours
from .race import Race, Round, Sample
from .stage import Stage

UPDATES = 60
LOOK = (
    50e-6  # seconds between two looks; to look without pause would take the processor from what is measured
)

race = Race("invalidation", "An update seen by another process", baseline="pgsession", rounds=5)


def _watch(control: Connection, database: str) -> None:
    """The other process: holds the session it is told, and says when it no longer serves that version."""
    with pgsession.SessionManager(database) as sessions:
        while (session_id := control.recv()) is not None:
            held = sessions.get_session(session_id)
            assert held is not None
            control.send("held")
            while (
                now := sessions.get_cached_session(session_id)
            ) is not None and now.version == held.version:
                time.sleep(LOOK)
            control.send(time.monotonic())


@race.contender("pgsession")
def _ours(stage: Stage) -> Iterator[Round]:
    context = multiprocessing.get_context("forkserver")
    database = stage.new_database()
    with ours.manager(stage, count=UPDATES, database=database) as sessions:
        control, theirs = context.Pipe()
        watcher = context.Process(target=_watch, args=(theirs, database), daemon=True)
        watcher.start()
        ids = [UUID(bytes=key) for key in ours.cached_ids(sessions)]

        def delays(session_id: UUID) -> tuple[float, float]:
            session = sessions.get_session(session_id)
            assert session is not None
            control.send(session_id)
            control.recv()
            session["visits"] = session["visits"] + 1
            called = time.monotonic()
            sessions.update_session(session)
            returned = time.monotonic()
            seen: float = control.recv()
            return seen - called, max(0.0, seen - returned)

        def take_turn() -> Sample:
            from_call, from_return = zip(*map(delays, ids), strict=True)
            return Sample(statistics.median(from_call), from_return)

        yield take_turn
        control.send(None)
        watcher.join()


test_invalidation = race.test()
