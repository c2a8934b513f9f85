# Generated from src/pgsession/_async/section.py by tools/async_to_sync.py: never edit.

"""A section stands around several steps of a `Coherence`; an event loop enters it without being blocked."""

from __future__ import annotations

from pgsession._concurrency import in_own_thread, may_wait
from pgsession._protocol.coherence import Coherence


class Section:
    """Holds the lock of the arena that the processes of a host share, by `async with`: the block is one step.

    In an event loop nothing is awaited in the block. Nor does the loop wait for it: where another process is at it, a
    thread does, for a second at most. Where the cache is private this is nothing.
    """

    def __init__(self, coherence: Coherence) -> None:
        self._coherence = coherence

    def __enter__(self) -> None:
        while not self._coherence.begin(wait=may_wait):
            in_own_thread(self._wait, "pgsession section").wait()

    def __exit__(self, *_: object) -> None:
        self._coherence.end()

    def _wait(self) -> None:
        self._coherence.begin(wait=True)
        self._coherence.end()
