"""The session of one request, as Django knows it, on top of one of ours."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING, cast
from uuid import UUID

from asgiref.sync import sync_to_async
from django.conf import settings
from django.contrib.auth import SESSION_KEY as USER
from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from django.contrib.sessions.exceptions import SessionInterrupted
from django.utils import timezone
from msgspec import UNSET

from pgsession import (
    AttributeVersionConflict,
    Opened,
    Session,
    SessionManager,
    SessionNotFoundError,
    SessionVersionConflict,
    TooManySessionsError,
)
from pgsession.contrib.django.manager import open_manager, opened
from pgsession.contrib.django.turns import end_turns, wait_for_turn
from pgsession.contrib.django.values import Values, are_alike, name_of
from pgsession.web import run
from pgsession.web.moving import Exchanged, OldKey, exchange

__all__ = ["SessionStore"]

_GONE = (SessionNotFoundError, SessionVersionConflict, TooManySessionsError)
_UNSEEN = 100  # an end that moves by less than this part of the session's life is not worth a write


class SessionStore(SessionBase):
    """Keeps the session of one request: the engine that Django's settings name.

    Django works with a dict of values. It is read from a `Session`, and what differs from that when it is saved is
    written to it: so a change inside of a value is found, and what another request has changed meanwhile stays.

    `session_key` is the token, which changes with each saved change; the stable handle is `session_id`. A key whose
    session was given another one a moment ago is *superseded*: the browser has that, so nothing is saved and no cookie
    is set or deleted, lest a late request undo a login.

    Args:
        session_key: What the browser's cookie holds; None: there is none.
    """

    def __init__(self, session_key: str | None = None) -> None:
        self._stored: Session | None = None  # what the values were read from
        self._is_superseded = False
        self._leave_cookie = False
        self._is_answered = False
        self.old_key: OldKey | None = None  # of the engine that the session was moved from: see `moving`
        self.is_old_key_ended = False
        self._is_exchanged = False
        super().__init__(session_key)

    if TYPE_CHECKING:  # what the base class has besides

        def _get_session(self, no_load: bool = False) -> dict[str, object]: ...

    @cached_property
    def _values(self) -> Values:
        return Values(self.serializer)

    # ---- facts ----

    @property
    def session_id(self) -> UUID | None:
        """Return the id of the stored session, the handle that stays and is no secret; None while there is none."""
        self._get_session()
        return None if self._stored is None else self._stored.id

    @property
    def modified(self) -> bool:
        """Return True where there is something to save: it was said so, or a value was changed inside."""
        self._find()
        if self._leave_cookie and not self._values_in_memory():
            return False
        return self._is_modified or self._is_changed_inside()

    @modified.setter
    def modified(self, value: bool) -> None:
        """Say that there is something to save, or nothing."""
        self._is_modified = value

    def _is_changed_inside(self) -> bool:
        stored, values = self._stored, self._values_in_memory()
        if stored is None or values is None:
            return False
        try:
            if self._values.are_json:
                return stored.is_modified
            return any(
                stored.get(name_of(key), type=object) not in (None, self._values.to_stored(value))
                for key, value in values.items()
            )
        except Exception:  # what the save will say
            return True

    def _values_in_memory(self) -> dict[str, object] | None:
        return cast("dict[str, object] | None", self.__dict__.get("_session_cache"))

    def is_empty(self) -> bool:
        """Return True where the browser needs no cookie; with one that it has, it is deleted then.

        Django asks this when the response is made: what it does after that is to save, where there is something.
        """
        self._is_answered = True
        if not (settings.SESSION_SAVE_EVERY_REQUEST or self.modified):
            end_turns()
        if settings.SESSION_SAVE_EVERY_REQUEST:
            self._get_session()  # else one that has ended would be saved as a new one
        elif self._leave_cookie and not self._values_in_memory():
            return False
        return bool(super().is_empty())

    def exists(self, session_key: str | None) -> bool:
        """Return True for the current key of a live session."""
        if session_key is None:
            return False
        return open_manager().manager.open_token(session_key, touch=False).state == "current"

    # ---- reading ----

    def load(self) -> dict[str, object]:
        """Read the session of the key; where there is none, forget the key."""
        return self._begin(self._open())

    def _open(self) -> Opened:
        manager, configuration = open_manager()
        opened = self._open_key(manager)
        if (
            configuration.on_conflict == "serial"
            and opened.session is not None
            and wait_for_turn(manager, opened.session.id, configuration.serial_timeout)
        ):
            opened = self._open_key(manager, refresh=True)
        return opened

    def _open_key(self, manager: SessionManager, *, refresh: bool = False) -> Opened:
        opened = manager.open_token(self.session_key or "", refresh=refresh)
        if self.old_key is not None and opened.state in ("ended", "forged"):
            return run(manager, exchange(self.old_key, refresh)) or opened
        return opened

    async def aload(self) -> dict[str, object]:
        """Do what `load` does: in place where the session is in memory, else in a thread."""
        ready = opened()
        if ready is not None and ready.configuration.on_conflict != "serial":
            session = ready.manager.get_cached_session_by_token(self.session_key or "")
            if session is not None:
                return self._begin(Opened(session, "current"))
        return await sync_to_async(self.load)()

    def _begin(self, opened: Opened) -> dict[str, object]:
        session = opened.session
        self._be_what(opened, only_looks=self._values_in_memory() is not None)
        if session is None:
            return {}
        return {key: self._values.from_stored(session[key]) for key in session}

    def _be_what(self, opened: Opened, *, only_looks: bool) -> None:
        session, state = opened
        if not only_looks:
            self._stored = session
        self._is_superseded = state == "superseded"
        if session is None and not self._is_superseded:
            self._session_key = None
            self._leave_cookie = state == "ended"  # another request may just have set the browser's next one
        if isinstance(opened, Exchanged) and session is not None:
            self._take_key(session)
            self._is_exchanged = self.modified = True

    def _find(self) -> None:
        """Look for the session where that was left out so far, since its values were cleared before they were read."""
        if (
            self._values_in_memory() is not None
            and self._stored is None
            and self.session_key is not None
            and not self._is_superseded
        ):
            self._be_what(self._open(), only_looks=False)

    # ---- saving ----

    def save(self, must_create: bool = False) -> None:
        """Save the session.

        Args:
            must_create: True: create one, of the values that are in memory.

        Raises:
            CreateError: It is to be created, and there is one already.
            UpdateError: It was ended, or given another key, by another request; or the user has too many sessions.
            SessionInterrupted: Another request has changed the same values, and `on_conflict` is "fail", or it is
                "serial" and this request has lost its turn.
        """
        try:
            self._save(must_create)
        finally:
            if self._is_answered:
                end_turns()

    def _save(self, must_create: bool) -> None:
        if self.session_key is None:
            return self.create()
        values = self._get_session(no_load=must_create)
        if must_create and self.exists(self.session_key):
            raise CreateError
        self._find()
        if self._is_superseded:
            raise UpdateError("another request has given this session another key")
        if self._stored is not None:
            return self._update(self._stored, values)
        if not values and not must_create:
            raise UpdateError("the session has ended")
        return self.create()

    def create(self) -> None:
        """Create a session with the values that are in memory; from then on there is a key.

        Raises:
            UpdateError: The user has too many sessions, and the policy is "reject".
        """
        values = self._get_session(no_load=True)
        manager, configuration = open_manager()
        try:
            stored = manager.create_session(
                _user_of(values),
                {name_of(key): self._values.to_stored(value) for key, value in values.items()},
                include_inactivity=configuration.include_inactivity,
                expires_at=self._end(),
            )
        except TooManySessionsError as error:
            raise UpdateError(str(error)) from error
        self._stored = stored
        self._is_superseded = self._leave_cookie = False
        self._take_key(stored)
        self.modified = True

    def _update(self, stored: Session, values: dict[str, object]) -> None:
        manager, configuration = open_manager()
        if manager.open_token(self.session_key or "", touch=False).state != "current":
            raise UpdateError("another request has ended this session, or given it another key")
        plain = {name_of(key): self._values.to_stored(value) for key, value in values.items()}
        self._put(stored, values, plain)
        user, ends = _user_of(values), self._end()
        other_user = user != stored.user_id
        is_worth_it = other_user or stored.is_modified or self._is_end_moved(stored, ends)
        try:
            manager.update_session(
                stored,
                check=None if configuration.on_conflict == "merge" else "attributes",
                user_id=user if other_user else UNSET,
                expires_at=ends if is_worth_it else None,
            )
        except AttributeVersionConflict as error:
            raise SessionInterrupted("Another request has changed the same values of the session.") from error
        except _GONE as error:
            raise UpdateError(str(error)) from error
        self._take_key(stored)
        self._take_values(stored, values, plain)

    def _put(self, stored: Session, values: dict[str, object], plain: dict[str, object]) -> None:
        """Make the session what the values are; only what differs is written."""
        for key, value in values.items():
            name = name_of(key)
            if name not in stored or not are_alike(stored[name], plain[name]):
                # The caller's own object, where it can be stored, so that later changes inside are found.
                stored[name] = value if are_alike(value, plain[name]) else plain[name]
        for name in list(stored):
            if name not in plain:
                del stored[name]

    def _take_values(self, stored: Session, values: dict[str, object], plain: dict[str, object]) -> None:
        """Take over what other requests have changed, else the next save would undo it."""
        for key in list(values):
            if name_of(key) not in stored:
                del values[key]
        for name in stored:
            if name not in plain or not are_alike(stored[name], plain[name]):
                values[name] = self._values.from_stored(stored[name])

    def _take_key(self, stored: Session) -> None:
        token = open_manager().manager.token(stored)
        if token is None:
            self._is_superseded = True
            raise UpdateError("another request has given this session another key")
        self._session_key = token

    def _end(self) -> datetime:
        ends = self.get_expiry_date()
        return timezone.make_aware(ends) if timezone.is_naive(ends) else ends

    def _is_end_moved(self, stored: Session, ends: datetime) -> bool:
        if self._is_exchanged:  # its old key opens it for other requests under way, until it is written
            return False
        return abs(ends - stored.expires_at) > (ends - datetime.now(UTC)) / _UNSEEN

    # ---- rotating and ending ----

    def cycle_key(self) -> None:
        """Give the session a new key; the one of before ends at once. So does each login.

        Raises:
            SessionInterrupted: Another request has ended the session.
        """
        self._get_session()
        stored = self._stored
        if self._is_superseded:
            return  # what is set now is not saved
        if stored is None:
            return self.create()
        try:
            open_manager().manager.rotate_session(stored, grace=0)
            self._take_key(stored)
        except (*_GONE, UpdateError) as error:
            raise SessionInterrupted("The request's session was ended by another request.") from error
        self.modified = True

    def delete(self, session_key: str | None = None) -> None:
        """End the session of a key; a superseded one, or one that nobody has signed, ends nothing.

        Args:
            session_key: The key; None: this session's.
        """
        if session_key is None:
            self._open_old_key()
        key = session_key or self.session_key
        if key is not None:
            self._end_session_of(key)

    def _open_old_key(self) -> None:
        """Have the token in place of the key of another engine, before something is done to the key's session."""
        if self.old_key is not None:
            self._get_session()

    def _end_session_of(self, key: str) -> str:
        manager = open_manager().manager
        session, state = manager.open_token(key, touch=False)
        if session is not None and not manager.delete_session(session.id):
            return "ended"  # another request was faster
        return state

    def flush(self) -> None:
        """End the session, as each logout does, and begin with an empty one that has no key yet.

        The browser's cookie is deleted with it, unless it may be another one already.
        """
        self._open_old_key()
        key = self.session_key
        state = None if key is None else self._end_session_of(key)
        self.clear()
        self._stored = None
        self._is_superseded = state == "superseded"
        self._leave_cookie = self._leave_cookie or state in ("previous", "superseded", "ended")
        self.is_old_key_ended = self.old_key is not None and not self._leave_cookie
        if self._leave_cookie:
            self.modified = False
        if not self._is_superseded:
            self._session_key = None

    @classmethod
    def clear_expired(cls) -> None:
        """Delete the sessions that have ended by themselves, as `manage.py clearsessions` wants."""
        open_manager().manager.delete_expired_sessions()

    # ---- for async views ----

    async def aexists(self, session_key: str | None) -> bool:
        """Do what `exists` does."""
        return await sync_to_async(self.exists)(session_key)

    async def asave(self, must_create: bool = False) -> None:
        """Do what `save` does."""
        await sync_to_async(self.save)(must_create)

    async def acreate(self) -> None:
        """Do what `create` does."""
        await sync_to_async(self.create)()

    async def acycle_key(self) -> None:
        """Do what `cycle_key` does."""
        await sync_to_async(self.cycle_key)()

    async def adelete(self, session_key: str | None = None) -> None:
        """Do what `delete` does."""
        await sync_to_async(self.delete)(session_key)

    async def aflush(self) -> None:
        """Do what `flush` does."""
        await sync_to_async(self.flush)()

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do what `clear_expired` does."""
        await sync_to_async(cls.clear_expired)()


def _user_of(values: dict[str, object]) -> str | None:
    """Return the user who is logged in, by what Django's `login()` leaves."""
    user = values.get(USER)
    return None if user is None else str(user)
