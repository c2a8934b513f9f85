"""Sessions for Litestar, and a store for whatever it keeps in one: the extra `litestar`."""

from __future__ import annotations

from pgsession.contrib.litestar.session import LitestarSession, PgSessionBackend, PgSessionConfig
from pgsession.contrib.litestar.store import PgSessionStore

__all__ = ["LitestarSession", "PgSessionBackend", "PgSessionConfig", "PgSessionStore"]
