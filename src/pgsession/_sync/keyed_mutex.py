# Generated from src/pgsession/_async/keyed_mutex.py by tools/async_to_sync.py: never edit.

"""A keyed mutex lets one caller at a time hold the mutex of a key."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pgsession._concurrency import Mutex
from pgsession.errors import OperationTimeout

_inside: ContextVar[frozenset[tuple[int, bytes]]] = ContextVar("_inside", default=frozenset())


class KeyedMutex:
    """Holds a mutex for each key; it exists only while somebody wants it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._mutexes: dict[bytes, Mutex] = {}
        self._users: dict[bytes, int] = {}

    def __len__(self) -> int:
        return len(self._users)

    @contextmanager
    def hold(self, key: bytes, deadline: float | None = None) -> Iterator[None]:
        """Hold the key's mutex for the block. A caller that holds it already, further up, does not wait for itself.

        Raises:
            OperationTimeout: It was not to be had until `deadline`, a moment of `time.monotonic`.
        """
        mine = (id(self), key)
        if mine in _inside.get():
            yield
            return
        with self._guard:
            mutex = self._mutexes.setdefault(key, Mutex())
            self._users[key] = self._users.get(key, 0) + 1
        try:
            if not mutex.acquire_within(None if deadline is None else deadline - time.monotonic()):
                raise OperationTimeout("others who change the same had to be waited for too long")
            try:
                token = _inside.set(_inside.get() | {mine})
                try:
                    yield
                finally:
                    _inside.reset(token)
            finally:
                mutex.release()
        finally:
            with self._guard:
                self._users[key] -= 1
                if not self._users[key]:
                    del self._users[key], self._mutexes[key]
