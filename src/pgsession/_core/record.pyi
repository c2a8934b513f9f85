from collections.abc import Iterable
from typing import final

@final
class Record:
    @property
    def key(self) -> bytes: ...
    @property
    def version(self) -> int: ...
    @property
    def user_id(self) -> str | None: ...
    @property
    def group_id(self) -> str | None: ...
    @property
    def created_at(self) -> int: ...
    @property
    def updated_at(self) -> int: ...
    @property
    def last_accessed(self) -> int: ...
    @property
    def expires_at(self) -> int: ...
    @property
    def include_inactivity(self) -> bool: ...
    def __init__(
        self,
        key: bytes,
        version: int,
        user_id: str | None,
        group_id: str | None,
        created_at: int,
        updated_at: int,
        last_accessed: int,
        expires_at: int,
        include_inactivity: bool,
        attributes: Iterable[tuple[str, int, int | None, bytes]] = (),
    ) -> None: ...
    def attributes(self) -> list[tuple[str, int, int | None, bytes]]: ...
    def changed(
        self,
        *,
        version: int,
        updated_at: int,
        last_accessed: int,
        expires_at: int,
        include_inactivity: bool,
        group_id: str | None,
        sets: Iterable[tuple[str, bytes, int | None]],
        deletes: Iterable[str],
    ) -> Record: ...
