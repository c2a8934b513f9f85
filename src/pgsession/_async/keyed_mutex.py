"""A keyed mutex lets one caller at a time hold the mutex of a key."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from contextvars import ContextVar

from pgsession._concurrency import AsyncMutex

_inside: ContextVar[frozenset[tuple[int, bytes]]] = ContextVar("_inside", default=frozenset())


class AsyncKeyedMutex:
    """Holds a mutex for each key; it exists only while somebody wants it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._mutexes: dict[bytes, AsyncMutex] = {}
        self._users: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._users)

    @asynccontextmanager
    async def hold(self, key: bytes) -> AsyncIterator[None]:
        """Hold the key's mutex for the block. A caller that holds it already, further up, does not wait for itself."""
        mine = (id(self), key)
        if mine in _inside.get():
            yield
            return
        counted = False
        try:
            with self._guard:
                mutex = self._mutexes.get(key) or AsyncMutex()
                users = self._users.get(key, 0) + 1
                self._mutexes[key], self._users[key], counted = mutex, users, True
            async with mutex:
                before = _inside.get()
                try:
                    _inside.set(before | {mine})
                    yield
                finally:
                    _inside.set(before)
        finally:
            if counted:
                with self._guard:
                    self._users[key] -= 1
                    if not self._users[key]:
                        del self._users[key], self._mutexes[key]
