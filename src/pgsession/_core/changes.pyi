from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

def changes_of(items: str, make: Callable[[bytes, int], T]) -> list[T] | None: ...
