from collections.abc import Coroutine
from typing import Any
from uuid import UUID

from pgsession._core.cache import Cache
from pgsession._core.session import Session

class Base:
    @property
    def _cache(self) -> Cache: ...
    def __init__(self, cache: Cache) -> None: ...
    def get_cached_session(self, session_id: UUID | str | bytes, *, touch: bool = True) -> Session | None: ...

class Reader(Base):
    def get_session(
        self,
        session_id: UUID | str | bytes,
        *,
        touch: bool = True,
        refresh: bool = False,
        min_version: int = 0,
    ) -> Session | None: ...
    def get_session_by_token(
        self, token: str, *, touch: bool = True, refresh: bool = False, min_version: int = 0
    ) -> Session | None: ...

class AsyncReader(Base):
    def get_session(
        self,
        session_id: UUID | str | bytes,
        *,
        touch: bool = True,
        refresh: bool = False,
        min_version: int = 0,
    ) -> Coroutine[Any, Any, Session | None]: ...
    def get_session_by_token(
        self, token: str, *, touch: bool = True, refresh: bool = False, min_version: int = 0
    ) -> Coroutine[Any, Any, Session | None]: ...
