"""What the other modules here have in common."""

from __future__ import annotations

import logging
from collections.abc import Callable, Coroutine
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")

AsyncThunk: TypeAlias = Callable[[], Coroutine[Any, Any, T]]
Thunk: TypeAlias = Callable[[], T]

LOGGER = logging.getLogger("pgsession")
