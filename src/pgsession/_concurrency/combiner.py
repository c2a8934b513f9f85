"""A combiner does work for all who wait at the moment, one call at a time."""

from __future__ import annotations

import logging
import threading

from .background import AsyncBackgroundTasks, BackgroundTasks
from .sync import async_pause, pause
from .types import LOGGER, AsyncThunk, Thunk


class AsyncCombiner:
    """Calls `work` for all who have put something where it finds it, never twice at once; here in a task of its own.

    Whoever has put something there calls `wake`. `work` takes what waits, or a part of it, and returns True while
    something is left; then it is called again. Between two calls those who were answered get to run, and may come back
    with more. Nothing runs while nothing waits. If `work` raises, that is logged, and it is called at the next `wake`.
    """

    def __init__(self, work: AsyncThunk[bool], name: str, logger: logging.Logger = LOGGER) -> None:
        self._work = work
        self._name = name
        self._background = AsyncBackgroundTasks(logger)
        self._asked = False
        self._leading = False

    def wake(self) -> None:
        """Have `work` called once more, from the beginning."""
        self._asked = True
        if not self._leading:
            self._leading = True
            self._background.run(self._lead, self._name)

    async def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs, and cancel what does after `timeout`; return True if nothing was cancelled."""
        return await self._background.drain(timeout)

    async def _lead(self) -> None:
        # Nothing is awaited between the last look at `_asked` and the end: nobody is overlooked.
        try:
            while self._asked:
                self._asked = False
                if await self._work():
                    self._asked = True
                await async_pause()
        finally:
            self._leading = False


class Combiner:
    """Calls `work` for all who have put something where it finds it, never twice at once; here in a thread of its own.

    Whoever has put something there calls `wake`. `work` takes what waits, or a part of it, and returns True while
    something is left; then it is called again. Between two calls those who were answered get to run, and may come back
    with more. Nothing runs while nothing waits. If `work` raises, that is logged, and it is called at the next `wake`.

    An exception that is raised into a caller of `wake`, at whatever step, is made good by the next `wake`.
    """

    def __init__(self, work: Thunk[bool], name: str, logger: logging.Logger = LOGGER) -> None:
        self._work = work
        self._name = name
        self._background = BackgroundTasks(logger)
        self._asked = False
        self._leading = threading.Lock()

    def wake(self) -> None:
        """Have `work` called once more, from the beginning."""
        self._asked = True
        if not self._leading.locked():
            self._background.run(self._lead, self._name)

    def idle(self, timeout: float | None = None) -> bool:
        """Wait until nothing runs; return True if that is so within `timeout` seconds."""
        return self._background.drain(timeout)

    def _lead(self) -> None:
        # Who asks after the last look at `_asked` sees nobody leading, or is seen after the lead is given up.
        while self._asked and self._leading.acquire(blocking=False):
            try:
                while self._asked:
                    self._asked = False
                    if self._work():
                        self._asked = True
                        pause()
            finally:
                self._leading.release()
