"""A pool of psycopg's warns of each attempt to connect, twice a second while the database is down. This quiets it.

Whoever operates a service has one line that the database is down, and one that it is back (`prober.py`). Only pools
of the library's own are meant; who wants to see all of it lets the logger "psycopg.pool" say DEBUG.
"""

from __future__ import annotations

import logging
from typing import Final

NAME: Final = "pgsession"
"""The name of our pools."""

_LOGGER: Final = logging.getLogger("psycopg.pool")


def quiet() -> None:
    """Keep our pools' warnings out of the log, from now on."""
    _LOGGER.addFilter(_of_others)  # again changes nothing


def _of_others(record: logging.LogRecord) -> bool:
    """Return True for a line that is to be written."""
    if record.levelno > logging.WARNING or _LOGGER.isEnabledFor(logging.DEBUG):
        return True
    about = record.args[0] if isinstance(record.args, tuple) and record.args else None
    return about != NAME and not type(about).__module__.startswith("pgsession.")
