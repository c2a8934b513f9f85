"""The other modules here have these types and the logger in common."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
A = TypeVar("A")

AsyncThunk: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
Thunk: TypeAlias = Callable[[], T]

Steps: TypeAlias = Generator[Any, Any, T]
"""What psycopg sends and receives: it yields what it waits for."""

AsyncConninfoFunction: TypeAlias = Callable[[], str | Awaitable[str]]
ConninfoFunction: TypeAlias = Callable[[], str]

LOGGER = logging.getLogger("pgsession")
AsyncAction = Callable[[A], Awaitable[T]]
Action = Callable[[A], T]
