"""Connections that can be given up while they are being made stand here, for threads and for asyncio.

psycopg waits for the server with a generator, and resumes it ten times a second whatever happens, so that Ctrl-C is
heard in between. There it is asked whether anybody still wants the answer. (A name server that does not answer is
waited for by the system, which nothing ends.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import psycopg

from .types import Steps


def until(ended: Callable[[], bool], steps: Steps[Any]) -> Steps[Any]:
    """Return the same steps, which end with an error once `ended` says so.

    Raises:
        psycopg.OperationalError: They were given up.
    """
    _refuse_if(ended)
    try:
        waits_for = next(steps)
        while True:
            ready = yield waits_for
            _refuse_if(ended)
            waits_for = steps.send(ready)
    except StopIteration as end:
        return end.value
    finally:
        steps.close()  # and with them the descriptor, which the error's traceback would keep


def _refuse_if(ended: Callable[[], bool]) -> None:
    if ended():
        raise psycopg.OperationalError("given up: nobody waits for this connection any more")


def async_connections_until(
    ended: Callable[[], bool], checked: Callable[[Steps[Any]], Steps[Any]] | None = None
) -> type[psycopg.AsyncConnection[Any]]:
    """Return a class of connections of which no more come about once `ended` says so, and whose steps are `checked`."""

    class Connection(psycopg.AsyncConnection[Any]):
        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Steps[Any]:
            steps = super()._connect_gen(*arguments, **options)
            return until(ended, steps if checked is None else checked(steps))

    return Connection


def connections_until(
    ended: Callable[[], bool], checked: Callable[[Steps[Any]], Steps[Any]] | None = None
) -> type[psycopg.Connection[Any]]:
    """Return a class of connections of which no more come about once `ended` says so, and whose steps are `checked`."""

    class Connection(psycopg.Connection[Any]):
        @classmethod
        def _connect_gen(cls, *arguments: Any, **options: Any) -> Steps[Any]:
            steps = super()._connect_gen(*arguments, **options)
            return until(ended, steps if checked is None else checked(steps))

    return Connection
