"""What the tests of the documentation take from others."""

from __future__ import annotations

from tests.aio.conftest import manager_kind, open_manager, shards

__all__ = ["manager_kind", "open_manager", "shards"]
