"""The core's tests run wherever the core does: also on a Python that psycopg or msgspec have no build for.

There the package's `__init__`, which imports them, is left out; the core needs it not.

Below: what they share, a cache on a manual clock and records.
"""

from __future__ import annotations

import importlib.util
import sys
import types
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

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

from pgsession._core.cache import Cache
from pgsession._core.clock import Clock
from pgsession._core.record import Record

if TYPE_CHECKING:
    from pgsession._core.session import Session

MINUTE = 60_000_000
HOUR = 60 * MINUTE
START = 1_700_000_000_000_000


@pytest.fixture
def clock() -> Clock:
    return Clock(manual=START)


@pytest.fixture
def make_cache(clock: Clock) -> Callable[..., Cache]:
    def make(capacity: int = 100, **options: int) -> Cache:
        known = {
            "access_interval": 10 * MINUTE,
            "lifetime": 0,
            "max_attribute_length": 1000,
        }
        cache = Cache(capacity, clock, **(known | options))
        cache.in_sync_until = START + 1000 * HOUR
        return cache

    return make


@pytest.fixture
def make_record() -> Callable[..., Record]:
    def make(
        key: bytes = bytes(16),
        *,
        version: int = 1,
        user: str = "ann",
        group: str | None = None,
        **options: Any,
    ):
        attributes = [
            item if isinstance(item, tuple) else (name, version, None, item)
            for name, item in options.pop("attributes", {}).items()
        ]
        times = {
            "created_at": START,
            "updated_at": START,
            "last_accessed": START,
            "expires_at": START + 24 * HOUR,
        }
        known = times | {"inactivity": 2 * HOUR}
        return Record(key, version, user, group, attributes=attributes, **(known | options))

    return make


@pytest.fixture
def make_session(
    make_cache: Callable[..., Cache], make_record: Callable[..., Record]
) -> Callable[..., Session]:
    from pgsession._core.hit import session_of  # needs msgspec

    def make(**attributes: Any) -> Session:
        return session_of(make_cache(), make_record(version=7, attributes=attributes), from_cache=False)

    return make


def saved(session: Session) -> Session:
    """What an update does where nobody else writes."""
    changes = session._changes()
    if changes is None:
        return session
    record = session._record
    now = record.changed(
        version=record.version + 1,
        updated_at=record.updated_at + 1,
        last_accessed=record.last_accessed,
        expires_at=record.expires_at,
        inactivity=record.inactivity,
        group_id=record.group_id,
        sets=[(key, value, expires_at) for key, value, expires_at, _ in changes.sets],
        deletes=[key for key, _ in changes.deletes],
    )
    session._saved(changes, now, 0)
    return session
