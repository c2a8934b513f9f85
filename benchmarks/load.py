"""Rounds of many callers at once, in one process as a Python service has them, each waiting for its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from time import perf_counter

from .race import Round, Sample
from .stage import LoopThread

SECONDS = 0.5


def threads(callers: int, operation: Callable[[int], object], seconds: float = SECONDS) -> Round:
    """Each caller is a thread that does `operation(caller)` again and again; a lone one needs no thread of its own."""

    def take_turn() -> Sample:
        latencies: list[list[float]] = [[] for _ in range(callers)]
        failures: list[BaseException] = []
        start = threading.Barrier(callers)

        def call(caller: int) -> None:
            try:
                start.wait()
                now = perf_counter()
                deadline = now + seconds
                while now < deadline:
                    before, _, now = now, operation(caller), perf_counter()
                    latencies[caller].append(now - before)
            except BaseException as error:
                failures.append(error)

        workers = [threading.Thread(target=call, args=(caller,)) for caller in range(1, callers)]
        for worker in workers:
            worker.start()
        started = perf_counter()
        call(0)
        for worker in workers:
            worker.join()
        return _sample(perf_counter() - started, latencies, failures)

    return take_turn


def tasks(
    thread: LoopThread, callers: int, operation: Callable[[int], Awaitable[object]], seconds: float = SECONDS
) -> Round:
    """Each caller is a task of one event loop."""

    def take_turn() -> Sample:
        latencies: list[list[float]] = [[] for _ in range(callers)]

        async def call(caller: int, deadline: float) -> None:
            now = perf_counter()
            while now < deadline:
                before, _, now = now, await operation(caller), perf_counter()
                latencies[caller].append(now - before)

        async def all_callers() -> float:
            started = perf_counter()
            await asyncio.gather(*(call(caller, started + seconds) for caller in range(callers)))
            return perf_counter() - started

        return _sample(thread.run(all_callers()), latencies, [])

    return take_turn


def _sample(elapsed: float, latencies: list[list[float]], failures: list[BaseException]) -> Sample:
    if failures:
        raise failures[0]
    waits = [wait for own in latencies for wait in own]
    return Sample(elapsed / len(waits), waits, len(waits))
