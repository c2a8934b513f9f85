"""A request's session is a dict to the framework; what it is told is done when the response begins."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Iterator, MutableMapping
from datetime import timedelta
from typing import Any, TypeVar, cast, overload
from uuid import UUID

import msgspec
from msgspec import UNSET, UnsetType

from pgsession import AttributeTypeError, Opened, PgSessionError, Session
from pgsession.typed import TypedAttributes, fields, is_struct, is_typed_dict
from pgsession.web.cookie import CookiePolicy, lifetime, seconds
from pgsession.web.moving import Exchanged

__all__ = ["SessionConflict", "WebSession"]

_T = TypeVar("_T")
_D = TypeVar("_D")

OURS = "pgsession:"  # what keys of our own begin with, which are not shown
MAX_AGE = (
    OURS + "max_age"
)  # the seconds that a session's cookie is kept for, where it is not the policy's; 0: None
_FLASH = OURS + "flash:"


class SessionConflict(PgSessionError):
    """The request cannot do to its session what it wants to, since another one was faster: answer 409.

    Repeated with the cookie that the browser has by now it can.
    """


class WebSession(MutableMapping[str, Any]):
    """The session of one request, a mapping of str to what JSON has; changes inside of its values are changes of it.

    Nothing is stored, and no cookie set, before it first holds something. An adapter makes it, and saves it before the
    first byte of the response.

    Args:
        cookie: What the cookie is like.
        token: The manager's method of this name.
        opened: What the request's token opens, for the current one just its session, None where it has none; or a
            function that tells, called at first use.
        release: A step's function that ends the request's turn, see `SessionRules.opening`.
    """

    _conflict: type[SessionConflict] = SessionConflict  # an adapter's may be its framework's, too
    # It came with an older token, or ended meanwhile: its cookie is left alone, and what is not stored is dropped.
    _late = False
    _is_exchanged = False  # by an old key: its browser is to get the token
    _forgets_old_cookie = False
    _conflicted = False  # another request was faster: an answer that something failed is about that
    _ending: UUID | None = None
    _chosen: UUID | None = None  # the id that a new one gets; None: a random one
    _user: str | int | UUID | UnsetType = UNSET
    _rotating: tuple[timedelta | float | None] | None = None  # with its grace
    _lifetime: int | UnsetType | None = UNSET
    _set_cookie: str | None = None
    _given: str | None = None  # the token in that
    _asked = False  # for something of the above: only then those are looked at
    _accessed = False
    _started = False  # the response has begun: no cookie can be set any more
    _release: Callable[[], object] | None = None
    _load: Callable[[], Opened | None] | None = None
    _stored: Session | None = None
    _values: dict[str, Any]  # while nothing is stored

    def __init__(
        self,
        cookie: CookiePolicy,
        token: Callable[[Session], str | None],
        opened: Session | Opened | Callable[[], Opened | None] | None = None,
        release: Callable[[], object] | None = None,
    ) -> None:
        self._policy = cookie
        self._token = token
        if release is not None:
            self._release = release
        if isinstance(opened, Session):
            self._stored = opened
            return
        self._values = {}
        if callable(opened):
            self._load = opened
        elif opened is not None:
            self._take(opened)

    def _take(self, opened: Opened | None) -> None:
        self._stored = None if opened is None else opened.session
        self._late = opened is not None and opened.state in ("superseded", "previous")
        if isinstance(opened, Exchanged):
            self._is_exchanged = self._asked = self._accessed = True

    def _look(self) -> Session | dict[str, Any]:
        """Return where the values are; this is an access."""
        self._accessed = True
        if self._load is not None:
            self._find_out()
        return self._values if self._stored is None else self._stored

    def _find_out(self) -> None:
        """Load what the request's token opens. Where that fails, what is put in is no new one, to take its place."""
        load, self._late = self._load, True
        assert load is not None
        try:
            self._take(load())
        finally:
            self._load = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {'new' if self._stored is None else 'stored'}>"

    # A mapping

    def __getitem__(self, key: str) -> Any:
        return self._look()[key]

    def __setitem__(self, key: str, value: Any) -> None:
        data = self._look()
        if not isinstance(key, str):
            raise TypeError(f"key: a str is needed, not {type(key).__name__}")
        if key.startswith(OURS):  # it may be a client's, who is not to decide how long the session lasts
            raise ValueError(f"key: must not begin with {OURS!r}, not {key!r}")
        data[key] = value

    def __delitem__(self, key: str) -> None:
        del self._look()[key]

    def __contains__(self, key: object) -> bool:
        return key in self._look()

    def __iter__(self) -> Iterator[str]:
        return (key for key in list(self._look()) if not key.startswith(OURS))

    def __len__(self) -> int:
        return sum(not key.startswith(OURS) for key in self._look())

    @overload
    def get(self, key: str, default: None = None) -> Any: ...
    @overload
    def get(self, key: str, default: None = None, *, type: type[_T]) -> _T | None: ...
    @overload
    def get(self, key: str, default: _D, *, type: type[_T]) -> _T | _D: ...
    @overload
    def get(self, key: str, default: Any = None, *, type: Any = ...) -> Any: ...
    def get(self, key: str, default: Any = None, *, type: Any = Any) -> Any:
        """Return the value of a key, decoded as a type, or `default` where there is none.

        Args:
            key: The key.
            default: What to return where there is no such key.
            type: Any type that msgspec decodes; `Any`: what Python has for the JSON.

        Raises:
            AttributeTypeError: The value is not of that type.
        """
        data = self._look()
        if isinstance(data, Session):
            return data.get(key, default, type=type)
        if key not in data or type is Any:
            return data.get(key, default)
        data[key] = _decoded(key, data[key], type)  # kept, so that what is changed inside is a change
        return data[key]

    def as_type(self, type: type[_T]) -> _T:
        """Return the values as the fields of a TypedDict or a frozen Struct: see `pgsession.Session.as_type`.

        Args:
            type: The TypedDict, or a frozen `msgspec.Struct`.

        Raises:
            TypeError: It is neither, or a Struct that can be changed.
            KeyError: A Struct has a field without a default, and there is no value of this key.
            AttributeTypeError: A value is not of its field's type.
        """
        data = self._look()
        if is_typed_dict(type):
            return cast("_T", TypedAttributes(self, type))
        return data.as_type(type) if isinstance(data, Session) else _struct_of(data, type)

    def clear(self) -> None:
        """End the session, as `log_out` does: nothing of it is left on the server either."""
        self.log_out()

    def flash(self, message: Any, category: str = "message") -> None:
        """Keep a message for the page that is shown next: see `flashes`.

        Args:
            message: What JSON has.
            category: Its kind.
        """
        # A key of its own for each: those of two requests are both kept. They sort as they were made.
        self._look()[f"{_FLASH}{time.time_ns():020}:{secrets.token_hex(4)}"] = [category, message]

    def flashes(self) -> list[tuple[str, Any]]:
        """Return the kept messages in their order, each with its category, and keep them no longer."""
        return [tuple(self.pop(key)) for key in sorted(self._look()) if key.startswith(_FLASH)]

    # What it is

    @property
    def session_id(self) -> UUID | None:
        """Return the session's id, a handle for logs, which lets nobody in; None while nothing is stored."""
        self._look()
        return None if self._stored is None else self._stored.id

    @property
    def user_id(self) -> str | None:
        """Return who is logged in, as text; None: nobody."""
        self._look()
        if self._user is not UNSET:
            return str(self._user)
        return None if self._stored is None else self._stored.user_id

    @property
    def new(self) -> bool:
        """Return True while nothing is stored."""
        self._look()
        return self._stored is None

    @property
    def accessed(self) -> bool:
        """Return True once anything was asked of it: the response depends on the cookie then."""
        return self._accessed

    @property
    def modified(self) -> bool:
        """Return True while there is something to save; nested changes are found too."""
        stored = self._stored
        if self._asked:
            if self._ending is not None or self._user is not UNSET:
                return True
            if stored is not None and (self._rotating is not None or self._lifetime is not UNSET):
                return True
        return bool(self._values) if stored is None else stored.is_modified

    @property
    def has_turn(self) -> bool:
        """Return True while the session's other requests wait for this one: see `SessionRules.opening`."""
        return self._release is not None

    # What can be done to it

    def log_in(self, user_id: str | int | UUID, *, remember: timedelta | float | bool = False) -> None:
        """Give the session to a user: it gets a new token, and that of before ends at once.

        What it holds is kept, such as a visitor's cart. Where another user was logged in, it ends as by `log_out`, and
        the user gets a new one. The user's limit of sessions is enforced when it is saved. Requests that log the same
        user in at the same moment, as those of two clicks, all get the token of the first one.

        Args:
            user_id: Who has proved to be that user.
            remember: True: for `CookiePolicy.remember_for`, also when the browser is closed meanwhile; a timedelta or
                seconds: for so long. False: as `CookiePolicy.max_age` says.

        Raises:
            SessionConflict: The request came with an older token. When it is saved: the session has ended meanwhile, or
                another user has logged in.
            RuntimeError: The response has begun.
            TypeError, ValueError: An argument is not usable; the message names it.
        """
        if isinstance(user_id, bool) or not isinstance(user_id, str | int | UUID):
            raise TypeError(f"user_id: a str, an int or a UUID is needed, not {type(user_id).__name__}")
        after = self._policy.max_age_seconds
        if remember is not False:
            after = seconds(self._policy.remember_for if remember is True else lifetime("remember", remember))
        self._refuse_started("log_in")
        self._look()
        others = self.user_id not in (None, str(user_id))
        if self._late or (others and self._is_late()):
            self._conflicted = True
            raise self._conflict(
                "log_in: the request came with a token of before the last rotation, or its session has ended meanwhile"
            )
        if others:
            self.log_out()
        self._asked = True
        self._user = user_id
        self._live_for(after)

    def log_out(self) -> None:
        """End the session, on the server too; what is put into it afterwards begins a new one."""
        self._look()
        if self._stored is not None:
            self._late = self._is_late()
            self._asked = True
            self._ending = self._stored.id
            self._stored = None
        self._drop()

    def rotate(self, *, grace: timedelta | float | None = None) -> None:
        """Give the session a new token.

        Args:
            grace: For how long the token of before is still good; None: `Config.rotation_grace`, so that requests under
                way are not logged out. 0: it ends at once: where rights grow, or a password was changed.

        Raises:
            RuntimeError: The response has begun.
        """
        self._refuse_started("rotate")
        self._look()
        self._asked = True
        self._rotating = (grace,)

    def expire(self, after: timedelta | float | None) -> None:
        """Have the session end so long after now, or after its last renewal.

        Args:
            after: A timedelta or seconds, for which browsers keep the cookie too. None: browsers forget it when they
                are closed, and the session lasts as `Config` says.

        Raises:
            RuntimeError: The response has begun.
            ConfigError: It is less than a second, or more than 400 days.
        """
        self._refuse_started("expire")
        self._look()
        self._live_for(None if after is None else seconds(lifetime("after", after)))

    def _live_for(self, seconds: int | None) -> None:
        self._asked = True
        self._lifetime = seconds

    def _refuse_started(self, name: str) -> None:
        if self._started:
            raise RuntimeError(
                f"{name}: the response has begun (or the WebSocket was accepted): no cookie can be set any more"
            )

    # For the rules

    def _is_late(self) -> bool:
        """Return True where whoever sent the request is not to get the current token."""
        return self._late or (self._stored is not None and self._token(self._stored) is None)

    def _is_empty(self) -> bool:
        """Return True where a session is stored that holds nothing, and is nobody's."""
        stored = self._stored
        return stored is not None and stored.user_id is None and all(key == MAX_AGE for key in stored)

    def _max_age(self) -> int | None:
        """Return for how many seconds the session lasts; None: its browser and `Config` decide."""
        if self._asked and self._lifetime is not UNSET:
            return self._lifetime
        stored = self._stored
        if stored is not None and MAX_AGE in stored:
            kept = stored[MAX_AGE]
            if isinstance(kept, int):
                return kept or None
        return self._policy.max_age_seconds

    def _become(self, stored: Session) -> None:
        """Be the session that was saved, with nothing left to do."""
        self._drop()
        self._stored = stored

    def _gone(self) -> None:
        """Be a session that has ended meanwhile."""
        self._drop()
        self._stored = None
        self._leave_cookie()

    def _leave_cookie(self) -> None:
        """Leave the browser's cookie alone: it has, or is about to get, another one."""
        self._late = True
        self._set_cookie = self._given = None

    def _start(self) -> None:
        """Note that no cookie can be set any more: what needs one, and was not saved, is forgotten."""
        self._started = True
        if self._asked:
            self._user = self._lifetime = UNSET
            self._rotating = None

    def _drop(self) -> None:
        """Forget what was to be done."""
        self._values = {}
        self._user = self._lifetime = UNSET
        self._rotating = None


def _decoded(key: str, value: object, type: type[_T]) -> _T:
    """Return a value as it will be read as a type once it was stored."""
    try:
        plain = msgspec.to_builtins(value)
    except TypeError as error:
        raise TypeError(f"attribute {key!r}: a value that JSON can hold is needed: {error}") from None
    try:
        return msgspec.convert(plain, type)
    except msgspec.ValidationError as error:
        raise AttributeTypeError(key, str(error)) from None


def _struct_of(values: dict[str, Any], kind: type[_T]) -> _T:
    """Return what a new session holds as `pgsession.Session.as_type` gives it."""
    if not is_struct(kind):
        raise TypeError(f"type: a TypedDict or a frozen Struct is needed, not {kind!r}")
    if not kind.__struct_config__.frozen:  # type: ignore[attr-defined]
        raise TypeError(f"type: a Struct that is immutable is needed, not {kind!r}")
    made = {}
    for field in fields(kind):  # type: ignore[arg-type]
        key = field.encode_name
        if key in values:
            made[field.name] = _decoded(key, values[key], field.type)
        elif field.required:
            raise KeyError(key)
    return kind(**made)
