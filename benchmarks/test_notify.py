"""Commits that notify, from many processes: what it gains to keep the notification lock out of the flush.

The statements are the library's; nobody listens, so that what is compared is the commit.
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from operator import truediv
from time import perf_counter, process_time
from typing import Any, Literal

import psycopg

from pgsession._database.statements import Statements, write_arguments
from pgsession._protocol.operations import Flag

from . import ours
from .race import Contender, Race, Round, Sample
from .stage import Stage

SECONDS = 0.7
INSIDE, SPLIT = "NOTIFY inside", "notify_before_flush"
FORMS: dict[str, Literal["plain", "split"]] = {INSIDE: "plain", SPLIT: "split"}


def _write_for_ever(control: Connection, database: str, key: bytes) -> None:
    """A writer's process: told a form, it updates its session in that form for `SECONDS` and says how often."""
    statements = Statements()
    row = (key.hex(), 0, int(Flag.NOTIFY), None, None, [("cart", "[1]", None, 0)], [])
    arguments = write_arguments(False, update=[row])
    scripts = {form: statements.write("0" * 16, "mark", arguments, commit=form) for form in FORMS.values()}
    with psycopg.connect(database, autocommit=True) as connection:
        while (form := control.recv()) is not None:
            script, done = scripts[form], 0
            began, started = process_time(), perf_counter()
            now = started
            while now < started + SECONDS:
                with connection.lock:
                    connection.wait(script.run(connection.pgconn))
                done, now = done + 1, perf_counter()
            control.send((done, now - started, process_time() - began))


class _Writers:
    """Processes that write at the same time."""

    def __init__(self, database: str, keys: list[bytes]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._controls: list[Connection] = []
        self._processes: list[Any] = []
        for key in keys:
            ours_end, theirs = context.Pipe()
            process = context.Process(target=_write_for_ever, args=(theirs, database, key), daemon=True)
            process.start()
            self._controls.append(ours_end)
            self._processes.append(process)

    def __enter__(self) -> _Writers:
        return self

    def __exit__(self, *_: object) -> None:
        for control in self._controls:
            control.send(None)
        for process in self._processes:
            process.join()

    def take_turn(self, form: str) -> Sample:
        for control in self._controls:
            control.send(form)
        done, elapsed, spent = zip(*(control.recv() for control in self._controls), strict=True)
        seconds = 1 / sum(map(truediv, done, elapsed))
        return Sample(seconds, operations=sum(done), helpers=sum(spent))


def _race(writers: int) -> Race:
    noun = "process" if writers == 1 else "processes"
    race = Race(
        f"notify-{writers}", f"A durable commit that notifies, {writers} {noun}", baseline=INSIDE, rounds=3
    )

    @contextmanager
    def crew(stage: Stage) -> Iterator[_Writers]:
        database = stage.new_database()
        with ours.manager(stage, count=writers, database=database) as sessions:
            keys = ours.cached_ids(sessions)
        with _Writers(database, keys) as processes:
            yield processes

    def contender(form: str) -> Contender:
        def take_turns(stage: Stage) -> Iterator[Round]:
            processes = stage.once(crew)
            yield lambda: processes.take_turn(form)

        return take_turns

    for name, form in FORMS.items():
        race.contender(name)(contender(form))
    return race


test_notify_1 = _race(1).test()
test_notify_8 = _race(8).test()
test_notify_32 = _race(32).test()
