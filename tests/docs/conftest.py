"""What the tests of the documentation take from others."""

from __future__ import annotations

from tests.aio.conftest import open_manager

__all__ = ["open_manager"]
