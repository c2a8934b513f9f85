"""Rounds of one operation done over and over by one caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from time import perf_counter, thread_time
from typing import Any

from .race import Round, Sample
from .stage import LoopThread

random = Random(20)


def loop(
    operation: Callable[[Any], object], items: Callable[[], Sequence[Any]], *, waits: bool = False
) -> Round:
    """Each round does the operation once for each of `items()`, which are made anew, outside the measured time.

    waits: it talks to a server. Else it only computes, and what other processes take from the processor meanwhile is
    not counted.
    """
    clock = perf_counter if waits else thread_time

    def take_turn() -> Sample:
        fresh = items()
        started = clock()
        for item in fresh:
            operation(item)
        return _sample(clock() - started, len(fresh), waits)

    return take_turn


def keeping_loop(operation: Callable[[Any], object], items: Callable[[], Sequence[Any]]) -> Round:
    """The same, with all results kept to the end of the round: none is made where another one has just been freed."""

    def take_turn() -> Sample:
        fresh = items()
        started = thread_time()
        results = [operation(item) for item in fresh]
        return Sample((thread_time() - started) / len(results))

    return take_turn


def awaiting_loop(
    thread: LoopThread,
    operation: Callable[[Any], Awaitable[object]],
    items: Callable[[], Sequence[Any]],
    *,
    waits: bool = False,
) -> Round:
    """The same with every operation awaited."""
    clock = perf_counter if waits else thread_time

    async def walk(fresh: Sequence[Any]) -> float:
        started = clock()
        for item in fresh:
            await operation(item)
        return clock() - started

    def take_turn() -> Sample:
        fresh = items()
        return _sample(thread.run(walk(fresh)), len(fresh), waits)

    return take_turn


def _sample(elapsed: float, operations: int, waits: bool) -> Sample:
    return Sample(elapsed / operations, operations=operations if waits else 0)


def shuffled(ids: Sequence[bytes], make: Callable[[bytes], Any], most: int = 20_000) -> list[Any]:
    """The ids in random order, each as a new object: what a request brings is parsed from its cookie."""
    return [make(key) for key in random.sample(ids, min(most, len(ids)))]


def fresh_bytes(key: bytes) -> bytes:
    """The same 16 bytes in an object whose hash nobody knows yet."""
    return bytes(bytearray(key))
