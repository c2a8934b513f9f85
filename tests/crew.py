"""Several callers at once, in tests: `AsyncCrew` for tasks, `Crew` for threads, of one shape."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from types import TracebackType
from typing import Any, Self


class AsyncCrew:
    """Starts coroutine functions; leaving the block waits for all of them and raises what the first failing one did."""

    def __init__(self) -> None:
        self._tasks: list[asyncio.Task[Any]] = []

    def start(self, fn: Callable[..., Coroutine[Any, Any, Any]], *args: Any) -> None:
        self._tasks.append(asyncio.create_task(fn(*args)))

    async def join(self, timeout: float = 30) -> list[Any]:
        """What they returned, in the order of their start."""
        async with asyncio.timeout(timeout):
            return await asyncio.gather(*self._tasks)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.join()


class Crew:
    """Starts functions; leaving the block waits for all of them and raises what the first failing one did."""

    def __init__(self) -> None:
        self._threads: list[threading.Thread] = []
        self._results: dict[int, Any] = {}
        self._errors: list[BaseException] = []

    def start(self, fn: Callable[..., Any], *args: Any) -> None:
        number = len(self._threads)

        def run() -> None:
            try:
                self._results[number] = fn(*args)
            except BaseException as error:
                self._errors.append(error)

        thread = threading.Thread(target=run, name=f"crew {number}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def join(self, timeout: float = 30) -> list[Any]:
        """What they returned, in the order of their start."""
        for thread in self._threads:
            thread.join(timeout)
            if thread.is_alive():
                raise TimeoutError(f"{thread.name} is stuck")
        if self._errors:
            raise self._errors[0]
        return [self._results[number] for number in range(len(self._threads))]

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.join()
