"""The core's tests run wherever the core does: also on a Python that psycopg or msgspec have no build for.

There the package's `__init__`, which imports them, is left out; the core needs it not.
"""

from __future__ import annotations

import importlib.util
import sys
import types

try:
    import pgsession  # noqa: F401
except ImportError as error:
    if "psycopg" not in str(error) and "pq wrapper" not in str(error) and "msgspec" not in str(error):
        raise
    found = importlib.util.find_spec("pgsession")
    assert found is not None
    package = types.ModuleType("pgsession")
    package.__path__ = list(found.submodule_search_locations or [])
    sys.modules["pgsession"] = package
