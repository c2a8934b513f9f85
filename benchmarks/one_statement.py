"""The least that any library could do for a durable change of which other nodes hear: one statement, and a listener.

One connection, a statement that the server has prepared, no pool, no time limit, no check of anything, no answer but
the version; and a second connection that receives the notifications and does nothing with them. On the tables of
`five_round_trips`. What is above it is what a library does; below it is nothing.
"""

from __future__ import annotations

import os
import select
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count
from typing import Any

import psycopg

from . import five_round_trips
from .service import Service
from .stage import Stage

_CHANGE = f"{five_round_trips.SAVED}, attribute AS ({five_round_trips.SET}) {five_round_trips.TELL}"
_LISTEN = "LISTEN session_updates"


@contextmanager
def threads(stage: Stage) -> Iterator[Service]:
    """The caller is a thread, and another one listens."""
    database = stage.new_database()
    ids, numbers = five_round_trips.populate(database), count()
    ear, mouth = os.pipe()
    with (
        psycopg.connect(database, autocommit=True) as connection,
        psycopg.connect(database, autocommit=True) as listener,
    ):
        listener.execute(_LISTEN)

        def listen() -> None:
            while ear not in select.select([listener.fileno(), ear], [], [])[0]:
                _receive(listener)

        def change(session_id: uuid.UUID) -> None:
            connection.execute(_CHANGE, _arguments(session_id, next(numbers)), prepare=True)

        listening = threading.Thread(target=listen)
        listening.start()
        try:
            yield _service(ids, change)
        finally:
            os.close(mouth)
            listening.join()
            os.close(ear)


@contextmanager
def tasks(stage: Stage) -> Iterator[Service]:
    """The caller is a task of an event loop, which reads what the listener hears."""
    database = stage.new_database()
    ids, numbers = five_round_trips.populate(database), count()

    async def opened() -> psycopg.AsyncConnection[Any]:
        return await psycopg.AsyncConnection.connect(database, autocommit=True)

    connection, listener = stage.loop.run(opened()), stage.loop.run(opened())
    socket = os.dup(listener.fileno())  # an event loop watches a descriptor for one owner

    async def listen() -> None:
        await listener.execute(_LISTEN)
        stage.loop.watch(socket, lambda: _receive(listener))

    async def change(session_id: uuid.UUID) -> None:
        await connection.execute(_CHANGE, _arguments(session_id, next(numbers)), prepare=True)

    async def close() -> None:
        stage.loop.watch(socket, None)
        await connection.close()
        await listener.close()

    stage.loop.run(listen())
    try:
        yield _service(ids, change)
    finally:
        stage.loop.run(close())
        os.close(socket)


def _arguments(session_id: uuid.UUID, number: int) -> tuple[Any, ...]:
    return session_id, session_id, "cart", f'["book",{number}]'


def _receive(listener: psycopg.Connection[Any] | psycopg.AsyncConnection[Any]) -> None:
    listener.pgconn.consume_input()
    while listener.pgconn.notifies():
        pass


def _service(ids: list[uuid.UUID], change: Any) -> Service:
    def nothing(*_: Any) -> None:
        raise NotImplementedError

    return Service(ids, read=nothing, change=change, create=nothing)
