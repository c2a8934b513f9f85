"""A store keeps values by key, for Litestar's response cache, its rate limits, and whatever else asks for one."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta
from hashlib import sha256
from typing import Any
from uuid import UUID

from litestar.stores.base import NamespacedStore

from pgsession import AsyncSessionManager, Config, ConfigError, Session, SessionManager, SessionNotFoundError
from pgsession.contrib._managers import Managers
from pgsession.web import Step, Steps

__all__ = ["PgSessionStore"]

_FOREVER = timedelta(days=36_500)  # the longest life that a session can have
_LONG = _FOREVER.total_seconds() / 2  # what lasts longer was to last for ever
_VALUE = "value"


class PgSessionStore(NamespacedStore):
    """Keeps values in sessions, one for each key, which are read from memory: a `Store` of Litestar's.

    A value is written as a whole: of two requests that write the same key the last one wins, whatever they have read.

    The application opens and closes it where it is one of its `stores`. Else a manager is opened when it is first used,
    and closed when the process exits.

    Args:
        database: As for `SessionManager`.
        config: As for `SessionManager`; None: one by which a value may have half a megabyte.
        manager: One that you open and close, in place of `database` and `config`.
        namespace: What keeps its keys apart from those of other stores in the same tables.

    Raises:
        ConfigError: An argument is not usable; the message names it.
    """

    __slots__ = ("_managers", "_parent", "_users", "namespace")

    def __init__(
        self,
        database: str | Callable[[], str] | None = None,
        *,
        config: Config | None = None,
        manager: SessionManager | AsyncSessionManager | None = None,
        namespace: str = "LITESTAR",
    ) -> None:
        if (database is None) == (manager is None):
            raise ConfigError("database: either this or manager is needed, and not both")
        if config is None:
            config = Config(max_attribute_length=2**20, max_session_size=2**21, max_attributes=100_000)
        made = None if database is None else (database, config, None)
        self._managers = Managers(made, manager)
        self._users = [0]  # how many applications, or names in one, have entered it or a namespace of it
        self._parent: PgSessionStore | None = None
        self.namespace = namespace

    def with_namespace(self, namespace: str) -> PgSessionStore:
        """Return a store whose keys are its own, and are deleted with those of this one.

        Args:
            namespace: Its name within this one.
        """
        child = object.__new__(type(self))
        child._managers, child._users, child._parent = self._managers, self._users, self
        child.namespace = f"{self.namespace}_{namespace}"
        return child

    async def __aenter__(self) -> None:
        self._users[0] += 1
        await self._managers.open()

    async def __aexit__(self, *_: object) -> None:
        self._users[0] -= 1
        if not self._users[0]:
            await self._managers.close()

    async def set(self, key: str, value: str | bytes, expires_in: int | timedelta | None = None) -> None:
        """Store a value.

        Args:
            key: Its key.
            value: The value; a str stands for its UTF-8.
            expires_in: For how long; None: for ever.
        """
        lasts = _FOREVER if expires_in is None else _duration(expires_in)
        if lasts <= timedelta():
            await self.delete(key)
            return
        await self._make_known()
        await self._call(
            lambda manager: manager.create_session(
                None,
                {_VALUE: value.encode() if isinstance(value, str) else value},
                group_id=self._group,
                session_id=self._id(key),
                if_exists="replace",
                include_inactivity=False,
                expires_in=lasts,
            )
        )

    async def get(self, key: str, renew_for: int | timedelta | None = None) -> bytes | None:
        """Return the value of a key, or None.

        Args:
            key: The key.
            renew_for: For how long it is to last from now on, where it does not for ever.
        """
        stored = await self._find(self._id(key))
        if stored is None:
            return None
        if renew_for and _seconds_left(stored) < _LONG:
            after = _duration(renew_for)
            try:
                await self._call(lambda manager: manager.update_session(stored, expires_in=after))
            except SessionNotFoundError:
                return None
        return stored.get(_VALUE, type=bytes)

    async def delete(self, key: str) -> None:
        """Delete the value of a key, if it has one.

        Args:
            key: The key.
        """
        await self._call(lambda manager: manager.delete_session(self._id(key)))

    async def delete_all(self) -> None:
        """Delete all values, those of the namespaces within this one too."""
        children = await self._find(self._known, refresh=True)
        for name in children or ():
            await self.with_namespace(name.removeprefix(f"{self.namespace}_")).delete_all()
        await self._call(lambda manager: manager.delete_group_sessions(self._group))

    async def exists(self, key: str) -> bool:
        """Return True where a key has a value.

        Args:
            key: The key.
        """
        return await self._find(self._id(key)) is not None

    async def expires_in(self, key: str) -> int | None:
        """Return for how many seconds the value of a key lasts; -1: for ever; None: it has none.

        Args:
            key: The key.
        """
        stored = await self._find(self._id(key))
        if stored is None:
            return None
        left = _seconds_left(stored)
        return -1 if left > _LONG else round(left)

    # A namespace is a group of sessions, and a session that has the names of those within it

    @property
    def _group(self) -> str:
        return f"litestar:{self.namespace}"

    @property
    def _known(self) -> UUID:
        return _hashed(f"\0{self.namespace}")

    def _id(self, key: str) -> UUID:
        return _hashed(f"{self.namespace}\0{key}")

    async def _make_known(self) -> None:
        """Have the namespaces around this one know of it."""
        parent = self._parent
        if parent is None:
            return
        await parent._make_known()
        siblings = await parent._find(parent._known)
        if siblings is None:
            siblings = await self._call(
                lambda manager: manager.create_session(
                    session_id=parent._known,
                    if_exists="return",
                    include_inactivity=False,
                    expires_in=_FOREVER,
                )
            )
        if self.namespace not in siblings:
            siblings[self.namespace] = True
            await self._call(lambda manager: manager.update_session(siblings))

    async def _find(self, session_id: UUID, *, refresh: bool = False) -> Session | None:
        manager = self._managers.here()
        stored = None
        if manager is not None and not refresh:
            stored = manager.get_cached_session(session_id, touch=False)
        if stored is None:
            stored = await self._call(
                lambda manager: manager.get_session(session_id, touch=False, refresh=refresh)
            )
        return stored if stored is not None and _seconds_left(stored) > 0 else None

    async def _call(self, step: Step) -> Any:
        return await self._managers.run(_only(step))


def _only(step: Step) -> Steps[Any]:
    return (yield step)


def _hashed(name: str) -> UUID:
    return UUID(bytes=sha256(name.encode("utf-8", "surrogatepass")).digest()[:16])


def _duration(value: int | timedelta) -> timedelta:
    return min(_FOREVER, value if isinstance(value, timedelta) else timedelta(seconds=value))


def _seconds_left(stored: Session) -> float:
    return stored.expires_at.timestamp() - time.time()
