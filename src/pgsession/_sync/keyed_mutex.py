# Generated from src/pgsession/_async/keyed_mutex.py by tools/async_to_sync.py: never edit.

"""A keyed mutex lets one caller at a time hold the mutex of a key."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar

from pgsession._concurrency import SharedFuture, left_until
from pgsession.errors import OperationTimeout

_inside: ContextVar[frozenset[tuple[int, bytes]]] = ContextVar("_inside", default=frozenset())


class KeyedMutex:
    """Holds a mutex for each key; it exists only while somebody wants it."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        # Those who want a key, in the order in which they came: the first one holds it.
        self._turns: dict[bytes, deque[SharedFuture[None]]] = {}

    def __len__(self) -> int:
        return len(self._turns)

    @contextmanager
    def hold(self, key: bytes, deadline: float | None = None) -> Iterator[None]:
        """Hold the key's mutex for the block. A caller that holds it already, further up, does not wait for itself.

        Raises:
            OperationTimeout: It was not to be had until `deadline`, a moment of `time.monotonic`.
        """
        mine = (id(self), key)
        before = _inside.get()
        if mine in before:
            yield
            return
        turn: SharedFuture[None] = SharedFuture()
        try:
            try:
                if not self._line_up(key, turn):
                    _wait(turn, deadline)
                _inside.set(before | {mine})
                yield
            finally:
                self._leave(key, turn)
        finally:  # once more, for a caller who is interrupted while he leaves
            self._leave(key, turn)
            _inside.set(before)

    def _line_up(self, key: bytes, turn: SharedFuture[None]) -> bool:
        with self._guard:
            turns = self._turns.setdefault(key, deque())
            turns.append(turn)
            return turns[0] is turn

    def _leave(self, key: bytes, turn: SharedFuture[None]) -> None:
        with self._guard:
            turns = self._turns.get(key, deque())
            if turn in turns:
                turns.remove(turn)
            if turns:
                turns[0].set_result(None)
            else:
                self._turns.pop(key, None)


def _wait(turn: SharedFuture[None], deadline: float | None) -> None:
    try:
        turn.wait(None if deadline is None else left_until(deadline))
    except TimeoutError:
        raise OperationTimeout("others who change the same had to be waited for too long") from None
