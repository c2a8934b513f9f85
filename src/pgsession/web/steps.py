"""The rules say which calls of the manager are to be made, one after the other; these functions make them.

So each rule is written once, for threads and for event loops: as a generator that yields a step, a function of the
manager, and is sent what it gave, or thrown what it raised.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from inspect import isawaitable
from typing import Any, TypeVar

from pgsession import AsyncSessionManager, SessionManager

__all__ = ["Step", "Steps", "run", "run_async"]

_T = TypeVar("_T")
Step = Callable[[SessionManager | AsyncSessionManager], object]
Steps = Generator[Step, Any, _T]


def run(manager: SessionManager, steps: Steps[_T], first: Step | None = None) -> _T:
    """Make the calls; return what the rule returns.

    Args:
        manager: The manager, open.
        steps: The steps.
        first: The first of them, where it was taken already.
    """
    try:
        step = next(steps) if first is None else first
        while True:
            try:
                result = step(manager)
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: _T = end.value
        return value


async def run_async(manager: AsyncSessionManager, steps: Steps[_T], first: Step | None = None) -> _T:
    """Make the calls, awaited; return what the rule returns.

    Args:
        manager: The manager, open in this event loop.
        steps: The steps.
        first: The first of them, where it was taken already.
    """
    try:
        step = next(steps) if first is None else first
        while True:
            try:
                result = step(manager)
                if isawaitable(result):
                    result = await result
            except BaseException as error:
                step = steps.throw(error)
            else:
                step = steps.send(result)
    except StopIteration as end:
        value: _T = end.value
        return value
