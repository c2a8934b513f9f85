from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

def make_completed(result: _T) -> Coroutine[Any, Any, _T]: ...
