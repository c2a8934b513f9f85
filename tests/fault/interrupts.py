"""Exceptions raised from outside into a thread (Ctrl-C, time limits of frameworks), at each line in turn."""

from __future__ import annotations

import ctypes
import dis
import sys
import threading
import weakref
from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pgsession

HOME = str(Path(pgsession.__file__).parent)


class Interrupt(BaseException):
    """Like KeyboardInterrupt."""


class SoftLimit(Exception):
    """Like the time limits that task queues raise into a task."""


_starting = threading.Lock()


def know_when_threads_start() -> None:
    """Have `raise_in` pass by who starts a thread: until that runs, CPython knows it by the identity of its maker.

    The exception would hit the newborn, and `Thread.start` would wait for it for ever.
    """
    start = threading.Thread.start

    def known(thread: threading.Thread) -> None:
        with _starting:
            start(thread)

    threading.Thread.start = known  # type: ignore[method-assign]


def raise_in(thread: int, exception: type[BaseException]) -> None:
    """Raise an exception in a thread, as the time limits of task queues do; not while one is being started."""
    if _starting.acquire(blocking=False):
        try:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(thread), ctypes.py_object(exception))
        finally:
            _starting.release()


class Interrupter:
    """Runs a function in a thread of its own, and raises an exception at the `step`-th line of the library's there.

    The end of a `with` block is no such line: Python looks for pending exceptions after calls and at jumps, and there
    is none between the block's last call and that of `__exit__`.
    """

    def __init__(self, step: int, exception: type[BaseException]) -> None:
        self._left = step
        self._exception = exception
        self.raised = False
        self.error: BaseException | None = None

    def run(self, fn: Callable[[], Any], patience: float) -> None:
        """Call `fn`; afterwards `raised` tells whether there was such a line, and `error` what came out."""
        thread = threading.Thread(target=self._run, args=(fn,), name="interrupted", daemon=True)
        thread.start()
        thread.join(patience)
        assert not thread.is_alive(), f"whoever is interrupted hangs: {self._where(thread)}"

    def _run(self, fn: Callable[[], Any]) -> None:
        sys.settrace(self._trace)
        try:
            fn()
        except BaseException as error:
            # No traceback, nor that of what was interrupted: their frames would keep what `fn` had, as a lock.
            error.__context__ = None
            self.error = error.with_traceback(None)
        finally:
            sys.settrace(None)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if not frame.f_code.co_filename.startswith(HOME) or _in_finalizer(frame):
            return None
        if event == "line" and not self.raised and frame.f_lasti not in _ends_of_with(frame.f_code):
            self._left -= 1
            if self._left < 0:
                self.raised = True
                raise self._exception
        return self._trace

    @staticmethod
    def _where(thread: threading.Thread) -> str:
        frame = sys._current_frames().get(thread.ident or 0)
        return "" if frame is None else f"{frame.f_code.co_filename}:{frame.f_lineno}"


@cache
def _ends_of_with(code: CodeType) -> frozenset[int]:
    """Where the call of an `__exit__` begins: it gets None three times."""
    instructions = list(dis.get_instructions(code))
    ends = set()
    for place, instruction in enumerate(instructions[:-3]):
        if all(
            following.opname == "LOAD_CONST" and following.argval is None
            for following in instructions[place : place + 3]
        ):
            ends.add(instruction.offset)
            before = instructions[place - 1]
            if before.opname in ("SWAP", "NOP"):  # a value that is returned is put out of the way
                ends.add(before.offset)
    return frozenset(ends)


def _in_finalizer(frame: FrameType) -> bool:
    """Return True in what a `weakref.finalize` runs: Python itself drops the exceptions raised there."""
    return frame.f_back is not None and frame.f_back.f_code.co_filename == weakref.__file__
