from collections.abc import Coroutine
from typing import Any, Literal
from uuid import UUID

from pgsession._core.cache import Cache
from pgsession._core.session import Session
from pgsession.opened import Opened

class Base:
    @property
    def _cache(self) -> Cache: ...
    def __init__(self, cache: Cache) -> None: ...
    def get_cached_session(self, session_id: UUID | str | bytes, *, touch: bool = True) -> Session | None: ...
    def get_cached_session_by_token(self, token: str, *, touch: bool = True) -> Session | None: ...
    _opened: type[Opened]
    def _refuse_token(self, state: Literal["superseded", "ended", "forged"], key: bytes | None) -> Opened: ...
    @property
    def _refused_tokens(self) -> int: ...
    @property
    def _refused_tokens_by_state(self) -> tuple[int, int, int]: ...

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
    def open_token(
        self, token: str, *, touch: bool = True, refresh: bool = False, min_version: int = 0
    ) -> Opened: ...

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
    def open_token(
        self, token: str, *, touch: bool = True, refresh: bool = False, min_version: int = 0
    ) -> Coroutine[Any, Any, Opened]: ...
