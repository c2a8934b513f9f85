from collections.abc import Iterable
from typing import Literal, final

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
    def inactivity(self) -> int: ...
    @property
    def generation(self) -> int: ...
    @property
    def owner_since(self) -> int: ...
    @property
    def previous_generation(self) -> int: ...
    @property
    def previous_until(self) -> int: ...
    @property
    def rotated_at(self) -> int: ...
    @property
    def incarnation(self) -> str | None: ...
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
        inactivity: int | None,
        attributes: Iterable[tuple[str, int, int | None, bytes]] = (),
        *,
        generation: int = 0,
        owner_since: int = 0,
        previous_generation: int = 0,
        previous_until: int = 0,
        rotated_at: int = 0,
        incarnation: str | None = None,
    ) -> None: ...
    def standing(
        self, generation: int, earliest: int, grace: int
    ) -> Literal["current", "previous", "superseded", "ended"]: ...
    def attributes(self) -> list[tuple[str, int, int | None, bytes]]: ...
    def changed(
        self,
        *,
        version: int,
        updated_at: int,
        last_accessed: int,
        expires_at: int,
        inactivity: int,
        group_id: str | None,
        sets: Iterable[tuple[str, bytes, int | None]],
        deletes: Iterable[str],
    ) -> Record: ...
