"""A host is the processes of one machine that share a cache: one of them leads, and listens for all.

Who leads is decided by `pgsession._host.watch`, in a thread; what that takes of the database is done here, in one
background loop.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final, Protocol

import psycopg

from pgsession._concurrency import (
    AsyncBackgroundLoop,
    AsyncSignal,
    AsyncThunk,
    async_in_own_thread,
    deadline_in,
    left_until,
)
from pgsession._core.arena import Arena, ArenaError
from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._host.offices import HOLDERS
from pgsession._host.place import Opened, Place, Refused
from pgsession._host.watch import Watch, threads_are_real
from pgsession._protocol.coherence import Coherence, LockChanges
from pgsession.errors import ListenerError, PgSessionError

from .lent_listener import AsyncLentListener
from .listener import AsyncListener
from .section import AsyncSection
from .store import AsyncStore
from .synchronizer import AsyncSynchronizer

HANDOVER: Final = 5.0  # seconds that a leader who goes waits for another one to be ready
_PAUSE: Final = 0.05  # seconds between two looks, where nothing wakes who waits
_LONG_PAUSE: Final = 1.0


class SynchronizerMaker(Protocol):
    """Makes the synchronizer of a process that leads."""

    def __call__(
        self,
        listener: AsyncListener,
        node: str,
        serves_for: Callable[[], int],
        on_registered: Callable[[int, int, int], object],
    ) -> AsyncSynchronizer:
        """Return one; the arguments are those of `AsyncSynchronizer`."""
        ...


class AsyncHost:
    """Has a part in the cache of a host: leads, or follows who leads.

    Args:
        place: Where the arena is.
        serves_for: For how many microseconds after a proof this process may serve.
        lent: Has the listener of a process that leads.
        make_synchronizer: Makes a synchronizer of a listener, of the id by which the host is registered, of what
            returns for how long it serves, and of what is called once that is known.
        on_lock_changes: Called with what the leader has heard of locks.
        on_locks_missed: Called where some of that was missed.
        alone: Called where this process has to have a cache, and a listener, of its own.
    """

    def __init__(
        self,
        place: Place,
        store: AsyncStore,
        coherence: Coherence,
        cache: Cache,
        clock: Clock,
        *,
        serves_for: int,
        lent: AsyncLentListener,
        make_synchronizer: SynchronizerMaker,
        on_lock_changes: Callable[[LockChanges], None],
        on_locks_missed: Callable[[], None],
        alone: AsyncThunk[None],
        logger: logging.Logger,
    ) -> None:
        self.synchronizer: AsyncSynchronizer | None = None
        """That of a process which leads, or stands."""
        self.refused: str | None = None
        """Why this process shares nothing."""
        self.resets = 0
        """How often an arena had to be given up."""
        self._place = place
        self._store = store
        self._coherence = coherence
        self._section = AsyncSection(coherence)
        self._cache = cache
        self._clock = clock
        self._serves_for = serves_for
        self._lent = lent
        self._make_synchronizer = make_synchronizer
        self._on_lock_changes = on_lock_changes
        self._on_locks_missed = on_locks_missed
        self._be_alone = alone
        self._logger = logger
        self._opened: Opened | None = None
        self._former: set[str] = set()  # ids by which arenas were registered that are given up
        self._watch: Watch | None = None
        self._failovers = 0  # of watches before this one
        self._listener: AsyncListener | None = None  # while it is borrowed
        self._loop = AsyncBackgroundLoop(logger)
        self._news = AsyncSignal()
        self._lock_news: deque[tuple[str | None, int]] = deque()
        self._stopping = False
        self._is_alone = False  # after an arena was given up that no other followed

    @property
    def leads(self) -> bool:
        """Return True where this process leads."""
        return self._coherence.number > 0

    @property
    def failovers(self) -> int:
        """Return how often this process has led after another one's death."""
        return self._failovers + (self._watch.failovers if self._watch is not None else 0)

    @property
    def longest(self) -> int:
        """Return the longest that a node serves unheard, of those the host's leader has heard of, in microseconds."""
        opened = self._opened
        with suppress(ArenaError):
            return max(opened.arena.known, opened.arena.longest) if opened is not None else 0
        return 0

    @property
    def nodes(self) -> int:
        """Return how many nodes there are, as the leader has counted them."""
        opened = self._opened
        with suppress(ArenaError):
            return opened.arena.nodes if opened is not None else 0
        return 0

    @property
    def sessions(self) -> int:
        """Return how many sessions the arena holds."""
        opened = self._opened
        with suppress(ArenaError):
            return opened.arena.sessions if opened is not None else 0
        return 0

    @property
    def why_out_of_sync(self) -> str | None:
        """Return a sentence that says why reads are not answered from memory, None where they are."""
        if self._coherence.in_sync:
            return None
        if not self._cache.tied:
            return (
                "Reads go to the database, for it is another one than the process reads that leads this host"
            )
        return "Reads go to the database, for the process that leads this host has no proof to be in sync"

    async def join(self, deadline: float) -> None:
        """Take part, or have a cache alone where that cannot be; return once this process is in sync.

        Args:
            deadline: When it returns all the same, where the leader has no proof at present.

        Raises:
            ListenerError, psycopg.Error: This process was to lead, and cannot, as `AsyncSynchronizer.start` says.
        """
        try:
            if not threads_are_real():
                raise Refused("threads are greenlets here (gevent), and a leader needs one that is not")
            self._opened = await async_in_own_thread(self._place.open, "pgsession arena").wait()
        except Refused as error:
            self._refused_now(error)
            await self._be_alone()
            return
        self._take_part(self._opened)
        while not self._coherence.in_sync:
            await self._step(first=True)
            if self._stopping:
                raise ListenerError("the manager was closed before it was in sync")
            if not left_until(deadline):
                break  # until there is a proof the database answers
            if not self._coherence.in_sync:
                await self._news.wait(_PAUSE)
                self._news.clear()
        self._loop.start(self._keep, "pgsession host")

    def _refused_now(self, error: Refused) -> None:
        self.refused = error.reason
        self._logger.warning(
            "the cache is not shared with the other processes of this host: this one has its own, for %s",
            error.reason,
            extra={"pgsession_event": "shared_cache_refused", "pgsession_reason": error.reason},
        )

    async def leave(self, deadline: float) -> None:
        """Have no part any more; a leader first sees another one ready, where there is one."""
        self._stopping = True
        self._news.set()
        if self.synchronizer is not None and not self.leads:
            self.synchronizer.give_up()
        await self._loop.stop(left_until(deadline))
        opened, watch = self._opened, self._watch
        if opened is None or watch is None:
            return
        if self.leads:
            await self._hand_over(opened, min(deadline, deadline_in(HANDOVER)))
        watch.end()
        await self._stop_synchronizer(deadline)
        watch.resign()
        self._coherence.unshare()
        if await async_in_own_thread(lambda: self._place.leave(opened), "pgsession arena").wait():
            self._former.add(_name_of(opened.arena))
        opened.arena.close()
        await self._unregister_former(deadline)

    def give_up(self) -> None:
        """Begin nothing more; a `join` that is under way fails."""
        self._stopping = True
        self._news.set()
        if self.synchronizer is not None:
            self.synchronizer.give_up()

    def at_exit(self) -> None:
        """Have no part any more, for the process ends; another one leads, and the last takes the memory away."""
        self._stopping = True
        if self._watch is not None:
            self._watch.end()
        if self._opened is not None and not self._opened.offices.closed:
            self._place.leave(self._opened)

    def on_wrong_server(self) -> None:
        """Connect the listener again, where this process has one; another one's pool says nothing of the leader's."""
        if self.synchronizer is not None and self.leads:
            self.synchronizer.reconnect()

    # Below, in the background loop but for the first time.

    def _take_part(self, opened: Opened) -> None:
        self._opened = opened
        self._coherence.share(opened.arena, self._serves_for)
        self._watch = Watch(
            opened,
            self._cache,
            now=self._clock.now,
            on_news=self._news.set,
            hear=self._coherence.hear,
            on_locks=self._note_locks,
            logger=self._logger,
        )
        self._watch.look()
        self._watch.start()
        opened.arena.ring_bell()  # the leader registers for how long this one may serve

    def _note_locks(self, news: list[tuple[str | None, int]]) -> None:
        self._lock_news.extend(news)
        self._news.set()

    def _hear_locks(self) -> None:
        news = [self._lock_news.popleft() for _ in range(len(self._lock_news))]
        if any(resource is None for resource, _ in news):
            self._on_locks_missed()
        known = [(resource, token) for resource, token in news if resource is not None]
        released = tuple(resource for resource, token in known if not token)
        ended = tuple((resource, token) for resource, token in known if token)
        if known:
            self._on_lock_changes(LockChanges(released, ended))

    async def _keep(self) -> None:
        while not (self._stopping or self._is_alone):
            await self._news.wait(_LONG_PAUSE)
            self._news.clear()
            self._hear_locks()
            try:
                await self._step()
            except (psycopg.Error, PgSessionError, OSError) as error:
                self._logger.info("this process could not lead its host, another one may try: %s", error)

    async def _step(self, *, first: bool = False) -> None:
        """Do what the watch has decided."""
        watch = self._watch
        if watch is None:
            await self._be_alone()
            self._is_alone = True
            await self._unregister_former(self._store.deadline())
            return
        if watch.given_up:
            await self._renew()
            return
        if watch.number:
            if self._coherence.number != watch.number:
                await self._lead(watch.number, watch)
            elif self.synchronizer is not None and self._opened is not None:
                arena = self._opened.arena
                if arena.longest > arena.registered:
                    self.synchronizer.sign_soon()
        elif watch.candidate:
            await self._stand(watch)
        else:
            if first or not self._cache.tied:
                await self._tie()
            if self.synchronizer is not None:
                async with self._section:
                    self._coherence.follow()
                await self._stop_synchronizer(deadline_in(1.0))

    async def _lead(self, number: int, watch: Watch) -> None:
        await self._stop_synchronizer(deadline_in(1.0))  # of an arena that was given up
        async with self._section:
            self._coherence.lead(number)
        try:
            await self._start_synchronizer()
        except BaseException:
            self._coherence.follow()
            watch.resign(shy=True)
            await self._stop_synchronizer(deadline_in(1.0))
            raise

    async def _stand(self, watch: Watch) -> None:
        """Be ready before the leader goes: hear, compare and prove; then take the number, and prove."""
        await self._stop_synchronizer(deadline_in(1.0))  # of an arena that was given up
        async with self._section:
            self._coherence.stand()
        try:
            await self._start_synchronizer()
        except (psycopg.Error, PgSessionError):
            self._coherence.follow()
            watch.resign(shy=True)
            await self._stop_synchronizer(deadline_in(1.0))
            raise
        if watch.candidate and watch.succeed():
            async with self._section:
                self._coherence.lead(watch.number)
            self._news.set()
        elif not watch.number:
            self._coherence.follow()

    async def _start_synchronizer(self) -> None:
        assert self._opened is not None
        arena = self._opened.arena
        listener = self._listener = await self._lent.borrow()
        # One id for all who lead: who waits for the host to acknowledge need not know which process does (C13).
        self.synchronizer = self._make_synchronizer(
            listener,
            _name_of(arena),
            lambda: max(self._serves_for, arena.longest),
            arena.set_registered,
        )
        self.synchronizer.stays_registered = True  # the others go on by it
        await self.synchronizer.start()
        await self._unregister_former(self._store.deadline())

    async def _unregister_former(self, deadline: float) -> None:
        """Remove what arenas were registered by that nobody serves from any more."""
        for name in list(self._former):
            try:
                await self._store.unregister(name, deadline)
                self._former.discard(name)
            except (psycopg.Error, PgSessionError) as error:
                self._logger.info("what the former arena was registered by stays until a cleanup: %s", error)

    async def _stop_synchronizer(self, deadline: float) -> None:
        if self.synchronizer is not None:
            await self.synchronizer.stop(deadline)
        listener, self._listener = self._listener, None
        if listener is not None:
            await self._lent.give_back(listener, left_until(deadline))
        self.synchronizer = None

    async def _tie(self) -> None:
        """Read from the database, and so learn whether it is the one that the arena is about (S8)."""
        if self._opened is not None and self._opened.arena.state == "synced":
            await self._store.look()

    async def _renew(self) -> None:
        """Go over to another arena, since this one was given up.

        First of all: until then this process is a node of its own. Whether it leads, stands or follows next, it first
        stops to listen for those who shared the former one.
        """
        opened, watch = self._opened, self._watch
        assert opened is not None and watch is not None
        watch.end()
        watch.resign()
        self._failovers += watch.failovers
        self.resets += 1
        self._coherence.unshare()
        self._logger.warning(
            "the cache of this host was given up, for a process was stopped inside it: a new one is made",
            extra={"pgsession_event": "arena_given_up"},
        )
        try:
            renewed = await async_in_own_thread(lambda: self._place.renew(opened), "pgsession arena").wait()
        except Refused as error:
            await self._stop_synchronizer(deadline_in(1.0))
            self._former.add(_name_of(opened.arena))
            opened.offices.close()
            self._opened = self._watch = None
            self._refused_now(error)
            return
        self._former.add(_name_of(opened.arena))
        opened.arena.close()
        self._take_part(renewed)
        self._news.set()

    async def _hand_over(self, opened: Opened, deadline: float) -> None:
        """Wait for another process to take the lead, until the deadline, or until there is none and none can come."""
        arena, number = opened.arena, self._coherence.number
        with suppress(ArenaError):
            arena.leave_lead(number)
            while arena.number == number and left_until(deadline):
                if not opened.offices.has_others(HOLDERS):
                    remove = partial(self._place.remove_if_alone, opened)
                    if await async_in_own_thread(remove, "pgsession arena").wait():
                        return
                await self._news.wait(_PAUSE)
                self._news.clear()


def _name_of(arena: Arena) -> str:
    """Return the id by which the processes that share an arena are registered, all as one."""
    return arena.id[:8].hex()
