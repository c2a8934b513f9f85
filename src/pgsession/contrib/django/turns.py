"""The requests of a session take turns where `on_conflict` is "serial", over all processes.

A request has its turn from its first look at the session until its response is made, or else until Django tells that it
is finished. Outside of requests, as in a shell or in a test that looks into a client's session, nobody waits, since
nobody would tell that it is over.
"""

from __future__ import annotations

import logging
from contextvars import ContextVar
from datetime import timedelta
from uuid import UUID
from weakref import WeakKeyDictionary

from asgiref.sync import SyncToAsync, ThreadSensitiveContext
from django.contrib.sessions.exceptions import SessionInterrupted
from django.core.signals import request_finished, request_started
from psycopg import Error

from pgsession import Lock, LockError, PgSessionError, SessionManager, SessionNotFoundError

_LEASE_TIME, _HEARTBEAT = 10, 3  # seconds: the others wait for so long for one whose process has died
_Turns = dict[UUID, Lock]

_of_wsgi: ContextVar[_Turns | None] = ContextVar("pgsession_turns", default=None)
# Django's handler for ASGI makes one such context for each request; tasks and threads of the request are in it.
_of_asgi: WeakKeyDictionary[ThreadSensitiveContext, _Turns] = WeakKeyDictionary()
_logger = logging.getLogger("pgsession")


def wait_for_turn(manager: SessionManager, session_id: UUID, timeout: timedelta | float) -> bool:
    """Wait until the request that is handled here has its turn; return False where it need not, or has it already.

    Args:
        manager: The manager.
        session_id: The session's id.
        timeout: For how long to wait at most.

    Raises:
        SessionInterrupted: Other requests took longer.
    """
    turns = _turns()
    if turns is None or session_id in turns:
        return False
    lock = manager.lock(
        f"pgsession.web:{session_id}",
        session_id=session_id,
        lease_time=_LEASE_TIME,
        heartbeat_interval=_HEARTBEAT,
    )
    try:
        taken = lock.acquire(timeout=timeout)
    except SessionNotFoundError:
        return True  # it has ended, as the next look will say
    if not taken:
        raise SessionInterrupted("Other requests of this session took longer than serial_timeout.")
    turns[session_id] = lock
    return True


def end_turns() -> None:
    """End the turns of the request that is handled here."""
    turns = _turns()
    while turns:
        lock = turns.popitem()[1]
        try:
            lock.release()
        except LockError:
            pass  # it ended with its session
        except (Error, PgSessionError) as error:
            _logger.warning("a request's turn ends only after its lease time: %s", error)


def _turns() -> _Turns | None:
    context = SyncToAsync.thread_sensitive_context.get(None)
    return _of_wsgi.get() if context is None else _of_asgi.setdefault(context, {})


def _begin(**_: object) -> None:
    """Begin a request of WSGI; one of ASGI is told by its context."""
    _of_wsgi.set({})


def _end(**_: object) -> None:
    """End what a request has left, such as one that has failed."""
    end_turns()
    _of_wsgi.set(None)


request_started.connect(_begin, dispatch_uid=__name__)
request_finished.connect(_end, dispatch_uid=__name__)
