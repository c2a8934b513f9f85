"""The watch is a thread of each process that shares an arena: it says that the leader is there, or sees that it is not.

It is a real thread, with asyncio too: a blocked event loop must not look like a dead leader. So there is none where
gevent or the like has replaced what threads are. It decides who leads; what has to be done about that, which takes the
database, its owner does.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from pgsession._core.arena import ArenaError
from pgsession._core.cache import Cache
from pgsession._host.place import Opened

__all__ = ["BEAT", "LAPSE", "Watch", "threads_are_real"]

BEAT: Final = 0.1  # seconds from one beat of the leader to the next
LAPSE: Final = 2_000_000  # microseconds without one, after which the leader is taken for stopped
_MARKING: Final = 1.0  # seconds between two looks at what was used
_SHY: Final = 2.0  # seconds in which one who could not lead leaves that to others


def threads_are_real() -> bool:
    """Return False where threads are greenlets, of which one that waits for the kernel stops all."""
    return type(threading.Lock()).__module__ == "_thread"


class Watch:
    """Looks after the leader of one arena until it is ended.

    Args:
        opened: The arena.
        cache: The cache that shares it.
        now: Returns node time, in microseconds.
        on_news: Called in the watch's thread when `number`, `candidate` or `given_up` has changed.
        hear: Called in the watch's thread at each look: learns what the others have told.
        on_locks: Called in the watch's thread with what the leader has heard of locks.
        logger: Takes what nobody has foreseen.
    """

    def __init__(
        self,
        opened: Opened,
        cache: Cache,
        *,
        now: Callable[[], int],
        on_news: Callable[[], object],
        hear: Callable[[], object],
        on_locks: Callable[[list[tuple[str | None, int]]], object],
        logger: logging.Logger,
    ) -> None:
        self.arena, self.offices = opened.arena, opened.offices
        self.number = 0
        """By which this process leads; 0: it does not."""
        self.candidate = 0
        """The number that it would lead by, when the leader goes and this one is ready; 0: it does not stand."""
        self.given_up = False
        """True once the arena is."""
        self.failovers = 0
        """How often it has led after another one's death."""
        self._cache = cache
        self._now = now
        self._on_news = on_news
        self._hear = hear
        self._on_locks = on_locks
        self._logger = logger
        self._guard = threading.Lock()
        self._ending = False
        self._shy_until = 0.0
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Begin to watch."""
        self._thread = threading.Thread(target=self._run, name="pgsession host", daemon=True)
        self._thread.start()

    def end(self) -> None:
        """End the thread, and wait for that."""
        self._ending = True
        with suppress(ArenaError):
            self.arena.ring_bell()
        if self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join(10 * BEAT)

    def look(self) -> None:
        """Take the lead where nobody has it."""
        with self._guard:
            self._look()

    def resign(self, *, shy: bool = False) -> None:
        """Lead no more, and stand no more; where `shy`, not soon again, for it could not."""
        with self._guard:
            if shy:
                self._shy_until = time.monotonic() + _SHY
            for number in (self.number, self.candidate):
                if number:
                    self.offices.give_up_lead(number)
            self.number = self.candidate = 0
            with suppress(ArenaError):
                self.arena.ring_bell()

    def succeed(self) -> bool:
        """Take the number that this one stands for; return False where another one was faster."""
        with self._guard:
            number, self.candidate = self.candidate, 0
            if number and self.arena.take(number - 1, False) == number:
                self.number = number
                self.arena.ring_bell()
                return True
            if number:
                self.offices.give_up_lead(number)
            return False

    def _run(self) -> None:
        marked = time.monotonic()
        try:
            bell = self.arena.bell
            while True:
                bell = self.arena.wait_bell(bell, BEAT)
                if self._ending:
                    return
                if self.arena.poisoned:
                    break
                self._beat()
                self._hear()
                news = self._cache.lock_news()
                if news and not self.number:
                    self._on_locks(news)
                if time.monotonic() - marked >= _MARKING:
                    marked = time.monotonic()
                    self._cache.mark_used()
        except ArenaError:
            pass  # it is closed, or given up
        except Exception:
            self._logger.exception("the thread that watches over the host's cache ended with an error")
        if not self._ending:
            self.given_up = True
            self._on_news()

    def _beat(self) -> None:
        before = self.number, self.candidate
        with self._guard:
            if self.number and not self.arena.beat(self.number):
                self.offices.give_up_lead(self.number)
                self.number = 0  # this process was stopped for so long that another one leads
            if not self.number:
                self._look()
        if (self.number, self.candidate) != before:
            self._on_news()

    def _look(self) -> None:
        if self.number or time.monotonic() < self._shy_until:
            return
        number = self.arena.number
        if self.candidate and self.candidate != number + 1:
            self.offices.give_up_lead(self.candidate)  # another one has become the leader
            self.candidate = 0
        gone = number == 0 or not self.offices.has_leader(number)
        if gone or self._now() - self.arena.last_beat > LAPSE:
            self._take(number)
        elif self.arena.leaving and not self.candidate and self.offices.take_lead(number + 1):
            self.candidate = number + 1

    def _take(self, number: int) -> None:
        if not self.candidate and not self.offices.take_lead(number + 1):
            return
        self.candidate = 0
        if self.arena.take(number, True) == number + 1:
            self.number = number + 1
            self.failovers += number > 0
        else:
            self.offices.give_up_lead(number + 1)
