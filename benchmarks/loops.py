"""Rounds of one operation done over and over by one caller."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from random import Random
from time import thread_time
from typing import Any

from .race import Round, Sample
from .stage import LoopThread

random = Random(20)


Clock = Callable[[], float]
"""`thread_time` for what only computes: what other processes take from the processor meanwhile is not counted."""


def loop(
    operation: Callable[[Any], object], items: Callable[[], Sequence[Any]], clock: Clock = thread_time
) -> Round:
    """Each round does the operation once for each of `items()`, which are made anew, outside the measured time."""

    def take_turn() -> Sample:
        fresh = items()
        started = clock()
        for item in fresh:
            operation(item)
        return Sample((clock() - started) / len(fresh))

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
    clock: Clock = thread_time,
) -> Round:
    """The same with every operation awaited."""

    async def walk(fresh: Sequence[Any]) -> float:
        started = clock()
        for item in fresh:
            await operation(item)
        return clock() - started

    def take_turn() -> Sample:
        fresh = items()
        return Sample(thread.run(walk(fresh)) / len(fresh))

    return take_turn


def shuffled(ids: Sequence[bytes], make: Callable[[bytes], Any], most: int = 20_000) -> list[Any]:
    """The ids in random order, each as a new object: what a request brings is parsed from its cookie."""
    return [make(key) for key in random.sample(ids, min(most, len(ids)))]


def fresh_bytes(key: bytes) -> bytes:
    """The same 16 bytes in an object whose hash nobody knows yet."""
    return bytes(bytearray(key))
