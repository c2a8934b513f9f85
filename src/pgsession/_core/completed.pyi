from collections.abc import Coroutine
from typing import Any, TypeVar

_T = TypeVar("_T")

def _completed_for_tests(result: _T) -> Coroutine[Any, Any, _T]: ...
