"""A function of the user's is asked for something here, and given up where it does not answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

from .shared_future import SharedFuture
from .sync import async_call, call

_LAST_STEPS = 1.0  # seconds for a thread whose function has returned


class AsyncQuestion:
    """Asks a plain function or a coroutine function of the user's; a coroutine that is late is cancelled."""

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function

    async def ask(self, seconds: float) -> object:
        """Return what the function returns; whatever it raises is an `Exception`.

        Raises:
            TimeoutError: It did not answer within `seconds`.
        """
        async with asyncio.timeout(seconds):
            return await async_call(self._function)


class Question:
    """Asks a function of the user's, in a thread of its own, since no thread can be cancelled.

    Who asks while it is asked already shares the answer: so one that never returns keeps one thread, and no more.
    """

    def __init__(self, function: Callable[[], object]) -> None:
        self._function = function
        self._guard = threading.Lock()
        self._asked: tuple[SharedFuture[object], threading.Thread] | None = None

    def ask(self, seconds: float) -> object:
        """Return what the function returns; whatever it raises is an `Exception`.

        Raises:
            TimeoutError: It did not answer within `seconds`.
        """
        with self._guard:
            if self._asked is None or self._asked[0].done:
                future: SharedFuture[object] = SharedFuture()
                thread = threading.Thread(
                    target=self._answer, args=(future,), name="pgsession question", daemon=True
                )
                thread.start()
                self._asked = future, thread
            future, thread = self._asked
        try:
            return future.wait(seconds)
        finally:
            if future.done:
                thread.join(_LAST_STEPS)

    def _answer(self, future: SharedFuture[object]) -> None:
        try:
            future.set_result(call(self._function))
        except Exception as error:
            future.set_error(error)
