"""Threads and asyncio differ in what stands here, in pairs of one shape.

`AsyncX` and `X` have the same constructor and the same methods, those that wait being coroutines on the `AsyncX`
side. So the shells in `_async/` become the ones in `_sync/` by renaming alone: `async def` -> `def`, `await ` ->
nothing, `AsyncX` -> `X`, `async_x` -> `x`.

An `AsyncX` belongs to one event loop and is used from that loop only; an `X` may be used from any thread.
"""

from __future__ import annotations

from .asking import AsyncQuestion, Question
from .audit_thread import AuditThread
from .background import GRACE, AsyncBackgroundLoop, AsyncBackgroundTasks, BackgroundLoop, BackgroundTasks
from .combiner import AsyncCombiner, Combiner
from .connecting import async_connections_until, connections_until, until
from .deadlines import AsyncDeadlines, Deadlines, deadline_in, left_until
from .own_thread import async_in_own_thread, in_own_thread
from .round_trips import AsyncRoundTrips, RoundTrips
from .shared_future import AsyncSharedFuture, SharedFuture
from .sockets import AsyncSocketWaiter, SocketWaiter
from .sync import (
    Alarm,
    AsyncAlarm,
    AsyncEvent,
    AsyncHome,
    AsyncMutex,
    AsyncSignal,
    Event,
    Home,
    Mutex,
    Signal,
    async_call,
    async_may_wait,
    async_pause,
    async_sleep,
    call,
    may_wait,
    pause,
    sleep,
)
from .types import (
    LOGGER,
    Action,
    AsyncAction,
    AsyncConninfoFunction,
    AsyncThunk,
    ConninfoFunction,
    Steps,
    Thunk,
)
from .unclosed import Unclosed

__all__ = [
    "GRACE",
    "LOGGER",
    "Action",
    "Alarm",
    "AsyncAction",
    "AsyncAlarm",
    "AsyncBackgroundLoop",
    "AsyncBackgroundTasks",
    "AsyncCombiner",
    "AsyncConninfoFunction",
    "AsyncDeadlines",
    "AsyncEvent",
    "AsyncHome",
    "AsyncMutex",
    "AsyncQuestion",
    "AsyncRoundTrips",
    "AsyncSharedFuture",
    "AsyncSignal",
    "AsyncSocketWaiter",
    "AsyncThunk",
    "AuditThread",
    "BackgroundLoop",
    "BackgroundTasks",
    "Combiner",
    "ConninfoFunction",
    "Deadlines",
    "Event",
    "Home",
    "Mutex",
    "Question",
    "RoundTrips",
    "SharedFuture",
    "Signal",
    "SocketWaiter",
    "Steps",
    "Thunk",
    "Unclosed",
    "async_call",
    "async_connections_until",
    "async_in_own_thread",
    "async_may_wait",
    "async_pause",
    "async_sleep",
    "call",
    "connections_until",
    "deadline_in",
    "in_own_thread",
    "left_until",
    "may_wait",
    "pause",
    "sleep",
    "until",
]
