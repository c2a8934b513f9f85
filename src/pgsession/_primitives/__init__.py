"""What threads and asyncio do differently, in pairs of one shape.

`AsyncX` and `X` have the same constructor and the same methods, those that wait being coroutines on the `AsyncX`
side. So the shells in `_async/` become the ones in `_sync/` by renaming alone: `async def` -> `def`, `await ` ->
nothing, `AsyncX` -> `X`, `async_x` -> `x`.

An `AsyncX` belongs to one event loop and is used from that loop only; an `X` may be used from any thread.
"""

from __future__ import annotations

from .flags import (
    Alarm,
    AsyncAlarm,
    AsyncEvent,
    AsyncMutex,
    AsyncSemaphore,
    Event,
    Mutex,
    Semaphore,
    async_call,
    async_pause,
    async_sleep,
    call,
    pause,
    sleep,
)
from .outcome import AsyncOutcome, Outcome
from .sockets import AsyncSocketWaiter, SocketWaiter
from .turn import AsyncTurn, Turn
from .types import LOGGER, AsyncThunk, Thunk
from .work import AsyncWork, AsyncWorker, Work, Worker

__all__ = [
    "LOGGER",
    "Alarm",
    "AsyncAlarm",
    "AsyncEvent",
    "AsyncMutex",
    "AsyncOutcome",
    "AsyncSemaphore",
    "AsyncSocketWaiter",
    "AsyncThunk",
    "AsyncTurn",
    "AsyncWork",
    "AsyncWorker",
    "Event",
    "Mutex",
    "Outcome",
    "Semaphore",
    "SocketWaiter",
    "Thunk",
    "Turn",
    "Work",
    "Worker",
    "async_call",
    "async_pause",
    "async_sleep",
    "call",
    "pause",
    "sleep",
]
