"""A run brings what another store has: what is new there, what has changed, and what has ended.

Nothing of the other store is changed. A session is its browser's as soon as that has exchanged its key for a token (see
`pgsession.web.moving`): from then on a run leaves it alone, but for a logout in the other store.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from typing import NamedTuple, Protocol
from uuid import UUID

import msgspec
from msgspec import UNSET

from pgsession import (
    AsyncSessionManager,
    AttributeTooLargeError,
    ConflictError,
    Session,
    SessionNotFoundError,
    SessionTooLargeError,
    TooManyAttributesError,
)
from pgsession.web.cookie import LONGEST
from pgsession.web.moving import OPEN, entry_id, key_in, moved_id
from pgsession.web.session import MAX_AGE, OURS

__all__ = [
    "LOCK",
    "Contents",
    "LeftBehind",
    "MoveError",
    "Mover",
    "OldSession",
    "OldStore",
    "Report",
    "Values",
]

Values = dict[str, object]

_SEEN = "seen"  # an attribute of an entry: what the session was when it was brought, as a digest; missing: it has ended
# Entries are in one of these groups, by their ids: the database sorts all of a group for each page of it.
_GROUPS = [f"pgsession:moved:{number}" for number in range(64)]
LOCK = "pgsession:move"
_NOT_A_KEY = "its key is not what a server makes: 22 letters, digits, - and _ or more"
_PAGE = 1000
_SOON = timedelta(
    minutes=1
)  # an end that moves by less is not worth a write, nor is one that is so near a logout


class OldSession(NamedTuple):
    """A session as the other store has it.

    Attributes:
        key: What its browser has.
        raw: Its contents, not decoded.
        expires_at: When it ends, an aware datetime; None: nobody says.
    """

    key: str
    raw: bytes
    expires_at: datetime | None


class Contents(NamedTuple):
    """Holds what a session is to be here.

    Attributes:
        user_id: Who is logged in; None: nobody.
        attributes: Its values.
        max_age: For how many seconds its browser keeps the cookie; 0: until it is closed; None: as the service says.
    """

    user_id: str | None
    attributes: Values
    max_age: int | None = None


class LeftBehind(Exception):
    """A session cannot be brought; the text says why, in words that are the same for all such sessions."""


class MoveError(Exception):
    """A run is given up; the text says why."""


class OldStore(Protocol):
    """Reads another store."""

    @property
    def errors(self) -> tuple[type[Exception], ...]:
        """Return what it raises where it cannot be read."""

    def batches(self) -> Iterator[list[OldSession]]:
        """Yield the live sessions, some hundred at a time; one may come twice. This is run in a thread of its own."""

    def contents(self, old: OldSession) -> Contents:
        """Return what is in a session; raises `LeftBehind`."""

    def close(self) -> None:
        """Disconnect; in the same thread."""


@dataclass
class Report:
    """Counts what a run has done, or would do.

    Attributes:
        seen: The live sessions of the other store.
        new: Of these, brought for the first time.
        changed: Brought again, since they have changed there.
        same: Here already.
        taken: Left alone: their browsers have come over since, or they have ended here.
        ended: Ended here, since they have ended there.
        left: Left behind, by the reason.
    """

    seen: int = 0
    new: int = 0
    changed: int = 0
    same: int = 0
    taken: int = 0
    ended: int = 0
    left: Counter[str] = field(default_factory=Counter)


class Mover:
    """Brings the sessions of another store.

    Args:
        manager: The manager, open, with no limit of sessions.
        store: The other store.
        without: Keys of values that are to be left out.
        dry_run: True: only count.
        on_progress: Called after each batch.
    """

    def __init__(
        self,
        manager: AsyncSessionManager,
        store: OldStore,
        *,
        without: frozenset[str] = frozenset(),
        dry_run: bool = False,
        on_progress: Callable[[Report], object] = lambda _: None,
    ) -> None:
        self._manager = manager
        self._store = store
        self._without = without
        self._dry_run = dry_run
        self._on_progress = on_progress
        self._report = Report()
        self._found: set[bytes] = set()  # the entries of what the other store has

    async def run(self) -> Report:
        """Bring all of it.

        Raises:
            MoveError: Another run is under way; or the other store is empty, though there were sessions in it.
        """
        lock = self._manager.lock(LOCK)
        if not await lock.acquire(blocking=False):
            raise MoveError("another run is under way")
        try:
            async for batch in self._batches():
                await self._bring(batch)
                self._on_progress(self._report)
            await self._end_what_has_ended()
        finally:
            await lock.release()
        return self._report

    async def _batches(self) -> AsyncIterator[list[OldSession]]:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            try:
                batches = self._store.batches()
                while (batch := await loop.run_in_executor(thread, next, batches, None)) is not None:
                    yield batch
            finally:
                await loop.run_in_executor(thread, self._store.close)

    async def _bring(self, batch: list[OldSession]) -> None:
        named: dict[UUID, OldSession] = {}
        for old in batch:
            name = entry_id(old.key)
            if name.bytes in self._found:
                continue
            self._found.add(name.bytes)
            self._report.seen += 1
            if key_in(old.key) != old.key:
                self._report.left[_NOT_A_KEY] += 1
            else:
                named[name] = old
        entries = await self._manager.load_sessions(named, touch=False)
        await _all(self._bring_one(name, old, entries.get(name)) for name, old in named.items())

    async def _bring_one(self, name: UUID, old: OldSession, entry: Session | None) -> None:
        if entry is not None and entry.get(OPEN) != 0:
            await self._keep(entry, old)
            self._report.taken += 1
            return
        if entry is not None and entry[_SEEN] == _digest(old) and not _is_moved(entry, old.expires_at):
            self._report.same += 1
            return
        try:
            contents = self._checked(self._store.contents(old))
            if entry is None:
                await self._create(name, old, contents)
                self._report.new += 1
            else:
                await self._update(name, old, contents)
        except LeftBehind as reason:
            self._report.left[str(reason)] += 1
            if entry is not None and not self._dry_run:
                await self._forget(entry)

    async def _keep(self, entry: Session, old: OldSession) -> None:
        """Have an entry live for as long as its session does there, or a later run would take that for a new one."""
        if not self._dry_run and old.expires_at is not None and old.expires_at - entry.expires_at > _SOON:
            try:
                await self._manager.update_session(entry, expires_at=old.expires_at)
            except (SessionNotFoundError, ValueError):  # one of both has just ended
                pass

    def _checked(self, contents: Contents) -> Contents:
        """Return what can be stored, and is then what it was."""
        attributes = {key: value for key, value in contents.attributes.items() if key not in self._without}
        for key, value in attributes.items():
            if not _is_same_as_json(value):
                raise LeftBehind(f"{key!r} would not be what it was: {type(value).__name__}")
            if isinstance(key, str) and key.startswith(OURS):
                raise LeftBehind(f"{key!r} is a key of the library's own")
        if contents.max_age is not None:
            attributes[MAX_AGE] = min(contents.max_age, int(LONGEST.total_seconds()))
        return contents._replace(attributes=attributes)

    async def _forget(self, entry: Session) -> None:
        """End a session that cannot become what it is there by now, such as one that is logged out."""
        entry.pop(OPEN)
        try:
            await self._manager.update_session(entry, check="session")
        except (ConflictError, SessionNotFoundError):  # its browser has come over meanwhile
            return
        await self._manager.delete_session(moved_id(entry.id))
        await self._manager.delete_session(entry.id)  # so that a later run may bring it

    async def _create(self, name: UUID, old: OldSession, contents: Contents) -> None:
        if self._dry_run:
            return
        try:
            session = await self._manager.create_session(
                contents.user_id,
                contents.attributes,
                include_inactivity=False,
                expires_at=old.expires_at,
                session_id=moved_id(name),
                if_exists="replace",  # there is no entry of it: a run was interrupted, and nobody has it
            )
        except (ValueError, TypeError) as error:
            raise _why(error) from error
        await self._manager.create_session(
            attributes={OPEN: 0, _SEEN: _digest(old)},
            group_id=_GROUPS[name.bytes[0] % len(_GROUPS)],
            include_inactivity=False,
            expires_at=session.expires_at,
            session_id=name,
            if_exists="replace",
        )

    async def _update(self, name: UUID, old: OldSession, contents: Contents) -> None:
        session = await self._manager.get_session(moved_id(name), touch=False, refresh=True)
        # Read after the session: a browser has changed nothing before, and what it changes from here on is a conflict.
        entry = await self._manager.get_session(name, touch=False, refresh=True)
        if session is None or entry is None or entry.get(OPEN) != 0:
            self._report.taken += 1
            return
        if not self._dry_run:
            try:
                _become(session, contents.attributes)
                other_user = contents.user_id != session.user_id
                await self._manager.update_session(
                    session,
                    check="session",
                    expires_at=old.expires_at,
                    user_id=contents.user_id if other_user else UNSET,
                )
                entry[_SEEN] = _digest(old)
                await self._manager.update_session(entry, check="session", expires_at=session.expires_at)
            except (ConflictError, SessionNotFoundError):  # its browser has come over meanwhile
                self._report.taken += 1
                return
            except (ValueError, TypeError) as error:
                raise _why(error) from error
        self._report.changed += 1

    # What the other store no longer has

    async def _end_what_has_ended(self) -> None:
        await _all(self._end_of(group) for group in _GROUPS)

    async def _end_of(self, group: str) -> None:
        last: Session | None = None
        while page := await self._manager.list_group_sessions(group, limit=_PAGE, after=last):
            if not self._found:
                raise MoveError(
                    "the other store is empty, though there were sessions in it: is it the right one? Nothing was ended"
                )
            last = page[-1]
            await _all(self._end(entry) for entry in page if self._has_ended(entry))

    def _has_ended(self, entry: Session) -> bool:
        lives = entry.expires_at - datetime.now(UTC) > _SOON  # else it may just have expired there
        return lives and _SEEN in entry and entry.id.bytes not in self._found

    async def _end(self, entry: Session) -> None:
        if self._dry_run:
            ended = await self._manager.get_session(moved_id(entry.id), touch=False) is not None
        else:
            ended = await self._manager.delete_session(moved_id(entry.id))
            for key in (OPEN, _SEEN):
                entry.pop(key, None)
            try:
                await self._manager.update_session(entry)
            except SessionNotFoundError:
                pass
        self._report.ended += ended


async def _all(works: Iterable[Coroutine[object, object, None]]) -> None:
    """Do them at once; all of them end before one's error is raised."""
    for outcome in await asyncio.gather(*works, return_exceptions=True):
        if outcome is not None:
            raise outcome


def _digest(old: OldSession) -> str:
    return sha256(old.raw).hexdigest()[:32]


def _is_moved(entry: Session, expires_at: datetime | None) -> bool:
    return expires_at is not None and abs(expires_at - entry.expires_at) > _SOON


def _is_same_as_json(value: object) -> bool:
    try:
        return bool(msgspec.json.decode(msgspec.json.encode(value)) == value)
    except Exception:  # of the value's own code, too
        return False


def _become(session: Session, attributes: Values) -> None:
    for key in [key for key in session if key not in attributes]:
        del session[key]
    for key, value in attributes.items():
        if key not in session or session[key] != value:
            session[key] = value


def _why(error: Exception) -> LeftBehind:
    match error:
        case AttributeTooLargeError():
            return LeftBehind(f"{error.key!r} is longer than max_attribute_length")
        case SessionTooLargeError():
            return LeftBehind("it is larger than max_session_size")
        case TooManyAttributesError():
            return LeftBehind("it has more values than max_attributes")
        case _:
            return LeftBehind(f"it is refused: {error}")
