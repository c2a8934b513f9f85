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

from pgsession import Session
from pgsession._database.script import Parameter
from pgsession._database.statements import Statements, write_arguments
from pgsession._protocol.operations import Update

from . import ours
from .race import Contender, Race, Round, Sample
from .stage import Stage

SECONDS = 0.7
INSIDE, SPLIT = "NOTIFY inside", "notify_before_flush"
FORMS: dict[str, Literal["plain", "split"]] = {INSIDE: "plain", SPLIT: "split"}


def _arguments(session: Session) -> tuple[Parameter, ...]:
    """Of the statement that saves the session with another cart."""
    session["cart"] = [1]
    changes = session._changes()
    assert changes is not None
    update = Update(
        session._record, check=None, sets=changes.sets, deletes=[], expires_at=None, inactivity=None, group=None,
        notify=True, notify_on_conflict=False,
    )  # fmt: skip
    return write_arguments(False, update=[update.row()])


def _write_for_ever(control: Connection, database: str, arguments: tuple[Parameter, ...]) -> None:
    """A writer's process: told a form, it updates its session in that form for `SECONDS` and says how often."""
    statements = Statements()
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

    def __init__(self, database: str, sessions: list[Session]) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload([__name__])
        self._controls: list[Connection] = []
        self._processes: list[Any] = []
        for session in sessions:
            ours_end, theirs = context.Pipe()
            arguments = (theirs, database, _arguments(session))
            process = context.Process(target=_write_for_ever, args=arguments, daemon=True)
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
        with ours.manager(stage, count=writers, database=database) as manager:
            sessions = list(manager.load_sessions(ours.cached_ids(manager)).values())
        with _Writers(database, sessions) as processes:
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
